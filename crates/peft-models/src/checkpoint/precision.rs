//! The precision of frozen weights.

use std::fmt;
use std::str::FromStr;

use peft_kernels::{Element, PackedTensor};
use serde::{Deserialize, Serialize};

/// The precision of linear weights and of the table of word embeddings; biases, norms,
/// positions and classifiers are always f32, and so is what is trained.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Precision {
    /// As many as the checkpoint has: a `.gguf` file's blocks stay packed where the device can
    /// compute on them; everything else becomes f32.
    #[default]
    Stored,
    /// 32.
    Full,
    /// 16 (`F16`), computed with in f32.
    Half,
    /// 16 (bf16) for linear layers, which compute in it with sums in f32, as PyTorch does under
    /// `torch.autocast`, and for the product of a language model's head; words are looked up in f32.
    Bf16,
    /// 8 (`Q8_0`).
    EightBit,
    /// 4 for linear layers (`NF4`, as QLoRA has them: Dettmers et al. 2023, arXiv 2305.14314), and 8
    /// for the table of words, which the reference leaves unpacked.
    FourBit,
}

/// Packs the numbers of a tensor of a shape; `None` if its rows are not made of whole blocks.
pub(super) type Pack = fn(Vec<usize>, &[f32]) -> Option<PackedTensor>;

impl Precision {
    /// How the weights of linear layers are packed, if they are.
    pub(super) fn pack_linear(self) -> Option<Pack> {
        match self {
            Self::Stored | Self::Full | Self::Bf16 => None,
            Self::Half => Some(|shape, values| Some(PackedTensor::half(shape, values))),
            Self::EightBit => Some(PackedTensor::eight_bit),
            Self::FourBit => Some(PackedTensor::four_bit),
        }
    }

    /// How the table of words is packed, if it is.
    pub(super) fn pack_table(self) -> Option<Pack> {
        match self {
            Self::FourBit => Self::EightBit.pack_linear(),
            other => other.pack_linear(),
        }
    }

    /// What linear layers that are not packed are laid out in.
    pub fn element(self) -> Element {
        match self {
            Self::Bf16 => Element::Bf16,
            _ => Element::F32,
        }
    }

    const NAMES: [(Self, &str); 6] = [
        (Self::Stored, "stored"),
        (Self::Full, "f32"),
        (Self::Half, "f16"),
        (Self::Bf16, "bf16"),
        (Self::EightBit, "8bit"),
        (Self::FourBit, "4bit"),
    ];
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (_, name) = Self::NAMES.iter().find(|(known, _)| known == self).expect("all are named");
        f.write_str(name)
    }
}

impl From<Precision> for String {
    fn from(precision: Precision) -> Self {
        precision.to_string()
    }
}

impl TryFrom<String> for Precision {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        name.parse()
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = Self::NAMES.iter().find(|(_, known)| *known == name);
        known.map(|(precision, _)| *precision).ok_or_else(|| {
            format!("{name} is not a precision: {}", Self::NAMES.map(|(_, name)| name).join(", "))
        })
    }
}
