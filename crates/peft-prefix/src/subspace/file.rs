//! Subspaces in files.

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{DType, Device, TensorData};
use peft_core::{Base, Error, Exchange, InitContext, Result, TensorMap};
use safetensors::{Dtype, SafeTensors};

use super::{PromptDecoder, PromptSubspace};

/// The name of the file in a directory.
pub const SUBSPACE_FILE: &str = "prompt_subspace.safetensors";

impl PromptSubspace {
    /// The tensors of its file: `encoder.weight`, `decoder.0.weight`, `decoder.2.weight`, each
    /// `[d_out, d_in]`, and their biases.
    pub fn tensors(&self) -> TensorMap {
        let mut file = TensorMap::new();
        self.clone().exchange(&mut Exchange::write(&mut file));
        file
    }

    /// Reads the file of a subspace, or the one in a directory.
    ///
    /// # Errors
    /// If it cannot be read, or is not one.
    pub fn load(path: &Path, device: &Device) -> Result<Self> {
        let path = if path.is_dir() { path.join(SUBSPACE_FILE) } else { path.to_path_buf() };
        let wrong = |reason: String| Error::config("decoder", path.display(), reason);
        let bytes = std::fs::read(&path).map_err(|e| wrong(format!("cannot be read: {e}")))?;
        let mut tensors = tensors_of(&bytes)
            .map_err(|e| wrong(format!("is not a whole safetensors file of f32: {e}")))?;
        let shape = |key: &str| <[usize; 2]>::try_from(tensors.get(key)?.shape().to_vec()).ok();
        let (Some([hidden, dimension]), Some([values, _])) =
            (shape("decoder.0.weight"), shape("decoder.2.weight"))
        else {
            let expected = "has no decoder.0.weight and decoder.2.weight: it is not what \
                            `peft subspace` writes";
            return Err(wrong(expected.into()));
        };
        // What is made is no larger than the file.
        if shape("encoder.weight") != Some([dimension, values]) || dimension * hidden * values == 0
        {
            let expected =
                format!("must have an encoder.weight [{dimension}, {values}], as its decoder is");
            return Err(wrong(expected));
        }
        let base = Base::new(device);
        let context = InitContext::new(&base, device).read();
        let mut subspace = Self::new([values, dimension, hidden], &context);
        let mut file = Exchange::read(&mut tensors);
        subspace.exchange(&mut file);
        match file.into_problems().first() {
            Some(problem) => Err(wrong(problem.to_string())),
            None => Ok(subspace),
        }
    }
}

fn tensors_of(bytes: &[u8]) -> std::result::Result<TensorMap, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|e| e.to_string())?;
    let tensors = file.iter().map(|(key, view)| {
        if view.dtype() != Dtype::F32 {
            return Err(format!("{key} is {:?}", view.dtype()));
        }
        let (values, shape) = (view.data().to_vec(), view.shape().to_vec());
        let data = TensorData::from_bytes_vec(values, shape, DType::F32);
        let is_finite = data.iter::<f32>().all(f32::is_finite);
        match is_finite {
            true => Ok((key.to_string(), data)),
            false => Err(format!("{key} has values that are not finite")),
        }
    });
    tensors.collect()
}

/// The decoder of a file, which must be of this dimension and of prompts `[L, d]`.
pub(super) fn decoder(
    path: &str,
    dimension: Option<usize>,
    [length, d]: [usize; 2],
    device: &Device,
) -> Result<PromptDecoder> {
    let decoder = PromptSubspace::load(&PathBuf::from(path), device)?.decoder;
    let found = decoder.intrinsic_dimension();
    if let Some(asked) = dimension.filter(|asked| *asked != found) {
        let expected = format!("the decoder {path} is of {found} dimensions");
        return Err(Error::config("intrinsic_dimension", asked, expected));
    }
    let values = decoder.num_values();
    if values != length * d {
        let of = match values.is_multiple_of(d) {
            true => format!("prompts of {} tokens", values / d),
            false => format!("prompts of {values} numbers, for models of another width than {d}"),
        };
        let expected = format!("the decoder {path} makes {of}");
        return Err(Error::config("num_virtual_tokens", length, expected));
    }
    Ok(decoder.to_device(device))
}
