//! A linear layer under edits: one product with the weight, and what the edits do before and
//! after it.

use burn::tensor::{Tensor, module::linear};
use peft_kernels::{Activation, LinearParts};

use super::forms::placed;
use super::{Edit, Edits, GateOn, LowRank, Scale, Side, TableEdit, WeightMap};
use crate::{FrozenWeight, Pass, Site};

/// A frozen linear layer `y = x W + b`, with `W` of shape `[d_in, d_out]`.
#[derive(Clone, Copy)]
pub struct LinearLayer<'a> {
    pub(super) site: &'a Site,
    weight: &'a FrozenWeight,
    bias: Option<&'a Tensor<1>>,
    /// What a method does to the table that `weight` is the transpose of.
    table: Option<&'a TableEdit>,
    /// What the output goes through.
    activation: Option<Activation>,
    /// Whether only gradients are wanted of it.
    is_unread: bool,
}

impl<'a> LinearLayer<'a> {
    /// The frozen layer at `site`.
    pub fn new(site: &'a Site, weight: &'a FrozenWeight, bias: Option<&'a Tensor<1>>) -> Self {
        Self { site, weight, bias, table: None, activation: None, is_unread: false }
    }

    /// The layer whose weight is the transpose of a table, under a method's edit of that.
    pub fn of_table(self, table: &'a TableEdit) -> Self {
        Self { table: Some(table), ..self }
    }

    /// The layer with an activation of its output, edits included.
    pub fn activated(self, activation: Option<Activation>) -> Self {
        Self { activation, ..self }
    }

    /// The layer where only gradients are wanted, and its output may be any numbers.
    pub fn unread(self, is_unread: bool) -> Self {
        Self { is_unread, ..self }
    }

    /// `x W` with the frozen weight, and these parts.
    fn product(&self, x: Tensor<2>, parts: LinearParts, pass: &Pass<'_>) -> Tensor<2> {
        match self.table {
            None => self.weight.with_parts(x, parts),
            Some(table) => parts.over(table.compare(self.weight, x.clone(), pass), x),
        }
    }

    fn dense(&self) -> Tensor<2> {
        match self.table {
            None => self.weight.dense(),
            Some(table) => table.dense(self.weight.transpose().dense()).transpose(),
        }
    }
}

/// Edits as they act one after another; those of a member behind those below it.
pub(super) type Chain<'e> = [&'e Edit];

/// Edits, and those below them.
pub(super) fn over<'e>(
    below: &Chain<'e>,
    edits: impl IntoIterator<Item = &'e Edit>,
) -> Vec<&'e Edit> {
    below.iter().copied().chain(edits).collect()
}

impl Edits {
    /// The output `[tokens, d_out]` of a layer under these edits for `[tokens, d_in]`.
    pub fn apply(&self, layer: &LinearLayer<'_>, x: Tensor<2>, pass: &Pass<'_>) -> Tensor<2> {
        activated(&self.list.iter().collect::<Vec<_>>(), layer, x, pass)
    }

    /// Whether all that happens is that something is added to the output, which needs the input
    /// alone.
    pub(super) fn is_additive(&self) -> bool {
        self.list.iter().all(Edit::is_additive)
    }

    /// What is added, where that is all that happens.
    pub(super) fn added(
        &self,
        layer: &LinearLayer<'_>,
        x: &Tensor<2>,
        pass: &Pass<'_>,
    ) -> Option<Tensor<2>> {
        let terms = self.list.iter().map(|edit| edit.added(layer, x, pass));
        terms.reduce(|sum, term| sum + term)
    }

    /// The output under these edits, from the output `y` of the layer below: without another product
    /// where one is enough.
    fn over_output(
        &self,
        below: &Chain<'_>,
        layer: &LinearLayer<'_>,
        x: Tensor<2>,
        y: Tensor<2>,
        pass: &Pass<'_>,
    ) -> Tensor<2> {
        let chain = over(below, self.iter());
        if self.iter().any(Edit::changes_product) {
            return forward(&chain, layer, x, pass);
        }
        let above = self.iter().enumerate();
        above.fold(y, |y, (number, edit)| {
            edit.output(&chain[..below.len() + number], layer, x.clone(), y, pass)
        })
    }

    /// A factor `[tokens, 1]` in the columns that change, and ones in the others.
    fn in_columns(&self, factor: Tensor<2>, d_out: usize) -> Tensor<2> {
        match &self.list[..] {
            [Edit::LowRank(LowRank { columns: Some(columns), .. })]
            | [Edit::Scale(Scale { columns: Some(columns), .. })] => {
                let [tokens, _] = factor.dims();
                let factor = factor.expand([tokens, columns.len()]);
                placed(factor, Some(columns), d_out, |shape, device| Tensor::ones(shape, device))
            }
            _ => factor,
        }
    }
}

/// The dense weight and the bias of the layer under edits, the weight as it is needed.
pub(super) fn dense(chain: &Chain<'_>, layer: &LinearLayer<'_>) -> Tensor<2> {
    let Some((edit, below)) = chain.split_last() else { return layer.dense() };
    let [_, d_out] = layer.site.shape;
    match edit {
        Edit::LowRank(factors) => dense(below, layer) + factors.dense(d_out),
        Edit::Sparse(values) => dense(below, layer) + values.dense(layer.site.shape),
        Edit::Kronecker(product) => dense(below, layer) + product.dense(),
        Edit::Block(block) => dense(below, layer) + block.dense(layer.site.shape),
        Edit::Bias(_) => dense(below, layer),
        Edit::Scale(scale) => {
            let mut weight = dense(below, layer);
            if let Some(input) = &scale.input {
                weight = weight * input.clone().unsqueeze_dim(1);
            }
            match scale.of_output(d_out) {
                Some(output) => weight * output,
                None => weight,
            }
        }
        Edit::Magnitude(magnitude) => {
            let weight = dense(below, layer);
            weight.clone() * magnitude.share_of(weight)
        }
        Edit::Rotate(rotate) => match rotate.side {
            // (x R) W = x (R W).
            Side::Input => rotate.rotation.turn_rows(dense(below, layer)),
            Side::Output => rotate.rotation.turn(dense(below, layer)),
        },
        Edit::Weight(map) => map.weight(&|| dense(below, layer)),
        Edit::Mean(members) => {
            let of = |(weight, edits): &(f64, Edits)| {
                let chain = over(below, edits.iter());
                dense(&chain, layer) * *weight
            };
            members.iter().map(of).reduce(|sum, term| sum + term).expect("a mean has members")
        }
        Edit::Output(_) | Edit::Gated(..) | Edit::Routed(_) => {
            panic!(
                "there is no weight at {}: this is refused when methods are attached",
                layer.site
            )
        }
    }
}

/// `y` times a scale `[1, d_out]`, all but a bias in it.
fn scaled(y: Tensor<2>, scale: Tensor<2>, kept: Option<Tensor<1>>) -> Tensor<2> {
    match kept {
        Some(bias) => (y - bias.clone().unsqueeze()) * scale + bias.unsqueeze(),
        None => y * scale,
    }
}

/// The bias of the layer under edits.
pub(super) fn bias(chain: &Chain<'_>, layer: &LinearLayer<'_>) -> Option<Tensor<1>> {
    let (edit, below) = match chain.split_last() {
        Some(split) => split,
        None => return layer.bias.cloned(),
    };
    match edit {
        Edit::Bias(bias) => Some(bias.clone()),
        Edit::LowRank(factors) => match (bias(below, layer), factors.added_bias()) {
            (Some(bias), Some(added)) => Some(bias + added),
            (bias, added) => bias.or(added),
        },
        Edit::Scale(scale) if !scale.keeps_bias => {
            let bias = bias(below, layer)?;
            match scale.of_output(layer.site.d_out()) {
                Some(output) => Some(bias * output.squeeze_dim(0)),
                None => Some(bias),
            }
        }
        Edit::Magnitude(magnitude) if magnitude.beside.is_some() => {
            let bias = bias(below, layer)?;
            Some(bias * magnitude.share_of(dense(below, layer)).squeeze_dim(0))
        }
        Edit::Rotate(rotate) if rotate.side == Side::Output => {
            bias(below, layer).map(|bias| rotate.rotation.turn(bias.unsqueeze()).squeeze_dim(0))
        }
        Edit::Mean(members) => {
            let of = |(weight, edits): &(f64, Edits)| {
                let chain = over(below, edits.iter());
                bias(&chain, layer).map(|bias| bias * *weight)
            };
            // A layer without a bias has one of zeros.
            members.iter().filter_map(of).reduce(|sum, term| sum + term)
        }
        Edit::Output(_) => {
            panic!("there is no bias at {}: this is refused when methods are attached", layer.site)
        }
        _ => bias(below, layer),
    }
}

/// The output of a layer under edits, its activation left out.
pub(super) fn forward(
    chain: &Chain<'_>,
    layer: &LinearLayer<'_>,
    x: Tensor<2>,
    pass: &Pass<'_>,
) -> Tensor<2> {
    activated(chain, &layer.activated(None).unread(false), x, pass)
}

/// The output of a layer under edits: inputs from the last edit down to the product, outputs from
/// there up again.
fn activated(
    chain: &Chain<'_>,
    layer: &LinearLayer<'_>,
    x: Tensor<2>,
    pass: &Pass<'_>,
) -> Tensor<2> {
    // What is below a map of the weight becomes part of that weight.
    let maps_weight = |edit: &&Edit| edit.is_in_product(pass);
    let first = chain.iter().rposition(maps_weight).map_or(0, |map| map + 1);
    let (below, above) = chain.split_at(first);
    let mut inputs = inputs(above, x, pass);
    let x = inputs.pop().expect("an input for the product");
    let Joined { parts, edits } = joined(above, bias(below, layer), pass);
    let last = edits.iter().all(|joined| *joined);
    let activation = layer.activation.filter(|_| last);
    let parts = LinearParts { activation, is_unread: layer.is_unread && last, ..parts };
    let mut y = match below.is_empty() {
        true => layer.product(x, parts, pass),
        false => FrozenWeight::Dense(dense(below, layer)).with_parts(x, parts),
    };
    for (number, edit) in above.iter().enumerate() {
        let x = inputs.pop().expect("an input for each edit");
        if !edits[number] {
            y = edit.output(&chain[..first + number], layer, x, y, pass);
        }
    }
    match layer.activation.filter(|_| !last) {
        Some(activation) => activation.forward(y),
        None => y,
    }
}

/// What goes with the product.
struct Joined {
    parts: LinearParts,
    /// Which edits that is.
    edits: Vec<bool>,
}

/// What goes with the product, over which the layer's bias is `bias`: a new bias with nothing but
/// sums below it, and the first low rank of the whole output among these.
fn joined(above: &Chain<'_>, mut bias: Option<Tensor<1>>, pass: &Pass<'_>) -> Joined {
    let mut low_rank = None;
    let mut edits = vec![false; above.len()];
    let sums = above.iter().take_while(|edit| edit.is_additive() || edit.is_bias());
    for (edit, joined) in sums.zip(&mut edits) {
        match edit {
            Edit::Bias(new) => {
                bias = Some(new.clone());
                *joined = true;
            }
            Edit::LowRank(factors) if low_rank.is_none() && factors.columns.is_none() => {
                low_rank = Some((factors.part(pass), factors.added_bias()));
                *joined = true;
            }
            _ => {}
        }
    }
    let (low_rank, added) = low_rank.unzip();
    let bias = match (bias, added.flatten()) {
        (Some(bias), Some(added)) => Some(bias + added),
        (bias, added) => bias.or(added),
    };
    Joined { parts: LinearParts { bias, low_rank, ..LinearParts::default() }, edits }
}

/// What each edit is given, from the last one on, and then the product.
pub(super) fn inputs(edits: &Chain<'_>, x: Tensor<2>, pass: &Pass<'_>) -> Vec<Tensor<2>> {
    let mut inputs = vec![x];
    for edit in edits.iter().rev() {
        let input = inputs[inputs.len() - 1].clone();
        inputs.push(edit.input(input, pass));
    }
    inputs
}

impl Edit {
    /// Whether it is a map of the weight, whose change is given the product's own input.
    fn is_in_product(&self, pass: &Pass<'_>) -> bool {
        let drops = |map: &dyn WeightMap| pass.mode.is_training() && map.dropout() > 0.0;
        matches!(self, Self::Weight(map) if !drops(&**map))
    }

    pub(super) fn is_additive(&self) -> bool {
        match self {
            Self::LowRank(_) | Self::Sparse(_) | Self::Kronecker(_) | Self::Block(_) => true,
            Self::Gated(gate, edits) => gate.on == GateOn::Change && edits.is_additive(),
            Self::Mean(members) => members.iter().all(|(_, edits)| edits.is_additive()),
            Self::Routed(routed) => routed.is_additive(),
            _ => false,
        }
    }

    fn is_bias(&self) -> bool {
        matches!(self, Self::Bias(_))
    }

    /// Whether the output below says too little for the one under this edit: the product is of
    /// another input, or with another weight.
    fn changes_product(&self) -> bool {
        match self {
            Self::Weight(_) | Self::Scale(Scale { input: Some(_), .. }) => true,
            Self::Rotate(rotate) => rotate.side == Side::Input,
            Self::Routed(routed) => {
                routed.members().iter().flat_map(Edits::iter).any(Self::changes_product)
            }
            _ => false,
        }
    }

    /// What the edits below are given for `[tokens, d_in]`.
    fn input(&self, x: Tensor<2>, pass: &Pass<'_>) -> Tensor<2> {
        match self {
            Self::Scale(Scale { input: Some(scale), .. }) => x * scale.clone().unsqueeze(),
            Self::Rotate(rotate) if rotate.side == Side::Input => rotate.rotation.turn(x),
            Self::Routed(routed) => routed.input(x, pass),
            _ => x,
        }
    }

    /// What is added to the output for `[tokens, d_in]`, where that is all.
    pub(super) fn added(
        &self,
        layer: &LinearLayer<'_>,
        x: &Tensor<2>,
        pass: &Pass<'_>,
    ) -> Tensor<2> {
        let d_out = layer.site.d_out();
        match self {
            Self::LowRank(factors) => factors.delta(x.clone(), d_out, pass),
            Self::Sparse(values) => values.delta(x.clone(), d_out),
            Self::Kronecker(product) => product.product(x.clone()),
            Self::Block(block) => block.delta(x.clone(), d_out),
            Self::Gated(gate, edits) => {
                let gate = gate.of_tokens(layer.site, x.clone(), pass);
                edits.added(layer, x, pass).expect("something is gated") * gate
            }
            Self::Mean(members) => {
                let terms = members
                    .iter()
                    .filter_map(|(weight, edits)| Some(edits.added(layer, x, pass)? * *weight));
                terms.reduce(|sum, term| sum + term).expect("a mean of something")
            }
            Self::Routed(routed) => routed.added(layer, x, pass),
            _ => panic!("only what is additive adds something"),
        }
    }

    /// The output under this edit, from that of the edits below.
    pub(super) fn output(
        &self,
        below: &Chain<'_>,
        layer: &LinearLayer<'_>,
        x: Tensor<2>,
        y: Tensor<2>,
        pass: &Pass<'_>,
    ) -> Tensor<2> {
        if self.is_additive() {
            return match self {
                Self::Routed(routed) => routed.over_output(layer, &x, y, pass),
                _ => y + self.added(layer, &x, pass),
            };
        }
        match self {
            Self::Scale(scale) => match scale.of_output(layer.site.d_out()) {
                Some(output) => {
                    let kept = if scale.keeps_bias { bias(below, layer) } else { None };
                    scaled(y, output, kept)
                }
                None => y,
            },
            Self::Rotate(rotate) => match rotate.side {
                Side::Input => y,
                Side::Output => rotate.rotation.turn(y),
            },
            Self::Magnitude(magnitude) => {
                let share = magnitude.share(&|| dense(below, layer), pass);
                let kept = if magnitude.beside.is_none() { bias(below, layer) } else { None };
                scaled(y, share, kept)
            }
            Self::Bias(new) => match bias(below, layer) {
                Some(old) => y + (new.clone() - old).unsqueeze(),
                None => y + new.clone().unsqueeze(),
            },
            Self::Output(map) => map.forward(&x, y, pass),
            Self::Gated(gate, edits) => {
                let open = gate.of_tokens(layer.site, x.clone(), pass);
                let full = edits.over_output(below, layer, x, y.clone(), pass);
                match gate.on {
                    GateOn::Change => y.clone() + (full - y) * open,
                    GateOn::Output => full * edits.in_columns(open, layer.site.d_out()),
                }
            }
            Self::Mean(members) => {
                let of = |(weight, edits): &(f64, Edits)| {
                    let chain = over(below, edits.iter());
                    forward(&chain, layer, x.clone(), pass) * *weight
                };
                members.iter().map(of).reduce(|sum, term| sum + term).expect("a mean has members")
            }
            Self::Routed(routed) => routed.output(below, layer, x, y, pass),
            Self::Weight(map) => {
                let weight = dense(below, layer);
                let change = map.weight(&|| weight.clone()) - weight;
                y + linear(pass.dropout(x, map.dropout()), change, None)
            }
            Self::LowRank(_) | Self::Sparse(_) | Self::Kronecker(_) | Self::Block(_) => {
                unreachable!("sums are added")
            }
        }
    }
}
