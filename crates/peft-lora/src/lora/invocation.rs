//! Activated LoRA: factors that act from the last invocation of a text on.

use std::sync::Arc;

use burn::tensor::{IndexingUpdateOp, Int, Tensor, module::linear};
use peft_core::{OutputMap, Pass};

/// `y + s ((x A) B + c)` for the tokens from the last occurrence of the invocation on, and `y` for those
/// before it and for texts without one.
#[derive(Debug)]
pub(super) struct Invoked {
    pub(super) a: Tensor<2>,
    pub(super) b: Tensor<2>,
    pub(super) bias: Option<Tensor<1>>,
    pub(super) scale: f64,
    pub(super) dropout: f64,
    /// The invocation, as indices of words.
    pub(super) tokens: Arc<[usize]>,
}

impl Invoked {
    /// The tokens of `[tokens, d]` that are changed.
    fn changed(&self, pass: &Pass<'_>) -> Vec<usize> {
        let mut changed = Vec::new();
        for (number, row) in pass.rows.iter().enumerate() {
            let Some(from) = row.words.last(&self.tokens) else { continue };
            let has = row.has_text_from(from).into_iter().enumerate();
            let start = pass.rows.start(number);
            changed.extend(has.filter(|(_, has)| *has).map(|(place, _)| start + place));
        }
        changed
    }

    fn delta(&self, x: Tensor<2>, pass: &Pass<'_>) -> Tensor<2> {
        let inner = linear(pass.dropout(x, self.dropout), self.a.clone(), None) * self.scale;
        linear(inner, self.b.clone(), self.bias.clone().map(|bias| bias * self.scale))
    }
}

impl OutputMap for Invoked {
    fn forward(&self, x: &Tensor<2>, y: Tensor<2>, pass: &Pass<'_>) -> Tensor<2> {
        let changed = self.changed(pass);
        let tokens = pass.rows.tokens();
        if changed.len() == tokens {
            return y + self.delta(x.clone(), pass);
        }
        if changed.is_empty() {
            // Texts without an invocation have a gradient too, of zero.
            return match self.a.is_tracked() && tokens > 0 {
                true => y + self.delta(x.clone().narrow(0, 0, 1), pass) * 0.0,
                false => y,
            };
        }
        let changed: Vec<i64> = changed.into_iter().map(|token| token as i64).collect();
        let changed = Tensor::<1, Int>::from_data(&changed[..], pass.rows.device());
        let delta = self.delta(x.clone().select(0, changed.clone()), pass);
        y.select_assign(0, changed, delta, IndexingUpdateOp::Add)
    }

    fn obstacle(&self) -> &'static str {
        "it acts on the tokens from its invocation on, and leaves those before it"
    }
}
