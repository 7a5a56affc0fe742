//! LoRA and its variants have the properties that every method must have.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use peft_conformance::{Expect, Host, HostKind, conformance};
use peft_core::{
    Base, EmptyPass, FrozenWeight, Hooks, InitContext, LinearLayer, MethodConfig, ModuleNames,
    PackedWeight, PatternMap, Role, Targets, change_at, merge_obstacle,
};
use peft_lora::{CordaConfig, CordaMethod, EvaConfig, LoftqConfig, LoraBias, LoraConfig, LoraInit};
use serde_json::json;

const HIDDEN: usize = 24;
const INNER: usize = 40;
const LAYERS: usize = 2;

/// Rank 3 at a scale of 7/3, on every linear layer but the head.
fn on_all_linear() -> LoraConfig {
    let targets = Targets {
        target_modules: Some(ModuleNames::Pattern("all-linear".into())),
        ..Targets::default()
    };
    LoraConfig { rank: 3, alpha: 7.0, targets, ..LoraConfig::default() }
}

/// `r (d_in + d_out)` over queries, keys, values, attention outputs and two feed-forward layers of
/// each layer, and the pooler.
const FACTORS: usize = 3 * (LAYERS * (4 * 2 * HIDDEN + 2 * (HIDDEN + INNER)) + 2 * HIDDEN);
/// One value per output of the same layers: a bias, or DoRA's magnitudes.
const OUTPUTS: usize = LAYERS * (4 * HIDDEN + INNER + HIDDEN) + HIDDEN;
/// The biases of the norms: one of the embeddings, two of each layer.
const NORM_BIASES: usize = (1 + 2 * LAYERS) * HIDDEN;

fn trains(trainable: usize) -> Expect {
    Expect { trainable: Some(trainable), ..Expect::default() }
}

conformance!(lora, on_all_linear(), trains(FACTORS));

conformance!(
    queries_and_values,
    LoraConfig { rank: 3, alpha: 7.0, ..LoraConfig::default() },
    trains(LAYERS * 2 * 3 * 2 * HIDDEN)
);

conformance!(
    parameters,
    LoraConfig {
        rank: 3,
        alpha: 7.0,
        target_parameters: Some(vec!["query.weight".into(), "output.dense.weight".into()]),
        ..LoraConfig::default()
    },
    Expect { unfit: HostKind::OTHERS, ..trains(LAYERS * 3 * (2 * 2 * HIDDEN + HIDDEN + INNER)) }
);

#[test]
fn a_parameter_that_is_nowhere_is_an_error_that_lists_what_there_is() {
    let host = peft_conformance::Host::new(&Device::default());
    let names = Some(vec!["mlp.experts.gate_up_proj".to_string()]);
    let config = LoraConfig { target_parameters: names, ..LoraConfig::default() };
    let error = config.sites(host.model.base()).expect_err("there is none").to_string();
    assert!(error.starts_with("target_parameters mlp.experts.gate_up_proj matches no"), "{error}");
    assert!(error.contains("query.weight"), "{error}");
}

/// `A` is frozen: `r d_out` is left.
const FACTORS_OF_OUTPUTS: usize = 3 * OUTPUTS;

conformance!(lora_fa, LoraConfig { lora_fa: true, ..on_all_linear() }, trains(FACTORS_OF_OUTPUTS));

conformance!(rslora, LoraConfig { use_rslora: true, ..on_all_linear() }, trains(FACTORS));

conformance!(dora, LoraConfig { use_dora: true, ..on_all_linear() }, trains(FACTORS + OUTPUTS));

conformance!(
    dora_of_embeddings,
    LoraConfig {
        use_dora: true,
        rank: 3,
        alpha: 7.0,
        targets: Targets {
            target_modules: Some(ModuleNames::list(["query", "word_embeddings"])),
            ..Targets::default()
        },
        ..LoraConfig::default()
    },
    // Named as BERT has them.
    Expect { unfit: HostKind::OTHERS, ..Expect::default() }
);

conformance!(
    dora_of_adapters,
    LoraConfig { use_dora: true, adapters_dora: true, ..on_all_linear() },
    // Where the scale is not 1, the norm of `W + A B` is not that of what it divides; there is nothing of
    // the factors in it before they are trained.
    trains(FACTORS + OUTPUTS)
);

/// Of texts whose words are not known nothing is changed, and nothing dropped.
fn is_activated(expect: Expect) -> Expect {
    Expect { unfit: &[HostKind::T5], dropout: Some(&[]), ..expect }
}

conformance!(
    activated,
    // The beginning of one text, and of no other.
    LoraConfig { alora_invocation_tokens: Some(vec![2, 17]), ..on_all_linear() },
    is_activated(trains(FACTORS))
);

conformance!(
    activated_by_every_text,
    LoraConfig { alora_invocation_tokens: Some(vec![2]), lora_bias: true, ..on_all_linear() },
    is_activated(Expect::default())
);

/// Before the invocation a decoder computes what the base does, bit for bit, whatever else it adapts.
#[test]
fn before_its_invocation_there_is_the_base() {
    let device = Device::default();
    let host = Host::of(HostKind::Llama, &device);
    let base = host.model.base();
    let config = LoraConfig {
        init: LoraInit::Random,
        alora_invocation_tokens: Some(vec![5, 59]),
        ..on_all_linear()
    };
    let method = config.init(&InitContext::new(base, &device)).expect("it fits").valid();
    let (found, unadapted) = (host.logits(&method), host.logits(&()));
    // The host's texts have 7, 3, 5 and 2 tokens; the third and fourth of the first are the invocation.
    let words = found.len() / (7 + 3 + 5 + 2);
    for (token, (found, unadapted)) in found.chunks(words).zip(unadapted.chunks(words)).enumerate()
    {
        assert_eq!(found != unadapted, (2..7).contains(&token), "token {token}");
    }
    let obstacle = merge_obstacle(&method, base).expect("it cannot be merged");
    assert!(obstacle.contains("from its invocation on"), "{obstacle}");
}

conformance!(pissa, LoraConfig { init: LoraInit::Pissa, ..on_all_linear() }, trains(FACTORS));

conformance!(gaussian, LoraConfig { init: LoraInit::Gaussian, ..on_all_linear() });

conformance!(
    random,
    // Of a size at which no attention looks at one token alone.
    LoraConfig { init: LoraInit::Random, alpha: 2.0, ..on_all_linear() },
    Expect { identity_at_init: false, ..trains(FACTORS) }
);

conformance!(
    bias_all,
    LoraConfig { bias: LoraBias::All, ..on_all_linear() },
    trains(FACTORS + OUTPUTS + NORM_BIASES)
);

conformance!(
    bias_lora_only,
    LoraConfig { bias: LoraBias::LoraOnly, ..on_all_linear() },
    trains(FACTORS + OUTPUTS)
);

conformance!(
    patterns,
    LoraConfig {
        rank_pattern: PatternMap::from([
            ("layer.0.intermediate.dense".into(), 5),
            ("dense".into(), 2),
        ]),
        alpha_pattern: PatternMap::from([("query".into(), 1.5)]),
        ..on_all_linear()
    },
    Expect {
        // Named as BERT has them.
        unfit: HostKind::OTHERS,
        // Rank 3 at queries, keys and values, 5 at one feed-forward layer, 2 at what is left.
        ..trains(
            LAYERS * 3 * 3 * 2 * HIDDEN
                + LAYERS * 2 * 2 * HIDDEN
                + (5 + 2) * (HIDDEN + INNER)
                + LAYERS * 2 * (HIDDEN + INNER)
                + 2 * 2 * HIDDEN
        )
    }
);

conformance!(
    parts_of_a_fused_projection,
    LoraConfig {
        attn_matrices: serde_json::from_value(json!(["q", "v"])).expect("they can be read"),
        rank: 3,
        alpha: 7.0,
        ..LoraConfig::default()
    },
    // The others have projections of their own.
    Expect { unfit: &[HostKind::Bert, HostKind::Llama, HostKind::T5], ..Expect::default() }
);

/// A packed weight that nobody unpacks.
#[derive(Debug)]
struct Sealed;

impl PackedWeight for Sealed {
    fn dims(&self) -> [usize; 2] {
        [6, 4]
    }
    fn num_bytes(&self) -> usize {
        0
    }
    fn device(&self) -> Device {
        Device::default()
    }
    fn dense(&self) -> Tensor<2> {
        panic!("it was unpacked")
    }
    fn transpose(&self) -> Arc<dyn PackedWeight> {
        Arc::new(Self)
    }
    fn product(&self, _input: Tensor<2>) -> Tensor<2> {
        panic!("it was unpacked")
    }
    fn rows(&self, _indices: Tensor<1, Int>) -> Tensor<2> {
        panic!("it was unpacked")
    }
}

#[test]
fn a_start_that_reads_no_weight_unpacks_none() {
    let device = Device::default();
    let mut base = Base::new(&device);
    base.linear("q", Role::Query, Some(0), FrozenWeight::Packed(Arc::new(Sealed)), None);
    let context = InitContext::new(&base, &device);
    for init in [LoraInit::Kaiming, LoraInit::Gaussian, LoraInit::Random] {
        let config = LoraConfig { rank: 2, init, ..LoraConfig::default() };
        config.init(&context).expect("it fits");
    }
}

#[test]
fn parts_of_a_fused_projection_are_adapted_on_their_own() {
    let device = Device::default();
    let mut base = Base::new(&device);
    let weight = Tensor::<2>::zeros([4, 6], &device);
    let site = base.conv1d("c_attn", Role::QueryKeyValue, Some(0), weight, None);
    let config: LoraConfig = serde_json::from_value(json!({
        "r": 1, "lora_alpha": 3, "init_lora_weights": false, "attn_matrices": ["v", "q"],
    }))
    .expect("it can be read");
    let lora = config.init(&InitContext::new(&base, &device)).expect("it fits");
    let factors = lora.layer(&site).expect("it is adapted");
    let (a, b) = (factors.lora_a.val(), factors.lora_b.val());
    assert_eq!((a.dims(), b.dims()), ([4, 2], [1, 4]));
    let part = |n: usize| a.clone().narrow(1, n, 1).matmul(b.clone().narrow(1, 2 * n, 2)) * 3.0;
    let expected = Tensor::cat(vec![part(0), Tensor::zeros([4, 2], &device), part(1)], 1);
    let parts = EmptyPass::new(&device);
    let layer = LinearLayer::new(&site, base.weight(&site), None);
    let (weight, _) = lora.linear(&site, &parts.pass()).dense(&layer);
    assert_eq!(weight.into_data(), expected.into_data());
    let change = change_at(&lora, &site, &parts.pass());
    assert_eq!((change.weight, change.rank), (16, 2));
}

#[test]
fn the_start_of_pissa_is_not_known_from_a_merged_weight() {
    let device = Device::default();
    let mut base = Base::new(&device);
    let weight = Tensor::<2>::ones([4, 6], &device);
    let site = base.linear("q", Role::Query, Some(0), weight.clone(), None);
    let config = LoraConfig { rank: 2, init: LoraInit::Pissa, ..LoraConfig::default() };
    let lora = config.init(&InitContext::new(&base, &device)).expect("it fits");
    let edits = lora.linear(&site, &EmptyPass::new(&device).pass());
    let reason = edits.invert(&site, weight).expect_err("the weight is another one");
    assert!(reason.contains("that it started from"), "{reason}");
}

// Every layer keeps its rank, so that one that has seen no data has the same shapes.
conformance!(
    eva,
    LoraConfig {
        rank: 2,
        init: LoraInit::Eva,
        eva_config: Some(EvaConfig { rho: 1.0, whiten: true, ..EvaConfig::default() }),
        ..LoraConfig::default()
    },
    trains(LAYERS * 2 * 2 * 2 * HIDDEN)
);

conformance!(corda, LoraConfig { init: LoraInit::Corda, ..on_all_linear() }, trains(FACTORS));

conformance!(
    corda_that_keeps_knowledge,
    LoraConfig {
        rank: 3,
        alpha: 7.0,
        init: LoraInit::Corda,
        corda_config: Some(CordaConfig {
            corda_method: CordaMethod::KnowledgePreserved,
            ..CordaConfig::default()
        }),
        ..LoraConfig::default()
    },
    // What starts near nothing changes little.
    Expect { reaches_change: false, ..trains(LAYERS * 2 * 3 * 2 * HIDDEN) }
);

conformance!(
    lora_ga,
    LoraConfig { rank: 3, alpha: 7.0, init: LoraInit::LoraGa, ..LoraConfig::default() },
    // The gradient has few directions.
    Expect { reaches_change: false, ..trains(LAYERS * 2 * 3 * 2 * HIDDEN) }
);

// The rounded weight is near the base's, and not the base's.
conformance!(
    loftq,
    LoraConfig { init: LoraInit::Loftq, ..on_all_linear() },
    Expect { identity_at_init: false, ..trains(FACTORS) }
);

conformance!(
    loftq_of_eight_bits,
    LoraConfig {
        rank: 1,
        init: LoraInit::Loftq,
        loftq_config: Some(LoftqConfig { loftq_bits: 8, loftq_iter: 3 }),
        bias: LoraBias::All,
        ..LoraConfig::default()
    },
    Expect { identity_at_init: false, ..Expect::default() }
);
