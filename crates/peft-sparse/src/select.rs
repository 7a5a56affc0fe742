//! What the methods of this crate have in common: sites by default, and trained copies.

use burn::module::Param;
use burn::tensor::{Device, Tensor};
use peft_core::{Base, Role};

/// Every role that a site of `base` has, but the head's.
pub(crate) fn all_but_the_head(base: &Base) -> Vec<Role> {
    base.sites().map(|site| site.role).filter(|role| *role != Role::Head).collect()
}

/// A copy of a frozen tensor that is trained.
pub(crate) fn trained_copy<const D: usize>(
    tensor: &Tensor<D>,
    device: &Device,
) -> Param<Tensor<D>> {
    Param::from_tensor(Tensor::from_data(tensor.clone().into_data(), device))
}
