//! Which inputs and outputs of the frozen layers a side network begins with.

use burn::tensor::Tensor;
use peft_core::{AttentionHeads, Base, Role, Site};

use crate::stacks::{Stack, Sublayer};

/// What is kept at a site: inputs and outputs of a linear layer; of a norm, its outputs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kept {
    pub(crate) inputs: Vec<usize>,
    pub(crate) outputs: Vec<usize>,
}

/// How much each input and each output of a linear layer matters.
struct Scores {
    inputs: Vec<f32>,
    outputs: Vec<f32>,
}

/// Chooses what is kept at each site of the layers, by [`Site::index`].
///
/// The sum of absolute importances in its row or column says how much a feature matters. All layers of a
/// stack keep the same features of the states between them, those that matter most in all matrices that
/// read or write them: a residual connection adds feature to feature. Each head keeps as many of its
/// channels, the same in queries and keys, and in values and what reads them; under rotary positions
/// queries and keys keep pairs at equal steps, whose angles are those of the narrower head.
pub(crate) struct Pruning<'a> {
    stacks: &'a [Stack],
    reduction: usize,
    scores: Vec<Option<Scores>>,
}

impl<'a> Pruning<'a> {
    /// By the importance of each entry of a weight, `[d_in, d_out]`; without one, the first of all.
    pub(crate) fn new(
        base: &Base,
        stacks: &'a [Stack],
        reduction: usize,
        importance: Option<&dyn Fn(&Site) -> Tensor<2>>,
    ) -> Self {
        let mut scores: Vec<Option<Scores>> = (0..base.len()).map(|_| None).collect();
        for site in linears(stacks) {
            scores[site.index] = Some(match importance {
                Some(of) => Scores::of(of(site).abs()),
                None => Scores { inputs: vec![0.0; site.d_in()], outputs: vec![0.0; site.d_out()] },
            });
        }
        Self { stacks, reduction, scores }
    }

    /// By site.
    pub(crate) fn kept(&self) -> Vec<Kept> {
        let mut kept = vec![Kept::default(); self.scores.len()];
        let features: Vec<Vec<usize>> =
            (0..self.stacks.len()).map(|stack| self.features(stack)).collect();
        for (stack, own) in self.stacks.iter().zip(&features) {
            if let Some(norm) = &stack.norm {
                kept[norm.index].outputs = own.clone();
            }
            for sublayer in stack.layers.iter().flat_map(|layer| &layer.sublayers) {
                for norm in &sublayer.norms {
                    kept[norm.index].outputs = own.clone();
                }
                let inner = match sublayer.attention {
                    Some((_, heads)) => self.channels(sublayer, heads),
                    None => Inner::alike(self.units(sublayer)),
                };
                for site in &sublayer.linears {
                    let read = if reads_encoder(sublayer, site) { &features[0] } else { own };
                    kept[site.index] = match site.role {
                        Role::AttentionOutput | Role::FeedForwardDown => {
                            Kept { inputs: inner.read.clone(), outputs: own.clone() }
                        }
                        role => Kept { inputs: read.clone(), outputs: inner.of(role) },
                    };
                }
            }
        }
        kept
    }

    /// The features of the states between layers that a stack keeps.
    fn features(&self, stack: usize) -> Vec<usize> {
        let mut sum = vec![0.0; self.stacks[stack].embeddings.d_out()];
        let mut add = |scores: &[f32]| sum.iter_mut().zip(scores).for_each(|(s, more)| *s += more);
        for (number, other) in self.stacks.iter().enumerate() {
            for sublayer in other.layers.iter().flat_map(|layer| &layer.sublayers) {
                for site in &sublayer.linears {
                    let of = if reads_encoder(sublayer, site) { 0 } else { number };
                    let scores = self.at(site);
                    match site.role {
                        Role::AttentionOutput | Role::FeedForwardDown if number == stack => {
                            add(&scores.outputs);
                        }
                        Role::AttentionOutput | Role::FeedForwardDown => {}
                        _ if of == stack => add(&scores.inputs),
                        _ => {}
                    }
                }
            }
        }
        let count = sum.len().div_ceil(self.reduction);
        largest(&sum, count)
    }

    /// The units of a feed-forward network.
    fn units(&self, sublayer: &Sublayer) -> Vec<usize> {
        let mut sum: Vec<f32> = Vec::new();
        for site in &sublayer.linears {
            let scores = match site.role {
                Role::FeedForwardDown => &self.at(site).inputs,
                _ => &self.at(site).outputs,
            };
            sum.resize(sum.len().max(scores.len()), 0.0);
            sum.iter_mut().zip(scores).for_each(|(sum, more)| *sum += more);
        }
        let count = sum.len().div_ceil(self.reduction);
        largest(&sum, count)
    }

    /// The channels of an attention's heads.
    fn channels(&self, sublayer: &Sublayer, heads: AttentionHeads) -> Inner {
        let AttentionHeads { count, key_value, size, is_rotary } = heads;
        let narrow = heads.narrowed(self.reduction).size;
        let part = |role: Role, first: usize| {
            let apart = sublayer.linears.iter().find(|site| site.role == role);
            let fused = sublayer.linears.iter().find(|site| site.role == Role::QueryKeyValue);
            match (apart, fused) {
                (Some(site), _) => &self.at(site).outputs[..],
                (None, Some(site)) => &self.at(site).outputs[first * size..],
                (None, None) => &[],
            }
        };
        let (query, key) = (part(Role::Query, 0), part(Role::Key, count));
        let value = part(Role::Value, count + key_value);
        let output = sublayer.linears.iter().find(|site| site.role == Role::AttentionOutput);
        let output = output.map_or(&[][..], |site| &self.at(site).inputs);
        let shared = count / key_value;
        let mut inner = Inner::default();
        let mut groups = Vec::new();
        for group in 0..key_value {
            let own = group * shared..(group + 1) * shared;
            let sum = |of_heads: &[f32], of_group: &[f32]| -> Vec<f32> {
                let at = |scores: &[f32], place| scores.get(place).copied().unwrap_or(0.0);
                let channel = |channel| {
                    let heads = own.clone().map(|head| at(of_heads, head * size + channel));
                    heads.sum::<f32>() + at(of_group, group * size + channel)
                };
                (0..size).map(channel).collect()
            };
            let turned = match is_rotary {
                true => pairs(size, narrow),
                false => largest(&sum(query, key), narrow),
            };
            groups.push([turned, largest(&sum(output, value), narrow)]);
        }
        let at = |head: usize, channels: &[usize]| -> Vec<usize> {
            channels.iter().map(|channel| head * size + channel).collect()
        };
        for head in 0..count {
            let [turned, read] = &groups[head / shared];
            inner.query.extend(at(head, turned));
            inner.read.extend(at(head, read));
        }
        for (group, [turned, read]) in groups.iter().enumerate() {
            inner.key.extend(at(group, turned));
            inner.value.extend(at(group, read));
        }
        let moved = |places: &[usize], heads: usize| -> Vec<usize> {
            places.iter().map(|place| heads * size + place).collect()
        };
        let (key, value) = (moved(&inner.key, count), moved(&inner.value, count + key_value));
        inner.fused = [&inner.query[..], &key, &value].concat();
        inner
    }

    fn at(&self, site: &Site) -> &Scores {
        self.scores[site.index].as_ref().expect("every linear layer has scores")
    }
}

/// What is kept between the projections of a sublayer.
#[derive(Debug, Default)]
struct Inner {
    query: Vec<usize>,
    key: Vec<usize>,
    value: Vec<usize>,
    /// Of queries, keys and values side by side.
    fused: Vec<usize>,
    /// What the last projection reads.
    read: Vec<usize>,
}

impl Inner {
    fn alike(units: Vec<usize>) -> Self {
        Self { fused: units.clone(), read: units, ..Self::default() }
    }

    /// The outputs of a projection.
    fn of(&self, role: Role) -> Vec<usize> {
        match role {
            Role::Query => &self.query,
            Role::Key => &self.key,
            Role::Value => &self.value,
            _ => &self.fused,
        }
        .clone()
    }
}

impl Scores {
    fn of(importance: Tensor<2>) -> Self {
        let numbers = |sums: Tensor<2>| -> Vec<f32> {
            sums.into_data().convert::<f32>().try_into_vec().expect("converted to f32")
        };
        let inputs = numbers(importance.clone().sum_dim(1));
        Self { inputs, outputs: numbers(importance.sum_dim(0)) }
    }
}

/// The linear layers of all stacks.
pub(crate) fn linears(stacks: &[Stack]) -> impl Iterator<Item = &Site> {
    let layers = stacks.iter().flat_map(|stack| &stack.layers);
    layers.flat_map(|layer| &layer.sublayers).flat_map(|part| &part.linears).map(|site| &**site)
}

/// Whether a projection is of what an encoder returned.
fn reads_encoder(sublayer: &Sublayer, site: &Site) -> bool {
    let crosses = matches!(sublayer.attention, Some((Role::CrossAttention, _)));
    crosses && matches!(site.role, Role::Key | Role::Value)
}

/// The places of the largest values, in their order; of equal ones the first.
fn largest(values: &[f32], count: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..values.len()).collect();
    places.sort_by(|a, b| values[*b].total_cmp(&values[*a]));
    places.truncate(count);
    places.sort_unstable();
    places
}

/// Channels in pairs half a head apart, at equal steps: `narrow` of `size`.
fn pairs(size: usize, narrow: usize) -> Vec<usize> {
    let (half, count) = (size / 2, narrow / 2);
    let first = (0..count).map(|number| number * half / count);
    first.clone().chain(first.map(|channel| channel + half)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_are_kept_in_their_order() {
        assert_eq!(largest(&[3.0, 1.0, 4.0, 1.0, 5.0], 3), [0, 2, 4]);
        assert_eq!(largest(&[1.0, 2.0, 2.0], 1), [1]);
    }

    #[test]
    fn pairs_of_channels_turn_by_angles_of_the_narrow_head() {
        assert_eq!(pairs(16, 4), [0, 4, 8, 12]);
        assert_eq!(pairs(8, 8), [0, 1, 2, 3, 4, 5, 6, 7]);
    }
}
