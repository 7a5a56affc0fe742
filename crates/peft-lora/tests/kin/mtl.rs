use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Distribution, Tensor};
use peft_conformance::{Host, conformance};
use peft_core::{EmptyPass, Hooks, InitContext, MethodConfig, Pass, Rows, Slots, merge_obstacle};
use peft_lora::{MtlLoraConfig, TaskMatrix};

use super::{HIDDEN, LAYERS, all_linear, over_all, trains};

fn of_one() -> MtlLoraConfig {
    MtlLoraConfig { rank: 3, alpha: 7.0, ..MtlLoraConfig::default() }
}

conformance!(
    mtl_lora,
    // With one way up its weight is 1, whatever is trained.
    MtlLoraConfig { n_up_projection: 2, ..of_one() },
    trains(LAYERS * 2 * (3 * 3 * HIDDEN + 3 + 2))
);
conformance!(
    three_ways_up,
    // At which no way up outweighs the others.
    MtlLoraConfig { n_up_projection: 3, weights_sharpness: 0.7, targets: all_linear(), ..of_one() },
    trains(over_all(|[d_in, d_out]| 3 * (d_in + 3 * d_out) + 3 + 3))
);
conformance!(
    full_matrices,
    MtlLoraConfig {
        task_specific_matrix_type: TaskMatrix::Linear,
        n_up_projection: 2,
        weights_sharpness: 1.0,
        ..of_one()
    },
    trains(LAYERS * 2 * (3 * 3 * HIDDEN + 3 * 3 + 2))
);

/// Makes parameters differ, those of tasks too.
struct Noise<'c, 'b>(&'c InitContext<'b>);

impl ModuleMapper for Noise<'_, '_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|values| values.clone() + self.0.random(values.dims(), NOISE))
    }
}

const NOISE: Distribution = Distribution::Normal(0.0, 0.4);

#[test]
fn a_row_is_of_the_task_that_its_slot_says() {
    let device = Device::default();
    let host = Host::new(&device);
    let base = host.model.base();
    let config = MtlLoraConfig { num_tasks: 3, n_up_projection: 2, ..of_one() };
    let context = InitContext::new(base, &device).with_seed(3);
    let method = config.init(&context).expect("it fits").map(&mut Noise(&context));
    let site = base.linears().find(|site| site.path.ends_with("query")).expect("a query");
    let parts = EmptyPass::new(&device);
    let rows = Rows::packed(&[2, 3, 1, 2], &device);
    let slots = Slots::new(vec![Some(2), Some(0), None, Some(2)]);
    let mixed = Pass { rows: &rows, slots: &slots, ..parts.pass() };
    let layer = peft_core::LinearLayer::new(site, base.weight(site), None);
    let x = context.random::<2>([8, HIDDEN], Distribution::Normal(0.0, 1.0));
    let found = method.linear(site, &mixed).apply(&layer, x.clone(), &mixed);
    // Alone, under one task each, and under the base.
    for (row, task) in [(0, Some(2)), (1, Some(0)), (2, None), (3, Some(2))] {
        let (own, slot) = (rows.subset(&[row]), Slots::new(vec![task]));
        let alone = Pass { rows: &own, slots: &slot, ..parts.pass() };
        let expected = match task {
            Some(_) => method.linear(site, &alone),
            None => peft_core::Edits::none(),
        };
        let expected = expected.apply(&layer, rows.take(x.clone(), &[row]), &alone);
        let far = (rows.take(found.clone(), &[row]) - expected).abs().max().into_scalar::<f32>();
        assert!(far < 1e-5, "row {row}: {far}");
    }
    let tasks: Vec<_> = [0, 1, 2]
        .into_iter()
        .map(|task| {
            let (own, slot) = (rows.subset(&[1]), Slots::new(vec![Some(task)]));
            let alone = Pass { rows: &own, slots: &slot, ..parts.pass() };
            method.linear(site, &alone).apply(&layer, rows.take(x.clone(), &[1]), &alone)
        })
        .collect();
    assert!(tasks[0].clone().into_data() != tasks[1].clone().into_data());
    assert!(tasks[1].clone().into_data() != tasks[2].clone().into_data());
    assert_eq!(
        merge_obstacle(&method, base).as_deref(),
        Some("the rows of a batch are of different tasks")
    );
}
