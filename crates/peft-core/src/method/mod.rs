//! The method trait: what a method is beside its hooks.

mod any;
mod boxed;
mod config;
mod merge;
mod size;

pub use any::{AnyConfig, configure, field_names};
pub use boxed::BoxedMethod;
pub use config::{ComputationFunction, MethodCard, MethodConfig};
pub use merge::{change_at, merge_obstacle};
pub use size::Size;

use burn::optim::GradientsParams;
use burn::tensor::Tensor;

use crate::hooks::open_and_closed;
use crate::{Base, Exchange, Hooks, LossContext, Result, StepContext};

open_and_closed! {
    /// A parameter-efficient fine-tuning method over one base model.
    ///
    /// It is a Burn [`Module`](burn::module::Module) that holds everything it trains (optimizers,
    /// records and devices traverse it as any other), with [`Hooks`] that say what it does. It never
    /// holds a trained copy of what it does not train.
    ///
    /// All of its state is in [`Param`](burn::module::Param)s, of whole numbers too: a checkpoint
    /// keeps the parameters and nothing else, and a run that is resumed from it does the same steps
    /// again.
    ///
    /// # Life cycle
    ///
    /// [`MethodConfig::init`] → for each step: forward, [`loss`](Self::loss) added to that of the
    /// task, [`precondition`](Self::precondition), optimizer, [`after_step`](Self::after_step) →
    /// [`finish`](Self::finish).
    trait Method: Hooks;
    /// [`Method`] without defaults, for composites and boxes.
    trait AllMethod;
    use self;

    /// Names each of the method's tensors with its key in the adapter file. The same call writes the
    /// file, reads it, and lists what it should hold; see [`Exchange`].
    fn exchange[&mut self](file: &mut Exchange<'_>, base: &Base) {}

    /// Why the method cannot be merged into the base's weights, beside what its edits of linear
    /// layers say: it acts on more than weights and biases. `None` where it can.
    fn merge_obstacle[&self]() -> Option<String> {
        None
    }

    /// A term `[1]` added to the training loss.
    ///
    /// # Errors
    /// If a second pass fails.
    fn loss[&self](context: &LossContext<'_>) -> Result<Option<Tensor<1>>> {
        Ok(None)
    }

    /// Changes the gradients of a step, after clipping and before the optimizer is given them.
    fn precondition[&mut self](gradients: &mut GradientsParams) {}

    /// Called after each optimizer step.
    fn after_step[&mut self](context: &StepContext<'_>) {}

    /// Takes adapters that are below it into itself, and gives back those that it leaves below, in a
    /// stack: a fusion takes all of them, most methods none. What a method does only where it is the
    /// first of a stack, it does no more when there is something below.
    fn adopt[&mut self](below: Vec<BoxedMethod>) -> Vec<BoxedMethod> {
        below
    }

    /// Called once, after the last step; during training, on a copy of the best method so far.
    fn finish[&mut self]() {}

    /// Positions that the method puts before every text; the model's own limit is on the sum.
    fn virtual_tokens[&self]() -> usize {
        0
    }

    /// Factors on the learning rate: a list of (regular expression for the end of a parameter's
    /// path, whole components; factor). Empty for one rate.
    fn lr_factors[&self]() -> Vec<(String, f64)> {
        Vec::new()
    }
}
