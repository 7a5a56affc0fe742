//! Keys and values that a method adds to those of a text.

use burn::tensor::Tensor;

use crate::edit::{Answer, Gate, stack};
use crate::pass::Part;
use crate::{MemoKey, Pass, Route, Site};

/// Learned keys and values of an attention, seen by every token: before those of the text, or beside them.
#[derive(Debug, Clone, Default)]
pub enum ExtraKeys {
    /// None.
    #[default]
    None,
    /// The same for every row, but for gates and dropout.
    Some(KeyValues),
    /// Beside those of the text, with weights of their own.
    Beside(Beside),
    /// One after another, the first nearest to the text.
    Stack(Vec<ExtraKeys>),
    /// By slot.
    Routed(Vec<ExtraKeys>),
}

/// Keys and values, each `[added, d_key]`, where `d_key` is the width of all heads.
#[derive(Debug, Clone)]
pub struct KeyValues {
    /// The keys.
    pub key: Tensor<2>,
    /// The values.
    pub value: Tensor<2>,
    /// Dropout on both, for each row and head on its own.
    pub dropout: f64,
    /// Gates on what the attention is given: one by which both are multiplied, or one for the keys
    /// and another for the values.
    pub gates: Vec<Gate>,
}

/// A prompt that an attention reads beside the text, with weights of their own, and what it adds to what is
/// read: `g softmax(s Q K_Pᵀ) V_P`, where `K_P` and `V_P` are the layer's own projections of the prompt,
/// without positions.
#[derive(Debug, Clone)]
pub struct Beside {
    /// `P`, `[added, d]`.
    pub prompt: Tensor<2>,
    /// `g`, `[1]`.
    pub gate: Tensor<1>,
    /// Under which its keys and values are kept.
    pub key: MemoKey,
}

/// Keys and values for each row, `[rows, heads, added, d_head]`; those of a row stand at the end.
#[derive(Debug, Clone)]
pub struct RowKeys {
    /// The keys.
    pub key: Tensor<4>,
    /// The values.
    pub value: Tensor<4>,
    /// How many of `added` each row has.
    pub counts: Vec<usize>,
}

impl ExtraKeys {
    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// Whether some of them are under a gate.
    pub(crate) fn is_gated(&self) -> bool {
        match self {
            Self::None | Self::Beside(_) => false,
            Self::Some(states) => !states.gates.is_empty(),
            Self::Stack(parts) | Self::Routed(parts) => parts.iter().any(Self::is_gated),
        }
    }

    /// Whether some of them are beside the text's.
    pub fn has_beside(&self) -> bool {
        match self {
            Self::None | Self::Some(_) => false,
            Self::Beside(_) => true,
            Self::Stack(parts) | Self::Routed(parts) => parts.iter().any(Self::has_beside),
        }
    }

    /// What is read beside the text by `query`, `[tokens, n]`: the sum over all prompts, of each of which
    /// `read` makes `[tokens, n]`; `None` where there is none. Keys before the text are no part of it.
    pub fn beside(
        &self,
        query: &Tensor<2>,
        pass: &Pass<'_>,
        read: &dyn Fn(&Beside, Tensor<2>, &Pass<'_>) -> Tensor<2>,
    ) -> Option<Tensor<2>> {
        match self {
            Self::None | Self::Some(_) => None,
            // Its projections are under the adapter of the rows that read it, which may be of several.
            Self::Beside(beside) if pass.slots.are_several() => {
                let of_slot =
                    |_, part: Part<'_>, sub: &Pass<'_>| read(beside, part.take(query), sub);
                Some(pass.routed(&Route::Rows, of_slot))
            }
            Self::Beside(beside) => Some(read(beside, query.clone(), pass)),
            Self::Stack(parts) => {
                let parts = parts.iter().filter_map(|part| part.beside(query, pass, read));
                parts.reduce(|sum, part| sum + part)
            }
            Self::Routed(members) => self.has_beside().then(|| {
                pass.routed(&Route::Rows, |slot, part, sub| {
                    let query = part.take(query);
                    let own = slot.and_then(|slot| members[slot].beside(&query, sub, read));
                    own.unwrap_or_else(|| query.zeros_like())
                })
            }),
        }
    }

    /// The keys and values of each row that stand before the text, for an attention that is given `hidden`, `[tokens, d]`, and
    /// has `heads` heads of keys.
    ///
    /// # Panics
    /// If `heads` does not divide their width.
    pub fn of_rows(
        &self,
        site: &Site,
        hidden: &Tensor<2>,
        heads: usize,
        pass: &Pass<'_>,
    ) -> Option<RowKeys> {
        match self {
            Self::None | Self::Beside(_) => None,
            Self::Some(states) => Some(states.of_rows(site, hidden, heads, pass)),
            Self::Stack(parts) => {
                let parts = parts.iter().filter_map(|p| p.of_rows(site, hidden, heads, pass));
                // The last one stands in front.
                parts.reduce(|inner, outer| inner.behind(outer))
            }
            Self::Routed(members) => {
                let groups = pass.slots.groups(pass.rows.len());
                let parts: Vec<(Vec<usize>, Option<RowKeys>)> = groups
                    .into_iter()
                    .map(|group| {
                        let rows = pass.rows.subset(&group.rows);
                        let slots = pass.slots.select(group.rows.iter().copied());
                        let hidden = pass.rows.take(hidden.clone(), &group.rows);
                        let keys = group.slot.and_then(|slot| {
                            members[slot].of_rows(site, &hidden, heads, &pass.over(&rows, &slots))
                        });
                        (group.rows, keys)
                    })
                    .collect();
                RowKeys::routed(parts)
            }
        }
    }
}

impl KeyValues {
    fn of_rows(&self, site: &Site, hidden: &Tensor<2>, heads: usize, pass: &Pass<'_>) -> RowKeys {
        let ([added, width], rows) = (self.key.dims(), pass.rows.len());
        let gates = self.gates.iter().map(|gate| gate.of_rows(site, hidden.clone(), pass));
        let gates: Vec<Tensor<2>> = gates.collect();
        let states = |states: &Tensor<2>, gate: Option<&Tensor<2>>| {
            let size = width / heads;
            let states = states.clone().reshape([1, added, heads, size]).swap_dims(1, 2);
            let states = pass.dropout(states.expand([rows, heads, added, size]), self.dropout);
            match gate {
                Some(gate) => states * gate.clone().reshape([rows, 1, 1, 1]),
                None => states,
            }
        };
        RowKeys {
            key: states(&self.key, gates.first()),
            value: states(&self.value, gates.last()),
            counts: vec![added; rows],
        }
    }
}

impl RowKeys {
    /// Those of a stack: `outer` stands before these.
    fn behind(self, outer: Self) -> Self {
        let even = |counts: &[usize]| counts.iter().all(|count| *count == counts[0]);
        assert!(even(&self.counts) && even(&outer.counts), "a stack is the same in every row");
        let counts = self.counts.iter().zip(&outer.counts).map(|(a, b)| a + b).collect();
        Self {
            key: Tensor::cat(vec![outer.key, self.key], 2),
            value: Tensor::cat(vec![outer.value, self.value], 2),
            counts,
        }
    }

    /// Those of groups of rows, in the order of the batch; fewer are filled up in front.
    fn routed(parts: Vec<(Vec<usize>, Option<Self>)>) -> Option<Self> {
        let some = parts.iter().find_map(|(_, keys)| keys.as_ref())?;
        let [_, heads, _, size] = some.key.dims();
        let device = some.key.device().without_autodiff();
        let longest = parts.iter().filter_map(|(_, keys)| Some(keys.as_ref()?.key.dims()[2]));
        let longest = longest.max().unwrap_or(0);
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        let batch = parts.iter().map(|(rows, _)| rows.len()).sum();
        let (mut counts, mut places, mut next) = (vec![0; batch], vec![0; batch], 0);
        for (rows, part) in parts {
            let zeros =
                |count: usize| Tensor::<4>::zeros([rows.len(), heads, count, size], &device);
            let (key, value, own) = match part {
                Some(Self { key, value, counts }) => {
                    let missing = longest - key.dims()[2];
                    match missing {
                        0 => (key, value, counts),
                        _ => {
                            let filled = |states| Tensor::cat(vec![zeros(missing), states], 2);
                            (filled(key), filled(value), counts)
                        }
                    }
                }
                None => (zeros(longest), zeros(longest), vec![0; rows.len()]),
            };
            keys.push(key);
            values.push(value);
            for (&row, count) in rows.iter().zip(own) {
                (counts[row], places[row], next) = (count, next, next + 1);
            }
        }
        let (key, value) = (Tensor::cat(keys, 0), Tensor::cat(values, 0));
        if places.is_sorted() {
            return Some(Self { key, value, counts });
        }
        let index = crate::rows::ints(places, &device);
        let (key, value) = (key.select(0, index.clone()), value.select(0, index));
        Some(Self { key, value, counts })
    }
}

impl Answer for ExtraKeys {
    fn nothing() -> Self {
        Self::None
    }

    fn stacked(members: Vec<Self>) -> Self {
        stack(members, Self::is_none, Self::Stack)
    }

    fn averaged(members: Vec<(f64, Self)>) -> Self {
        let lone = members.len() == 1;
        let mut members = members.into_iter().map(|(_, keys)| keys);
        match members.len() {
            _ if lone => members.next().unwrap_or_default(),
            _ => {
                assert!(members.all(|keys| keys.is_none()), "keys have no mean; refused before");
                Self::None
            }
        }
    }

    fn gated(self, gates: Vec<Gate>) -> Self {
        match self {
            Self::Some(states) => {
                assert!(states.gates.is_empty(), "gated once; refused before");
                Self::Some(KeyValues { gates, ..states })
            }
            Self::Beside(_) => panic!("a prompt with a gate of its own; refused before"),
            Self::None => Self::None,
            Self::Stack(parts) => {
                Self::Stack(parts.into_iter().map(|part| part.gated(gates.clone())).collect())
            }
            Self::Routed(members) => {
                Self::Routed(members.into_iter().map(|keys| keys.gated(gates.clone())).collect())
            }
        }
    }

    fn routed(members: Vec<Self>, route: &Route, _key: MemoKey) -> Self {
        if members.iter().all(Self::is_none) {
            return Self::None;
        }
        assert!(*route == Route::Rows, "every token of a row sees its keys; refused before");
        Self::Routed(members)
    }
}
