//! Trained copies of the norms in adapted layers.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use peft_core::{BaseSite, Change, Exchange, Layout, Site};

/// A trained copy of a norm's gain and bias: Houlsby et al. train the norms beside the adapters.
#[derive(Module, Debug)]
pub struct TrainedNorm {
    /// `[d]`.
    pub gain: Param<Tensor<1>>,
    /// `[d]`, where the norm has one.
    pub bias: Option<Param<Tensor<1>>>,
}

impl TrainedNorm {
    /// A copy of the norm at a site; `None` where it has no gain.
    pub(crate) fn copied(entry: &BaseSite, device: &Device) -> Option<Self> {
        let copy = |values: &Tensor<1>| {
            Param::from_tensor(Tensor::from_data(values.clone().into_data(), device))
        };
        Some(Self { gain: copy(entry.gain.as_ref()?), bias: entry.bias.as_ref().map(copy) })
    }

    pub(crate) fn exchange(&mut self, file: &mut Exchange<'_>, site: &Site) {
        file.param(site.key("weight"), &mut self.gain, Layout::AsIs);
        if let Some(bias) = &mut self.bias {
            file.param(site.key("bias"), bias, Layout::AsIs);
        }
    }

    pub(crate) fn change(&self) -> Change {
        let values = |param: &Param<Tensor<1>>| param.lazy_shape().num_elements();
        Change {
            weight: values(&self.gain),
            bias: self.bias.as_ref().map_or(0, values),
            ..Change::default()
        }
    }
}
