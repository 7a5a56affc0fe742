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
    /// The fields that choose `sites` of `base`; `acts` is what is done there (`adapts`), `fused`
    /// to which parts of a fused projection.
    ///
    /// # Errors
    /// Why no fields choose them, in words.
    pub fn of(
        sites: &[&Site],
        base: &Base,
        acts: &str,
        fused: Option<&[String]>,
    ) -> Result<Self, String> {
        let has = |role: Role| sites.iter().any(|site| site.role == role);
        let [intermediate, output] = base.hub_feed_forward();
        let known = |site: &Site| {
            site.role == intermediate
                || site.role == output
                || MATRICES.iter().any(|(_, role)| *role == site.role)
                || site.role == Role::QueryKeyValue && fused.is_some()
        };
        if has(Role::QueryKeyValue) && fused.is_none() {
            return Err(format!("it {acts} query, key and value on their own, not fused"));
        }
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
        let mut attn_matrices: Vec<String> = matrices.map(|(name, _)| name.to_string()).collect();
        if has(Role::QueryKeyValue) {
            attn_matrices.extend(fused.unwrap_or_default().iter().cloned());
        }
        Ok(Self {
            selfattn_lora: !attn_matrices.is_empty(),
            intermediate_lora: has(intermediate),
            output_lora: has(output),
            leave_out,
            attn_matrices,
        })
    }

    /// The whole paths of the modules that the fields choose; other names could mean other modules
    /// too (`output.dense`).
    pub fn paths(&self, base: &Base) -> ModuleNames {
        let [intermediate, output] = base.hub_feed_forward();
        let chosen = |site: &Site| {
            let in_attention = MATRICES.iter().any(|(name, role)| {
                let same = *role == site.role || site.role == Role::QueryKeyValue;
                same && self.attn_matrices.iter().any(|matrix| matrix == name)
            });
            let chosen = if site.role == intermediate {
                self.intermediate_lora
            } else if site.role == output {
                self.output_lora
            } else {
                self.selfattn_lora && in_attention
            };
            chosen && site.layer.is_some_and(|layer| !self.leave_out.contains(&layer))
        };
        let sites = base.linears().filter(|site| chosen(site));
        ModuleNames::list(sites.map(|site| site.path.clone()))
    }

    /// The parts of fused projections that the fields choose; `None` where `base` has no such
    /// projection.
    pub fn fused(&self, base: &Base) -> Option<Vec<String>> {
        let fused = base.linears().any(|site| site.role == Role::QueryKeyValue);
        let known = |name: &&String| MATRICES.iter().any(|(known, _)| known == name);
        let parts = || self.attn_matrices.iter().filter(known).cloned().collect::<Vec<_>>();
        (fused && self.selfattn_lora).then(parts).filter(|parts| !parts.is_empty())
    }
}
