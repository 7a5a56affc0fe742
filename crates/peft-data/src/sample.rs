//! One example as token indices.

use std::ops::Range;
use std::sync::Arc;

use peft_models::{ContextWindow, Encoded, EncodedWords, ModelConfig, TextTokenizer};

use crate::{Answer, Dataset, Error, Example, Goal, Result, Target, Text};

/// A part of the text of a question that fits into a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// The index of the example in its data set.
    pub example: usize,
    /// The whole text.
    pub context: Arc<str>,
    /// For each token, the bytes of the text that it is of; `None` for other tokens.
    pub tokens: Vec<Option<Range<usize>>>,
}

impl Window {
    /// The tokens that an answer begins and ends with; the first of all, which is no part of the
    /// text, where there is none, or not here.
    fn span(&self, answers: &[Answer]) -> [usize; 2] {
        // As in SQuAD's training data, which has one: the others are for measuring.
        let Some(Answer { text, start }) = answers.first() else { return [0, 0] };
        let end = start + text.len();
        let place = |is_it: &dyn Fn(&Range<usize>) -> bool| {
            self.tokens.iter().position(|bytes| bytes.as_ref().is_some_and(is_it))
        };
        let begins = place(&|bytes| bytes.start <= *start && *start < bytes.end);
        let ends = place(&|bytes| bytes.start < end && end <= bytes.end);
        match (begins, ends) {
            (Some(begins), Some(ends)) if begins <= ends => [begins, ends],
            _ => [0, 0],
        }
    }
}

/// An example as token indices, or a window of it.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    /// The text; what is learned of a causal language model is part of it.
    pub(crate) text: Encoded,
    /// What the decoder of an encoder-decoder is given.
    pub(crate) decoder: Option<Vec<u32>>,
    /// Tokens (the decoder's, if there is one) that the model is asked about; none of a task over
    /// whole texts.
    pub(crate) places: Vec<usize>,
    /// What the text, or its tokens at `places`, should give, if that is known.
    pub(crate) targets: Vec<Target>,
    /// Of a task over words: the word at each of `places`.
    pub(crate) words: Vec<usize>,
    /// Of a question: the part of its text.
    pub(crate) window: Option<Window>,
}

impl Sample {
    /// The examples of a data set.
    pub(crate) fn all(
        dataset: &Dataset,
        tokenizer: &TextTokenizer,
        config: &ModelConfig,
    ) -> Result<Vec<Self>> {
        match dataset.labels.goal {
            Goal::Classify | Goal::MultiLabel | Goal::Regress | Goal::MaskedLm => {
                let encoded = tokenizer.encode(&texts(dataset))?;
                let targets = dataset.examples.iter().map(|e| e.target.iter().cloned().collect());
                Ok(encoded.into_iter().zip(targets).map(|(t, g)| Self::whole(t, g)).collect())
            }
            Goal::Tag => {
                let texts = dataset.examples.iter().map(|example| match &example.text {
                    Text::Words(words) => words.clone(),
                    Text::One(text) | Text::Pair(text, _) => vec![text.clone()],
                });
                let encoded = tokenizer.encode_words(&texts.collect::<Vec<_>>())?;
                let examples = encoded.into_iter().zip(&dataset.examples);
                Ok(examples.map(|(words, example)| Self::tagged(words, example)).collect())
            }
            Goal::QuestionAnswering => {
                let pairs: Vec<(String, String)> = texts(dataset)
                    .into_iter()
                    .map(|(question, context)| (question, context.unwrap_or_default()))
                    .collect();
                let encoded = tokenizer.encode_questions(&pairs)?.into_iter().enumerate();
                let examples = encoded.zip(pairs).flat_map(|((example, windows), (_, context))| {
                    let (context, target) =
                        (Arc::<str>::from(context), &dataset.examples[example].target);
                    windows.into_iter().map(move |ContextWindow { text, context: tokens }| {
                        Self::asked(
                            text,
                            Window { example, context: context.clone(), tokens },
                            target,
                        )
                    })
                });
                Ok(examples.collect())
            }
            Goal::CausalLm => {
                let end = config.eos_token_id();
                let encoded = tokenizer.encode(&texts(dataset))?.into_iter();
                let continuations = tokenizer.encode_plain(&continuations(dataset))?;
                let most = tokenizer.max_tokens();
                Ok(encoded
                    .zip(continuations)
                    .map(|(text, more)| Self::continued(text, more, end, most))
                    .collect())
            }
            Goal::Seq2Seq => {
                let start = config.decoder_start_token_id().ok_or_else(|| {
                    let expected = "the model's config.json has no decoder_start_token_id";
                    Error::setting("task", "seq2seq", expected)
                })?;
                let encoded = tokenizer.encode(&texts(dataset))?.into_iter();
                let targets = tokenizer.encode_targets(&continuations(dataset))?;
                let end = config.eos_token_id();
                Ok(encoded.zip(targets).map(|(t, g)| Self::translated(t, g, start, end)).collect())
            }
        }
    }

    /// How many tokens a model computes with.
    pub(crate) fn tokens(&self) -> usize {
        self.text.ids.len() + self.decoder.as_ref().map_or(0, Vec::len)
    }

    fn whole(text: Encoded, targets: Vec<Target>) -> Self {
        let (places, words) = (Vec::new(), Vec::new());
        Self { text, decoder: None, places, targets, words, window: None }
    }

    /// An answer may begin and end at any token.
    fn asked(text: Encoded, window: Window, target: &Option<Target>) -> Self {
        let span = match target {
            Some(Target::Answers(answers)) => Some(Target::Span(window.span(answers))),
            _ => None,
        };
        let places = (0..text.ids.len()).collect();
        let whole = Self::whole(text, span.into_iter().collect());
        Self { places, window: Some(window), ..whole }
    }

    /// A word's label is that of its first token.
    fn tagged(EncodedWords { text, words }: EncodedWords, example: &Example) -> Self {
        let mut sample = Self::whole(text, Vec::new());
        for (token, word) in words.into_iter().enumerate() {
            let Some(word) = word else { continue };
            if sample.words.last() == Some(&word) {
                continue;
            }
            sample.places.push(token);
            sample.words.push(word);
            if let Some(Target::Tags(tags)) = &example.target {
                sample.targets.push(Target::Class(tags[word]));
            }
        }
        sample
    }

    /// A text and what follows it, up to the end token; without anything that follows, the whole
    /// text is learned. Where there are too many tokens, the front of the text goes first.
    fn continued(mut text: Encoded, more: Vec<u32>, end: Option<u32>, most: usize) -> Self {
        let from = if more.is_empty() { 1 } else { text.ids.len().max(1) };
        let truncated = text.truncated;
        let mut added = more;
        added.extend(end.filter(|_| !truncated));
        added.truncate(most.saturating_sub(1));
        let over = (text.ids.len() + added.len()).saturating_sub(most);
        let cut = if from > 1 { over } else { 0 };
        text.ids.drain(..cut);
        text.ids.extend(&added);
        text.ids.truncate(most);
        text.truncated |= over > 0;
        text.segments = vec![0; text.ids.len()];
        text.special = vec![false; text.ids.len()];
        let from = from.saturating_sub(cut).max(1);
        let places: Vec<usize> = (from - 1..text.ids.len().saturating_sub(1)).collect();
        let next = |&place: &usize| Target::Class(text.ids[place + 1] as usize);
        let targets = places.iter().map(next).collect();
        Self { places, ..Self::whole(text, targets) }
    }

    /// A text and what the decoder should make of it.
    fn translated(text: Encoded, target: Encoded, start: u32, end: Option<u32>) -> Self {
        let mut wanted = target.ids;
        if let Some(end) = end
            && !target.truncated
            && wanted.last() != Some(&end)
        {
            wanted.push(end);
        }
        let before = [&[start], &wanted[..wanted.len().saturating_sub(1)]].concat();
        let truncated = text.truncated || target.truncated;
        let targets: Vec<Target> =
            wanted.into_iter().map(|id| Target::Class(id as usize)).collect();
        let places = (0..targets.len()).collect();
        let text = Encoded { truncated, ..text };
        Self { decoder: Some(before), places, ..Self::whole(text, targets) }
    }
}

/// Texts and pairs.
fn texts(dataset: &Dataset) -> Vec<(String, Option<String>)> {
    let text = |example: &Example| match &example.text {
        Text::One(text) => (text.clone(), None),
        Text::Pair(text, pair) => (text.clone(), Some(pair.clone())),
        Text::Words(words) => (words.join(" "), None),
    };
    dataset.examples.iter().map(text).collect()
}

/// What follows each text; between the two is a blank, unless the text ends with one.
fn continuations(dataset: &Dataset) -> Vec<String> {
    let is_causal = dataset.labels.goal == Goal::CausalLm;
    let after = |example: &Example| {
        let Some(Target::Text(more)) = &example.target else { return String::new() };
        let joined = match &example.text {
            Text::One(text) | Text::Pair(text, _) => text.ends_with(char::is_whitespace),
            Text::Words(_) => false,
        };
        if is_causal && !joined { format!(" {more}") } else { more.clone() }
    };
    dataset.examples.iter().map(after).collect()
}
