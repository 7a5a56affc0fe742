//! Functions at the end of a sublayer.

use std::cell::OnceCell;
use std::fmt::Debug;

use burn::tensor::Tensor;
use peft_kernels::{Dropout, sum};

use crate::edit::{Answer, Gate, stack};
use crate::pass::Part;
use crate::{Hooks, MemoKey, NormLayer, Pass, Route, Site};

/// The end of a sublayer: `norm(residual + output)`, or `residual + output` in a model that
/// normalises before the sublayer. Its states are each `[tokens, d]`.
#[derive(Debug)]
pub struct SublayerEnd<'a> {
    place: Place<'a>,
    /// What the sublayer (attention or feed-forward) was given.
    pub input: Tensor<2>,
    /// What it returned, under the functions below.
    pub output: Tensor<2>,
    /// What is added to that.
    pub residual: Tensor<2>,
    /// What drops numbers of the output as it is added.
    dropout: Option<Dropout>,
    normalized: OnceCell<Tensor<2>>,
}

/// Where a sublayer ends: its site, its norm, and the method of the whole model, under which the
/// norm is.
#[derive(Clone, Copy)]
struct Place<'a> {
    site: &'a Site,
    norm: Option<&'a NormLayer<'a>>,
    hooks: &'a dyn Hooks,
}

impl Debug for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.site.fmt(f)
    }
}

impl<'a> SublayerEnd<'a> {
    /// The end of the sublayer at `site`, with its `norm`, where that comes last, under the method
    /// of the whole model. States are `[input, output, residual]`.
    pub fn new(
        site: &'a Site,
        norm: Option<&'a NormLayer<'a>>,
        hooks: &'a dyn Hooks,
        [input, output, residual]: [Tensor<2>; 3],
    ) -> Self {
        let place = Place { site, norm, hooks };
        Self { place, input, output, residual, dropout: None, normalized: OnceCell::new() }
    }

    /// The same end where no function sees the output, which is dropped as it is added.
    pub fn dropped(self, dropout: Option<Dropout>) -> Self {
        Self { dropout, ..self }
    }

    /// Where it is.
    pub fn site(&self) -> &'a Site {
        self.place.site
    }

    /// The sum of residual and output, before the norm.
    pub fn summed(&self) -> Tensor<2> {
        sum(self.residual.clone(), self.output.clone(), self.dropout)
    }

    /// The sum of residual and output, under the norm where there is one; computed once.
    pub fn normalized(&self, pass: &Pass<'_>) -> Tensor<2> {
        let normalize = || match self.place.norm {
            Some(norm) => {
                let states = [self.residual.clone(), self.output.clone()];
                let edit = self.place.hooks.norm(norm.site(), pass);
                norm.of_sum(&edit, states, self.dropout, pass)
            }
            None => self.summed(),
        };
        self.normalized.get_or_init(normalize).clone()
    }

    /// The same with another output.
    pub fn with_output(&self, output: Tensor<2>) -> Self {
        let (input, residual) = (self.input.clone(), self.residual.clone());
        let (place, dropout) = (self.place, self.dropout);
        Self { place, input, output, residual, dropout, normalized: OnceCell::new() }
    }

    /// The states of some tokens.
    fn of_part(&self, part: Part<'_>) -> Self {
        Self {
            place: self.place,
            input: part.take(&self.input),
            output: part.take(&self.output),
            residual: part.take(&self.residual),
            dropout: self.dropout,
            normalized: OnceCell::new(),
        }
    }
}

/// A function at the end of a sublayer.
pub trait SublayerFunction: Debug {
    /// What the function adds, `[tokens, d]`: what a gate beside it multiplies, and what a fusion
    /// attends over.
    fn update(&self, end: &SublayerEnd<'_>, pass: &Pass<'_>) -> Tensor<2>;

    /// What that is added to, `[tokens, d]`. The sublayer's output, unless it says otherwise.
    fn residual(&self, end: &SublayerEnd<'_>, _pass: &Pass<'_>) -> Tensor<2> {
        end.output.clone()
    }

    /// The output, `[tokens, d]`, in the place of `end.output`, with an update. Its sum with the
    /// residual, unless it says otherwise.
    fn join(&self, update: Tensor<2>, end: &SublayerEnd<'_>, pass: &Pass<'_>) -> Tensor<2> {
        self.residual(end, pass) + update
    }

    /// What the function reads, `[tokens, d]`: the input of a gate or of a fusion's query beside it.
    /// The normalised sum, unless it says otherwise.
    fn reads(&self, end: &SublayerEnd<'_>, pass: &Pass<'_>) -> Tensor<2> {
        end.normalized(pass)
    }
}

/// A function of the states that leave a sublayer, behind its norm where that comes last.
pub trait Intervention: Debug {
    /// The states `[tokens, d]` in their place.
    fn forward(&self, states: Tensor<2>, pass: &Pass<'_>) -> Tensor<2>;
}

/// What a method does at the end of a sublayer.
#[derive(Debug, Default)]
#[expect(clippy::large_enum_variant, reason = "one is made for each site and is soon gone")]
pub enum Insert<'a> {
    /// Nothing.
    #[default]
    None,
    /// A function of the sublayer's output.
    Function(Box<dyn SublayerFunction + 'a>),
    /// A function of the states that leave the sublayer.
    Behind(Box<dyn Intervention + 'a>),
    /// One after another.
    Stack(Vec<Insert<'a>>),
    /// `Σ wₙ outputₙ`.
    Mean(Vec<(f64, Insert<'a>)>),
    /// With `g` times the update; the gate reads what the function reads.
    Gated(Gate, Box<Insert<'a>>),
    /// Each for the tokens that a route sends there.
    Routed(Route, Vec<Insert<'a>>),
}

impl<'a> Insert<'a> {
    /// A function.
    pub fn of(function: impl SublayerFunction + 'a) -> Self {
        Self::Function(Box::new(function))
    }

    /// A function of the states that leave the sublayer.
    pub fn behind(function: impl Intervention + 'a) -> Self {
        Self::Behind(Box::new(function))
    }

    /// Whether nothing happens.
    pub fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// The sublayer's output under this, `[tokens, d]`.
    pub fn forward(&self, end: &SublayerEnd<'_>, pass: &Pass<'_>) -> Tensor<2> {
        match self {
            Self::None | Self::Behind(_) => end.output.clone(),
            Self::Function(function) => function.join(function.update(end, pass), end, pass),
            Self::Stack(parts) => match &parts[..] {
                [] => end.output.clone(),
                [first, rest @ ..] => {
                    rest.iter()
                        .fold(end.with_output(first.forward(end, pass)), |end, part| {
                            end.with_output(part.forward(&end, pass))
                        })
                        .output
                }
            },
            Self::Mean(members) => {
                let terms = members.iter().map(|(w, part)| part.forward(end, pass) * *w);
                terms.reduce(|sum, term| sum + term).expect("a mean has members")
            }
            Self::Gated(_, part) => part.join(self.update(end, pass), end, pass),
            Self::Routed(route, members) => pass.routed(route, |slot, part, sub| {
                let end = end.of_part(part);
                slot.map_or(&Self::None, |slot| &members[slot]).forward(&end, sub)
            }),
        }
    }

    /// Whether some of it is under a gate.
    pub(crate) fn is_gated(&self) -> bool {
        match self {
            Self::None | Self::Function(_) | Self::Behind(_) => false,
            Self::Gated(..) => true,
            Self::Stack(parts) | Self::Routed(_, parts) => parts.iter().any(Self::is_gated),
            Self::Mean(members) => members.iter().any(|(_, part)| part.is_gated()),
        }
    }

    /// Whether the states that leave the sublayer change, beside its output.
    pub fn is_behind(&self) -> bool {
        match self {
            Self::None | Self::Function(_) => false,
            Self::Behind(_) => true,
            Self::Stack(parts) | Self::Routed(_, parts) => parts.iter().any(Self::is_behind),
            Self::Mean(members) => members.iter().any(|(_, part)| part.is_behind()),
            Self::Gated(_, part) => part.is_behind(),
        }
    }

    /// The states `[tokens, d]` that leave the sublayer at `site`, under this. A gate multiplies how they
    /// change, and reads them.
    pub fn leave(&self, site: &Site, states: Tensor<2>, pass: &Pass<'_>) -> Tensor<2> {
        match self {
            _ if !self.is_behind() => states,
            Self::None | Self::Function(_) => states,
            Self::Behind(function) => function.forward(states, pass),
            Self::Stack(parts) => {
                parts.iter().fold(states, |states, part| part.leave(site, states, pass))
            }
            Self::Mean(members) => {
                let change = members.iter().map(|(weight, part)| {
                    (part.leave(site, states.clone(), pass) - states.clone()) * *weight
                });
                change.fold(states.clone(), |sum, term| sum + term)
            }
            Self::Gated(gate, part) => {
                let gate = gate.of_tokens(site, states.clone(), pass);
                let change = part.leave(site, states.clone(), pass) - states.clone();
                states + change * gate
            }
            Self::Routed(route, members) => pass.routed(route, |slot, part, sub| {
                let states = part.take(&states);
                slot.map_or(&Self::None, |slot| &members[slot]).leave(site, states, sub)
            }),
        }
    }

    /// What it adds, `[tokens, d]`: the [update](SublayerFunction::update) of a function; where there
    /// are several, how the output changes.
    pub fn update(&self, end: &SublayerEnd<'_>, pass: &Pass<'_>) -> Tensor<2> {
        match self {
            Self::Function(function) => function.update(end, pass),
            Self::Gated(gate, part) => {
                let gate = gate.of_tokens(end.site(), part.reads(end, pass), pass);
                part.update(end, pass) * gate
            }
            _ => self.forward(end, pass) - end.output.clone(),
        }
    }

    /// What that is added to, `[tokens, d]`: the [residual](SublayerFunction::residual) of a
    /// function; where there are several, the output.
    pub fn residual(&self, end: &SublayerEnd<'_>, pass: &Pass<'_>) -> Tensor<2> {
        match self {
            Self::Function(function) => function.residual(end, pass),
            Self::Gated(_, part) => part.residual(end, pass),
            _ => end.output.clone(),
        }
    }

    /// The same without a gate.
    pub fn ungated(&self) -> &Self {
        match self {
            Self::Gated(_, part) => part.ungated(),
            other => other,
        }
    }

    /// The output with another update.
    fn join(&self, update: Tensor<2>, end: &SublayerEnd<'_>, pass: &Pass<'_>) -> Tensor<2> {
        match self {
            Self::Function(function) => function.join(update, end, pass),
            Self::Gated(_, part) => part.join(update, end, pass),
            _ => end.output.clone() + update,
        }
    }

    /// What it reads, `[tokens, d]`.
    pub fn reads(&self, end: &SublayerEnd<'_>, pass: &Pass<'_>) -> Tensor<2> {
        match self {
            Self::None | Self::Behind(_) => end.normalized(pass),
            Self::Function(function) => function.reads(end, pass),
            Self::Stack(parts) => match &parts[..] {
                [] => end.normalized(pass),
                [only] => only.reads(end, pass),
                [first, rest @ .., last] => {
                    let below =
                        rest.iter().fold(end.with_output(first.forward(end, pass)), |end, part| {
                            end.with_output(part.forward(&end, pass))
                        });
                    last.reads(&below, pass)
                }
            },
            Self::Mean(members) => {
                let terms = members.iter().map(|(w, part)| part.reads(end, pass) * *w);
                terms.reduce(|sum, term| sum + term).expect("a mean has members")
            }
            Self::Gated(_, part) => part.reads(end, pass),
            Self::Routed(route, members) => pass.routed(route, |slot, part, sub| {
                let end = end.of_part(part);
                slot.map_or(&Self::None, |slot| &members[slot]).reads(&end, sub)
            }),
        }
    }
}

impl Answer for Insert<'_> {
    fn nothing() -> Self {
        Self::None
    }

    fn stacked(members: Vec<Self>) -> Self {
        stack(members, Self::is_none, Self::Stack)
    }

    fn averaged(members: Vec<(f64, Self)>) -> Self {
        match members.iter().all(|(_, part)| part.is_none()) {
            true => Self::None,
            false => Self::Mean(members),
        }
    }

    fn gated(self, gates: Vec<Gate>) -> Self {
        match (self, gates.into_iter().next()) {
            (Self::None, _) | (_, None) => Self::None,
            (part, Some(gate)) => Self::Gated(gate, Box::new(part)),
        }
    }

    fn routed(members: Vec<Self>, route: &Route, _key: MemoKey) -> Self {
        match members.iter().all(Self::is_none) {
            true => Self::None,
            false => Self::Routed(route.clone(), members),
        }
    }
}
