//! Prefix tuning, prompt tuning and P-tuning have the properties that every method must have.

use peft_conformance::{Expect, HostKind, conformance};
use peft_core::Activation;
use peft_prefix::{
    AdaptionPromptConfig, Combine, CptConfig, EncoderType, MultitaskPromptConfig, PTuningConfig,
    PrefixInit, PrefixTuningConfig, PromptInit, PromptPart, PromptTuningConfig,
};

const HIDDEN: usize = 24;
const LAYERS: usize = 2;
/// The host has 12 positions, and its longest text 7 tokens.
const LENGTH: usize = 5;

const fn linear(d_in: usize, d_out: usize) -> usize {
    d_in * d_out + d_out
}

/// `2 L d` per layer.
const fn flat(length: usize, d: usize, layers: usize) -> usize {
    2 * length * d * layers
}

/// The embedding and the two linear layers above it.
const fn projected(length: usize, d: usize, m: usize, layers: usize) -> usize {
    length * d + linear(d, m) + linear(m, 2 * layers * d)
}

const fn mlp(length: usize, d: usize, h: usize) -> usize {
    length * d + linear(d, h) + linear(h, h) + linear(h, d)
}

/// Two directions of four gates, each with a weight and a bias for the input and for the hidden
/// state.
const fn lstm_layer(d_in: usize, h: usize) -> usize {
    2 * 4 * (linear(d_in, h) + linear(h, h))
}

const fn lstm(length: usize, d: usize, h: usize) -> usize {
    let layers = lstm_layer(d, h) + lstm_layer(2 * h, h);
    length * d + layers + linear(2 * h, 2 * h) + linear(2 * h, d)
}

/// HF PEFT counts as many on a BERT with d = 32 and two layers, and a head of three labels beside.
const _: () = {
    let head = linear(32, 3);
    assert!(flat(5, 32, 2) + head == 739);
    assert!(projected(4, 32, 24, 2) + head == 4219);
    assert!(6 * 32 + head == 291);
    assert!(mlp(6, 32, 20) + head == 2043);
    assert!(lstm(6, 32, 20) + head == 21803);
};

fn trains(trainable: usize) -> Expect {
    Expect { identity_at_init: false, trainable: Some(trainable), ..Expect::default() }
}

fn prefix() -> PrefixTuningConfig {
    PrefixTuningConfig { num_virtual_tokens: LENGTH, ..PrefixTuningConfig::default() }
}

conformance!(flat_prefix, prefix(), trains(flat(LENGTH, HIDDEN, LAYERS)));

conformance!(
    projected_prefix,
    PrefixTuningConfig { prefix_projection: true, encoder_hidden_size: Some(10), ..prefix() },
    trains(projected(LENGTH, HIDDEN, 10, LAYERS))
);

conformance!(
    projected_prefix_of_the_hidden_size,
    PrefixTuningConfig { prefix_projection: true, non_linearity: Activation::Gelu, ..prefix() },
    trains(projected(LENGTH, HIDDEN, HIDDEN, LAYERS))
);

conformance!(
    unshifted_prefix,
    PrefixTuningConfig { shift_positions: false, ..prefix() },
    trains(flat(LENGTH, HIDDEN, LAYERS))
);

conformance!(
    zero_prefix,
    PrefixTuningConfig { init_weights: Some(PrefixInit::Zero), ..prefix() },
    trains(flat(LENGTH, HIDDEN, LAYERS))
);

conformance!(
    prefix_in_one_layer,
    PrefixTuningConfig { leave_out: vec![0], ..prefix() },
    trains(flat(LENGTH, HIDDEN, 1))
);

fn prompt() -> PromptTuningConfig {
    PromptTuningConfig { num_virtual_tokens: LENGTH, ..PromptTuningConfig::default() }
}

conformance!(random_prompt, prompt(), trains(LENGTH * HIDDEN));

conformance!(
    uniform_prompt_after_the_first_token,
    PromptTuningConfig {
        random_uniform_scale: Some(0.5),
        combine: Combine::PrefixAfterBos,
        ..prompt()
    },
    trains(LENGTH * HIDDEN)
);

conformance!(
    prompt_after_embeddings,
    PromptTuningConfig { after_embeddings: true, ..prompt() },
    trains(LENGTH * HIDDEN)
);

conformance!(
    prompt_of_drawn_words,
    PromptTuningConfig { prompt_tuning_init: PromptInit::SampleVocab, ..prompt() },
    trains(LENGTH * HIDDEN)
);

conformance!(
    prompt_of_a_text,
    PromptTuningConfig {
        prompt_tuning_init: PromptInit::Text,
        prompt_tuning_init_text: Some("good or bad".into()),
        prompt_tuning_init_ids: Some(vec![17, 5, 59]),
        ..prompt()
    },
    trains(LENGTH * HIDDEN)
);

fn p_tuning() -> PTuningConfig {
    PTuningConfig {
        num_virtual_tokens: LENGTH,
        encoder_hidden_size: Some(10),
        ..PTuningConfig::default()
    }
}

/// As in HF PEFT, the MLP has no dropout; the LSTM has.
fn trains_an_mlp(length: usize) -> Expect {
    Expect { dropout: Some(&[]), ..trains(mlp(length, HIDDEN, 10)) }
}

conformance!(p_tuning_with_an_mlp, p_tuning(), trains_an_mlp(LENGTH));

conformance!(
    p_tuning_with_an_lstm,
    PTuningConfig { encoder_reparameterization_type: EncoderType::Lstm, ..p_tuning() },
    trains(lstm(LENGTH, HIDDEN, 10))
);

conformance!(
    p_tuning_around_the_text,
    PTuningConfig {
        num_virtual_tokens: 4,
        template: Some(vec![
            PromptPart::Bos,
            PromptPart::Virtual(3),
            PromptPart::Anchor(vec![44]),
            PromptPart::Text,
            PromptPart::Virtual(1),
        ]),
        ..p_tuning()
    },
    // What stands behind a text is not between it and what follows.
    Expect { goes_on: false, ..trains_an_mlp(4) }
);

conformance!(
    llama_adapter,
    AdaptionPromptConfig { adapter_len: 3, ..AdaptionPromptConfig::default() },
    Expect { trainable: Some(LAYERS * (3 * HIDDEN + 1)), ..Expect::default() }
);

conformance!(
    llama_adapter_in_the_last_layer,
    AdaptionPromptConfig {
        adapter_len: 4,
        adapter_layers: Some(1),
        ..AdaptionPromptConfig::default()
    },
    Expect { trainable: Some(4 * HIDDEN + 1), ..Expect::default() }
);

conformance!(
    multitask_prompt,
    MultitaskPromptConfig {
        num_virtual_tokens: LENGTH,
        num_tasks: 3,
        num_ranks: 2,
        ..MultitaskPromptConfig::default()
    },
    trains(LENGTH * HIDDEN + 3 * 2 * (LENGTH + HIDDEN))
);

conformance!(
    context_aware_prompt,
    CptConfig {
        cpt_token_ids: Some(vec![7, 9, 11, 13]),
        // So far that nothing is cut to its bound.
        opt_projection_epsilon: 50.0,
        opt_projection_format_epsilon: 60.0,
        cpt_tokens_type_mask: Some(vec![1, 2, 6, 3]),
        ..CptConfig::default()
    },
    // It has an encoder.
    Expect { unfit: &[HostKind::T5], ..trains(4 * HIDDEN) }
);
