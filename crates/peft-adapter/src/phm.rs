//! Parameterised hypercomplex multiplication.

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Distribution, Tensor, module::linear};
use peft_core::{Exchange, InitContext, Key, Layout, MemoKey, Pass};

use crate::projection::{Position, zeros};
use crate::{BottleneckConfig, PhmInit};

/// `n` matrices, `[n, a, b]`, as they are or as products.
#[derive(Module, Debug)]
pub enum Slices {
    /// `[n, a, b]`.
    Full(Param<Tensor<3>>),
    /// `left` times `right`, slice by slice.
    Factored(Factors),
}

/// The factors of [`Slices`].
#[derive(Module, Debug)]
pub struct Factors {
    /// `[n, a, r]`.
    pub left: Param<Tensor<3>>,
    /// `[n, r, b]`.
    pub right: Param<Tensor<3>>,
}

impl Slices {
    /// Slices of shape `[n, a, b]`, factored at a rank if there is one.
    fn new(
        [n, a, b]: [usize; 3],
        rank: Option<usize>,
        start: impl Fn([usize; 3]) -> Param<Tensor<3>>,
    ) -> Self {
        match rank {
            Some(rank) => {
                Self::Factored(Factors { left: start([n, a, rank]), right: start([n, rank, b]) })
            }
            None => Self::Full(start([n, a, b])),
        }
    }

    /// The matrices `W_i`, `[n, a, b]`.
    fn weights(
        config: &BottleneckConfig,
        [d_in, d_out]: [usize; 2],
        context: &InitContext<'_>,
    ) -> Self {
        let n = config.phm_dim;
        let rank = config.factorized_phm_w.then_some(config.phm_rank);
        Self::new([n, d_in / n, d_out / n], rank, |[n, a, b]| {
            // Xavier-normal.
            let deviation = (2.0 / (a + b) as f64).sqrt();
            Param::from_tensor(context.random([n, a, b], Distribution::Normal(0.0, deviation)))
        })
    }

    /// The rule, the matrices `A_i`, `[n, n, n]`.
    fn rule(config: &BottleneckConfig, context: &InitContext<'_>) -> Self {
        let n = config.phm_dim;
        let rank = config.factorized_phm_rule.then_some(1);
        let (deviation, bound) =
            if config.shared_phm_rule { (config.phm_init_range, 1.0) } else { (0.01, 0.01) };
        let distribution = match config.phm_c_init {
            PhmInit::Normal => Distribution::Normal(0.0, deviation),
            PhmInit::Uniform => Distribution::Uniform(-bound, bound),
        };
        Self::new([n, n, n], rank, |shape| {
            Param::from_tensor(context.random(shape, distribution))
                .set_require_grad(config.learn_phm)
        })
    }

    /// `[n, a, b]`.
    pub fn value(&self) -> Tensor<3> {
        match self {
            Self::Full(slices) => slices.val(),
            Self::Factored(factors) => factors.left.val().matmul(factors.right.val()),
        }
    }

    fn id(&self) -> ParamId {
        match self {
            Self::Full(slices) => slices.id,
            Self::Factored(factors) => factors.left.id,
        }
    }

    fn exchange(&mut self, file: &mut Exchange<'_>, name: &str, key: impl Fn(&str) -> Key) {
        match self {
            Self::Full(slices) => file.param(key(name), slices, Layout::AsIs),
            Self::Factored(Factors { left, right }) => {
                file.param(key(&format!("{name}_left")), left, Layout::AsIs);
                file.param(key(&format!("{name}_right")), right, Layout::AsIs);
            }
        }
    }
}

/// What all adapters of a model have in common, `[n, n, n]` and `[n, a, b]`.
#[derive(Module, Debug)]
pub struct SharedPhm {
    /// The rule.
    pub rule: Option<Slices>,
    /// `W_i` of the projections down.
    pub down: Option<Slices>,
    /// `W_i` of the projections up.
    pub up: Option<Slices>,
}

impl SharedPhm {
    /// What adapters of this width share; `None` if nothing.
    pub(crate) fn new(
        config: &BottleneckConfig,
        [d, bottleneck]: [usize; 2],
        context: &InitContext<'_>,
    ) -> Option<Self> {
        let rule = config.shared_phm_rule.then(|| Slices::rule(config, context));
        let weights = |shape| config.shared_w_phm.then(|| Slices::weights(config, shape, context));
        let (down, up) = (weights([d, bottleneck]), weights([bottleneck, d]));
        let shares = config.phm_layer && (rule.is_some() || down.is_some());
        shares.then_some(Self { rule, down, up })
    }

    /// The tensors; `adapters`' keys begin with `prefix`, the base model's name and a dot.
    pub(crate) fn exchange(&mut self, file: &mut Exchange<'_>, prefix: &str) {
        let key = |name: &str| {
            Key::from(format!("base_model.model.shared_{name}"))
                .adapters(format!("{prefix}shared_parameters.{{}}.{name}"))
        };
        for (name, slices) in
            [("phm_rule", &mut self.rule), ("W_down", &mut self.down), ("W_up", &mut self.up)]
        {
            if let Some(slices) = slices {
                slices.exchange(file, name, key);
            }
        }
    }
}

/// A linear layer whose weight is a sum of Kronecker products, `y = x (Σ_i A_i ⊗ W_i) + b`, with
/// `A_i` of shape `[n, n]` and `W_i` of shape `[d_in/n, d_out/n]` (Zhang et al. 2021,
/// arXiv 2102.08597; Mahabadi et al. 2021, arXiv 2106.04647).
#[derive(Module, Debug)]
pub struct PhmLinear {
    /// The rule, unless it is shared.
    pub rule: Option<Slices>,
    /// The `W_i`, unless they are shared.
    pub weights: Option<Slices>,
    /// `[d_out]`.
    pub bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    position: Position,
}

impl PhmLinear {
    pub(crate) fn new(
        config: &BottleneckConfig,
        position: Position,
        shape: [usize; 2],
        context: &InitContext<'_>,
    ) -> Self {
        Self {
            rule: (!config.shared_phm_rule).then(|| Slices::rule(config, context)),
            weights: (!config.shared_w_phm).then(|| Slices::weights(config, shape, context)),
            bias: config.phm_bias.then(|| zeros(shape[1], context.device)),
            position,
        }
    }

    /// `Σ_i A_i ⊗ W_i`, `[d_in, d_out]`: once for each adapter, or once for all that share both.
    fn weight<'s>(&self, shared: Option<&'s SharedPhm>, pass: &Pass<'_>) -> Tensor<2> {
        let shared_weights = |shared: &'s SharedPhm| match self.position {
            Position::Down => &shared.down,
            Position::Up => &shared.up,
        };
        let rule = self.rule.as_ref().or_else(|| shared?.rule.as_ref());
        let rule = rule.expect("a rule is the layer's own or shared");
        let weights = self.weights.as_ref().or_else(|| shared_weights(shared?).as_ref());
        let weights = weights.expect("weights are the layer's own or shared");
        let own = self.weights.as_ref().or(self.rule.as_ref()).unwrap_or(weights);
        let key = MemoKey { of: own.id(), name: "kronecker_sum", site: None };
        pass.memo.get(key, || kronecker_sum(rule.value(), weights.value()))
    }

    pub(crate) fn forward(
        &self,
        input: Tensor<2>,
        shared: Option<&SharedPhm>,
        pass: &Pass<'_>,
    ) -> Tensor<2> {
        linear(input, self.weight(shared, pass), self.bias.as_ref().map(Param::val))
    }

    pub(crate) fn exchange(&mut self, file: &mut Exchange<'_>, key: impl Fn(&str) -> Key) {
        if let Some(rule) = &mut self.rule {
            rule.exchange(file, "phm_rule", &key);
        }
        if let Some(weights) = &mut self.weights {
            weights.exchange(file, "W", &key);
        }
        if let Some(bias) = &mut self.bias {
            file.param(key("b"), bias, Layout::AsIs);
        }
    }
}

/// `Σ_i A_i ⊗ W_i` for `[n, p, q]` and `[n, a, b]`: `[p a, q b]`.
pub fn kronecker_sum(rule: Tensor<3>, weights: Tensor<3>) -> Tensor<2> {
    let [n, p, q] = rule.dims();
    let [_, a, b] = weights.dims();
    // Each entry of the sum is a product over i: one matrix product of [p q, n] and [n, a b].
    let products = rule.reshape([n, p * q]).transpose().matmul(weights.reshape([n, a * b]));
    products.reshape([p, q, a, b]).swap_dims(1, 2).reshape([p * a, q * b])
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn kronecker_sum_is_that_of_the_equation() {
        let device = Device::default();
        // A_1 = [1 2; 3 4], A_2 = [0 1; -1 0]; W_1 = [1; 2; 3], W_2 = [10; 0; -10].
        let rule = Tensor::<3>::from_data([[[1., 2.], [3., 4.]], [[0., 1.], [-1., 0.]]], &device);
        let weights = Tensor::<3>::from_data([[[1.], [2.], [3.]], [[10.], [0.], [-10.]]], &device);
        let sum = kronecker_sum(rule, weights);
        let expected = [
            [1., 2. + 10.],
            [2., 4. + 0.],
            [3., 6. - 10.],
            [3. - 10., 4.],
            [6. - 0., 8.],
            [9. + 10., 12.],
        ];
        sum.into_data().assert_eq(&Tensor::<2>::from_data(expected, &device).into_data(), true);
    }

    #[test]
    fn factors_give_the_product_of_their_slices() {
        let device = Device::default();
        let param = |data: [[[f32; 2]; 1]; 1]| Param::from_tensor(Tensor::from_data(data, &device));
        let left = Param::from_tensor(Tensor::<3>::from_data([[[2.], [3.]]], &device));
        let slices = Slices::Factored(Factors { left, right: param([[[5., 7.]]]) });
        let expected = Tensor::<3>::from_data([[[10., 14.], [15., 21.]]], &device);
        slices.value().into_data().assert_eq(&expected.into_data(), true);
    }
}
