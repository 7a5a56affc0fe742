//! Changes of whole weights of which a part is kept.

use burn::module::{Module, Param};
use burn::tensor::{Bool, Device, Tensor, TensorData};
use peft_core::{Entries, Site};

use crate::SelectedEntries;
use crate::selection::{highest, in_order};

/// A change of a whole weight, of which some entries count: `D ⊙ M`.
#[derive(Module, Debug)]
pub struct MaskedDelta {
    /// `D`, `[d_in, d_out]`.
    pub delta: Param<Tensor<2>>,
    /// `M`, `[d_in, d_out]`: which entries are kept.
    pub kept: Param<Tensor<2, Bool>>,
}

impl MaskedDelta {
    /// Zeros, all of them kept.
    pub(crate) fn zeros(site: &Site, device: &Device) -> Self {
        let delta = Param::from_tensor(Tensor::zeros(site.shape, device));
        let kept = vec![true; site.d_in() * site.d_out()];
        let kept = Tensor::<2, Bool>::from_data(TensorData::new(kept, site.shape), device);
        Self { delta, kept: Param::initialized(burn::module::ParamId::new(), kept) }
    }

    /// `change ⊙ M`.
    pub(crate) fn masked(&self, change: Tensor<2>) -> Tensor<2> {
        change.mask_fill(self.kept.val().bool_not(), 0.0)
    }

    /// `D ⊙ M` without gradients.
    pub(crate) fn values(&self) -> Tensor<2> {
        plain(self.masked(self.delta.val()))
    }

    /// The scores of what is kept, and less than all of them elsewhere.
    pub(crate) fn scores(&self, scores: Tensor<2>) -> Vec<f32> {
        let kept = in_order(self.kept.val().float());
        let of = |(score, kept): (f32, f32)| if kept > 0.0 { score } else { f32::NEG_INFINITY };
        in_order(scores).into_iter().zip(kept).map(of).collect()
    }

    /// Keeps these entries of the weight `[d_out, d_in]`, and no others.
    pub(crate) fn keep(&mut self, places: &[i64]) {
        let ([d_in, d_out], device) = (self.delta.val().dims(), self.kept.val().device());
        let mut kept = vec![false; d_in * d_out];
        for place in places.iter().map(|place| *place as usize) {
            kept[place % d_in * d_out + place / d_in] = true;
        }
        let kept = Tensor::from_data(TensorData::new(kept, [d_in, d_out]), &device);
        self.kept = Param::initialized(self.kept.id, kept);
    }

    /// With other values for `D`.
    pub(crate) fn set(&mut self, values: Tensor<2>) {
        let set = |old: Tensor<2>| {
            let is_recorded = old.device().is_autodiff();
            let values = if is_recorded { Tensor::from_inner(values) } else { values };
            values.set_require_grad(is_recorded)
        };
        self.delta = self.delta.clone().map(set);
    }

    /// Begins again at zero, as another parameter: what an optimizer knows of this one, its moments, is
    /// not gone on with.
    pub(crate) fn rewind(&mut self) {
        let value = self.delta.val();
        self.delta = Param::from_tensor(Tensor::zeros(value.dims(), &value.device()));
    }
}

/// The same without a tape.
pub(crate) fn plain(tensor: Tensor<2>) -> Tensor<2> {
    if tensor.device().is_autodiff() { tensor.inner() } else { tensor }
}

/// The `count` entries with the highest scores, as a method of their own, with the values that they have
/// in the changes; by [`Site::index`].
pub(crate) fn entries(
    changes: Vec<Option<(Tensor<2>, Vec<f32>)>>,
    count: usize,
    device: &Device,
) -> SelectedEntries {
    let mut numbers = vec![None; changes.len()];
    let indices = (0..changes.len()).filter(|index| changes[*index].is_some());
    indices.enumerate().for_each(|(number, index)| numbers[index] = Some(number));
    let (values, scores): (Vec<_>, Vec<_>) = changes.into_iter().flatten().unzip();
    let of = |(values, places): (Tensor<2>, Vec<i64>)| {
        let values = in_order(values);
        Entries { values: places.iter().map(|place| values[*place as usize]).collect(), places }
    };
    let chosen: Vec<Entries> = values.into_iter().zip(highest(&scores, count)).map(of).collect();
    SelectedEntries::new(numbers, &chosen, device)
}
