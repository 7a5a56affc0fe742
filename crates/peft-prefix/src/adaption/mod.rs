//! LLaMA-Adapter: a prompt beside an attention's keys, behind a gate.

mod config;

pub use config::AdaptionPromptConfig;

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use peft_core::{
    Base, Beside, Exchange, ExtraKeys, Hooks, InitContext, Key, Layout, MemoKey, Method, Pass,
    Result, Site,
};

use crate::start;

/// LLaMA-Adapter (Zhang et al. 2023, arXiv 2303.16199): in the upper layers each attention also reads `L`
/// learned tokens `P`, with weights of their own, and adds what it reads times a gate `g`:
///
/// ```text
/// read = softmax(s Q Kᵀ) V + g softmax(s Q K_Pᵀ) V_P      K_P = P W_k, V_P = P W_v
/// ```
///
/// `P` goes through the layer's own projections of keys and values, without positions. `g` is one number for
/// all heads, as in HF PEFT, and starts at 0: the model starts as the base.
///
/// Created with [`AdaptionPromptConfig`].
#[derive(Module, Debug)]
pub struct AdaptionPrompt {
    /// By [`Site::index`].
    layers: Vec<Option<AdaptionPromptLayer>>,
}

/// The prompt of one attention.
#[derive(Module, Debug)]
pub struct AdaptionPromptLayer {
    /// `P`, `[L, d]`.
    pub prompt: Param<Tensor<2>>,
    /// `g`, `[1]`.
    pub gate: Param<Tensor<1>>,
}

impl AdaptionPrompt {
    fn new(config: &AdaptionPromptConfig, context: &InitContext<'_>) -> Result<Self> {
        let InitContext { base, device, .. } = *context;
        let mut layers = vec![None; base.len()];
        for site in config.sites(base)? {
            let prompt = start::normal([config.adapter_len, site.d_in()], context);
            let gate = Param::from_tensor(Tensor::zeros([1], device));
            layers[site.index] = Some(AdaptionPromptLayer { prompt, gate });
        }
        Ok(Self { layers })
    }

    /// The prompt of an attention, if it has one.
    pub fn layer(&self, site: &Site) -> Option<&AdaptionPromptLayer> {
        self.layers.get(site.index)?.as_ref()
    }
}

impl Hooks for AdaptionPrompt {
    fn attention(&self, site: &Site, _pass: &Pass<'_>) -> ExtraKeys {
        match self.layer(site) {
            Some(AdaptionPromptLayer { prompt, gate }) => ExtraKeys::Beside(Beside {
                prompt: prompt.val(),
                gate: gate.val(),
                key: MemoKey { of: prompt.id, name: "keys and values", site: None },
            }),
            None => ExtraKeys::None,
        }
    }
}

impl Method for AdaptionPrompt {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        for site in base.sites() {
            let Some(layer) = self.layers.get_mut(site.index).and_then(Option::as_mut) else {
                continue;
            };
            let [length, d] = layer.prompt.val().dims();
            let prompt = Key::from(site.key("adaption_prompt")).peft_shape([1, length, d]);
            file.param(prompt, &mut layer.prompt, Layout::AsIs);
            file.param(site.key("adaption_gate"), &mut layer.gate, Layout::AsIs);
        }
    }

    fn merge_obstacle(&self) -> Option<String> {
        Some("its attentions read a prompt, which no weight or bias can express".into())
    }
}
