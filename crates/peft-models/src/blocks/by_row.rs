//! Attention of each row of a batch by itself, where the device has that as one operation.

use burn::tensor::Tensor;
use peft_core::{Row, RowKeys};
use peft_kernels::{AttentionInputs, AttentionRow, AttentionSpec, attends_by_row, attention};

use super::context::Causality;
use super::{Attention, Context, Heads, RelativeBias};
use crate::forward::Run;

impl Attention {
    /// The rows of queries and keys, without what a method puts in front of the keys; `None` where
    /// queries see what a row and a number do not say, or the device has no such operation.
    pub(super) fn by_row(
        &self,
        hidden: &Tensor<2>,
        context: &Context<'_>,
        run: Run<'_>,
    ) -> Option<AttentionSpec> {
        let queries = run.pass.rows;
        let encoded = context.encoded.filter(|_| self.crosses());
        let keys = encoded.map_or(queries, |encoded| &encoded.rows);
        if !attends_by_row(hidden) {
            return None;
        }
        let is_causal = context.causality != Causality::None && !self.crosses();
        let row = |number: usize, (query, key): (&Row, &Row)| {
            Some(AttentionRow {
                query: queries.start(number),
                queries: query.len(),
                key: keys.start(number),
                keys: tokens_in_front(key)?,
                extra: 0,
                sees: is_causal.then_some(1),
                position: query.shift + query.past,
            })
        };
        let rows = queries.iter().zip(keys.iter()).enumerate();
        let rows = rows.map(|(number, pair)| row(number, pair)).collect::<Option<_>>()?;
        let Heads { count: heads, key_value: key_value_heads, size } = self.heads;
        let scale = self.scale;
        let (dropout, buckets) = (None, None);
        Some(AttentionSpec { rows, heads, key_value_heads, size, scale, dropout, buckets })
    }

    /// With `extra` in front of the keys, what the queries read, `[tokens, heads · d_head]`, before the output projection.
    pub(super) fn read_by_row(
        &self,
        mut spec: AttentionSpec,
        (query, key, value): (Tensor<2>, Tensor<2>, Tensor<2>),
        extra: Option<RowKeys>,
        context: &Context<'_>,
        run: Run<'_>,
    ) -> Tensor<2> {
        if let Some(extra) = &extra {
            let room = extra.key.dims()[2];
            for (number, row) in spec.rows.iter_mut().enumerate() {
                row.extra = extra.counts.get(number).copied().unwrap_or(room);
            }
        }
        spec.dropout = run.pass.next_dropout(self.dropout);
        let extra = extra.map(|extra| [extra.key, extra.value]);
        let relative = context.relative.filter(|_| !self.crosses());
        spec.buckets = relative.map(|relative| {
            let of = |row: &AttentionRow| [row.position + row.queries, row.extra + row.keys];
            let most = |which: usize| spec.rows.iter().map(|row| of(row)[which]).max();
            relative.buckets([0, 1].map(|which| most(which).unwrap_or(0)))
        });
        let bias = relative.map(RelativeBias::values);
        let inputs = AttentionInputs { query, key, value, extra, bias };
        attention(inputs, spec).expect("the device attends by row")
    }
}

/// An attention of which one token of each text is read.
pub(super) struct Reading<'a> {
    attention: &'a Attention,
    spec: AttentionSpec,
    read: &'a [usize],
    context: &'a Context<'a>,
}

impl Attention {
    /// What computes the output at one token of each text from what all are; `None` where that is no
    /// shorter way.
    pub(super) fn reading<'a>(
        &'a self,
        hidden: &Tensor<2>,
        read: &'a [usize],
        context: &'a Context<'a>,
        run: Run<'_>,
    ) -> Option<Reading<'a>> {
        if self.crosses() || self.is_fused() {
            return None;
        }
        let mut spec = self.by_row(hidden, context, run)?;
        for (number, (row, token)) in spec.rows.iter_mut().zip(read).enumerate() {
            let place = token - row.query;
            row.position += place;
            row.sees = row.sees.map(|sees| sees + place);
            (row.query, row.queries) = (number, 1);
        }
        Some(Reading { attention: self, spec, read, context })
    }
}

impl Reading<'_> {
    /// Of all tokens, and of those that are read; the runs are over the same.
    pub(super) fn forward(
        self,
        all: Tensor<2>,
        input: Tensor<2>,
        [run, of_read]: [Run<'_>; 2],
    ) -> Tensor<2> {
        let Self { attention, spec, read, context } = self;
        let parts = attention.project_read(all.clone(), input, read, context, [run, of_read]);
        let extra = run.hooks.attention(attention.site(), &run.pass);
        let front = attention.in_front(&extra, &all, run);
        let beside = attention.read_beside(&extra, &parts.0, of_read);
        let read = attention.read_by_row(spec, parts, front, context, run);
        attention.project_output(read, beside, false, of_read)
    }
}

/// The tokens of a row, if padding is behind them all; `None` if it is not, or there is none.
fn tokens_in_front(row: &Row) -> Option<usize> {
    let tokens = row.tokens();
    (tokens > 0 && (0..tokens).all(|place| row.has(place))).then_some(tokens)
}
