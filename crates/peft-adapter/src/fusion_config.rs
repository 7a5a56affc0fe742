//! The configuration of AdapterFusion.

use peft_core::{
    Base, ComputationFunction, Error, InitContext, MethodCard, MethodConfig, Result, Role,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Fuse;

/// Configuration of [`Fuse`], with adapter-hub/adapters' fields.
///
/// | field | default | meaning |
/// |---|---|---|
/// | `query`, `key`, `value` | true | which projections there are |
/// | `query_before_ln` | false | the query reads the sublayer's output, not what the adapters read |
/// | `regularization` | true | `0.01 ‖V - I‖²` is added to the loss |
/// | `residual_before` | false | values are added to the sublayer's output before they are weighed |
/// | `value_before_softmax` | true | `V` is applied to each adapter's output, not to their mean |
/// | `value_initialized` | true | `V` starts from the identity (1e-6 beside the diagonal) |
/// | `dropout_prob` | 0 | dropout on the scores |
/// | `adapter_names` | empty | the adapters, in order; for information |
/// | `mh_adapter`, `output_adapter` | false, true | whether it fuses after attention, after the feed-forward network |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct FusionConfig {
    pub query: bool,
    pub key: bool,
    pub value: bool,
    pub query_before_ln: bool,
    pub regularization: bool,
    pub residual_before: bool,
    pub temperature: bool,
    pub value_before_softmax: bool,
    pub value_initialized: bool,
    pub dropout_prob: Option<f64>,
    pub adapter_names: Vec<String>,
    pub mh_adapter: bool,
    pub output_adapter: bool,
}

impl Default for FusionConfig {
    fn default() -> Self {
        Self {
            query: true,
            key: true,
            value: true,
            query_before_ln: false,
            regularization: true,
            residual_before: false,
            temperature: false,
            value_before_softmax: true,
            value_initialized: true,
            dropout_prob: None,
            adapter_names: Vec::new(),
            mh_adapter: false,
            output_adapter: true,
        }
    }
}

impl MethodConfig for FusionConfig {
    const NAME: &'static str = "fusion";
    const PEFT_TYPE: &'static str = "ADAPTER_FUSION";
    const ABOUT: &'static str = "attention over frozen adapters (Pfeiffer et al. 2021)";
    // The paper's, for the fusion layers of BERT-base.
    const LEARNING_RATE: f64 = 5e-5;
    const CARD: MethodCard = MethodCard {
        functions: &[ComputationFunction::Function],
        sites: "sublayers at which the fused adapters act",
        trainable: "L (3 d² + 2 d)",
        merges: "no: the attention depends on the input",
        formats: "adapters",
    };
    type Method = Fuse;

    fn to_adapters(&self, _base: &Base) -> Result<Value> {
        let fields = serde_json::to_value(self)
            .map_err(|e| Error::no_format(Self::NAME, "adapter-hub/adapters", e.to_string()))?;
        let Value::Object(mut fields) = fields else { unreachable!("a struct") };
        fields.retain(|field, _| !["mh_adapter", "output_adapter"].contains(&field.as_str()));
        fields.insert("architecture".into(), "fusion".into());
        Ok(Value::Object(fields))
    }

    fn from_adapters(config: &Map<String, Value>, base: &Base) -> Option<Result<Self>> {
        (config.get("architecture")?.as_str()? == "fusion").then(|| {
            let mut fields = config.clone();
            fields.remove("architecture");
            // The library's file does not say where the fused adapters are; whoever reads it adds
            // the paths of their sublayers.
            let paths: Vec<String> = fields
                .remove("paths")
                .and_then(|p| serde_json::from_value(p).ok())
                .unwrap_or_default();
            let has = |role| base.sites().any(|s| s.role == role && paths.contains(&s.path));
            let config: Self = serde_json::from_value(Value::Object(fields))
                .map_err(|e| Error::config("config", "AdapterFusionConfig", e.to_string()))?;
            Ok(Self {
                mh_adapter: has(Role::AttentionSublayer),
                output_adapter: has(Role::FeedForwardSublayer),
                ..config
            })
        })
    }

    fn validate(&self) -> Result<()> {
        if self.temperature {
            let only = "only false is supported: the reference's temperature of 50 falls to 1 within \
                        the first 1,000 calls";
            return Err(Error::config("temperature", true, only));
        }
        let dropout = self.dropout_prob.unwrap_or(0.0);
        if !(0.0..1.0).contains(&dropout) {
            return Err(Error::config("dropout_prob", dropout, "must be at least 0, below 1"));
        }
        if !(self.query || self.key || self.value) {
            return Err(Error::config(
                "query",
                false,
                "one of query, key and value must be trained",
            ));
        }
        if !(self.mh_adapter || self.output_adapter) {
            return Err(Error::config("output_adapter", false, "or mh_adapter must be true"));
        }
        Ok(())
    }

    fn init(&self, context: &InitContext<'_>) -> Result<Fuse> {
        self.validate()?;
        Ok(Fuse::new(self, context))
    }
}
