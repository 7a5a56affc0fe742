//! Bodies: a stack of layers, or an encoder and a decoder.

use burn::tensor::{Int, Tensor, TensorData};
use peft_core::{Rows, SideNetworks, Words};

use crate::blocks::{Causality, Context, EmbeddedText, Embeddings, EncodedText, FrozenNorm};
use crate::blocks::{RelativeBias, Rotary, Sublayer};
use crate::cache::Seen;
use crate::forward::Run;
use crate::input::Text;
use crate::ladder::{Ladder, encoded_beside};
use crate::{Error, LayerInput, ModelInput, Result};

/// Everything before the head.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)]
pub(crate) enum Body {
    /// An encoder, or a decoder that looks at nothing else.
    Single(Transformer),
    /// An encoder, and a decoder that looks at what it returns.
    EncoderDecoder {
        encoder: Transformer,
        decoder: Transformer,
        /// The token that the decoder's text begins with where it is that of the encoder, moved by
        /// one: as classification heads read it.
        start: Option<usize>,
    },
}

/// The one token of each text that is read of what a body returns; `None` where all are.
pub(crate) type Reads<'a> = &'a dyn Fn(&Rows) -> Result<Option<Vec<usize>>>;

/// What a body returns.
#[derive(Debug)]
pub(crate) struct Hidden {
    /// `[tokens, d]`.
    pub(crate) states: Tensor<2>,
    /// Which tokens belong to which text; methods may have lengthened them.
    pub(crate) rows: Rows,
    /// The last states of the networks beside the layers, `[tokens, d']`.
    pub(crate) beside: Vec<Tensor<2>>,
}

/// Embeddings and layers.
#[derive(Debug, Clone)]
pub(crate) struct Transformer {
    pub(crate) embeddings: Embeddings,
    /// Each is the sublayers that it consists of.
    pub(crate) layers: Vec<Vec<Sublayer>>,
    /// After the last layer.
    pub(crate) norm: Option<FrozenNorm>,
    pub(crate) rotary: Option<Rotary>,
    pub(crate) relative: Option<RelativeBias>,
    /// Which tokens a token sees.
    pub(crate) causality: Causality,
    /// After the norm.
    pub(crate) dropout: f64,
}

impl Body {
    /// The longest text, in tokens.
    pub(crate) fn max_tokens(&self) -> usize {
        match self {
            Self::Single(stack) => stack.embeddings.limit(),
            Self::EncoderDecoder { encoder, decoder, .. } => {
                encoder.embeddings.limit().min(decoder.embeddings.limit())
            }
        }
    }

    /// Its stacks of layers, in the order in which they run.
    pub(crate) fn stacks(&self) -> Vec<&Transformer> {
        match self {
            Self::Single(stack) => vec![stack],
            Self::EncoderDecoder { encoder, decoder, .. } => vec![encoder, decoder],
        }
    }

    /// What the head is given: of the tokens that `reads` names alone, where the others change nothing
    /// of it.
    pub(crate) fn forward(
        &self,
        input: &ModelInput,
        packed: bool,
        reads: Reads<'_>,
        run: Run<'_>,
    ) -> Result<Hidden> {
        // A network beside the layers is what is on the tape, and it is small.
        let is_beside = self.stacks().iter().any(|stack| stack.has_beside(run));
        let run = Run { recompute: run.recompute.filter(|_| !is_beside), ..run };
        let hidden = self.hidden(input, packed, reads, run)?;
        match self.stacks().last() {
            Some(last) if is_beside => Ok(last.left(hidden, run)),
            _ => Ok(hidden),
        }
    }

    /// What leaves the last stack.
    fn hidden(
        &self,
        input: &ModelInput,
        packed: bool,
        reads: Reads<'_>,
        run: Run<'_>,
    ) -> Result<Hidden> {
        match self {
            Self::Single(stack) if run.cache.is_some() && stack.causality == Causality::None => {
                let reason =
                    "only a causal model can use a cache: the tokens of this one see later ones";
                Err(Error::Input(reason.into()))
            }
            Self::Single(stack) => stack.forward(input.text(), packed, None, reads, run),
            Self::EncoderDecoder { encoder, decoder, start } => {
                let moved;
                let text = match (input.decoder(), start) {
                    (Some(text), _) => text,
                    (None, Some(start)) => {
                        moved = input.text().moved(*start);
                        &moved
                    }
                    (None, None) => {
                        return Err(Error::Input(
                            "a model with a decoder needs the decoder's tokens too".into(),
                        ));
                    }
                };
                let continues = run.cache.is_some_and(|cache| !cache.is_empty());
                let encoded = match continues {
                    // The decoder's attentions have kept what they need of it.
                    true => None,
                    false => {
                        let memo = run.memo_apart();
                        let of_encoder = Run { cache: None, ..run }.with_memo(memo.as_ref());
                        let Hidden { states, rows, beside } = encoder.forward(
                            input.text(),
                            packed,
                            None,
                            &|_| Ok(None),
                            of_encoder,
                        )?;
                        let hidden = match run.recompute {
                            Some(recompute) => recompute.encoded(states),
                            None => states,
                        };
                        let beside = encoded_beside(beside, &rows);
                        Some(EncodedText { hidden, rows, beside })
                    }
                };
                decoder.forward(text, packed, encoded.as_ref(), reads, run)
            }
        }
    }
}

impl Transformer {
    /// Tokens that see each other, and layers with nothing after them.
    pub(crate) fn new(embeddings: Embeddings, layers: Vec<Vec<Sublayer>>) -> Self {
        let (norm, rotary, relative, causality) = (None, None, None, Causality::None);
        Self { embeddings, layers, norm, rotary, relative, causality, dropout: 0.0 }
    }

    /// What its layers are given beside the hidden states.
    pub(crate) fn context<'a>(
        &'a self,
        rows: &Rows,
        encoded: Option<&'a EncodedText>,
    ) -> Context<'a> {
        let mut context = Context::new(rows.device());
        context.encoded = encoded;
        context.causality = self.causality;
        let rotary = self.rotary.as_ref();
        context.angles = rotary.map(|rotary| rotary.angles(&rows.positions(), rows.device()));
        context.relative = self.relative.as_ref();
        context
    }

    /// The sublayers from a layer on, in order.
    pub(crate) fn sublayers_from(&self, layer: usize) -> Vec<&Sublayer> {
        self.layers[layer..].iter().flatten().collect()
    }

    /// What enters a layer.
    pub(crate) fn entering(&self, layer: usize, text: &Text, run: Run<'_>) -> Result<Hidden> {
        let EmbeddedText { hidden, rows, .. } = self.embeddings.forward(text, true, run)?;
        let (context, run) = (self.context(&rows, None), run.over(&rows));
        let below = self.layers.iter().take(layer);
        let states = match self.has_beside(run) {
            false => below.fold(hidden, |hidden, layer| through(layer, hidden, &context, run)),
            true => {
                let mut entered = vec![hidden];
                for layer in below {
                    let hidden = entered[entered.len() - 1].clone();
                    entered.push(through(layer, hidden, &context, run));
                }
                Tensor::cat(entered, 1)
            }
        };
        Ok(Hidden { states, rows, beside: Vec::new() })
    }

    /// How many layers from the first on are on no tape.
    pub(crate) fn frozen_layers(&self, text: &Text, run: Run<'_>) -> Result<usize> {
        let EmbeddedText { mut hidden, rows, .. } = self.embeddings.forward(text, true, run)?;
        if hidden.is_tracked() {
            return Ok(0);
        }
        let (context, run) = (self.context(&rows, None), run.over(&rows));
        for (number, layer) in self.layers.iter().enumerate() {
            hidden = through(layer, hidden, &context, run);
            if hidden.is_tracked() {
                return Ok(number);
            }
        }
        Ok(self.layers.len())
    }

    /// The last layer's output.
    fn forward(
        &self,
        text: &Text,
        packed: bool,
        encoded: Option<&EncodedText>,
        reads: Reads<'_>,
        run: Run<'_>,
    ) -> Result<Hidden> {
        let memo = run.memo_apart();
        let (first, embedded) = match run.from {
            Some(LayerInput { layer, states, rows }) => {
                let (hidden, rows) = (states.clone(), rows.clone());
                (*layer, EmbeddedText { hidden, rows, next: Vec::new() })
            }
            None => (0, self.embeddings.forward(text, packed, run.with_memo(memo.as_ref()))?),
        };
        let EmbeddedText { hidden, rows, next } = embedded;
        let hooks = run.hooks;
        let run = run.over(&rows);
        let read = match packed && run.can_leave_out() {
            true => reads(&rows)?,
            false => None,
        };
        let context = self.context(&rows, encoded);
        let beside = self.beside(hooks, &run.pass);
        if !beside.is_none() {
            let (hidden, tops) = self.with_ladder(hidden, &beside, first, &context, run);
            self.advance(&rows, next, run);
            return Ok(Hidden { states: self.normalized(hidden, run), rows, beside: tops });
        }
        let (hidden, first) = match run.recompute {
            Some(recompute) => {
                // A layer of which little is computed keeps little. Of two layers one is run again.
                let count = self.layers.len();
                let on_tape = if read.is_some() && count > 2 { 2 } else { 1 };
                let top = count.saturating_sub(on_tape).max(first);
                (recompute.entering((self, first..top), hidden, encoded, run), top)
            }
            None => (hidden, first),
        };
        let all = |hidden, layers: &[Vec<Sublayer>]| {
            layers.iter().fold(hidden, |hidden, layer| through(layer, hidden, &context, run))
        };
        if let Some(read) = read {
            let (below, last) =
                self.layers.split_at(self.layers.len().saturating_sub(1).max(first));
            let hidden = all(hidden, &below[first..]);
            return Ok(self.read(last, hidden, &read, &context, run));
        }
        let hidden = all(hidden, &self.layers[first..]);
        self.advance(&rows, next, run);
        Ok(Hidden { states: self.normalized(hidden, run), rows, beside: Vec::new() })
    }

    /// Notes in a cache how far each row is.
    fn advance(&self, rows: &Rows, next: Vec<usize>, run: Run<'_>) {
        if let Some(cache) = run.cache {
            let seen = rows.iter().zip(next);
            let seen = seen.map(|(row, next)| {
                let before = row.words.before + row.text.len();
                let words = Words { before, ..row.words.clone() };
                Seen { tokens: row.past + row.len(), next, words }
            });
            cache.advance(seen.collect());
        }
    }

    /// The layers from `first` on with networks beside all of them: the last one's output, and the last
    /// states of each network. Of the layers below `first`, `hidden` has what entered each side by side.
    fn with_ladder(
        &self,
        hidden: Tensor<2>,
        beside: &SideNetworks<'_>,
        first: usize,
        context: &Context<'_>,
        run: Run<'_>,
    ) -> (Tensor<2>, Vec<Tensor<2>>) {
        let [_, width] = hidden.dims();
        let d = width / (first + 1);
        let entered = |layer: usize| match first {
            0 => hidden.clone(),
            _ => hidden.clone().narrow(1, layer * d, d),
        };
        let mut ladder = Ladder::enter(self, beside, &entered(0), context.encoded, run);
        for layer in 0..first {
            ladder.climb(&self.layers[layer], &entered(layer + 1));
        }
        let mut states = entered(first);
        for layer in &self.layers[first..] {
            states = through(layer, states, context, run);
            ladder.climb(layer, &states);
        }
        (states, ladder.top())
    }

    /// What the networks beside it make of its output.
    fn left(&self, hidden: Hidden, run: Run<'_>) -> Hidden {
        let Hidden { states, rows, beside } = hidden;
        let pass = run.over(&rows).pass;
        let states = self.beside(run.hooks, &pass).leave(beside, states, &pass);
        Hidden { states, rows, beside: Vec::new() }
    }

    /// The last layer's output of one token of each text: what it makes of the others nobody sees.
    fn read(
        &self,
        last: &[Vec<Sublayer>],
        hidden: Tensor<2>,
        read: &[usize],
        context: &Context<'_>,
        run: Run<'_>,
    ) -> Hidden {
        // Each is a text of one token, whichever token is read.
        let rows = run.pass.rows.single(read);
        let of_read = run.over(&rows);
        let mut sublayers = last.iter().flatten();
        let hidden = match sublayers.next() {
            Some(first) => first.at(hidden, read, context, [run, of_read]),
            None => tokens_at(hidden, read),
        };
        let hidden =
            sublayers.fold(hidden, |hidden, sublayer| sublayer.forward(hidden, context, of_read));
        Hidden { states: self.normalized(hidden, of_read), rows, beside: Vec::new() }
    }

    pub(crate) fn normalized(&self, hidden: Tensor<2>, run: Run<'_>) -> Tensor<2> {
        match &self.norm {
            Some(norm) => run.pass.dropout(norm.forward(hidden, run), self.dropout),
            None => hidden,
        }
    }
}

/// A layer's output.
pub(crate) fn through(
    layer: &[Sublayer],
    hidden: Tensor<2>,
    context: &Context<'_>,
    run: Run<'_>,
) -> Tensor<2> {
    layer.iter().fold(hidden, |hidden, sublayer| sublayer.forward(hidden, context, run))
}

/// The states of some tokens: `[chosen, d]`.
pub(crate) fn tokens_at(states: Tensor<2>, tokens: &[usize]) -> Tensor<2> {
    if tokens.iter().copied().eq(0..states.dims()[0]) {
        return states;
    }
    let indices: Vec<i64> = tokens.iter().map(|token| *token as i64).collect();
    let (device, count) = (states.device().without_autodiff(), indices.len());
    states.select(0, Tensor::<1, Int>::from_data(TensorData::new(indices, [count]), &device))
}
