//! Which modules adapter-hub/adapters' LoRA and (IA)³ act on.

use serde::{Deserialize, Serialize};

use crate::{Base, ModuleNames, Role, Site};

const MATRICES: [(&str, Role); 3] = [("q", Role::Query), ("k", Role::Key), ("v", Role::Value)];

/// The fields of adapter-hub/adapters' `LoRAConfig` that choose linear layers, by role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct HubModules {
    pub selfattn_lora: bool,
    pub intermediate_lora: bool,
    pub output_lora: bool,
    #[serde(default)]
    pub leave_out: Vec<usize>,
    pub attn_matrices: Vec<String>,
}

impl HubModules {
    /// The fields that choose `sites` of `base`; `acts` is what is done there (`adapts`).
    ///
    /// # Errors
    /// Why no fields choose them, in words.
    pub fn of(sites: &[&Site], base: &Base, acts: &str) -> Result<Self, String> {
        let has = |role: Role| sites.iter().any(|site| site.role == role);
        let known = |site: &Site| {
            matches!(site.role, Role::FeedForwardUp | Role::FeedForwardDown)
                || MATRICES.iter().any(|(_, role)| *role == site.role)
        };
        if let Some(other) = sites.iter().find(|site| !known(site)) {
            return Err(format!("it {acts} no module like {}", other.path));
        }
        let mut leave_out: Vec<usize> = base.linears().filter_map(|site| site.layer).collect();
        leave_out.dedup();
        leave_out.retain(|layer| !sites.iter().any(|site| site.layer == Some(*layer)));
        let expected = base.linears().filter(|site| {
            has(site.role) && site.layer.is_some_and(|layer| !leave_out.contains(&layer))
        });
        if expected.count() != sites.len() {
            return Err(format!(
                "it {acts} the same modules in every layer that it does not leave out"
            ));
        }
        let matrices = MATRICES.iter().filter(|(_, role)| has(*role));
        let attn_matrices: Vec<String> = matrices.map(|(name, _)| name.to_string()).collect();
        Ok(Self {
            selfattn_lora: !attn_matrices.is_empty(),
            intermediate_lora: has(Role::FeedForwardUp),
            output_lora: has(Role::FeedForwardDown),
            leave_out,
            attn_matrices,
        })
    }

    /// The whole paths of the modules that the fields choose; other names could mean other modules
    /// too (`output.dense`).
    pub fn paths(&self, base: &Base) -> ModuleNames {
        let chosen = |site: &Site| {
            let in_attention = MATRICES.iter().any(|(name, role)| {
                *role == site.role && self.attn_matrices.iter().any(|matrix| matrix == name)
            });
            let chosen = match site.role {
                Role::FeedForwardUp => self.intermediate_lora,
                Role::FeedForwardDown => self.output_lora,
                _ => self.selfattn_lora && in_attention,
            };
            chosen && site.layer.is_some_and(|layer| !self.leave_out.contains(&layer))
        };
        let sites = base.linears().filter(|site| chosen(site));
        ModuleNames::list(sites.map(|site| site.path.clone()))
    }
}
