//! P-tuning's prompt encoder.

use burn::module::{Module, ModuleMapper, Param};
use burn::nn::{BiLstm, BiLstmConfig, GateController, Linear, Lstm};
use burn::tensor::{Distribution, Tensor, activation::relu};
use peft_core::{Exchange, InitContext, Layout, Pass};

use crate::start;
use crate::{EncoderType, PTuningConfig};

/// An embedding `[L, d]` and the network that makes virtual tokens of it.
#[derive(Module, Debug)]
pub(super) struct PromptEncoder {
    /// `[L, d]`.
    pub(super) embedding: Param<Tensor<2>>,
    /// Bidirectional layers, `d → 2 h` and then `2 h → 2 h`; none in an MLP.
    lstm: Vec<BiLstm>,
    /// Between the layers above.
    #[module(skip)]
    dropout: f64,
    /// Linear layers with a ReLU between two.
    mlp: Vec<Linear>,
}

impl PromptEncoder {
    /// With an embedding of shape `[rows, d]`.
    pub(super) fn new(
        config: &PTuningConfig,
        [rows, d]: [usize; 2],
        context: &InitContext<'_>,
    ) -> Self {
        let h = config.encoder_hidden_size.unwrap_or(d);
        let (lstm, widths) = match config.encoder_reparameterization_type {
            EncoderType::Mlp => (Vec::new(), vec![d, h, h, d]),
            EncoderType::Lstm => {
                let layer = |index| {
                    // As PyTorch's LSTM starts.
                    let bound = 1.0 / (h as f64).sqrt();
                    let uniform = Distribution::Uniform(-bound, bound);
                    BiLstmConfig::new(if index == 0 { d } else { 2 * h }, h, true)
                        .init(context.device)
                        .map(&mut Drawn { context, from: uniform })
                };
                let layers = (0..config.encoder_num_layers).map(layer).collect();
                (layers, vec![2 * h, 2 * h, d])
            }
        };
        Self {
            embedding: start::normal([rows, d], context),
            lstm,
            dropout: config.encoder_dropout,
            mlp: widths.windows(2).map(|w| start::linear(w[0], w[1], context)).collect(),
        }
    }

    /// The virtual tokens, `[L, d]`, with dropout in training.
    pub(super) fn forward(&self, pass: &Pass<'_>) -> Tensor<2> {
        let mut states = self.embedding.val().unsqueeze::<3>();
        for (index, layer) in self.lstm.iter().enumerate() {
            if index > 0 {
                states = pass.dropout(states, self.dropout);
            }
            states = layer.forward(states, None).0;
        }
        let mut states = states.squeeze_dim::<2>(0);
        for (index, layer) in self.mlp.iter().enumerate() {
            if index > 0 {
                states = relu(states);
            }
            states = layer.forward(states);
        }
        states
    }

    /// The tensors of a run that is not finished. The names are HF PEFT's as far as the tensors
    /// are; PyTorch joins the gates of an LSTM, which are apart here.
    pub(super) fn exchange(&mut self, file: &mut Exchange<'_>) {
        let key = |name: &str| format!("prompt_encoder.{name}");
        file.param(key("embedding.weight"), &mut self.embedding, Layout::AsIs);
        for (index, layer) in self.lstm.iter_mut().enumerate() {
            for (direction, lstm) in
                [("forward", &mut layer.forward), ("reverse", &mut layer.reverse)]
            {
                for (gate, controller) in gates(lstm) {
                    let key = |part| key(&format!("lstm_head.{index}.{direction}.{gate}.{part}"));
                    linear(file, key("input"), &mut controller.input_transform);
                    linear(file, key("hidden"), &mut controller.hidden_transform);
                }
            }
        }
        for (index, layer) in self.mlp.iter_mut().enumerate() {
            // The activations between have numbers too.
            linear(file, key(&format!("mlp_head.{}", 2 * index)), layer);
        }
    }
}

/// Draws all parameters of a module anew.
struct Drawn<'a> {
    context: &'a InitContext<'a>,
    from: Distribution,
}

impl ModuleMapper for Drawn<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        Param::from_tensor(self.context.random(param.lazy_shape().dims(), self.from))
    }
}

fn gates(lstm: &mut Lstm) -> impl Iterator<Item = (&'static str, &mut GateController)> {
    let forget = lstm.forget_gate.as_mut().map(|gate| ("forget_gate", gate));
    let others = [
        ("input_gate", &mut lstm.input_gate),
        ("cell_gate", &mut lstm.cell_gate),
        ("output_gate", &mut lstm.output_gate),
    ];
    others.into_iter().chain(forget)
}

fn linear(file: &mut Exchange<'_>, key: String, layer: &mut Linear) {
    file.param(format!("{key}.weight"), &mut layer.weight, Layout::Transposed);
    if let Some(bias) = &mut layer.bias {
        file.param(format!("{key}.bias"), bias, Layout::AsIs);
    }
}
