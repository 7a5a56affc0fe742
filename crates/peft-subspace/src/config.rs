//! The configuration of SAID.

use peft_core::{
    Base, ComputationFunction, Error, InitContext, MethodCard, MethodConfig, Result, Role, Site,
    SiteKind, Size, Targets,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::Said;

/// What moves.
const KINDS: &[SiteKind] = &[SiteKind::Linear];

/// Configuration of [`Said`].
///
/// | field | default | meaning |
/// |---|---|---|
/// | `intrinsic_dimension` | 1000 | how many values are trained, those of `λ` included; the paper's experiments go up to 500,000 |
/// | `structure_aware` | true | a trained `λ` for each layer (SAID); false: none (DID) |
/// | `projection_seed` | 0 | the seed of the projection, 32 bits |
/// | `target_modules`, `exclude_modules`, `layers_to_transform`, `layers_pattern` | every linear layer but the head | see [`Targets`] |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SaidConfig {
    /// How many values are trained.
    pub intrinsic_dimension: usize,
    /// Whether each layer has a `λ`.
    pub structure_aware: bool,
    /// The seed of the projection.
    pub projection_seed: u32,
    /// What is adapted.
    #[serde(flatten)]
    pub targets: Targets,
}

impl Default for SaidConfig {
    fn default() -> Self {
        Self {
            intrinsic_dimension: 1000,
            structure_aware: true,
            projection_seed: 0,
            targets: Targets::default(),
        }
    }
}

/// Other names under which [`SaidConfig`] is registered: name, description, fields.
pub fn presets() -> Vec<(&'static str, &'static str, Value)> {
    vec![(
        "did",
        "weights that move together in a random subspace, all layers alike",
        json!({"structure_aware": false}),
    )]
}

/// What is adapted unless told otherwise.
fn default_roles(base: &Base) -> Vec<Role> {
    base.sites().map(|site| site.role).filter(|role| *role != Role::Head).collect()
}

impl SaidConfig {
    /// The layers that move, in the order of the model.
    pub(crate) fn sites<'b>(&self, base: &'b Base) -> Result<Vec<&'b Site>> {
        self.targets.resolve_kinds(base, KINDS, &default_roles(base))
    }
}

impl MethodConfig for SaidConfig {
    const NAME: &'static str = "said";
    const PEFT_TYPE: &'static str = "SAID";
    const ABOUT: &'static str =
        "weights that move together in a random subspace (Aghajanyan et al. 2021)";
    // t-few's for this method. The columns of the projection have the length 1 at each weight: a value
    // moves each of its entries by as little as one over the root of their number.
    const LEARNING_RATE: f64 = 3e-2;
    const CARD: MethodCard = MethodCard {
        functions: &[ComputationFunction::Parameter],
        sites: "linear layers",
        trainable: "intrinsic_dimension",
        merges: "yes",
        formats: "ours, in the layout of peft",
    };
    type Method = Said;

    fn validate(&self) -> Result<()> {
        if self.intrinsic_dimension == 0 {
            return Err(Error::config("intrinsic_dimension", 0, "must be at least 1"));
        }
        self.targets.validate()
    }

    fn unmatched(&self, base: &Base) -> Result<Vec<Error>> {
        self.targets.unmatched_kinds(base, KINDS, &default_roles(base))
    }

    fn sizes(&self, _base: &Base) -> Result<Vec<Size>> {
        let d = self.intrinsic_dimension;
        Ok(vec![Size::new("intrinsic_dimension", d, d as f64)])
    }

    fn init(&self, context: &InitContext<'_>) -> Result<Said> {
        self.validate()?;
        Said::new(self, context)
    }
}
