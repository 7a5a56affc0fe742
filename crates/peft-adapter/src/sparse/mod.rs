//! SparseAdapter: adapters of which few weights are left.

mod config;
mod prune;
mod score;

use std::rc::Rc;

use burn::module::{Module, Param, ParamId};
use burn::tensor::{IndexingUpdateOp, Int, Tensor, TensorData, module::linear};
use peft_core::{Exchange, Key, Layout, MemoKey, Pass};

pub use config::{Pruning, SparseAdapterConfig, sparse_presets};

/// The weights that pruning left of all projections of a model (He et al. 2022, arXiv 2210.04284).
///
/// The other weights are zero, and are no parameters: no step, decay or moment reaches them.
#[derive(Module, Debug)]
pub struct Survivors {
    /// `[K]`.
    pub values: Param<Tensor<1>>,
    /// `[K]`: the place of each among the weights of all projections, each `[d_in, d_out]`, one projection
    /// after another, down and up, in the order of the model.
    pub places: Param<Tensor<1, Int>>,
    #[module(skip)]
    shapes: Vec<[usize; 2]>,
}

/// Which values are one projection's, and where they are in its weight; `None` where none are.
type Part = Option<(Tensor<1, Int>, Tensor<1, Int>)>;

impl Survivors {
    fn new(values: Tensor<1>, places: Vec<i64>, shapes: Vec<[usize; 2]>) -> Self {
        let places = ints(places, &values);
        let places = Param::initialized(ParamId::new(), places);
        Self { values: Param::from_tensor(values), places, shapes }
    }

    /// The number of weights before pruning.
    fn num_places(&self) -> usize {
        num_weights(&self.shapes)
    }

    /// The weight of a projection, made once a pass.
    fn weight(&self, projection: usize, pass: &Pass<'_>) -> Tensor<2> {
        let of = self.places.id;
        let parts = pass.memo.get(MemoKey { of, name: "parts", site: None }, || self.parts());
        let key = MemoKey { of: self.values.id, name: "weight", site: Some(projection) };
        pass.memo.get(key, || {
            let values = self.values.val();
            let [d_in, d_out] = self.shapes[projection];
            let zeros = Tensor::<1>::zeros([d_in * d_out], &values.device());
            let whole = match &parts[projection] {
                Some((own, places)) => {
                    let own = values.select(0, own.clone());
                    zeros.select_assign(0, places.clone(), own, IndexingUpdateOp::Add)
                }
                None => zeros,
            };
            whole.reshape([d_in, d_out])
        })
    }

    /// The values of each projection. A file may have its places in any order.
    fn parts(&self) -> Rc<Vec<Part>> {
        let places = self.places.val();
        let mut ends = Vec::with_capacity(self.shapes.len());
        for [d_in, d_out] in &self.shapes {
            ends.push(ends.last().copied().unwrap_or(0) + d_in * d_out);
        }
        let mut parts = vec![(Vec::new(), Vec::new()); ends.len()];
        for (number, place) in places.clone().into_data().iter::<i64>().enumerate() {
            let projection = ends.partition_point(|end| *end as i64 <= place);
            let begin = projection.checked_sub(1).map_or(0, |before| ends[before] as i64);
            parts[projection].0.push(number as i64);
            parts[projection].1.push(place - begin);
        }
        let tensor = |values: Vec<i64>| {
            let count = values.len();
            Tensor::from_data(TensorData::new(values, [count]), &places.device())
        };
        let part = |(own, inside): (Vec<i64>, Vec<i64>)| {
            (!own.is_empty()).then(|| (tensor(own), tensor(inside)))
        };
        Rc::new(parts.into_iter().map(part).collect())
    }

    pub(crate) fn exchange(&mut self, file: &mut Exchange<'_>) {
        let key = |name: &str| format!("base_model.model.sparse_adapter.{name}");
        let bounds = [self.num_places()];
        file.param(key("values"), &mut self.values, Layout::AsIs);
        file.places(key("places"), &mut self.places, &bounds);
    }
}

fn ints(values: Vec<i64>, beside: &Tensor<1>) -> Tensor<1, Int> {
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), &beside.device())
}

fn num_weights(shapes: &[[usize; 2]]) -> usize {
    shapes.iter().map(|[d_in, d_out]| d_in * d_out).sum()
}

/// A projection whose weight is among the [`Survivors`], `y = x W + b`.
#[derive(Module, Debug)]
pub struct SparseLinear {
    /// `[d_out]`.
    pub bias: Param<Tensor<1>>,
    /// Which of the projections it is.
    #[module(skip)]
    number: usize,
}

impl SparseLinear {
    pub(crate) fn forward(
        &self,
        input: Tensor<2>,
        survivors: Option<&Survivors>,
        pass: &Pass<'_>,
    ) -> Tensor<2> {
        let survivors = survivors.expect("a pruned projection has its weights there");
        linear(input, survivors.weight(self.number, pass), Some(self.bias.val()))
    }

    pub(crate) fn exchange(&mut self, file: &mut Exchange<'_>, key: impl Fn(&str) -> Key) {
        file.param(key("bias"), &mut self.bias, Layout::AsIs);
    }
}
