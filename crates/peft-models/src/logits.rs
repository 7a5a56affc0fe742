//! What a head says of some tokens.

use burn::tensor::{Device, Int, Tensor};
use peft_core::FrozenWeight;

/// The logits `[targets, outputs]` of some targets, or what they are a product of: those of words are
/// by far the largest tensor of a language model, and a loss can do without.
#[derive(Debug, Clone)]
pub struct Logits(Form);

#[derive(Debug, Clone)]
enum Form {
    Tensor(Box<Tensor<2>>),
    Product(Box<Product>),
}

/// `h W + b`, with a frozen weight.
#[derive(Debug, Clone)]
pub(crate) struct Product {
    /// `[targets, d]`.
    pub(crate) states: Tensor<2>,
    /// `[d, outputs]`.
    pub(crate) weight: FrozenWeight,
    pub(crate) bias: Option<Tensor<1>>,
}

impl Logits {
    /// As a tensor, which is made now where there is none.
    pub fn tensor(&self) -> Tensor<2> {
        match &self.0 {
            Form::Tensor(logits) => (**logits).clone(),
            Form::Product(product) => product.of(product.states.clone()),
        }
    }

    /// Where they are.
    pub fn device(&self) -> Device {
        match &self.0 {
            Form::Tensor(logits) => logits.device(),
            Form::Product(product) => product.states.device(),
        }
    }

    /// The mean cross-entropy of these classes `[targets]`: `[1]`.
    ///
    /// # Panics
    /// If there are not as many classes as targets, or there is no such class.
    pub fn cross_entropy(&self, classes: Tensor<1, Int>) -> Tensor<1> {
        match &self.0 {
            Form::Tensor(logits) => peft_kernels::cross_entropy((**logits).clone(), classes),
            Form::Product(product) => {
                let Product { states, weight, bias } = &**product;
                weight.cross_entropy(states.clone(), bias.clone(), classes)
            }
        }
    }

    /// Some targets after others, each with its logits: of no more at a time than need little
    /// memory.
    pub fn in_parts(&self) -> impl Iterator<Item = Tensor<2>> {
        /// Targets whose logits there are at once.
        const TOGETHER: usize = 256;
        let (size, all) = match &self.0 {
            Form::Tensor(logits) => (logits.dims()[0].max(1), &**logits),
            Form::Product(product) => (TOGETHER, &product.states),
        };
        let [targets, _] = all.dims();
        (0..targets).step_by(size).map(move |first| {
            let part = all.clone().narrow(0, first, size.min(targets - first));
            match &self.0 {
                Form::Tensor(_) => part,
                Form::Product(product) => product.of(part),
            }
        })
    }
}

impl Product {
    fn of(&self, states: Tensor<2>) -> Tensor<2> {
        self.weight.linear(states, self.bias.clone())
    }
}

impl From<Tensor<2>> for Logits {
    fn from(logits: Tensor<2>) -> Self {
        Self(Form::Tensor(Box::new(logits)))
    }
}

impl From<Product> for Logits {
    fn from(product: Product) -> Self {
        Self(Form::Product(product.into()))
    }
}
