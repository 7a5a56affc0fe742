//! MTL-LoRA: factors that several tasks share, with a matrix and weights of each task between them.

mod adapters_format;
mod config;

pub use config::{MtlLoraConfig, TaskMatrix};

use burn::module::{Module, Param};
use burn::tensor::{Tensor, activation::softmax};
use peft_core::{
    Base, Edit, Edits, Exchange, Hooks, InitContext, Key, Layout, LowRank, MemoKey, Method, Pass,
    Result, Route, Routed, Site,
};

use crate::start;

/// MTL-LoRA (Yang et al. 2024, arXiv 2410.09437): for task `t`,
///
/// ```text
/// y = x W + b + s Σ_i softmax(w_t / τ)_i  x A Λ_t B_i
/// A: [d_in, r]    B_i: [r, d_out], n of them    Λ_t: [r, r], diagonal or full    w_t: [n]
/// ```
///
/// `A` and all `B_i` are of all tasks. Which task a row is of, the [`Slots`](peft_core::Slots) of the pass
/// say; where they say nothing, and in a pool of adapters, it is the first. A row without a task is under
/// the base.
///
/// Created with [`MtlLoraConfig`].
#[derive(Module, Debug)]
pub struct MtlLora {
    /// By [`Site::index`].
    layers: Vec<Option<MtlLoraLayer>>,
    #[module(skip)]
    num_tasks: usize,
    #[module(skip)]
    scaling: f64,
    /// `τ`.
    #[module(skip)]
    sharpness: f64,
    #[module(skip)]
    dropout: f64,
}

/// The factors at one site.
#[derive(Module, Debug)]
pub struct MtlLoraLayer {
    /// `A`, `[d_in, r]`.
    pub lora_a: Param<Tensor<2>>,
    /// All `B_i`, `[n, r, d_out]`.
    pub lora_b: Param<Tensor<3>>,
    /// All `Λ_t`: `[tasks, 1, r]`, their diagonals, or `[tasks, r, r]`.
    pub task_specific: Param<Tensor<3>>,
    /// All `w_t`, `[tasks, n]`.
    pub weights: Param<Tensor<2>>,
}

impl MtlLora {
    pub(crate) fn new(config: &MtlLoraConfig, context: &InitContext<'_>) -> Result<Self> {
        let InitContext { base, device, .. } = *context;
        let (rank, count, tasks) = (config.rank, config.n_up_projection, config.num_tasks);
        let mut layers = vec![None; base.len()];
        for site in config.sites(base)? {
            let [d_in, d_out] = site.shape;
            // A full matrix starts as the diagonal one does, as the identity.
            let identity: Tensor<2> = match config.task_specific_matrix_type {
                TaskMatrix::SingularValues => Tensor::ones([1, rank], device),
                TaskMatrix::Linear => Tensor::eye(rank, device),
            };
            let task_specific = Tensor::stack(vec![identity; tasks], 0);
            layers[site.index] = Some(MtlLoraLayer {
                lora_a: start::kaiming_factor([d_in, rank], context),
                lora_b: start::zeros([count, rank, d_out], context),
                task_specific: Param::from_tensor(task_specific),
                weights: Param::from_tensor(Tensor::ones([tasks, count], device)),
            });
        }
        let (num_tasks, sharpness) = (tasks, config.weights_sharpness);
        let (scaling, dropout) = (config.scaling(), config.dropout);
        Ok(Self { layers, num_tasks, scaling, sharpness, dropout })
    }

    /// The factors at a site, if it is adapted.
    pub fn layer(&self, site: &Site) -> Option<&MtlLoraLayer> {
        self.layers.get(site.index)?.as_ref()
    }

    /// The change of a task: `A Λ_t`, and `Σ_i softmax(w_t / τ)_i B_i`.
    fn of_task(&self, layer: &MtlLoraLayer, task: usize) -> LowRank {
        let ([d_in, rank], b) = (layer.lora_a.val().dims(), layer.lora_b.val());
        let [count, _, d_out] = b.dims();
        let matrix = layer.task_specific.val().narrow(0, task, 1).squeeze_dim::<2>(0);
        let a = match matrix.dims() {
            [1, _] => layer.lora_a.val() * matrix.expand([d_in, rank]),
            _ => layer.lora_a.val().matmul(matrix),
        };
        let weights = softmax(layer.weights.val().narrow(0, task, 1) / self.sharpness, 1);
        let b = weights.matmul(b.reshape([count, rank * d_out])).reshape([rank, d_out]);
        LowRank::new(a, b, self.scaling).with_dropout(self.dropout)
    }
}

impl Hooks for MtlLora {
    fn linear(&self, site: &Site, pass: &Pass<'_>) -> Edits {
        let Some(layer) = self.layer(site) else { return Edits::none() };
        if self.num_tasks == 1 || pass.slots.as_slice().is_empty() {
            return self.of_task(layer, 0).into();
        }
        let tasks = (0..self.num_tasks).map(|task| self.of_task(layer, task).into());
        let key = MemoKey { of: layer.lora_a.id, name: "tasks", site: None };
        Edit::Routed(Routed::new(tasks.collect(), Route::Rows, key)).into()
    }
}

impl Method for MtlLora {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        for site in base.sites() {
            let Some(layer) = self.layers.get_mut(site.index).and_then(Option::as_mut) else {
                continue;
            };
            let key = |name: &str| {
                Key::from(site.key(name)).adapters(format!("{}.loras.{{}}.{name}", site.path))
            };
            file.param(key("lora_A"), &mut layer.lora_a, Layout::Transposed);
            file.param(key("lora_B"), &mut layer.lora_b, Layout::Transposed);
            let [tasks, height, rank] = layer.task_specific.val().dims();
            let matrix = key("task_specific.values");
            let matrix = match height {
                1 => matrix.peft_shape([tasks, rank]).adapters_shape([tasks * rank]),
                _ => matrix.adapters_shape([tasks * rank, rank]),
            };
            file.param(matrix, &mut layer.task_specific, Layout::AsIs);
            let [tasks, count] = layer.weights.val().dims();
            let weights = key("weights").adapters_shape([tasks * count]);
            file.param(weights, &mut layer.weights, Layout::AsIs);
        }
    }

    fn merge_obstacle(&self) -> Option<String> {
        (self.num_tasks > 1).then(|| "the rows of a batch are of different tasks".into())
    }
}
