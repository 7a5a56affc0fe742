//! Losses of language models with and without their logits.

use burn::tensor::{Device, Int, Tensor, TensorData};
use peft_core::{Edit, Edits, Hooks, Pass, Role, Site};
use peft_kernels::cross_entropy;
use peft_models::{Forward, Model, ModelInput, ModelTask, Place, Precision, Task};

use crate::support::base;

const TASKS: [(&str, Task); 8] = [
    ("bert-mlm", Task::MaskedLm),
    ("roberta-mlm", Task::MaskedLm),
    ("distilbert-mlm", Task::MaskedLm),
    ("gpt2-left", Task::CausalLm),
    ("llama-yarn", Task::CausalLm),
    ("mistral", Task::CausalLm),
    ("bart-left", Task::Seq2SeqLm),
    ("t5-left", Task::Seq2SeqLm),
];

/// Biases that are trained where sublayers end, and perhaps that of the words.
#[derive(Debug)]
struct Biases {
    bias: Tensor<1>,
    of_words: Option<Tensor<1>>,
}

impl Hooks for Biases {
    fn linear(&self, site: &Site, _pass: &Pass<'_>) -> Edits {
        match &self.of_words {
            Some(bias) if site.is_unembedding => Edit::Bias(bias.clone()).into(),
            _ if site.role == Role::FeedForwardDown => Edit::Bias(self.bias.clone()).into(),
            _ => Edits::none(),
        }
    }
}

/// Texts of different lengths, and the tokens of theirs that are asked about.
fn batch(task: Task, device: &Device) -> (ModelInput, Vec<Place>) {
    let rows: [&[u32]; 3] = [&[5, 6, 7, 8, 9], &[7, 5], &[6, 9, 8]];
    let input = ModelInput::from_rows(&rows, None, 1, device).expect("texts");
    let input = match task {
        Task::Seq2SeqLm => input.clone().with_decoder(input).expect("as many texts"),
        _ => input,
    };
    (input, vec![[0, 1], [0, 4], [1, 0], [2, 2]])
}

#[test]
fn a_loss_without_the_logits_is_theirs_and_so_is_its_gradient() {
    let device = Device::flex();
    for (name, task) in TASKS {
        for precision in [Precision::Full, Precision::Half] {
            let task = ModelTask { task, seed: 3 };
            let loaded = Model::load_in(&base(name), Some(task), precision, &device);
            let (model, _) = loaded.unwrap_or_else(|error| panic!("{name}: {error}"));
            let (input, places) = batch(task.task, &device);
            let classes = TensorData::new(vec![4_i64, 7, 5, 9], [places.len()]);
            let classes = Tensor::<1, Int>::from_data(classes, &device);
            let on = device.clone().autodiff();
            let d = model.config().hidden_size;
            let words = model.base().sites().find(|site| site.is_unembedding).expect("words");
            for edits_words in [false, true] {
                let zeros = |count| Tensor::<1>::zeros([count], &on).require_grad();
                let of_words = edits_words.then(|| zeros(words.d_out()));
                let hooks = Biases { bias: zeros(d), of_words };
                let how = Forward::infer(&hooks);
                let made = model.forward_at(&input, &places, how).expect("it fits");
                let logits = model.logits_at(&input, &places, how).expect("it fits");
                let parts = Tensor::cat(logits.in_parts().collect(), 0);
                assert_eq!(parts.into_data(), made.clone().into_data(), "{name}");
                let losses =
                    [logits.cross_entropy(classes.clone()), cross_entropy(made, classes.clone())];
                let [found, expected] = losses.map(|loss| {
                    let gradients = loss.backward();
                    let trained = [Some(&hooks.bias), hooks.of_words.as_ref()];
                    let of = |bias: &Tensor<1>| bias.grad(&gradients).expect("a gradient");
                    let gradients = trained.into_iter().flatten().map(of);
                    let values: Vec<Vec<f32>> = [loss.clone().inner()]
                        .into_iter()
                        .chain(gradients)
                        .map(|values| values.into_data().try_into_vec().expect("f32"))
                        .collect();
                    values
                });
                for (found, expected) in found.iter().zip(&expected) {
                    let largest = expected.iter().fold(0.0f32, |most, value| most.max(value.abs()));
                    assert!(largest > 0.0, "{name}");
                    for (found, expected) in found.iter().zip(expected) {
                        let far = (found - expected).abs() / largest;
                        assert!(far < 1e-6, "{name}, {precision:?}: {found} for {expected}");
                    }
                }
            }
        }
    }
}
