//! Ladder side-tuning: what is trained.

use burn::module::{Module, Param};
use burn::tensor::{Distribution, Int, Tensor, TensorData, module::linear};
use peft_core::{
    Base, BaseSite, Exchange, Hooks, InitContext, Layout, Method, Pass, Result, Role, SideNetworks,
    Site, SiteKind, TrainedNorm,
};

use crate::network::Network;
use crate::prune::Kept;
use crate::stacks::Stack;
use crate::{LadderSideConfig, SideInit};

/// Ladder side-tuning (Sung et al. 2022, arXiv 2206.06522): a transformer of width `d' = d / r` beside
/// the frozen one, which reads its states through projections, the rungs of the ladder:
///
/// `z₀ = e W₀ + b₀`, `z ← Layer'(μ z + (1 - μ)(h W + b))`, `μ = σ(α / T)`, `y = N'(z) U + c`,
///
/// with the embeddings `e` and the output `h` of each layer, `[tokens, d]`, `W₀` and `W` `[d, d']`, and
/// `U` `[d', d]`. `y` takes the place of the frozen model's last states; the head is the model's. No
/// gradient goes through the frozen layers, and none of their intermediate results is kept: of each
/// layer, only `h` is.
///
/// Created with [`LadderSideConfig`].
#[derive(Module, Debug)]
pub struct LadderSide {
    /// By [`Site::index`].
    linears: Vec<Option<Projection>>,
    /// By [`Site::index`].
    norms: Vec<Option<TrainedNorm>>,
    /// By [`Site::layer`]; none for a layer that is dropped.
    rungs: Vec<Option<Rung>>,
    /// Into the side network of each stack.
    enter: Vec<Projection>,
    /// Out of the last one.
    leave: Projection,
    /// `α` of the last gate, `[1]`.
    last_gate: Option<Param<Tensor<1>>>,
    #[module(skip)]
    reduction: usize,
    #[module(skip)]
    temperature: f64,
}

/// A linear layer of the side network.
#[derive(Module, Debug)]
pub struct Projection {
    /// `[d_in, d_out]`.
    pub weight: Param<Tensor<2>>,
    /// `[d_out]`.
    pub bias: Option<Param<Tensor<1>>>,
}

/// Where a layer's output enters its side layer.
#[derive(Module, Debug)]
pub struct Rung {
    /// `[d, d']`.
    pub down: Projection,
    /// `α`, `[1]`.
    pub gate: Param<Tensor<1>>,
    /// The [index](Site::index) of the layer's last site, which it is named by in a file.
    #[module(skip)]
    site: usize,
}

impl Projection {
    /// Random values within `1 / sqrt(d_in)`, as PyTorch starts a linear layer.
    fn random([d_in, d_out]: [usize; 2], has_bias: bool, context: &InitContext<'_>) -> Self {
        let bound = 1.0 / (d_in as f64).sqrt();
        let within = Distribution::Uniform(-bound, bound);
        let weight = Param::from_tensor(context.random([d_in, d_out], within));
        let bias = has_bias.then(|| Param::from_tensor(context.random([d_out], within)));
        Self { weight, bias }
    }

    /// The frozen layer with some of its inputs and outputs.
    fn pruned(entry: &BaseSite, kept: &Kept, context: &InitContext<'_>) -> Self {
        let device = context.device;
        let replaced = context.is_read() || context.restored;
        let weight = match (&entry.weight, replaced) {
            (Some(weight), false) => {
                let rows = selected(weight.dense(), 0, &kept.inputs);
                Tensor::from_data(selected(rows, 1, &kept.outputs).into_data(), device)
            }
            _ => Tensor::zeros([kept.inputs.len(), kept.outputs.len()], device),
        };
        let bias = entry.bias.as_ref().map(|bias| copied(bias, kept, context));
        Self { weight: Param::from_tensor(weight), bias }
    }

    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        linear(x, self.weight.val(), self.bias.as_ref().map(Param::val))
    }

    fn exchange(&mut self, file: &mut Exchange<'_>, site: &Site, name: &str) {
        let layout = Layout::Transposed;
        file.param(site.key(&format!("{name}.weight")), &mut self.weight, layout);
        if let Some(bias) = &mut self.bias {
            file.param(site.key(&format!("{name}.bias")), bias, Layout::AsIs);
        }
    }
}

/// Some places of a frozen vector.
fn copied(vector: &Tensor<1>, kept: &Kept, context: &InitContext<'_>) -> Param<Tensor<1>> {
    let values = selected(vector.clone(), 0, &kept.outputs).into_data();
    Param::from_tensor(Tensor::from_data(values, context.device))
}

fn selected<const D: usize>(tensor: Tensor<D>, axis: usize, places: &[usize]) -> Tensor<D> {
    let indices: Vec<i64> = places.iter().map(|place| *place as i64).collect();
    let indices = TensorData::new(indices, [places.len()]);
    let device = tensor.device();
    tensor.select(axis, Tensor::<1, Int>::from_data(indices, &device))
}

impl LadderSide {
    pub(crate) fn new(
        config: &LadderSideConfig,
        stacks: &[Stack],
        kept: &[Kept],
        context: &InitContext<'_>,
    ) -> Result<Self> {
        let base = context.base;
        let gate =
            || Param::from_tensor(Tensor::from_data([config.gate_alpha as f32], context.device));
        let norm = |site: &Site| {
            let entry = base.at(site);
            let copy = |vector: &Tensor<1>| copied(vector, &kept[site.index], context);
            let gain = copy(entry.gain.as_ref()?);
            Some(TrainedNorm { gain, bias: entry.bias.as_ref().map(copy) })
        };
        let biased = config.add_bias_sampling;
        let down = |stack: &Stack| {
            let d = stack.embeddings.d_out();
            Projection::random([d, d.div_ceil(config.reduction_factor)], biased, context)
        };
        let mut linears = vec![None; base.len()];
        let mut norms = vec![None; base.len()];
        let (mut rungs, mut enter) = (Vec::new(), Vec::new());
        for stack in stacks {
            enter.push(down(stack));
            if let Some(site) = &stack.norm {
                norms[site.index] = norm(site);
            }
            let is_kept = config.drop_layers.kept(stack.layers.len())?;
            for (layer, _) in stack.layers.iter().zip(is_kept).filter(|(_, is_kept)| *is_kept) {
                for sublayer in &layer.sublayers {
                    for site in &sublayer.norms {
                        norms[site.index] = norm(site);
                    }
                    for site in &sublayer.linears {
                        let (entry, kept) = (base.at(site), &kept[site.index]);
                        linears[site.index] = Some(match config.init {
                            SideInit::Random => {
                                let shape = [kept.inputs.len(), kept.outputs.len()];
                                Projection::random(shape, entry.bias.is_some(), context)
                            }
                            _ => Projection::pruned(entry, kept, context),
                        });
                    }
                }
                let site = layer.sublayers.last().map_or(0, |last| last.end.index);
                rungs.resize_with(layer.number + 1, || None);
                rungs[layer.number] = Some(Rung { down: down(stack), gate: gate(), site });
            }
        }
        let d = stacks.last().map_or(0, |stack| stack.embeddings.d_out());
        let narrow = d.div_ceil(config.reduction_factor);
        let leave = Projection::random([narrow, d], biased, context);
        let last_gate = config.merge_last.then(gate);
        let (reduction, temperature) = (config.reduction_factor, config.gate_temperature);
        Ok(Self { linears, norms, rungs, enter, leave, last_gate, reduction, temperature })
    }

    /// The layer of the side network at the site of a frozen one, if there is one.
    pub fn linear_at(&self, site: &Site) -> Option<&Projection> {
        self.linears.get(site.index)?.as_ref()
    }

    /// The same of a norm.
    pub fn norm_at(&self, site: &Site) -> Option<&TrainedNorm> {
        self.norms.get(site.index)?.as_ref()
    }

    /// The rung of a [layer](Site::layer); `None` where it is dropped.
    pub fn rung(&self, layer: usize) -> Option<&Rung> {
        self.rungs.get(layer)?.as_ref()
    }

    pub(crate) fn entrance(&self, stack: usize) -> &Projection {
        &self.enter[stack]
    }

    pub(crate) fn exit(&self) -> (&Projection, Option<Tensor<2>>) {
        (&self.leave, self.last_gate.as_ref().map(|gate| self.gate(gate)))
    }

    /// `σ(α / T)`, `[1, 1]`.
    pub(crate) fn gate(&self, alpha: &Param<Tensor<1>>) -> Tensor<2> {
        burn::tensor::activation::sigmoid(alpha.val() / self.temperature).unsqueeze()
    }

    pub(crate) fn reduction(&self) -> usize {
        self.reduction
    }
}

/// The number of the stack whose embeddings are at a site.
fn stack_at(site: &Site) -> Option<usize> {
    match site.role {
        Role::Embeddings => Some(0),
        Role::DecoderEmbeddings => Some(1),
        _ => None,
    }
}

impl Hooks for LadderSide {
    fn beside<'a>(&'a self, site: &Site, _pass: &Pass<'_>) -> SideNetworks<'a> {
        match stack_at(site) {
            Some(stack) if stack < self.enter.len() => SideNetworks::of(Network::new(self, stack)),
            _ => SideNetworks::default(),
        }
    }

    fn needs_every_token(&self) -> bool {
        true
    }
}

impl Method for LadderSide {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        for site in base.sites() {
            if let Some(stack) = stack_at(site) {
                if let Some(enter) = self.enter.get_mut(stack) {
                    enter.exchange(file, site, "side_first_downsample");
                }
                if stack + 1 == self.enter.len() {
                    self.leave.exchange(file, site, "side_final_upsample");
                    if let Some(gate) = &mut self.last_gate {
                        file.param(site.key("side_gate_params_merge_last"), gate, Layout::AsIs);
                    }
                }
            }
            if let Some(linear) = self.linears.get_mut(site.index).and_then(Option::as_mut) {
                linear.exchange(file, site, "side");
            }
            if let Some(norm) = self.norms.get_mut(site.index).and_then(Option::as_mut) {
                norm.exchange(file, site, "side.");
            }
            let is_here =
                |rung: &&mut Rung| site.kind == SiteKind::Sublayer && rung.site == site.index;
            if let Some(rung) = self.rungs.iter_mut().flatten().find(is_here) {
                rung.down.exchange(file, site, "side_downsample");
                file.param(site.key("side_gate_params"), &mut rung.gate, Layout::AsIs);
            }
        }
    }

    fn merge_obstacle(&self) -> Option<String> {
        Some("its network is beside the model's layers, and has no place in their weights".into())
    }
}
