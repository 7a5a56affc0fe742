//! Trained copies of frozen values.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};

use crate::{BaseSite, Exchange, Layout, NormEdit, Site};

/// A trained copy of a frozen tensor, on `device`, where gradients are.
pub fn trained_copy<const D: usize>(tensor: &Tensor<D>, device: &Device) -> Param<Tensor<D>> {
    let device = device.clone().autodiff();
    Param::from_tensor(Tensor::from_data(tensor.clone().into_data(), &device))
}

/// A trained copy of a norm's gain and bias.
#[derive(Module, Debug)]
pub struct TrainedNorm {
    /// `[d]`.
    pub gain: Param<Tensor<1>>,
    /// `[d]`, where the norm has one.
    pub bias: Option<Param<Tensor<1>>>,
}

impl TrainedNorm {
    /// A copy of the norm at a site; `None` where it has no gain.
    pub fn copied(entry: &BaseSite, device: &Device) -> Option<Self> {
        let gain = trained_copy(entry.gain.as_ref()?, device);
        Some(Self { gain, bias: entry.bias.as_ref().map(|bias| trained_copy(bias, device)) })
    }

    /// The copy in the place of the norm's own values.
    pub fn edit(&self) -> NormEdit {
        NormEdit::set(self.gain.val(), self.bias.as_ref().map(Param::val))
    }

    /// Names the tensors; `within` stands between the site's path and theirs: nothing, or a name
    /// and a dot.
    pub fn exchange(&mut self, file: &mut Exchange<'_>, site: &Site, within: &str) {
        file.param(site.key(&format!("{within}weight")), &mut self.gain, Layout::AsIs);
        if let Some(bias) = &mut self.bias {
            file.param(site.key(&format!("{within}bias")), bias, Layout::AsIs);
        }
    }
}

/// The number of values of a module that require gradients.
pub fn num_trainable(module: &impl Module) -> usize {
    struct Count(usize);
    impl ModuleVisitor for Count {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if param.is_require_grad() {
                self.0 += param.lazy_shape().num_elements();
            }
        }
    }
    let mut count = Count(0);
    module.visit(&mut count);
    count.0
}
