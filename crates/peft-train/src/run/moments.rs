//! What an optimizer knows of parameters that are no more.

use std::collections::HashSet;

use burn::module::{Module, ModuleVisitor, Param, ParamGroup, ParamId};
use burn::optim::ModuleOptimizer;
use burn::tensor::Tensor;
use peft_kernels::AdamW;

/// The parameters of a module that an optimizer may know.
pub(crate) fn parameters(module: &impl Module) -> HashSet<ParamId> {
    struct Ids(HashSet<ParamId>);
    impl ModuleVisitor for Ids {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.insert(param.id);
        }
    }
    let mut ids = Ids(HashSet::new());
    module.visit(&mut ids);
    ids.0
}

/// Drops the moments of parameters that a module no longer has: a method that begins again with some
/// values does so as another parameter, and those of the old one would be kept, and written, for nothing.
pub(crate) fn forget(
    optimizer: &mut ModuleOptimizer,
    before: &HashSet<ParamId>,
    module: &impl Module,
    of: &AdamW,
) {
    let now = parameters(module);
    let gone: Vec<ParamId> = before.difference(&now).copied().collect();
    if !gone.is_empty() {
        // Burn's one way to drop what it knows of a parameter; nothing is in the group any more.
        let group = ParamGroup::from_ids(gone);
        *optimizer = optimizer.clone().with_group(group, of.clone(), None);
    }
}

#[cfg(test)]
mod tests {
    use burn::optim::GradientsParams;
    use burn::tensor::Device;

    use super::*;

    #[derive(Module, Debug)]
    struct Two {
        first: Param<Tensor<1>>,
        second: Param<Tensor<2>>,
    }

    #[test]
    fn moments_of_a_parameter_that_is_gone_are_dropped_and_others_stay() {
        let device = Device::default().autodiff();
        let mut module = Two {
            first: Param::from_tensor(Tensor::ones([3], &device)),
            second: Param::from_tensor(Tensor::ones([2, 3], &device)),
        };
        let adamw = AdamW::new(0.01);
        let mut optimizer: ModuleOptimizer = adamw.clone().into();
        let step = |module: Two, optimizer: &mut ModuleOptimizer| {
            let loss = (module.second.val() * module.first.val().unsqueeze()).square().sum();
            let gradients = GradientsParams::from_grads(loss.backward(), &module);
            optimizer.step(0.1, module, gradients)
        };
        module = step(module, &mut optimizer);
        let of_both = optimizer.to_record().len();
        let before = parameters(&module);
        forget(&mut optimizer, &before, &module, &adamw);
        assert_eq!(optimizer.to_record().len(), of_both);
        module.second = Param::from_tensor(Tensor::ones([2, 3], &device));
        forget(&mut optimizer, &before, &module, &adamw);
        assert_eq!(optimizer.to_record().len(), of_both / 2);
        // The other one goes on, and the new one begins.
        step(module, &mut optimizer);
        assert_eq!(optimizer.to_record().len(), of_both);
    }
}
