use burn::module::Module;
use burn::tensor::Device;
use peft_conformance::{Expect, Host, conformance};
use peft_core::{EmptyPass, Exchange, Hooks, InitContext, Method, MethodConfig, TensorMap};
use peft_lora::{LoraBias, VbloraConfig};

use super::{HIDDEN, LAYERS, all_linear, over_all, trains};

fn mixed() -> VbloraConfig {
    VbloraConfig {
        rank: 3,
        num_vectors: 6,
        vector_length: 2,
        init_vector_bank_bound: 0.3,
        ..VbloraConfig::default()
    }
}

/// Vectors and logits are random, and what they make is not nothing. A small change of logits may choose
/// other vectors, which no gradient says.
fn chosen(expect: Expect) -> Expect {
    Expect { identity_at_init: false, exact_gradient: false, ..expect }
}

conformance!(vb_lora, mixed(), chosen(trains(6 * 2 + LAYERS * 2 * 6 * 3 * 2 * HIDDEN / 2)));
conformance!(
    all_of_the_bank,
    VbloraConfig { topk: 6, targets: all_linear(), ..mixed() },
    Expect {
        exact_gradient: true,
        ..chosen(trains(6 * 2 + over_all(|[d_in, d_out]| 6 * 3 * (d_in + d_out) / 2)))
    }
);
conformance!(
    biases,
    VbloraConfig { bias: LoraBias::LoraOnly, init_logits_std: 1.0, ..mixed() },
    chosen(Expect::default())
);

/// The tensors of a file with nothing but the vectors that are chosen, and what was trained.
#[test]
fn a_file_of_chosen_vectors_is_the_same_function() {
    let device = Device::default().autodiff();
    let host = Host::new(&Device::default());
    let base = host.model.base();
    let config = VbloraConfig { save_only_topk_weights: true, init_logits_std: 2.0, ..mixed() };
    let context = InitContext::new(base, &device);
    let mut written = config.init(&context).expect("it fits");
    let mut file = TensorMap::new();
    written.exchange(&mut Exchange::write(&mut file), base);
    let logits = "base_model.model.bert.encoder.layer.1.attention.self.value.vblora_logits_B";
    let shape = |name: &str| file[&format!("{logits}_topk_{name}")].shape().to_vec();
    assert_eq!((shape("indices"), shape("weights")), (vec![12, 3, 2], vec![12, 3, 1]));
    assert!(!file.contains_key(logits));

    let mut read = config.init(&context.with_seed(5)).expect("it fits");
    let mut exchange = Exchange::read(&mut file);
    read.exchange(&mut exchange, base);
    assert_eq!(exchange.into_problems(), []);
    assert!(file.is_empty(), "{:?}", file.keys());
    let parts = EmptyPass::new(&Device::default());
    let (written, read) = (written.valid(), read.valid());
    let mut sites = 0;
    for site in base.linears() {
        let change = |hooks: &dyn Hooks| {
            let edits = hooks.linear(site, &parts.pass());
            let [peft_core::Edit::LowRank(factors)] =
                &edits.iter().cloned().collect::<Vec<_>>()[..]
            else {
                return None;
            };
            let change = factors.a.clone().matmul(factors.b.clone());
            Some(change.into_data().try_into_vec::<f32>().expect("floats"))
        };
        let (Some(written), Some(read)) = (change(&written), change(&read)) else { continue };
        let far = written.iter().zip(&read).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(far < 1e-7 && written.iter().any(|value| *value != 0.0), "{site}: {far}");
        sites += 1;
    }
    assert_eq!(sites, 2 * LAYERS);
}
