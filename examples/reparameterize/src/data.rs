//! Pictures of strokes.

use burn::tensor::{Device, Int, Tensor, TensorData};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Width and height of a picture.
pub const SIDE: usize = 8;
/// Horizontal, vertical and diagonal.
pub const CLASSES: usize = 3;

/// Pictures and what they show.
#[derive(Debug, Clone)]
pub struct Pictures {
    /// `[count, 1, 8, 8]`, 0 where the stroke is, 1 elsewhere, and noise.
    pub pixels: Tensor<4>,
    /// `[count]`: 0 horizontal, 1 vertical, 2 diagonal.
    pub classes: Tensor<1, Int>,
}

/// `count` pictures of one stroke each, anywhere, under noise.
pub fn strokes(count: usize, seed: u64, device: &Device) -> Pictures {
    let mut random = StdRng::seed_from_u64(seed);
    let (mut pixels, mut classes) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let class = random.random_range(0..CLASSES);
        let place = random.random_range(1..SIDE as i64 - 1);
        for (row, column) in (0..SIDE as i64).flat_map(|i| (0..SIDE as i64).map(move |j| (i, j))) {
            let dark = match class {
                0 => row == place,
                1 => column == place,
                _ => row - column == place - SIDE as i64 / 2,
            };
            let light = if dark { 0.0 } else { 1.0 };
            pixels.push(light + random.random_range(-0.25..0.25f32));
        }
        classes.push(class as i64);
    }
    Pictures {
        pixels: Tensor::from_data(TensorData::new(pixels, [count, 1, SIDE, SIDE]), device),
        classes: Tensor::from_data(TensorData::new(classes, [count]), device),
    }
}

impl Pictures {
    /// The same things as a camera sees them that is turned by a quarter.
    pub fn turned(self) -> Self {
        Self { pixels: self.pixels.swap_dims(2, 3).flip([3]), ..self }
    }
}
