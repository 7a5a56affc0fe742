//! What follows from edits: the dense weight, its inverse, counts, and what can be put over them.

use burn::tensor::Tensor;

use super::apply::{bias, dense};
use super::{Edit, Edits, LinearLayer, Scale, Side};
use crate::{Change, FrozenWeight, Site};

impl Edits {
    /// Why there is no weight under these edits; `None` where there is one.
    pub fn obstacle(&self) -> Option<&'static str> {
        self.list.iter().find_map(|edit| match edit {
            Edit::Gated(..) => Some("its gates depend on the input"),
            Edit::Routed(_) => Some("rows of a batch have different adapters"),
            Edit::Output(map) => Some(map.obstacle()),
            Edit::Mean(members) => members.iter().find_map(|(_, edits)| edits.obstacle()),
            _ => None,
        })
    }

    /// The weight `[d_in, d_out]` and the bias `[d_out]` of a layer under these edits.
    ///
    /// # Panics
    /// If there is an [`obstacle`](Self::obstacle).
    pub fn dense(&self, layer: &LinearLayer<'_>) -> (Tensor<2>, Option<Tensor<1>>) {
        let chain: Vec<&Edit> = self.list.iter().collect();
        (dense(&chain, layer), bias(&chain, layer))
    }

    /// The weight that becomes `weight` under these edits.
    ///
    /// # Errors
    /// Why that cannot be known.
    pub fn invert(&self, site: &Site, weight: Tensor<2>) -> Result<Tensor<2>, &'static str> {
        if let Some(reason) = self.no_inverse.or(self.obstacle()) {
            return Err(reason);
        }
        // The last one merged comes off first.
        self.list.iter().rev().try_fold(weight, |weight, edit| match edit {
            Edit::LowRank(factors) => Ok(weight - factors.dense(site.d_out())),
            Edit::Sparse(values) => Ok(weight - values.dense(site.shape)),
            Edit::Kronecker(product) => Ok(weight - product.dense()),
            Edit::Block(block) => Ok(weight - block.dense(site.shape)),
            Edit::Bias(_) => Ok(weight),
            Edit::Scale(scale) => {
                let weight = match scale.of_output(site.d_out()) {
                    Some(output) => weight / output,
                    None => weight,
                };
                Ok(match &scale.input {
                    Some(input) => weight / input.clone().unsqueeze_dim(1),
                    None => weight,
                })
            }
            Edit::Rotate(rotate) => {
                let back = rotate.inverse().ok_or(NO_WAY_BACK)?;
                Ok(match rotate.side {
                    Side::Input => back.turn_rows(weight),
                    Side::Output => back.turn(weight),
                })
            }
            Edit::Magnitude(_) => Err("the norms that the weight had are not known"),
            Edit::Weight(map) => map.invert(weight).ok_or("its map of the weight has no inverse"),
            Edit::Mean(_) => invert_mean(edit, site, weight),
            Edit::Gated(..) | Edit::Routed(_) | Edit::Output(_) => {
                unreachable!("these have an obstacle")
            }
        })
    }

    /// What merging these edits changes at a site.
    pub fn change(&self, site: &Site) -> Change {
        Change::together(site, self.list.iter().map(|edit| edit.change(site)))
    }

    /// Why `above` cannot act on a layer under these edits: it needs what they do not leave, or
    /// would drop what they do.
    pub fn refuses(&self, above: &Self) -> Option<&'static str> {
        let mut below = self.clone();
        above.list.iter().find_map(|edit| {
            let reason = edit.refused_over(&below);
            below.list.push(edit.clone());
            reason
        })
    }

    /// Whether a bias is replaced.
    fn sets_bias(&self) -> bool {
        self.list.iter().any(|edit| match edit {
            Edit::Bias(_) => true,
            Edit::LowRank(factors) => factors.bias.is_some(),
            Edit::Mean(members) => members.iter().any(|(_, edits)| edits.sets_bias()),
            _ => false,
        })
    }

    /// Whether the bias of the layer can be told from that of the layer below.
    fn hides_bias(&self) -> bool {
        self.list.iter().any(|edit| match edit {
            Edit::Output(_) => true,
            Edit::Gated(..) | Edit::Routed(_) => !edit.is_additive(),
            Edit::Mean(members) => members.iter().any(|(_, edits)| edits.hides_bias()),
            _ => false,
        })
    }
}

const NO_WAY_BACK: &str = "its rotation has no inverse";

/// A mean of sums is a sum; other means have no inverse that could be told from it.
fn invert_mean(edit: &Edit, site: &Site, weight: Tensor<2>) -> Result<Tensor<2>, &'static str> {
    if !edit.is_additive() {
        return Err("a mean of scaled weights has no inverse");
    }
    // What it adds to a weight of zeros.
    let zeros = FrozenWeight::from(Tensor::zeros(site.shape, &weight.device()));
    Ok(weight - dense(&[edit], &LinearLayer::new(site, &zeros, None)))
}

impl Edit {
    fn change(&self, site: &Site) -> Change {
        let [d_in, d_out] = site.shape;
        let (all, full) = (d_in * d_out, d_in.min(d_out));
        match self {
            Self::LowRank(factors) => {
                let columns = factors.columns.as_ref().map_or(d_out, ExactSizeIterator::len);
                let bias = if factors.bias.is_some() { d_out } else { 0 };
                Change { weight: d_in * columns, bias, rank: factors.rank().min(full) }
            }
            Self::Scale(Scale { input, output, columns, keeps_bias }) => {
                let scaled = columns.as_ref().map_or(d_out, ExactSizeIterator::len);
                let columns = if input.is_some() { d_out } else { scaled };
                let scales_bias = site.has_bias && output.is_some() && !keeps_bias;
                let bias = if scales_bias { scaled } else { 0 };
                Change { weight: d_in * columns, bias, rank: d_in.min(columns) }
            }
            Self::Rotate(rotate) => {
                let output = rotate.side == Side::Output;
                let bias = if site.has_bias && output { d_out } else { 0 };
                let rank = rotate.rotation.rank().map_or(full, |rank| rank.min(full));
                Change { weight: all, bias, rank }
            }
            Self::Magnitude(magnitude) => {
                let scales_bias = site.has_bias && magnitude.beside.is_some();
                let bias = if scales_bias { d_out } else { 0 };
                Change { weight: all, bias, rank: full }
            }
            Self::Sparse(values) => {
                let [count] = values.values.dims();
                Change { weight: count.min(all), bias: 0, rank: count.min(full) }
            }
            Self::Kronecker(product) => {
                Change { weight: all, bias: 0, rank: product.rank.min(full) }
            }
            Self::Block(block) => {
                let [rows, columns] = block.values.dims();
                Change { weight: rows * columns, bias: 0, rank: rows.min(columns) }
            }
            Self::Bias(_) => Change { weight: 0, bias: d_out, rank: 0 },
            Self::Weight(map) => map.change(site),
            Self::Mean(members) => {
                Change::together(site, members.iter().map(|(_, edits)| edits.change(site)))
            }
            Self::Output(_) | Self::Gated(..) | Self::Routed(_) => Change::default(),
        }
    }

    fn refused_over(&self, below: &Edits) -> Option<&'static str> {
        match self {
            Self::Weight(map) if !below.is_none() && !map.keeps_what_is_below() => {
                Some("it puts another weight in the place of the one that the other changes")
            }
            Self::Weight(_) | Self::Magnitude(_) if below.obstacle().is_some() => {
                Some("it changes a weight, and under the other there is none")
            }
            Self::Scale(Scale { output: Some(_), keeps_bias: true, .. }) if below.hides_bias() => {
                Some("it leaves a bias as it is, and under the other there is none")
            }
            Self::Bias(_) if below.sets_bias() => {
                Some("it puts another bias in the place of the one that the other trains")
            }
            Self::Bias(_) if below.hides_bias() => {
                Some("it changes a bias, and under the other there is none")
            }
            Self::Gated(_, edits) => below.refuses(edits),
            Self::Mean(members) => members.iter().find_map(|(_, edits)| below.refuses(edits)),
            Self::Routed(routed) => routed.members().iter().find_map(|edits| below.refuses(edits)),
            _ => None,
        }
    }
}
