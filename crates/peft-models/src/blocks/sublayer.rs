//! A sublayer with its residual connection.

use std::sync::Arc;

use burn::tensor::Tensor;
use peft_core::{Insert, Role, Site, SiteKind, SublayerEnd};

use super::{Attention, AttentionSpec, Context, FeedForward, FeedForwardSpec};
use super::{FrozenNorm, NormForm};
use crate::Result;
use crate::body::tokens_at;
use crate::checkpoint::Loader;
use crate::forward::Run;

/// A function with its residual connection: `norm(x + f(x))`, or `x + f(norm(x))` where the norm
/// comes first.
#[derive(Debug, Clone)]
pub struct Sublayer {
    site: Arc<Site>,
    function: Function,
    norm: FrozenNorm,
    norm_first: bool,
    dropout: f64,
}

#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)]
enum Function {
    Attention(Attention),
    FeedForward(FeedForward),
}

/// What the function of a [`Sublayer`] is made of.
#[derive(Debug, Clone, Copy)]
pub enum FunctionSpec<'a> {
    /// An attention.
    Attention(AttentionSpec<'a>),
    /// A feed-forward network.
    FeedForward(FeedForwardSpec<'a>),
}

/// Where the residual connection of a [`Sublayer`] is.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The path of the module around it; where there is none, of the module that
    /// adapter-hub/adapters puts there.
    pub path: &'a str,
    /// The path of its norm.
    pub norm: &'a str,
}

/// What the sublayers of a model have in common.
#[derive(Debug, Clone, Copy)]
pub struct SublayerStyle {
    /// The hidden size.
    pub d: usize,
    /// What norms are.
    pub norm: NormForm,
    /// Whether the norm comes first.
    pub norm_first: bool,
    /// Dropout on what the function returns.
    pub dropout: f64,
}

impl Sublayer {
    /// Takes norm and function, in the order in which they run.
    pub fn load(
        loader: &mut Loader<'_>,
        layer: usize,
        style: &SublayerStyle,
        place: Place<'_>,
        spec: &FunctionSpec<'_>,
    ) -> Result<Self> {
        let [role, norm_role] = match spec {
            FunctionSpec::FeedForward(_) => [Role::FeedForwardSublayer, Role::FeedForwardNorm],
            FunctionSpec::Attention(AttentionSpec { role: Role::CrossAttention, .. }) => {
                [Role::CrossAttentionSublayer, Role::CrossAttentionNorm]
            }
            FunctionSpec::Attention(_) => [Role::AttentionSublayer, Role::AttentionNorm],
        };
        let &SublayerStyle { d, norm: form, norm_first, dropout } = style;
        let norm = |loader: &mut Loader<'_>| {
            FrozenNorm::load(loader, place.norm, norm_role, Some(layer), d, form)
        };
        let before = norm_first.then(|| norm(loader)).transpose()?;
        let function = match spec {
            FunctionSpec::Attention(spec) => {
                Function::Attention(Attention::load(loader, Some(layer), spec)?)
            }
            FunctionSpec::FeedForward(spec) => {
                Function::FeedForward(FeedForward::load(loader, Some(layer), spec)?)
            }
        };
        let norm = before.map_or_else(|| norm(loader), Ok)?;
        let site = loader.base().place(place.path, SiteKind::Sublayer, role, Some(layer), d);
        Ok(Self { site, function, norm, norm_first, dropout })
    }

    /// Where it ends: the last of its sites.
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// The same with attention heads that are narrower by a factor, for a network beside it.
    pub fn narrowed(&self, reduction: usize, is_rotary: bool) -> Self {
        let function = match &self.function {
            Function::Attention(attention) => {
                Function::Attention(attention.narrowed(reduction, is_rotary))
            }
            Function::FeedForward(network) => Function::FeedForward(network.clone()),
        };
        Self { function, ..self.clone() }
    }

    /// `[tokens, d]` to the same.
    pub fn forward(&self, hidden: Tensor<2>, context: &Context<'_>, run: Run<'_>) -> Tensor<2> {
        self.end(hidden, context, false, run, |end, insert| {
            insert.leave(&self.site, end.normalized(&run.pass), &run.pass)
        })
    }

    /// The same before the norm that comes last, if it does; `is_unread` is whether only gradients
    /// are wanted, and the output may be any numbers.
    pub fn summed(
        &self,
        hidden: Tensor<2>,
        context: &Context<'_>,
        is_unread: bool,
        run: Run<'_>,
    ) -> Tensor<2> {
        self.end(hidden, context, is_unread, run, |end, _| end.summed())
    }

    /// What leaves the sublayer, of what is [summed](Self::summed): under the norm that comes last, if
    /// it does.
    pub fn leaving(&self, sum: Tensor<2>, run: Run<'_>) -> Tensor<2> {
        let states = if self.norm_first { sum } else { self.norm.forward(sum, run) };
        let insert = run.hooks.sublayer(&self.site, &run.pass);
        insert.leave(&self.site, states, &run.pass)
    }

    /// Of one token of each text, with `of_read` a run over these alone.
    pub fn at(
        &self,
        hidden: Tensor<2>,
        read: &[usize],
        context: &Context<'_>,
        [run, of_read]: [Run<'_>; 2],
    ) -> Tensor<2> {
        let Function::Attention(attention) = &self.function else {
            return self.forward(tokens_at(hidden, read), context, of_read);
        };
        let all = self.input(&hidden, run);
        let Some(reading) = attention.reading(&all, read, context, run) else {
            return tokens_at(self.forward(hidden, context, run), read);
        };
        let hidden = tokens_at(hidden, read);
        let input = match self.norm_first {
            true => tokens_at(all.clone(), read),
            false => hidden.clone(),
        };
        let insert = of_read.hooks.sublayer(&self.site, &of_read.pass);
        let output = reading.forward(all, input.clone(), [run, of_read]);
        self.ended([input, output, hidden], insert, of_read, |end, insert| {
            insert.leave(&self.site, end.normalized(&of_read.pass), &of_read.pass)
        })
    }

    /// What its function is given.
    fn input(&self, hidden: &Tensor<2>, run: Run<'_>) -> Tensor<2> {
        match self.norm_first {
            true => self.norm.forward(hidden.clone(), run),
            false => hidden.clone(),
        }
    }

    fn end(
        &self,
        hidden: Tensor<2>,
        context: &Context<'_>,
        is_unread: bool,
        run: Run<'_>,
        finish: impl FnOnce(&SublayerEnd<'_>, &Insert<'_>) -> Tensor<2>,
    ) -> Tensor<2> {
        let insert = run.hooks.sublayer(&self.site, &run.pass);
        let input = self.input(&hidden, run);
        let is_unread = is_unread && insert.is_none();
        let output = match &self.function {
            Function::Attention(attention) => {
                attention.forward(input.clone(), context, is_unread, run)
            }
            Function::FeedForward(network) => network.forward(input.clone(), is_unread, run),
        };
        self.ended([input, output, hidden], insert, run, finish)
    }

    /// What comes after the function, of its input, its output and the states.
    fn ended(
        &self,
        [input, output, hidden]: [Tensor<2>; 3],
        insert: Insert<'_>,
        run: Run<'_>,
        finish: impl FnOnce(&SublayerEnd<'_>, &Insert<'_>) -> Tensor<2>,
    ) -> Tensor<2> {
        let dropout = run.pass.next_dropout(self.dropout);
        let norm = (!self.norm_first).then(|| self.norm.layer());
        let end = |output| {
            SublayerEnd::new(&self.site, norm.as_ref(), run.hooks, [input, output, hidden])
        };
        match insert {
            Insert::None => finish(&end(output).dropped(dropout), &Insert::None),
            insert => {
                let output = match dropout {
                    Some(dropout) => dropout.forward(output),
                    None => output,
                };
                let end = end(output);
                finish(&end.with_output(insert.forward(&end, &run.pass)), &insert)
            }
        }
    }
}
