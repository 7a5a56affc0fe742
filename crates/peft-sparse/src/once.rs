//! What happens once in a run.

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Int, Tensor};
use peft_core::{MemoKey, Pass};

/// Whether something has happened, in a checkpoint too.
#[derive(Module, Debug)]
pub(crate) struct Once {
    /// `[1]`: 0, and then 1.
    number: Param<Tensor<1, Int>>,
}

impl Once {
    /// Not yet.
    pub(crate) fn new(device: &Device) -> Self {
        Self { number: Param::initialized(ParamId::new(), Tensor::zeros([1], device)) }
    }

    pub(crate) fn has_happened(&self) -> bool {
        self.number.val().into_data().iter::<i64>().any(|number| number != 0)
    }

    /// The same, read from the device once a pass.
    pub(crate) fn has_happened_in(&self, pass: &Pass<'_>) -> bool {
        let key = MemoKey { of: self.number.id, name: "happened", site: None };
        pass.memo.get(key, || self.has_happened())
    }

    pub(crate) fn happens(&mut self) {
        let one = self.number.val().ones_like();
        self.number = Param::initialized(self.number.id, one);
    }
}
