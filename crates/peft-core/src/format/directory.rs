//! An adapter, and the directory that holds it.

use std::path::Path;

use burn::module::Module;
use burn::tensor::Device;
use serde::Serialize;

use super::{
    AdapterConfig, Exchange, KeyProblem, TensorMap, TensorSpec, read_safetensors, write_safetensors,
};
use crate::modules_to_save::is_saved;
use crate::{Base, BoxedMethod, Error, Method, ModulesToSave, Registry, Result, Stack};

/// The file with an adapter's configuration.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";
/// The file with an adapter's tensors.
pub const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";

/// A method with its configuration and the modules trained beside it, over one base.
#[derive(Debug, Clone)]
pub struct Adapter {
    /// What `adapter_config.json` holds.
    pub config: AdapterConfig,
    /// Everything that is trained: the modules to save, and the method above them.
    pub method: Stack,
}

/// What [`Adapter::check`] found.
#[derive(Debug, Clone, Serialize)]
pub struct AdapterCheck {
    /// Whether there is no problem.
    pub ok: bool,
    /// The tensors that the configuration asks for on this model.
    pub expected: Vec<TensorSpec>,
    /// Every missing, unexpected or mis-shaped key.
    pub problems: Vec<KeyProblem>,
    /// Every target that matches nothing.
    pub unmatched: Vec<String>,
}

impl Adapter {
    /// A freshly initialised adapter over `base`.
    ///
    /// # Errors
    /// If the configuration is invalid, or a part of it selects nothing in the base.
    pub fn new(config: AdapterConfig, base: &Base, device: &Device) -> Result<Self> {
        let (adapter, unmatched) = Self::build(config, base, device)?;
        unmatched.into_iter().next().map_or(Ok(adapter), Err)
    }

    fn build(config: AdapterConfig, base: &Base, device: &Device) -> Result<(Self, Vec<Error>)> {
        let saved = ModulesToSave::new(base, &config.modules_to_save, device)?;
        // As in HF PEFT, a module that is trained as a whole is not a target.
        let rest = base.without(|site| is_saved(site, &config.modules_to_save));
        let method = config.method.init(&rest, device)?;
        let unmatched = config.method.unmatched(&rest)?;
        let method = if saved.is_empty() {
            Stack::new(vec![method])
        } else {
            Stack::new(vec![BoxedMethod::new(saved), method])
        };
        Ok((Self { config, method }, unmatched))
    }

    /// Reads an adapter directory.
    ///
    /// # Errors
    /// If a file is missing or broken, or if the tensors do not fit `base`: each missing,
    /// unexpected or mis-shaped key is named.
    pub fn load(
        directory: &Path,
        registry: &Registry,
        base: &Base,
        device: &Device,
    ) -> Result<Self> {
        let config = AdapterConfig::load(&directory.join(ADAPTER_CONFIG), registry)?;
        let (mut adapter, unmatched) = Self::build(config, base, device)?;
        for problem in unmatched {
            tracing::warn!("{}: {problem}", directory.display());
        }
        let path = directory.join(ADAPTER_WEIGHTS);
        let problems = adapter.read(&path, base)?;
        if problems.is_empty() {
            return Ok(adapter);
        }
        let shown: Vec<String> = problems.iter().take(8).map(ToString::to_string).collect();
        let more = problems.len() - shown.len();
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        Err(Error::Keys { path, problems: shown.join("; ") + &more })
    }

    /// Checks an adapter directory against a base, key by key.
    ///
    /// # Errors
    /// If a file is missing or broken, or a target matches nothing; problems with keys are
    /// returned, not errors.
    pub fn check(
        directory: &Path,
        registry: &Registry,
        base: &Base,
        device: &Device,
    ) -> Result<AdapterCheck> {
        let config = AdapterConfig::load(&directory.join(ADAPTER_CONFIG), registry)?;
        let (mut adapter, unmatched) = Self::build(config, base, device)?;
        let expected = adapter.specs(base);
        let problems = adapter.read(&directory.join(ADAPTER_WEIGHTS), base)?;
        let unmatched: Vec<String> = unmatched.iter().map(ToString::to_string).collect();
        let ok = problems.is_empty() && unmatched.is_empty();
        Ok(AdapterCheck { ok, expected, problems, unmatched })
    }

    fn read(&mut self, path: &Path, base: &Base) -> Result<Vec<KeyProblem>> {
        let mut tensors = read_safetensors(path)?;
        let mut file = Exchange::read(&mut tensors);
        self.method.exchange(&mut file, base);
        let mut problems = file.into_problems();
        // With `bias: all`, HF PEFT also saves its wrappers' own copies of a saved module's biases.
        let is_copy =
            |key: &str| key.contains(".modules_to_save.") || key.contains(".original_module.");
        let unexpected = tensors.into_iter().filter(|(key, _)| !is_copy(key));
        problems.extend(
            unexpected
                .map(|(key, data)| KeyProblem::Unexpected { key, found: data.shape().to_vec() }),
        );
        Ok(problems)
    }

    /// The tensors of the adapter file.
    pub fn specs(&self, base: &Base) -> Vec<TensorSpec> {
        let mut file = Exchange::describe();
        self.method.clone().exchange(&mut file, base);
        file.into_specs()
    }

    /// The tensors by key.
    pub fn tensors(&self, base: &Base) -> TensorMap {
        let mut tensors = TensorMap::new();
        // Writing changes nothing; a clone of handles is what the one description costs.
        self.method.valid().exchange(&mut Exchange::write(&mut tensors), base);
        tensors
    }

    /// Writes the adapter directory; each file is whole or not there, the configuration last.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save(&self, directory: &Path, base: &Base) -> Result<()> {
        write_safetensors(&directory.join(ADAPTER_WEIGHTS), &self.tensors(base))?;
        self.config.save(&directory.join(ADAPTER_CONFIG))
    }
}
