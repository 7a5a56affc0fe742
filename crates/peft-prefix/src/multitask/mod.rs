//! Multitask prompt tuning: a prompt that several tasks share, and what each multiplies it with.

mod config;

pub use config::{MultitaskInit, MultitaskPromptConfig};

use burn::module::{Module, Param};
use burn::tensor::{Distribution, Tensor};
use peft_core::{
    Base, Exchange, Hooks, InitContext, Layout, Method, MethodConfig, Pass, Piece, Result, Role,
    Site, Stage, Tokens,
};

use crate::prompt::PromptTuning;

/// Multitask prompt tuning (Wang et al. 2023, arXiv 2303.02861): the prompt of task `t` is
///
/// ```text
/// P_t = P ⊙ (U_t V_t)      P: [L, d], of all tasks    U_t: [L, r]    V_t: [r, d]
/// ```
///
/// before the embeddings of the text, as in [`PromptTuning`]. Which task a row is of, the
/// [`Slots`](peft_core::Slots) of the pass say; where they say nothing, and in a pool of adapters, it is the
/// first. A row without a task has no prompt.
///
/// Created with [`MultitaskPromptConfig`].
#[derive(Module, Debug)]
pub struct MultitaskPrompt {
    /// `P`.
    shared: PromptTuning,
    /// All `U_t`, `[tasks, L, r]`; for an encoder and a decoder `[tasks, 2 L, r]`, as `P` is `[2 L, d]`.
    pub task_columns: Param<Tensor<3>>,
    /// All `V_t`, `[tasks, r, d]`.
    pub task_rows: Param<Tensor<3>>,
}

impl MultitaskPrompt {
    fn new(config: &MultitaskPromptConfig, context: &InitContext<'_>) -> Result<Self> {
        let shared = config.shared()?.init(context)?;
        let [length, d] = shared.shape();
        let (tasks, ranks) = (config.num_tasks, config.num_ranks);
        let small = |shape: [usize; 3]| {
            Param::from_tensor(context.random(shape, Distribution::Normal(0.0, 0.02)))
        };
        let (task_columns, task_rows) = (small([tasks, length, ranks]), small([tasks, ranks, d]));
        Ok(Self { shared, task_columns, task_rows })
    }

    /// The prompt of a task, `[L, d]`.
    ///
    /// # Panics
    /// If there is no such task.
    pub fn prompt(&self, task: usize) -> Tensor<2> {
        let shared = self.shared.prompt();
        let [length, _] = shared.dims();
        let of_task = |all: &Param<Tensor<3>>| all.val().narrow(0, task, 1).squeeze_dim::<2>(0);
        let columns = of_task(&self.task_columns).narrow(0, 0, length);
        shared * columns.matmul(of_task(&self.task_rows))
    }
}

impl Hooks for MultitaskPrompt {
    fn tokens(&self, stage: Stage, site: &Site, tokens: Tokens, pass: &Pass<'_>) -> Tokens {
        if stage != Stage::Embedded || site.role == Role::DecoderEmbeddings {
            return tokens;
        }
        let of_task = |tokens: Tokens, task: usize| {
            tokens.assembled(&[Piece::Virtual(self.prompt(task)), Piece::Text])
        };
        if pass.slots.as_slice().is_empty() {
            return of_task(tokens, 0);
        }
        tokens.by_slot(pass, |task, own, _| match task {
            Some(task) => of_task(own, task),
            None => own,
        })
    }
}

impl Method for MultitaskPrompt {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        self.shared.exchange(file, base);
        file.param("prefix_task_cols", &mut self.task_columns, Layout::AsIs);
        file.param("prefix_task_rows", &mut self.task_rows, Layout::AsIs);
    }

    fn merge_obstacle(&self) -> Option<String> {
        self.shared.merge_obstacle()
    }

    fn virtual_tokens(&self) -> usize {
        self.shared.virtual_tokens()
    }
}
