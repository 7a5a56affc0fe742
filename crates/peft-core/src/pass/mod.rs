//! One forward pass.

mod draw;
mod groups;
mod memo;
mod probe;

use burn::tensor::{Device, Distribution, Tensor, TensorData};
use peft_kernels::Dropout;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::{Rows, Site, Slots};

pub(crate) use groups::Part;
pub use memo::{Memo, MemoKey};
pub use probe::{Observation, Probe};

/// What a pass is for. Dropout, random routes and everything else random depend on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// Nothing is random.
    #[default]
    Infer,
    /// An optimizer step. What is random is a function of both numbers.
    Train {
        /// The seed of the run.
        seed: u64,
        /// The number of the step.
        step: u64,
    },
}

impl Mode {
    /// Whether the pass is part of a training step.
    pub fn is_training(self) -> bool {
        matches!(self, Self::Train { .. })
    }
}

/// Everything that belongs to one forward pass; every hook is given it.
#[derive(Debug, Clone, Copy)]
pub struct Pass<'a> {
    /// Which tokens belong to which text.
    pub rows: &'a Rows,
    /// Which adapter each row is under.
    pub slots: &'a Slots,
    /// What the pass is for.
    pub mode: Mode,
    /// What is computed once.
    pub memo: &'a Memo,
    /// Where methods write what they decide, if somebody looks.
    pub probe: Option<&'a Probe>,
}

impl<'a> Pass<'a> {
    /// The same pass where tensors hold the tokens of other rows.
    pub fn over<'b>(self, rows: &'b Rows, slots: &'b Slots) -> Pass<'b>
    where
        'a: 'b,
    {
        Pass { rows, slots, ..self }
    }

    /// In training, sets each value to zero with probability `p` and divides the others by `1 - p`;
    /// otherwise nothing.
    pub fn dropout<const D: usize>(&self, x: Tensor<D>, p: f64) -> Tensor<D> {
        match self.next_dropout(p) {
            Some(dropout) => dropout.forward(x),
            None => x,
        }
    }

    /// In training, sets `x` of shape `[tokens, d]` to zero in all of a text with probability `p` and
    /// divides the others by `1 - p` (stochastic depth, Huang et al. 2016, arXiv 1603.09382);
    /// otherwise nothing.
    pub fn drop_texts(&self, x: Tensor<2>, p: f64) -> Tensor<2> {
        match self.next_dropout(p) {
            Some(dropout) => {
                let ones = Tensor::ones([self.rows.len(), 1], self.rows.device());
                x * self.rows.spread(dropout.forward(ones))
            }
            None => x,
        }
    }

    /// The next draw of dropout with probability `p`, in training, if it drops anything.
    pub fn next_dropout(&self, p: f64) -> Option<Dropout> {
        let draw = (p > 0.0).then(|| self.draw())??;
        Some(Dropout::new(p, draw))
    }

    /// The next draw of a number below `count`, in training; otherwise nothing is chosen.
    ///
    /// # Panics
    /// If `count` is zero.
    pub fn choose(&self, count: usize) -> Option<usize> {
        let draw = self.draw()?;
        Some((draw % count as u64) as usize)
    }

    /// The next draw, in training: a function of the run's seed, the step and the number of the draw.
    fn draw(&self) -> Option<u64> {
        match self.mode {
            Mode::Train { seed, step } => {
                Some(draw::mix(draw::mix(seed, step), self.memo.next_draw()))
            }
            Mode::Infer => None,
        }
    }

    /// In training, numbers that are uniform from 0 to 1, of this shape and on `device`; the same on every
    /// device. Otherwise none: nothing is random.
    pub fn uniform<const D: usize>(&self, shape: [usize; D], device: &Device) -> Option<Tensor<D>> {
        let Mode::Train { seed, step } = self.mode else { return None };
        let seed = draw::mix(draw::mix(seed, step), self.memo.next_draw());
        let mut random = StdRng::seed_from_u64(seed);
        let values = TensorData::random::<f32, _, _>(shape, Distribution::Default, &mut random);
        Some(Tensor::from_data(values, device))
    }

    /// Notes `values`, `[rows, n]`, that a method decided at a site, if somebody looks.
    pub fn record(&self, site: &Site, name: &str, values: impl FnOnce() -> Tensor<2>) {
        if let Some(probe) = self.probe {
            probe.record(site, name, values());
        }
    }
}

/// The parts of a pass over no tokens, in which a method can be asked what it does.
#[derive(Debug)]
pub struct EmptyPass {
    rows: Rows,
    slots: Slots,
    memo: Memo,
}

impl EmptyPass {
    /// A pass over no tokens; what it computes lies on `device`.
    pub fn new(device: &Device) -> Self {
        let (slots, memo) = (Slots::default(), Memo::new());
        Self { rows: Rows::new(Vec::new(), device), slots, memo }
    }

    /// The pass.
    pub fn pass(&self) -> Pass<'_> {
        let Self { rows, slots, memo } = self;
        Pass { rows, slots, mode: Mode::Infer, memo, probe: None }
    }
}
