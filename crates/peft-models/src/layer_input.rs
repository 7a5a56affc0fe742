//! What enters a layer, kept for passes that begin there.

use burn::tensor::{DType, Device, Tensor, TensorData};
use peft_core::{EmptyPass, Hooks, Row, Rows};

use crate::body::{Body, Hidden, Transformer, tokens_at};
use crate::forward::Run;
use crate::{Error, Model, ModelInput, Result};

/// What enters a layer: the states of all tokens of some texts. Behind the last layer, of a head that
/// reads one token of each text: the states of these alone. Where a method has a network beside the
/// layers: side by side, what entered each layer up to this one.
#[derive(Debug, Clone)]
pub struct LayerInput {
    /// From 0; behind the last one, what enters the final norm or the head.
    pub(crate) layer: usize,
    /// `[tokens, d]`, or `[tokens, (layer + 1) d]` for a network beside the layers.
    pub(crate) states: Tensor<2>,
    pub(crate) rows: Rows,
}

/// The same of one text, on the host.
#[derive(Debug, Clone, PartialEq)]
pub struct TextStates {
    /// Which tokens there are.
    pub row: Row,
    /// Their states, one token after another.
    pub values: Vec<f32>,
}

impl LayerInput {
    /// What enters a layer, of texts one after another; tensors are made on `device`.
    ///
    /// # Panics
    /// If there is no text, or they have states of different widths.
    pub fn new(layer: usize, texts: &[TextStates], device: &Device) -> Self {
        let rows = Rows::new(texts.iter().map(|text| text.row.clone()).collect(), device);
        let values: Vec<f32> = texts.iter().flat_map(|text| &text.values).copied().collect();
        let shape = [rows.tokens(), values.len() / rows.tokens()];
        let data = TensorData::new(values, shape);
        Self { layer, states: Tensor::from_data(data, (rows.device(), DType::F32)), rows }
    }

    /// By text.
    pub fn into_texts(self) -> Vec<TextStates> {
        let [_, d] = self.states.dims();
        let values: Vec<f32> =
            self.states.into_data().convert::<f32>().try_into_vec().expect("converted to f32");
        let mut rest = &values[..];
        let text = |row: &Row| {
            let (own, others) = rest.split_at(row.len() * d);
            rest = others;
            TextStates { row: row.clone(), values: own.to_vec() }
        };
        self.rows.iter().map(text).collect()
    }
}

impl Model {
    /// How many layers, counted from the first, give the same in every step of training: nothing in
    /// them, or below them, is trained under `hooks`, which are on a device with autodiff. It is seen
    /// in a pass over a text.
    ///
    /// # Errors
    /// If what enters a layer cannot be kept: the model has a decoder beside its encoder, or the method
    /// reads padding, so that what a text becomes depends on the others in its batch; or if the input
    /// does not fit the model.
    pub fn frozen_layers(&self, input: &ModelInput, hooks: &dyn Hooks) -> Result<usize> {
        let parts = EmptyPass::new(self.base().device());
        let run = Run::infer(hooks, parts.pass());
        self.single_stack(hooks)?.frozen_layers(input.text(), run)
    }

    /// What enters a layer under `hooks`, without dropout; [`Forward::from_layer`] goes on there.
    ///
    /// [`Forward::from_layer`]: crate::Forward::from_layer
    ///
    /// # Errors
    /// As [`frozen_layers`](Self::frozen_layers).
    pub fn layer_input(
        &self,
        layer: usize,
        input: &ModelInput,
        hooks: &dyn Hooks,
    ) -> Result<LayerInput> {
        let parts = EmptyPass::new(self.base().device());
        let run = Run::infer(hooks, parts.pass());
        let stack = self.single_stack(hooks)?;
        let Hidden { states, rows, .. } = stack.entering(layer, input.text(), run)?;
        let reads = match layer == stack.layers.len() && !stack.has_beside(run) {
            true => self.head.reads(input.text(), &rows)?,
            false => None,
        };
        let Some(tokens) = reads else { return Ok(LayerInput { layer, states, rows }) };
        // Each is a text of one token, whichever token the head reads.
        let rows = rows.single(&tokens);
        Ok(LayerInput { layer, states: tokens_at(states, &tokens), rows })
    }

    /// The layers, if what enters one of them depends on nothing but the text.
    fn single_stack(&self, hooks: &dyn Hooks) -> Result<&Transformer> {
        let refused = |reason: &str| Err(Error::Input(reason.into()));
        match self.body() {
            _ if hooks.needs_padding() => {
                refused("the method reads padding, so that texts depend on their batch")
            }
            Body::Single(stack) => Ok(stack),
            Body::EncoderDecoder { .. } => {
                refused("the model has an encoder and a decoder, whose layers are not in one row")
            }
        }
    }
}
