//! What a run is built on beside its model.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use sha2::{Digest, Sha256};

/// A text that differs where the frozen parameters of a module do: a resumed run must have the
/// adapters below it that it began with.
pub(crate) fn fingerprint(module: &impl Module) -> String {
    struct Hash(Sha256);
    impl ModuleVisitor for Hash {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if !param.is_require_grad() {
                self.0.update(param.base().into_data().as_bytes());
            }
        }
    }
    let mut hash = Hash(Sha256::new());
    module.visit(&mut hash);
    format!("{:x}", hash.0.finalize())
}
