use burn::module::{Module, Param};
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Distribution, Tensor};
use peft_kernels::AdamW;

const DECAY: f64 = 0.03;

#[derive(Module, Debug)]
struct Parameters {
    vector: Param<Tensor<1>>,
    matrix: Param<Tensor<2>>,
    /// More than one core's part.
    large: Param<Tensor<2>>,
}

impl Parameters {
    fn new(device: &Device) -> Self {
        let shapes = [[3, 7], [150, 131]];
        let [matrix, large] = shapes.map(|shape| {
            Param::from_tensor(Tensor::random(shape, Distribution::Normal(0.0, 1.0), device))
        });
        let vector = Param::from_tensor(Tensor::from_floats([-0.0, 0.0, 1e-30, 2.0], device));
        Self { vector, matrix, large }
    }

    /// Gradients, some of them zero, whose sizes differ from step to step.
    fn gradients(&self, step: usize) -> GradientsParams {
        let slope = 0.1 * step as f32 - 0.3;
        let vector = self.vector.val();
        let signs = Tensor::from_floats([-0.0, 0.0, 1.0, slope], &vector.device());
        let loss = (vector * signs).sum()
            + (self.matrix.val() * slope).sin().sum()
            + self.large.val().transpose().powi_scalar(2).sum() * 1e-3;
        GradientsParams::from_grads(loss.backward(), self)
    }

    fn bits(&self) -> Vec<u32> {
        let [vector, matrix, large] = [
            self.vector.val().into_data(),
            self.matrix.val().into_data(),
            self.large.val().into_data(),
        ];
        let all = vector.iter::<f32>().chain(matrix.iter::<f32>()).chain(large.iter::<f32>());
        all.map(f32::to_bits).collect()
    }
}

fn of_burn() -> ModuleOptimizer {
    AdamWConfig::new().with_epsilon(1e-8).with_weight_decay(DECAY as f32).init()
}

fn trained(
    mut optimizer: ModuleOptimizer,
    mut parameters: Parameters,
    steps: std::ops::Range<usize>,
) -> (ModuleOptimizer, Parameters) {
    for step in steps {
        let gradients = parameters.gradients(step);
        parameters = optimizer.step(0.01 / (1 + step) as f64, parameters, gradients);
    }
    (optimizer, parameters)
}

#[test]
fn updates_are_those_of_burn_bit_for_bit() {
    let device = Device::flex().autodiff();
    let start = Parameters::new(&device);
    let kept = start.bits();
    let (_, expected) = trained(of_burn(), start.clone(), 0..6);
    let (_, updated) = trained(AdamW::new(DECAY).into(), start.clone(), 0..6);
    assert_eq!(updated.bits(), expected.bits());
    assert_ne!(updated.bits(), kept);
    // Whoever shares a parameter's memory keeps its values.
    assert_eq!(start.bits(), kept);
}

#[test]
fn what_one_optimizer_saved_the_other_goes_on_from() {
    let device = Device::flex().autodiff();
    let start = Parameters::new(&device);
    let (_, whole) = trained(of_burn(), start.clone(), 0..6);
    let ours = || ModuleOptimizer::from(AdamW::new(DECAY));
    for [before, after] in [[of_burn(), ours()], [ours(), of_burn()]] {
        let (before, parameters) = trained(before, start.clone(), 0..3);
        let saved = before.into_bytes().expect("written");
        let after = after.from_bytes(saved).expect("read");
        let (_, parameters) = trained(after, parameters, 3..6);
        assert_eq!(parameters.bits(), whole.bits());
    }
}

/// In f64, and on a backend without kernels, it is Burn's.
#[test]
fn other_numbers_are_updated_too() {
    let device = Device::flex().autodiff();
    let start = Tensor::<1>::from_data([1.0f64, -2.0], (&device, burn::tensor::DType::F64));
    let step = |mut optimizer: ModuleOptimizer| {
        let vector = Param::from_tensor(start.clone());
        let gradients = vector.val().powi_scalar(2).sum().backward();
        let gradients = GradientsParams::from_grads(gradients, &vector);
        optimizer.step(0.1, vector, gradients).val().into_data()
    };
    assert_eq!(step(AdamW::new(DECAY).into()), step(of_burn()));
}
