//! Interventions behind layers.

use burn::module::{Module, Param};
use burn::tensor::{Distribution, IndexingUpdateOp, Int, Tensor, TensorData, module::linear};
use peft_core::{
    Activation, Base, Exchange, Hooks, InitContext, Insert, Intervention, Key, Layout, Method,
    Pass, Result, Row, Site, StepContext,
};

use super::{Directions, ReftConfig};

/// Representation fine-tuning (Wu et al. 2024, arXiv 2404.03592): the states that leave a layer
/// change at the first `p` and the last `s` tokens of a text, in a subspace of `r` dimensions:
///
/// ```text
/// h' = h + Rᵀ (f(W h + b) - R h)
/// ```
///
/// with `W` and `R` of shape `[r, d]`, and `f` the identity unless said otherwise. The rows of `R` are
/// orthonormal in LoReFT and any in NoReFT; DiReFT leaves `R h` out. First and last tokens have each
/// their own `W`, `b`, `R`, or the same ones (`tied_weights`); where a text is so short that a token
/// is both, it is a last one.
///
/// In generation the tokens of the prompt change, and those that follow it only where they are among
/// the first `p` of the text.
///
/// It cannot be merged: it depends on positions. Created with [`ReftConfig`].
#[derive(Module, Debug)]
pub struct Reft {
    /// By [`Site::index`] of the sublayer in which a layer ends.
    layers: Vec<Option<ReftLayer>>,
    #[module(skip)]
    positions: Positions,
    #[module(skip)]
    form: Form,
}

/// The interventions behind one layer.
#[derive(Module, Debug)]
pub struct ReftLayer {
    /// What the module of the layer is called in a checkpoint.
    #[module(skip)]
    path: String,
    /// That at the first tokens, and that at the last ones; one where they are the same.
    pub units: Vec<ReftUnit>,
}

/// The parameters of an intervention.
#[derive(Module, Debug)]
pub struct ReftUnit {
    /// `W` transposed, `[d, r]`.
    pub weight: Param<Tensor<2>>,
    /// `b`, `[r]`.
    pub bias: Param<Tensor<1>>,
    /// `R`.
    pub directions: Directions,
}

/// How many tokens change.
#[derive(Debug, Clone, Copy)]
struct Positions {
    prefix: usize,
    suffix: usize,
}

/// What is computed at them.
#[derive(Debug, Clone, Copy)]
struct Form {
    activation: Option<Activation>,
    subtracts: bool,
    dropout: f64,
}

impl Reft {
    pub(crate) fn new(config: &ReftConfig, context: &InitContext<'_>) -> Result<Self> {
        let mut layers: Vec<Option<ReftLayer>> = vec![None; context.base.len()];
        for (site, path) in config.layers(context.base)? {
            let shape = [site.d_out(), config.rank_at(site)?];
            let unit = || ReftUnit::new(shape, config.orthogonality, context);
            let units = match config.tied_weights {
                true => vec![unit()],
                false => {
                    let counts = [config.prefix_positions, config.suffix_positions];
                    // The reference has one for no tokens too, which then learns nothing.
                    let all = counts.map(|count| if count == 0 { unit().frozen() } else { unit() });
                    all.into()
                }
            };
            layers[site.index] = Some(ReftLayer { path, units });
        }
        let (prefix, suffix) = (config.prefix_positions, config.suffix_positions);
        let form = Form {
            activation: config.non_linearity,
            subtracts: config.subtract_projection,
            dropout: config.dropout,
        };
        Ok(Self { layers, positions: Positions { prefix, suffix }, form })
    }

    /// The interventions behind the layer that ends in this sublayer, if there are any.
    pub fn layer(&self, site: &Site) -> Option<&ReftLayer> {
        self.layers.get(site.index)?.as_ref()
    }
}

impl ReftUnit {
    fn new([d, rank]: [usize; 2], is_orthogonal: bool, context: &InitContext<'_>) -> Self {
        let bound = 1.0 / (d as f64).sqrt();
        let uniform = Distribution::Uniform(-bound, bound);
        Self {
            weight: Param::from_tensor(context.random([d, rank], uniform)),
            bias: Param::from_tensor(context.random([rank], uniform)),
            directions: Directions::new([d, rank], is_orthogonal, context),
        }
    }

    fn frozen(self) -> Self {
        Self {
            weight: self.weight.set_require_grad(false),
            bias: self.bias.set_require_grad(false),
            directions: self.directions.frozen(),
        }
    }

    /// `h'` for `h`, `[tokens, d]`.
    fn forward(&self, h: Tensor<2>, form: Form, pass: &Pass<'_>) -> Tensor<2> {
        let columns = self.directions.columns();
        let source = linear(h.clone(), self.weight.val(), Some(self.bias.val()));
        let source = match form.activation {
            Some(activation) => activation.forward(source),
            None => source,
        };
        let change = match form.subtracts {
            true => source - h.clone().matmul(columns.clone()),
            false => source,
        };
        pass.dropout(h + change.matmul(columns.transpose()), form.dropout)
    }
}

impl Positions {
    /// The first and the last tokens of all texts, by their place in `[tokens, d]`; none is both.
    fn of(self, pass: &Pass<'_>) -> [Vec<usize>; 2] {
        let mut chosen = [Vec::new(), Vec::new()];
        for (number, row) in pass.rows.iter().enumerate() {
            let start = pass.rows.start(number);
            let places: Vec<usize> = (0..row.len()).filter(|place| row.has(*place)).collect();
            let (first, last) = self.of_row(row, places.len());
            chosen[0].extend(places[..first].iter().map(|place| start + place));
            chosen[1].extend(places[last..].iter().map(|place| start + place));
        }
        chosen
    }

    /// Where the first tokens of a row end and the last ones begin, of so many.
    fn of_row(self, row: &Row, tokens: usize) -> (usize, usize) {
        let suffix = if row.past == 0 { self.suffix.min(tokens) } else { 0 };
        let prefix = self.prefix.saturating_sub(row.past).min(tokens);
        (prefix.min(tokens - suffix), tokens - suffix)
    }
}

/// The interventions behind a layer, at their tokens.
#[derive(Debug)]
struct AtPositions<'a> {
    units: &'a [ReftUnit],
    positions: Positions,
    form: Form,
}

impl Intervention for AtPositions<'_> {
    fn forward(&self, states: Tensor<2>, pass: &Pass<'_>) -> Tensor<2> {
        let [mut first, last] = self.positions.of(pass);
        let groups = match self.units.len() {
            1 => {
                first.extend(last);
                vec![first]
            }
            _ => vec![first, last],
        };
        let groups = self.units.iter().zip(groups).filter(|(_, places)| !places.is_empty());
        groups.fold(states, |states, (unit, places)| {
            let places = indices(&places, pass);
            let before = states.clone().select(0, places.clone());
            let change = unit.forward(before.clone(), self.form, pass) - before;
            states.select_assign(0, places, change, IndexingUpdateOp::Add)
        })
    }
}

fn indices(places: &[usize], pass: &Pass<'_>) -> Tensor<1, Int> {
    let places: Vec<i64> = places.iter().map(|place| *place as i64).collect();
    let shape = [places.len()];
    Tensor::from_data(TensorData::new(places, shape), pass.rows.device())
}

impl Hooks for Reft {
    fn sublayer<'a>(&'a self, site: &Site, _pass: &Pass<'_>) -> Insert<'a> {
        let (positions, form) = (self.positions, self.form);
        match self.layer(site) {
            Some(layer) => Insert::behind(AtPositions { units: &layer.units, positions, form }),
            None => Insert::None,
        }
    }

    /// Which tokens change is counted from both ends of a text.
    fn needs_every_token(&self) -> bool {
        true
    }
}

impl Method for Reft {
    fn exchange(&mut self, file: &mut Exchange<'_>, _base: &Base) {
        for layer in self.layers.iter_mut().flatten() {
            let path = &layer.path;
            for (number, unit) in layer.units.iter_mut().enumerate() {
                let key = |name: &str| {
                    Key::from(format!("base_model.model.{path}.reft.{number}.{name}"))
                        .adapters(format!("{path}.reft_layer.refts.{{}}.units.{number}.{name}"))
                };
                file.param(key("learned_source.weight"), &mut unit.weight, Layout::Transposed);
                file.param(key("learned_source.bias"), &mut unit.bias, Layout::AsIs);
                unit.directions.exchange(file, key);
            }
        }
    }

    fn after_step(&mut self, _context: &StepContext<'_>) {
        for unit in self.layers.iter_mut().flatten().flat_map(|layer| &mut layer.units) {
            if let Directions::Orthogonal(orthogonal) = &mut unit.directions
                && orthogonal.original.is_require_grad()
            {
                orthogonal.keep_diagonal();
            }
        }
    }

    fn merge_obstacle(&self) -> Option<String> {
        Some("its interventions are at some positions of a text".into())
    }
}
