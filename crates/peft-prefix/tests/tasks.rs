//! Prompts of several tasks, of a context, and beside an attention.

use burn::module::{Module, ModuleMapper, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Distribution, Tensor};
use peft_core::{
    Base, EmptyPass, Error, Exchange, Hooks, InitContext, Method, MethodConfig, Pass, Progress,
    Role, Rows, SiteKind, Slots, Stage, StepContext, TensorMap, Tokens,
};
use peft_prefix::{AdaptionPromptConfig, CptConfig, MultitaskInit, MultitaskPromptConfig};

const D: usize = 6;
const WORDS: usize = 9;

/// A table of words, and an attention in each of three layers.
fn base() -> Base {
    let device = Device::default();
    let mut base = Base::new(&device);
    base.place("embeddings", SiteKind::Sublayer, Role::Embeddings, None, D);
    let table = Tensor::<2>::random([WORDS, D], Distribution::Normal(0.0, 1.0), &device);
    base.embedding("embeddings.words", Role::WordEmbedding, table);
    for layer in 0..3 {
        base.attention(
            format!("layers.{layer}.self_attn"),
            Role::SelfAttention,
            Some(layer),
            [D, D],
        );
    }
    base
}

fn values<const N: usize>(tensor: Tensor<N>) -> Vec<f32> {
    tensor.into_data().try_into_vec().expect("floats")
}

/// Moves what is trained.
struct Noise<'c, 'b>(&'c InitContext<'b>, f64);

impl ModuleMapper for Noise<'_, '_> {
    fn map_float<const N: usize>(&mut self, param: Param<Tensor<N>>) -> Param<Tensor<N>> {
        if !param.is_require_grad() {
            return param;
        }
        param.map(|old| {
            let noise = self.0.random(old.dims(), Distribution::Normal(0.0, self.1));
            Tensor::from_data((old.clone() + noise).into_data(), &old.device()).require_grad()
        })
    }
}

#[test]
fn a_row_has_the_prompt_of_its_task() {
    let (base, device) = (base(), Device::default());
    let context = InitContext::new(&base, &device);
    let config = MultitaskPromptConfig {
        num_virtual_tokens: 2,
        num_tasks: 3,
        num_ranks: 2,
        ..MultitaskPromptConfig::default()
    };
    let method = config.init(&context).expect("it fits").map(&mut Noise(&context, 0.5));
    let rows = Rows::packed(&[1, 2, 1], &device);
    let slots = Slots::new(vec![Some(2), Some(0), None]);
    let parts = EmptyPass::new(&device);
    let pass = Pass { rows: &rows, slots: &slots, ..parts.pass() };
    let hidden = context.random([4, D], Distribution::Normal(0.0, 1.0));
    let site = base.sites().find(|site| site.role == Role::Embeddings).expect("one");
    let tokens = Tokens::new(hidden.clone(), rows.clone());
    let found = method.tokens(Stage::Embedded, site, tokens, &pass);
    let text = |from: usize, count: usize| hidden.clone().narrow(0, from, count);
    let expected = Tensor::cat(
        vec![method.prompt(2), text(0, 1), method.prompt(0), text(1, 2), text(3, 1)],
        0,
    );
    assert_eq!(values(found.hidden), values(expected));
    let text: Vec<_> = found.rows.iter().map(|row| row.text.clone()).collect();
    assert_eq!(text, [vec![2], vec![2, 3], vec![0]]);
    assert_ne!(values(method.prompt(1)), values(method.prompt(2)));
    // Where the slots say nothing, each is of the first task.
    let none = Slots::default();
    let pass = Pass { rows: &rows, slots: &none, ..parts.pass() };
    let tokens = Tokens::new(hidden.clone(), rows.clone());
    let found = method.tokens(Stage::Embedded, site, tokens, &pass);
    assert_eq!(values(found.hidden.narrow(0, 0, 2)), values(method.prompt(0)));
}

#[test]
fn a_start_from_another_file_is_refused() {
    let base = base();
    let config = MultitaskPromptConfig {
        prompt_tuning_init: MultitaskInit::ExactSourceTask,
        ..MultitaskPromptConfig::default()
    };
    let error = config.init(&InitContext::new(&base, &Device::default())).expect_err("refused");
    assert!(error.to_string().starts_with("prompt_tuning_init = \"EXACT_SOURCE_TASK\""), "{error}");
    let read = MultitaskPromptConfig { inference_mode: true, ..config };
    read.validate().expect("of a file it says how it began");
}

#[test]
fn a_context_moves_within_its_bounds() {
    let base = base();
    let device = Device::default().autodiff();
    let context = InitContext::new(&base, &device);
    let config = CptConfig {
        cpt_token_ids: Some(vec![3, 1, 8, 3]),
        cpt_tokens_type_mask: Some(vec![1, 2, 7, 8]),
        opt_projection_epsilon: 9.0,
        opt_projection_format_epsilon: 3.0,
        ..CptConfig::default()
    };
    let start = config.init(&context).expect("it fits");
    let mut method = start.clone().map(&mut Noise(&context, 20.0));
    let progress = Progress { step: 1, total: 2 };
    method.after_step(&StepContext { progress, gradients: &GradientsParams::new() });
    let scale = (D as f64 / 2048.0).sqrt() as f32;
    let moved = values(method.prompt() - start.prompt());
    let norm = |row: &[f32]| row.iter().map(|value| value * value).sum::<f32>().sqrt();
    let norms: Vec<f32> = moved.chunks(D).map(norm).collect();
    for (norm, epsilon) in norms.iter().zip([3.0, 9.0, 3.0, 0.0]) {
        assert!((norm - epsilon * scale).abs() < 1e-5, "{norms:?}");
    }
    // What is within its bound stays where it is.
    let before = values(method.delta.val());
    method.after_step(&StepContext { progress, gradients: &GradientsParams::new() });
    for (before, after) in before.iter().zip(values(method.delta.val())) {
        assert!((before - after).abs() < 1e-6);
    }
    let prompt = values(method.prompt());
    let mut file = TensorMap::new();
    method.exchange(&mut Exchange::write(&mut file), &base);
    let saved: Vec<f32> = file["prompt_embeddings"].clone().try_into_vec().expect("floats");
    assert_eq!(saved, prompt);
    let mut read = start.clone();
    let mut exchange = Exchange::read(&mut file);
    read.exchange(&mut exchange, &base);
    assert_eq!(exchange.into_problems(), []);
    assert_eq!(values(read.prompt()), prompt);
    assert!(values(read.delta.val()).iter().all(|value| *value == 0.0));
}

#[test]
fn what_is_wrong_with_a_context_is_said() {
    let base = base();
    let refused = |config: CptConfig| {
        let error = config.init(&InitContext::new(&base, &Device::default()));
        error.expect_err("refused").to_string()
    };
    let context = |tokens: &[usize]| CptConfig {
        cpt_token_ids: Some(tokens.to_vec()),
        ..CptConfig::default()
    };
    assert_eq!(
        refused(context(&[1, 9])),
        "cpt_token_ids = 9: the model's vocabulary has 9 entries, from 0"
    );
    assert_eq!(refused(context(&[])), "cpt_token_ids = []: must hold at least one token");
    let types = Some(vec![1]);
    let error = refused(CptConfig { cpt_tokens_type_mask: types, ..context(&[1, 2]) });
    assert_eq!(error, "cpt_tokens_type_mask = 1: must be as long as cpt_token_ids, 2");
    let decay = Some("decay".to_string());
    let error = refused(CptConfig { opt_weighted_loss_type: decay, ..context(&[1]) });
    assert!(error.starts_with("opt_weighted_loss_type = \"decay\""), "{error}");
}

#[test]
fn prompts_beside_attentions_are_in_the_upper_layers() {
    let base = base();
    let config =
        AdaptionPromptConfig { adapter_layers: Some(2), ..AdaptionPromptConfig::default() };
    let paths: Vec<&str> =
        config.sites(&base).expect("it fits").iter().map(|site| site.path.as_str()).collect();
    assert_eq!(paths, ["layers.1.self_attn", "layers.2.self_attn"]);
    let written = config.for_file(&base).expect("it fits");
    assert_eq!(written.target_modules.as_deref(), Some("self_attn"));
    let error = |layers| {
        let config = AdaptionPromptConfig {
            adapter_layers: Some(layers),
            ..AdaptionPromptConfig::default()
        };
        config.sites(&base).expect_err("refused")
    };
    let Error::Config { .. } = error(4) else { panic!("another error") };
    assert_eq!(
        error(4).to_string(),
        "adapter_layers = 4: must be from 1 to 3, the layers of the model"
    );
}
