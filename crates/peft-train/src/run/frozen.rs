//! What a run is built on beside its model.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData};
use peft_core::{Base, Exchange, Method, Stack, TensorMap};
use sha2::{Digest, Sha256};

/// A text that differs where the frozen parameters of a run's method do: a resumed run must have the
/// adapters below it that it began with. What the method itself started from counts as zeros, as it
/// is in the checkpoint.
pub(crate) fn fingerprint(method: &Stack, base: &Base) -> String {
    struct Hash(Sha256);
    impl ModuleVisitor for Hash {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if !param.is_require_grad() {
                self.0.update(param.base().into_data().as_bytes());
            }
        }
    }
    let mut method = method.clone();
    let mut own = Exchange::describe().of_start();
    method.exchange(&mut own, base);
    let zeros = |shape: Vec<usize>| TensorData::zeros::<f32, _>(shape);
    let specs = own.into_specs().into_iter();
    let mut blank: TensorMap = specs.map(|spec| (spec.key, zeros(spec.shape))).collect();
    method.exchange(&mut Exchange::read(&mut blank).of_start(), base);
    let mut hash = Hash(Sha256::new());
    method.visit(&mut hash);
    format!("{:x}", hash.0.finalize())
}
