//! Which modules adapter-hub/adapters' LoRA and (IA)³ act on.

use serde::{Deserialize, Serialize};

use crate::{AttentionMatrices, AttentionMatrix, Base, ModuleNames, Role, Site};

/// The fields of adapter-hub/adapters' `LoRAConfig` that choose linear layers, by role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct AdaptersModules {
    pub selfattn_lora: bool,
    pub intermediate_lora: bool,
    pub output_lora: bool,
    #[serde(default)]
    pub leave_out: Vec<usize>,
    pub attn_matrices: Vec<String>,
}

impl AdaptersModules {
    /// The fields that choose `sites` of `base`; `acts` is what is done there (`adapts`), `fused`
    /// to which parts of a fused projection.
    ///
    /// # Errors
    /// Why no fields choose them, in words.
    pub fn of(
        sites: &[&Site],
        base: &Base,
        acts: &str,
        fused: &AttentionMatrices,
    ) -> Result<Self, String> {
        let has = |role: Role| sites.iter().any(|site| site.role == role);
        let [intermediate, output] = base.adapters_feed_forward();
        let known = |site: &Site| {
            site.role == intermediate
                || site.role == output
                || AttentionMatrix::ALL.iter().any(|matrix| matrix.role() == site.role)
                || site.role == Role::QueryKeyValue
        };
        if has(Role::QueryKeyValue) && fused.is_empty() {
            return Err(format!(
                "it {acts} the parts of a fused projection on their own: train with attn_matrices"
            ));
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
        let apart = AttentionMatrix::ALL.into_iter().filter(|matrix| has(matrix.role()));
        let parts = fused.iter().filter(|_| has(Role::QueryKeyValue));
        let attn_matrices: Vec<String> = apart.chain(parts).map(|m| m.name().into()).collect();
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
        let [intermediate, output] = base.adapters_feed_forward();
        let matrices = self.matrices();
        let chosen = |site: &Site| {
            let in_attention = matrices
                .iter()
                .any(|matrix| matrix.role() == site.role || site.role == Role::QueryKeyValue);
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

    /// The parts of fused projections that the fields choose, where `base` has such a projection.
    pub fn fused(&self, base: &Base) -> AttentionMatrices {
        let fused = base.linears().any(|site| site.role == Role::QueryKeyValue);
        if fused && self.selfattn_lora { self.matrices() } else { AttentionMatrices::default() }
    }

    /// Those of `attn_matrices` that the library adapts: it takes other names, and ignores them.
    fn matrices(&self) -> AttentionMatrices {
        let named =
            |matrix: &AttentionMatrix| self.attn_matrices.iter().any(|name| name == matrix.name());
        AttentionMatrix::ALL.into_iter().filter(named).collect()
    }
}
