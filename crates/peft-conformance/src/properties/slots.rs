//! Rows under different adapters.

use burn::module::Module;
use burn::tensor::{Int, Tensor, TensorData};
use peft_core::{AdapterPool, BoxedMethod, Hooks, Slots, Stack};
use peft_models::Forward;

use super::agreement::random;
use super::cache::{goes_on, token_by_token};
use crate::numbers::{Normal, assert_close, values};
use crate::parameters::gradients;
use crate::{Host, Subject};

/// The slot of each row: three adapters of the method, one of another, and none, in no order.
const SLOTS: [Option<usize>; 8] =
    [Some(1), None, Some(0), Some(3), Some(2), Some(0), Some(3), None];

/// One pass over rows that are each under another adapter, or none, gives each row what it gets in
/// a batch of the rows of its adapter alone, and each adapter its gradients; where texts can be gone
/// on with, token by token too. (A method that reads padding is compared in batches with the same.)
///
/// # Panics
/// If it does not.
pub fn mixed_slots_equal_each_alone(subject: &Subject) {
    let device = subject.host.model.base().device();
    let host = subject.host.with_batch(subject.host.batch.doubled(device));
    let mut adapters: Vec<Stack> = (1..4).map(|seed| subject.in_training(seed).method).collect();
    adapters.push(subject.plain().in_training(4).method);
    let slots = Slots::new(SLOTS.to_vec());
    let pool = |adapters: Vec<Stack>| {
        AdapterPool::new(adapters.into_iter().map(BoxedMethod::new).collect())
    };
    let trained = pool(adapters.clone());
    let mixed = pool(adapters.iter().map(Stack::valid).collect());
    let together = host.outputs(Forward::infer(&mixed).with_slots(&slots));
    for slot in [None, Some(0), Some(1), Some(2), Some(3)] {
        let own = Own::of(&host, slot, mixed.needs_padding());
        let found = own.of_batch(together.clone());
        let method = slot.map(|slot| &adapters[slot]);
        let expected = match method {
            None => own.alone(Forward::infer(&())),
            Some(method) => own.alone(Forward::infer(&method.valid())),
        };
        let what = format!("logits of rows in slot {slot:?}, and alone");
        assert_close(&what, &values(found), &values(expected), 1e-5);

        let (Some(slot), Some(method)) = (slot, method) else { continue };
        let found = own.of_batch(host.outputs(Forward::infer(&trained).with_slots(&slots)));
        let member = format!("slots.{slot}.");
        let found = gradients(&trained, &own.mean(found)).into_iter();
        let found = found.filter(|gradient| gradient.path.starts_with(&member));
        let expected = gradients(method, &own.mean(own.alone(Forward::infer(method))));
        for (found, expected) in found.zip(&expected) {
            assert_eq!(found.path.strip_prefix(&member), Some(&expected.path[..]));
            let what = format!("gradient of {} in slot {slot}, and alone", expected.path);
            assert_close(&what, &found.values, &expected.values, 1e-4);
        }
    }
    if goes_on(subject) {
        let found = token_by_token(&host, &mixed, &slots);
        assert_close("logits of mixed rows token by token", &found, &values(together), 1e-5);
    }
}

/// The rows of a slot.
struct Own {
    /// A batch of them alone, or of all.
    host: Host,
    /// Which targets of the whole batch are theirs.
    targets: Vec<usize>,
    /// Whether the batch is of all.
    of_all: bool,
}

impl Own {
    fn of(host: &Host, slot: Option<usize>, of_all: bool) -> Self {
        let rows: Vec<usize> = (0..SLOTS.len()).filter(|&row| SLOTS[row] == slot).collect();
        let targets = 0..host.batch.targets.len();
        let targets = targets.filter(|&t| rows.contains(&host.batch.row_of_target(t))).collect();
        let batch = match of_all {
            true => host.batch.clone(),
            false => host.batch.rows(&rows, host.model.base().device()),
        };
        Self { host: host.with_batch(batch), targets, of_all }
    }

    /// What the model says of them, of what it says of all.
    fn of_batch(&self, outputs: Tensor<2>) -> Tensor<2> {
        let index: Vec<i64> = self.targets.iter().map(|target| *target as i64).collect();
        let index = TensorData::new(index, [self.targets.len()]);
        let device = self.host.model.base().device();
        outputs.select(0, Tensor::<1, Int>::from_data(index, device))
    }

    /// What the model says of them where all rows of the batch are under the same.
    fn alone(&self, how: Forward<'_>) -> Tensor<2> {
        let outputs = self.host.outputs(if self.of_all { how.padded() } else { how });
        if self.of_all { self.of_batch(outputs) } else { outputs }
    }

    /// A mean of outputs with random factors.
    fn mean(&self, outputs: Tensor<2>) -> Tensor<1> {
        let device = self.host.model.base().device();
        let factors = random(&mut Normal::new(3), outputs.dims(), device);
        (outputs * factors).mean()
    }
}
