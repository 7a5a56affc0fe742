//! The network: plain Burn.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor, activation::relu};

use crate::data::{CLASSES, SIDE};

const CHANNELS: usize = 6;
const HIDDEN: usize = 32;

/// A convolution, a pooling and two linear layers.
#[derive(Module, Debug)]
pub struct Cnn {
    conv: Conv2d,
    pool: MaxPool2d,
    hidden: Linear,
    output: Linear,
}

impl Cnn {
    /// A network with random weights.
    pub fn new(device: &Device) -> Self {
        let flat = CHANNELS * ((SIDE - 2) / 2).pow(2);
        Self {
            conv: Conv2dConfig::new([1, CHANNELS], [3, 3]).init(device),
            pool: MaxPool2dConfig::new([2, 2]).with_strides([2, 2]).init(),
            hidden: LinearConfig::new(flat, HIDDEN).init(device),
            output: LinearConfig::new(HIDDEN, CLASSES).init(device),
        }
    }

    /// Logits `[batch, 3]` of pictures `[batch, 1, 8, 8]`.
    pub fn forward(&self, pictures: Tensor<4>) -> Tensor<2> {
        let features = self.pool.forward(relu(self.conv.forward(pictures)));
        self.output.forward(relu(self.hidden.forward(features.flatten(1, 3))))
    }
}
