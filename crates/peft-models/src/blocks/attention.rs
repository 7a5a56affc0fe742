//! Multi-head attention.

use std::sync::Arc;

use burn::tensor::{Tensor, activation::softmax};
use peft_core::{AttentionHeads, ExtraKeys, Role, RowKeys, Rows, Site};
use peft_kernels::Read;

use super::{Context, EncodedText, FrozenLinear, KeyPlaces, LinearForm};
use crate::Result;
use crate::cache::Keys;
use crate::checkpoint::Loader;
use crate::forward::Run;

/// Far below any score, and finite, so that a row without tokens gives no NaN.
pub(super) const MASKED: f32 = -1e9;

/// `softmax(s Q Kᵀ + bias) V`, then the output projection. Queries are of the text itself, keys and
/// values too, or of what an encoder returned; several heads of queries may share keys and values.
#[derive(Debug, Clone)]
pub struct Attention {
    site: Arc<Site>,
    projections: Projections,
    output: FrozenLinear,
    pub(super) heads: Heads,
    pub(super) scale: f64,
    pub(super) dropout: f64,
}

#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)]
enum Projections {
    /// One for each.
    Apart { query: FrozenLinear, key: FrozenLinear, value: FrozenLinear },
    /// One for all, side by side in its output.
    Fused(FrozenLinear),
}

/// The heads of an attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// Of queries.
    pub count: usize,
    /// Of keys and values; a divisor of `count`.
    pub key_value: usize,
    /// The width of one.
    pub size: usize,
}

impl Heads {
    /// As many heads of keys as of queries, which share the hidden size `d`.
    pub fn equal(count: usize, d: usize) -> Self {
        Self { count, key_value: count, size: d / count }
    }

    /// As methods see them.
    fn of_site(self, is_rotary: bool) -> AttentionHeads {
        let Self { count, key_value, size } = self;
        AttentionHeads { count, key_value, size, is_rotary }
    }

    /// The usual factor on scores, `1 / sqrt(size)`.
    pub fn scale(self) -> f64 {
        1.0 / (self.size as f64).sqrt()
    }
}

/// Where an attention's projections of its input are.
#[derive(Debug, Clone, Copy)]
pub enum ProjectionPaths<'a> {
    /// Of query, key and value.
    Apart([&'a str; 3]),
    /// Of the one that is all three.
    Fused(&'a str),
}

/// What an [`Attention`] is made of.
#[derive(Debug, Clone, Copy)]
pub struct AttentionSpec<'a> {
    /// The path of the attention itself.
    pub path: &'a str,
    /// Which attention it is; a [`Role::CrossAttention`] has its keys of the encoder's states.
    pub role: Role,
    /// The projections of the input.
    pub projections: ProjectionPaths<'a>,
    /// What they are in the checkpoint.
    pub form: LinearForm,
    /// The path of the output projection.
    pub output: &'a str,
    /// What it is in the checkpoint.
    pub output_form: LinearForm,
    /// The hidden size.
    pub d: usize,
    /// The heads.
    pub heads: Heads,
    /// The factor on scores.
    pub scale: f64,
    /// Dropout on the weights.
    pub dropout: f64,
}

impl Attention {
    /// Takes the projections.
    pub fn load(
        loader: &mut Loader<'_>,
        layer: Option<usize>,
        spec: &AttentionSpec<'_>,
    ) -> Result<Self> {
        let AttentionSpec { d, heads, form, .. } = *spec;
        let (width, key_width) = (heads.count * heads.size, heads.key_value * heads.size);
        let mut linear = |path: &str, role, shape, form| {
            FrozenLinear::load(loader, path, role, layer, shape, form)
        };
        let projections = match spec.projections {
            ProjectionPaths::Fused(path) => {
                let shape = [d, width + 2 * key_width];
                Projections::Fused(linear(path, Role::QueryKeyValue, shape, form)?)
            }
            ProjectionPaths::Apart([query, key, value]) => Projections::Apart {
                query: linear(query, Role::Query, [d, width], form)?,
                key: linear(key, Role::Key, [d, key_width], form)?,
                value: linear(value, Role::Value, [d, key_width], form)?,
            },
        };
        let output = linear(spec.output, Role::AttentionOutput, [width, d], spec.output_form)?;
        let site = loader.base().attention(spec.path, spec.role, layer, [d, key_width]);
        loader.base().set_heads(heads.of_site(false));
        let (scale, dropout) = (spec.scale, spec.dropout);
        Ok(Self { site, projections, output, heads, scale, dropout })
    }

    /// The same with heads that are narrower by a factor, for a network beside it. The usual factor on
    /// scores is that of their width.
    pub fn narrowed(&self, reduction: usize, is_rotary: bool) -> Self {
        let size = self.heads.of_site(is_rotary).narrowed(reduction).size;
        let heads = Heads { size, ..self.heads };
        let is_usual = self.scale == self.heads.scale();
        let scale = if is_usual { heads.scale() } else { self.scale };
        Self { heads, scale, ..self.clone() }
    }

    /// `[tokens, d]` to the same; any numbers where the output is unread, and only gradients are wanted.
    pub fn forward(
        &self,
        hidden: Tensor<2>,
        context: &Context<'_>,
        is_unread: bool,
        run: Run<'_>,
    ) -> Tensor<2> {
        let rows = run.pass.rows;
        let crosses = self.crosses();
        let extra = run.hooks.attention(&self.site, &run.pass);
        if run.cache.is_none_or(|cache| !cache.knows(&self.site))
            && let Some(spec) = self.by_row(&hidden, context, run)
        {
            let (query, key, value) = self.project(hidden.clone(), context, run);
            let front = self.in_front(&extra, &hidden, run);
            let beside = self.read_beside(&extra, &query, run);
            if let Some(cache) = run.cache {
                let source = context.encoded.filter(|_| crosses);
                let of_rows = source.map_or(rows, |encoded| &encoded.rows);
                let text = [&key, &value].map(|states| self.by_head(states.clone(), of_rows));
                cache.extend(&self.site, text, of_rows, |text| {
                    with_extra(text, of_rows, front.clone())
                });
            }
            let read = self.read_by_row(spec, (query, key, value), front, context, run);
            return self.project_output(read, beside, is_unread, run);
        }
        // What an encoder returned stays the same.
        let kept = run.cache.filter(|_| crosses).and_then(|cache| cache.kept(&self.site));
        let (query, keys) = match kept {
            Some(kept) => (self.project_query(hidden, run), kept),
            None => {
                let (query, key, value) = self.project(hidden.clone(), context, run);
                let source = context.encoded.filter(|_| crosses);
                let of_rows = source.map_or(rows, |encoded| &encoded.rows);
                let text = [self.by_head(key, of_rows), self.by_head(value, of_rows)];
                let begin = |text| with_extra(text, of_rows, self.in_front(&extra, &hidden, run));
                let keys = match run.cache {
                    Some(cache) => cache.extend(&self.site, text, of_rows, begin),
                    None => begin(text),
                };
                (query, keys)
            }
        };
        let Keys { key, value, places } = keys;
        let beside = self.read_beside(&extra, &query, run);
        if self.reads_one_each(run) {
            let bias = context.bias(rows, &places, crosses);
            let read = Read { query, key, value, bias, scale: self.scale };
            return self.project_output(read.forward(), beside, is_unread, run);
        }
        let Heads { count, key_value, size } = self.heads;
        let (batch, longest, positions) = (rows.len(), rows.longest(), key.dims()[2]);
        let query = rows.batched(query * self.scale).reshape([batch, longest, count, size]);
        let shared = count / key_value;
        // Queries that share a head of keys stand one after another.
        let query = query.swap_dims(1, 2).reshape([batch, key_value, shared * longest, size]);
        let scores = query.matmul(key.swap_dims(2, 3));
        let mut scores = scores.reshape([batch, count, longest, positions]);
        if let Some(bias) = context.bias(rows, &places, crosses) {
            scores = scores + bias;
        }
        let weights = run.pass.dropout(softmax(scores, 3), self.dropout);
        let weights = weights.reshape([batch, key_value, shared * longest, positions]);
        let read = weights.matmul(value).reshape([batch, count, longest, size]);
        let read = rows.joined(read.swap_dims(1, 2).reshape([batch, longest, count * size]));
        self.project_output(read, beside, is_unread, run)
    }

    /// Queries, keys and values, each `[tokens, heads · d_head]`: of the text, or keys and values of
    /// what an encoder returned.
    fn project(
        &self,
        hidden: Tensor<2>,
        context: &Context<'_>,
        run: Run<'_>,
    ) -> (Tensor<2>, Tensor<2>, Tensor<2>) {
        let Heads { count, key_value, size } = self.heads;
        let encoded = context.encoded.filter(|_| self.crosses());
        let (query, key, value) = match &self.projections {
            Projections::Apart { query, key, value } => {
                let query = query.forward(hidden.clone(), run);
                match encoded {
                    None => (query, key.forward(hidden.clone(), run), value.forward(hidden, run)),
                    Some(EncodedText { hidden: source, rows, .. }) => {
                        let run = run.over(rows);
                        (
                            query,
                            key.forward(source.clone(), run),
                            value.forward(source.clone(), run),
                        )
                    }
                }
            }
            Projections::Fused(all) => {
                let all = all.forward(hidden, run);
                let part = |from, heads| all.clone().narrow(1, from * size, heads * size);
                (part(0, count), part(count, key_value), part(count + key_value, key_value))
            }
        };
        match (encoded, &context.angles) {
            (None, Some(angles)) => (angles.turn(query), angles.turn(key), value),
            _ => (query, key, value),
        }
    }

    /// The same, with queries of the tokens that are read alone.
    pub(super) fn project_read(
        &self,
        all: Tensor<2>,
        input: Tensor<2>,
        read: &[usize],
        context: &Context<'_>,
        [run, of_read]: [Run<'_>; 2],
    ) -> (Tensor<2>, Tensor<2>, Tensor<2>) {
        let Projections::Apart { query, key, value } = &self.projections else {
            unreachable!("projections that are apart");
        };
        let query = query.forward(input, of_read);
        let (key, value) = (key.forward(all.clone(), run), value.forward(all, run));
        match &context.angles {
            Some(angles) => (angles.at(read).turn(query), angles.turn(key), value),
            None => (query, key, value),
        }
    }

    /// Whether one layer projects to queries, keys and values.
    pub(super) fn is_fused(&self) -> bool {
        matches!(self.projections, Projections::Fused(_))
    }

    /// The output projection of what was read, of the text and beside it.
    pub(super) fn project_output(
        &self,
        read: Tensor<2>,
        beside: Option<Tensor<2>>,
        is_unread: bool,
        run: Run<'_>,
    ) -> Tensor<2> {
        match beside {
            None => self.output.unread(is_unread, read, run),
            // HF PEFT leaves it out of the projection where one layer makes queries, keys and values.
            Some(beside) if self.is_fused() => self.output.unread(is_unread, read, run) + beside,
            Some(beside) => self.output.unread(is_unread, read + beside, run),
        }
    }

    /// What is read beside the text, `[tokens, heads · d_head]`.
    pub(super) fn read_beside(
        &self,
        extra: &ExtraKeys,
        query: &Tensor<2>,
        run: Run<'_>,
    ) -> Option<Tensor<2>> {
        extra.beside(query, &run.pass, &|beside, query, pass| {
            let projected = || {
                // A text of its own, under the adapter of the rows that read it.
                let [added, _] = beside.prompt.dims();
                let rows = Rows::packed(&[added], pass.rows.device());
                let slots = pass.slots.select((!pass.rows.is_empty()).then_some(0));
                let run = Run { pass: pass.over(&rows, &slots), cache: None, ..run };
                self.project_prompt(beside.prompt.clone(), run)
            };
            // Under adapters in slots they are those of a slot.
            let [key, value] = match pass.slots.as_slice() {
                [] => pass.memo.get(beside.key, projected),
                _ => projected(),
            };
            let Heads { count, key_value, size } = self.heads;
            let ([tokens, _], [added, _]) = (query.dims(), key.dims());
            // [key heads, tokens · queries that share them, d_head] and [key heads, added, d_head].
            let shared = count / key_value;
            let query = (query * self.scale).reshape([tokens, key_value, shared * size]);
            let query = query.swap_dims(0, 1).reshape([key_value, tokens * shared, size]);
            let [key, value] =
                [key, value].map(|states| states.reshape([added, key_value, size]).swap_dims(0, 1));
            let weights = softmax(query.matmul(key.swap_dims(1, 2)), 2);
            let read = weights.matmul(value).reshape([key_value, tokens, shared * size]);
            let read = read.swap_dims(0, 1).reshape([tokens, count * size]);
            read * beside.gate.clone().unsqueeze()
        })
    }

    /// Keys and values of a prompt, `[added, key heads · d_head]` each.
    fn project_prompt(&self, prompt: Tensor<2>, run: Run<'_>) -> [Tensor<2>; 2] {
        let Heads { count, key_value, size } = self.heads;
        match &self.projections {
            Projections::Apart { key, value, .. } => {
                [key.forward(prompt.clone(), run), value.forward(prompt, run)]
            }
            Projections::Fused(all) => {
                let all = all.forward(prompt, run);
                [count, count + key_value]
                    .map(|from| all.clone().narrow(1, from * size, key_value * size))
            }
        }
    }

    /// The queries alone, of an attention to what an encoder returned.
    fn project_query(&self, hidden: Tensor<2>, run: Run<'_>) -> Tensor<2> {
        let (Projections::Apart { query: layer, .. } | Projections::Fused(layer)) =
            &self.projections;
        layer.forward(hidden, run).narrow(1, 0, self.heads.count * self.heads.size)
    }

    /// Whether there is one query in each row, over keys that are kept: generation.
    fn reads_one_each(&self, run: Run<'_>) -> bool {
        let rows = run.pass.rows;
        let one_each = rows.longest() == 1 && rows.tokens() == rows.len();
        one_each && run.cache.is_some() && !run.pass.mode.is_training()
    }

    /// The keys and values that a method puts before those of each row.
    pub(super) fn in_front(
        &self,
        extra: &ExtraKeys,
        hidden: &Tensor<2>,
        run: Run<'_>,
    ) -> Option<RowKeys> {
        extra.of_rows(&self.site, hidden, self.heads.key_value, &run.pass)
    }

    pub(super) fn site(&self) -> &Site {
        &self.site
    }

    pub(super) fn crosses(&self) -> bool {
        self.site.role == Role::CrossAttention
    }

    /// `[tokens, heads · d_head]` of keys or values to `[rows, heads, longest, d_head]`.
    fn by_head(&self, states: Tensor<2>, rows: &Rows) -> Tensor<4> {
        let Heads { key_value, size, .. } = self.heads;
        let shape = [rows.len(), rows.longest(), key_value, size];
        rows.batched(states).reshape(shape).swap_dims(1, 2)
    }
}

/// Keys and values of a text from its beginning, behind those that a method puts before it.
fn with_extra([key, value]: [Tensor<4>; 2], rows: &Rows, extra: Option<RowKeys>) -> Keys {
    match extra {
        None => Keys { key, value, places: KeyPlaces::new(rows, 0, &[]) },
        Some(extra) => {
            let places = KeyPlaces::new(rows, extra.key.dims()[2], &extra.counts);
            let key = Tensor::cat(vec![extra.key, key], 2);
            Keys { key, value: Tensor::cat(vec![extra.value, value], 2), places }
        }
    }
}
