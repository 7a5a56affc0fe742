//! Selective methods have the properties that every method must have.

use burn::tensor::{Device, Tensor};
use peft_conformance::{Expect, Host, HostKind, Subject, conformance, properties};
use peft_core::{
    Base, EmptyPass, Error, Exchange, Hooks, InitContext, LinearLayer, Method, MethodConfig,
    ModuleNames, Role, Targets, change_at, num_trainable,
};
use peft_format::{Adapter, AdapterConfig, Registry, TaskType};
use peft_sparse::{
    BiasTerms, BitFitConfig, DiffPruningConfig, FarConfig, FishMaskConfig, HeadOnlyConfig,
    LayerChoice, LayerGroupConfig, LnTuningConfig, LotteryScore, LotteryTicketConfig,
    MagnitudeMaskConfig, ModuleChoice, ShiraConfig, SuperTuningConfig, TrainableTokensConfig,
    presets,
};
use serde_json::{Value, json};

const HIDDEN: usize = 24;
const INNER: usize = 40;
const LAYERS: usize = 2;
const LABELS: usize = 3;

/// The biases of the linear layers in a layer, and of the pooler.
const LAYER_BIASES: usize = 4 * HIDDEN + INNER + HIDDEN;
/// The embeddings' norm, and two norms of each layer.
const NORMS: usize = 1 + 2 * LAYERS;

const fn linear(d_in: usize, d_out: usize) -> usize {
    d_in * d_out + d_out
}

/// All of a layer: four projections, two feed-forward layers, two norms.
const LAYER: usize =
    4 * linear(HIDDEN, HIDDEN) + linear(HIDDEN, INNER) + linear(INNER, HIDDEN) + 2 * 2 * HIDDEN;

fn trains(trainable: usize) -> Expect {
    Expect { trainable: Some(trainable), ..Expect::default() }
}

/// The same on BERT alone, whose modules are named.
fn by_berts_names(trainable: usize) -> Expect {
    Expect { unfit: HostKind::OTHERS, ..trains(trainable) }
}

fn targets(names: &[&str]) -> Targets {
    let target_modules = Some(ModuleNames::list(names.iter().copied()));
    Targets { target_modules, ..Targets::default() }
}

conformance!(
    bitfit,
    BitFitConfig::default(),
    trains(LAYERS * LAYER_BIASES + HIDDEN + NORMS * HIDDEN)
);

conformance!(
    trainable_tokens,
    TrainableTokensConfig { token_indices: vec![3, 1, 5, 2, 4], ..Default::default() },
    trains(5 * HIDDEN)
);

conformance!(
    bitfit_of_queries_and_the_first_feed_forward_layers,
    BitFitConfig { bias_terms: BiasTerms::QueryIntermediate, ..BitFitConfig::default() },
    trains(LAYERS * (HIDDEN + INNER))
);

conformance!(
    bitfit_by_names,
    BitFitConfig { targets: targets(&["value", "LayerNorm"]), ..BitFitConfig::default() },
    by_berts_names(LAYERS * HIDDEN + NORMS * HIDDEN)
);

conformance!(ln_tuning, LnTuningConfig::default(), trains(2 * NORMS * HIDDEN));

conformance!(
    ln_tuning_by_names,
    LnTuningConfig { targets: targets(&["attention.output.LayerNorm"]) },
    by_berts_names(2 * LAYERS * HIDDEN)
);

fn layers(count: i64) -> LayerGroupConfig {
    LayerGroupConfig { layers: LayerChoice::Count(count), ..LayerGroupConfig::default() }
}

conformance!(last_layer, layers(1), trains(LAYER));
/// As many values as a LoRA: at random places, of which not every set reaches its rank.
fn entries(trainable: usize) -> Expect {
    Expect { reaches_change: false, ..trains(trainable) }
}

fn shira(rank: usize) -> ShiraConfig {
    ShiraConfig { rank, ..ShiraConfig::default() }
}

conformance!(shira_of_rank_4, shira(4), entries(LAYERS * 2 * 4 * 2 * HIDDEN));

conformance!(
    shira_random,
    ShiraConfig { init: false, seed: Some(5), ..shira(2) },
    Expect { identity_at_init: false, ..entries(LAYERS * 2 * 2 * 2 * HIDDEN) }
);

fn super_tuning(sparsity: f64) -> SuperTuningConfig {
    SuperTuningConfig { sparsity, ..SuperTuningConfig::default() }
}

// A few entries of each matrix, and a LoRA whose dropout may act.
conformance!(
    super_tuning_of_few,
    super_tuning(0.99),
    Expect { dropout: Some(&[]), ..entries(LAYERS * 2 * 5) }
);

conformance!(
    super_tuning_of_the_smallest,
    SuperTuningConfig { select_top: false, save_places: false, ..super_tuning(0.8) },
    Expect { dropout: Some(&[]), ..entries(LAYERS * 2 * 115) }
);

conformance!(
    super_tuning_with_factors,
    SuperTuningConfig { rank: Some(3), alpha: Some(5.0), ..super_tuning(0.9) },
    entries(LAYERS * 2 * (57 + 3 * 2 * HIDDEN))
);

conformance!(first_layer, layers(-1), trains(LAYER));

conformance!(
    attention_of_all_layers,
    LayerGroupConfig { modules: ModuleChoice::Names(vec!["attention".into()]), ..layers(2) },
    by_berts_names(LAYERS * (4 * linear(HIDDEN, HIDDEN) + 2 * HIDDEN))
);

conformance!(
    full,
    LayerGroupConfig { layers: LayerChoice::All, ..LayerGroupConfig::default() },
    // The layers, the norm of the embeddings, the pooler.
    trains(LAYERS * LAYER + 2 * HIDDEN + linear(HIDDEN, HIDDEN))
);

/// The entries of all linear layers but the head.
const ENTRIES: usize = LAYERS * (4 * HIDDEN * HIDDEN + 2 * HIDDEN * INNER) + HIDDEN * HIDDEN;

/// A share of them; not every set of entries reaches its rank, and nothing drops anything.
fn entries_of_all(ratio: f64) -> Expect {
    let count = (ENTRIES as f64 * ratio).round() as usize;
    Expect { reaches_change: false, ..trains(count) }
}

/// All of them are trained, and what is left is chosen by their values.
fn chosen() -> Expect {
    Expect { reaches_change: false, fixed_change: false, ..trains(ENTRIES) }
}

fn fish(keep_ratio: f64) -> FishMaskConfig {
    FishMaskConfig { keep_ratio, ..FishMaskConfig::default() }
}

conformance!(fish_mask, FishMaskConfig::default(), entries_of_all(0.005));

conformance!(
    fish_mask_of_three_examples,
    FishMaskConfig { num_samples: 3, ..fish(0.2) },
    entries_of_all(0.2)
);

conformance!(magnitude_mask, MagnitudeMaskConfig::default(), entries_of_all(0.005));

conformance!(
    magnitude_mask_of_the_smallest,
    MagnitudeMaskConfig { select_top: false, keep_ratio: 0.1, ..Default::default() },
    entries_of_all(0.1)
);

conformance!(lt_sft, LotteryTicketConfig::default(), chosen());

conformance!(
    lt_sft_with_a_penalty,
    LotteryTicketConfig { l1_reg: 0.5, full_share: 0.3, keep_ratio: 0.2, ..Default::default() },
    chosen()
);

conformance!(
    imp,
    LotteryTicketConfig {
        rounds: 3,
        score: LotteryScore::Magnitude,
        full_share: 0.8,
        keep_ratio: 0.1,
        ..Default::default()
    },
    chosen()
);

/// Two values for each entry; what is chosen in the end depends on them.
fn gated(more: usize) -> Expect {
    Expect { trainable: Some(2 * ENTRIES + more), ..chosen() }
}

/// Gates that are half open: at the ends they have no gradient where nothing is drawn.
fn half_open(keep_ratio: f64) -> DiffPruningConfig {
    DiffPruningConfig { alpha_init: 0.4, keep_ratio, sparsity_pen: 1e-3, ..Default::default() }
}

conformance!(diff_pruning, half_open(0.1), gated(0));

conformance!(
    diff_pruning_structured,
    DiffPruningConfig { structured: true, gate_share: 0.3, ..half_open(0.3) },
    gated(LAYERS * 6 + 1)
);

conformance!(far, FarConfig::default(), trains(LAYERS * 2 * HIDDEN * INNER));

conformance!(
    far_of_one_network,
    FarConfig {
        keep_ratio: 0.4,
        priming_share: 0.3,
        targets: Targets {
            target_modules: Some(ModuleNames::Pattern(
                r".*layer\.1\.(intermediate|output)\.dense".into()
            )),
            ..Targets::default()
        },
    },
    by_berts_names(2 * HIDDEN * INNER)
);

/// All properties but that something beside the head is trained.
mod head_only {
    use super::*;

    fn subject() -> Subject {
        Subject::new(HeadOnlyConfig::default(), Expect::default())
    }

    #[test]
    fn it_starts_and_trains() {
        properties::the_start_is_the_base(&subject());
        properties::every_trained_parameter_gets_a_gradient(&subject());
        properties::a_step_changes_only_what_is_trained(&subject());
        properties::training_leaves_the_base_alone(&subject());
        properties::off_is_the_base(&subject());
        properties::gradient_checkpointing_changes_nothing(&subject());
    }

    #[test]
    fn it_is_merged_and_saved() {
        properties::merged_equals_unmerged(&subject());
        properties::unmerging_gives_the_base_back(&subject());
        properties::weight_agrees_with_linear(&subject());
        properties::changes_what_it_says(&subject());
        properties::a_saved_adapter_loads_as_it_was(&subject());
    }

    #[test]
    fn nothing_but_the_head_is_trained() {
        let config = AdapterConfig::new(Box::new(HeadOnlyConfig::default()));
        let config = config.with_task(TaskType::SequenceClassification, host().model.base());
        let adapter = Adapter::new(config, host().model.base(), &Device::default());
        assert_eq!(num_trainable(&adapter.expect("it fits").method), linear(HIDDEN, LABELS));
    }
}

fn host() -> Host {
    Host::new(&Device::default())
}

fn text(error: Option<Error>) -> String {
    error.expect("it is an error").to_string()
}

fn keys<C: MethodConfig>(config: &C, base: &Base) -> Vec<String> {
    let mut file = Exchange::describe();
    let device = Device::default();
    config.init(&InitContext::new(base, &device)).expect("it fits").exchange(&mut file, base);
    file.into_specs().into_iter().map(|spec| spec.key).collect()
}

#[test]
fn keys_are_those_of_the_modules() {
    let host = host();
    let base = host.model.base();
    let config = BitFitConfig { targets: targets(&["pooler.dense"]), ..BitFitConfig::default() };
    assert_eq!(keys(&config, base), ["base_model.model.bert.pooler.dense.bias"]);
    let config = LnTuningConfig { targets: targets(&["embeddings.LayerNorm"]) };
    let norm = "base_model.model.bert.embeddings.LayerNorm.ln_tuning_layers";
    assert_eq!(keys(&config, base), [format!("{norm}.weight"), format!("{norm}.bias")]);
    let names = vec!["intermediate".into()];
    let config = LayerGroupConfig { modules: ModuleChoice::Names(names), ..layers(-1) };
    let dense = "base_model.model.bert.encoder.layer.0.intermediate.dense";
    assert_eq!(keys(&config, base), [format!("{dense}.weight"), format!("{dense}.bias")]);
}

#[test]
fn a_layer_without_a_bias_gets_one_of_zeros() {
    let device = Device::default();
    let mut base = Base::new(&device);
    let weight = Tensor::<2>::ones([4, 3], &device);
    let site = base.linear("wi", Role::Other, None, weight, None);
    let context = InitContext::new(&base, &device);
    let bitfit = BitFitConfig::default().init(&context).expect("it fits");
    let parts = EmptyPass::new(&device);
    let layer = LinearLayer::new(&site, base.weight(&site), None);
    let (_, bias) = bitfit.linear(&site, &parts.pass()).dense(&layer);
    let bias = bias.expect("it was added").into_data();
    assert_eq!(bias.try_into_vec::<f32>().expect("floats"), [0.0; 3]);
    assert_eq!(change_at(&bitfit, &site, &parts.pass()).bias, 3);
    let without = BitFitConfig { add_missing: false, ..BitFitConfig::default() };
    assert_eq!(
        text(without.init(&context).err()),
        "add_missing = false: none of the chosen modules has a bias"
    );
}

#[test]
fn names_that_select_nothing_are_told() {
    let host = host();
    let base = host.model.base();
    let unmatched = |errors: peft_core::Result<Vec<Error>>| -> Vec<String> {
        let told = |error: &Error| match error {
            Error::NoMatch { field, pattern, .. } => format!("{field} {pattern}"),
            other => other.to_string(),
        };
        errors.expect("something matches").iter().map(told).collect()
    };
    let bitfit = |names: &[&str]| BitFitConfig { targets: targets(names), ..Default::default() };
    assert_eq!(unmatched(bitfit(&["value", "LayerNorm"]).unmatched(base)), [""; 0]);
    let missed = unmatched(bitfit(&["value", "LayerNorm", "qurey"]).unmatched(base));
    assert_eq!(missed, ["target_modules \"qurey\""]);
    let missed = unmatched(bitfit(&["LayerNorm", "qurey"]).unmatched(base));
    assert_eq!(missed, ["target_modules \"qurey\""]);
    let names = vec!["attention".into(), "attnetion".into()];
    let config = LayerGroupConfig { modules: ModuleChoice::Names(names), ..layers(1) };
    let missed = unmatched(config.unmatched(base));
    assert_eq!(missed, ["freeze_trainable_modules \"attnetion\""]);
}

#[test]
fn layers_that_are_not_there_are_refused() {
    let host = host();
    let base = host.model.base();
    let error = |fields: Value| {
        let config: LayerGroupConfig = serde_json::from_value(fields).expect("it can be read");
        text(config.init(&InitContext::new(base, &Device::default())).err())
    };
    assert_eq!(
        error(json!({"freeze_trainable_layers": -3})),
        "freeze_trainable_layers = -3: the model has 2 layers"
    );
    assert_eq!(
        error(json!({"freeze_trainable_layers": 0})),
        "freeze_trainable_layers = 0: must be a number of last layers, a negative one of first \
         layers, or \"all\""
    );
    assert_eq!(
        error(json!({"freeze_trainable_modules": "attn"})),
        "freeze_trainable_modules [\"attn\"] matches no module of the chosen layers of the model; \
         it has: LayerNorm, dense, key, query, value"
    );
}

#[test]
fn presets_are_fields_of_the_configuration() {
    let mut registry = Registry::new();
    for (name, about, fields) in presets() {
        registry.preset::<LayerGroupConfig>(name, about, fields);
    }
    let config = registry.configure("full", Default::default()).expect("it is registered");
    assert_eq!(config.to_fields()["freeze_trainable_layers"], "all");
}
