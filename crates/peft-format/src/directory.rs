//! The directory that holds an adapter.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device, TensorData};
use peft_core::{
    Base, Dialect, Exchange, InitContext, KeyProblem, Method, ModulesToSave, Site, Size, TensorMap,
    TensorSpec, TokenIndices,
};
use serde::Serialize;

use crate::adapters::Layout;
use crate::beside::Beside;
use crate::files::read_tensors;
use crate::{
    Adapter, AdapterConfig, Error, Registry, Result, keys, read_safetensors, write_safetensors,
};

/// The file with an adapter's configuration.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";
/// The file with an adapter's tensors.
pub const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";
/// The file with what an adapter's tensors started from, of methods whose function depends on it; HF
/// PEFT ignores it.
pub const ADAPTER_START: &str = "adapter_start.safetensors";

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
    /// Reads an adapter directory, of HF PEFT's layout or of adapter-hub/adapters'.
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
        Self::loaded(directory, Read::new(directory, registry, base, device, Heads::Read)?)
    }

    /// Reads the method of an adapter directory and passes over the modules saved beside it: an
    /// adapter that is composed with others under another head.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_method(
        directory: &Path,
        registry: &Registry,
        base: &Base,
        device: &Device,
    ) -> Result<Self> {
        Self::loaded(directory, Read::new(directory, registry, base, device, Heads::PassOver)?)
    }

    fn loaded(directory: &Path, read: Read) -> Result<Self> {
        for problem in read.unmatched {
            tracing::warn!("{}: {problem}", directory.display());
        }
        fits(read.path, &read.problems)?;
        Ok(read.adapter)
    }

    /// Checks an adapter directory against a base, key by key.
    ///
    /// # Errors
    /// If a file is missing or broken, or what the adapter started from does not fit; other problems
    /// with keys, and targets that match nothing, are returned.
    pub fn check(
        directory: &Path,
        registry: &Registry,
        base: &Base,
        device: &Device,
    ) -> Result<AdapterCheck> {
        let Read { adapter, unmatched, problems, dialect, .. } =
            Read::new(directory, registry, base, device, Heads::Read)?;
        let mut file = Exchange::describe().in_dialect(dialect);
        adapter.method.clone().exchange(&mut file, base);
        let expected = file.into_specs();
        let unmatched: Vec<String> = unmatched.iter().map(ToString::to_string).collect();
        let ok = problems.is_empty() && unmatched.is_empty();
        Ok(AdapterCheck { ok, expected, problems, unmatched })
    }

    /// Writes the adapter directory; each file is whole or not there, the configuration last. The
    /// tensors are those of the [finished](Method::finish) method, in training too, so that what is
    /// written can be loaded at any moment.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save(&self, directory: &Path, base: &Base) -> Result<()> {
        let finished = self.finished();
        write_safetensors(&directory.join(ADAPTER_WEIGHTS), &finished.tensors(base))?;
        let (path, start) = (directory.join(ADAPTER_START), finished.start(base));
        match start.is_empty() {
            false => write_safetensors(&path, &start)?,
            // One that is there is of another adapter.
            true => remove(&path)?,
        }
        let method = self.config.method.for_file(&self.targetable(base))?;
        AdapterConfig { method, ..self.config.clone() }.save(&directory.join(ADAPTER_CONFIG))
    }
}

/// An adapter directory, read as far as it can be.
struct Read {
    adapter: Adapter,
    /// Targets that match nothing.
    unmatched: Vec<peft_core::Error>,
    /// Keys that do not fit.
    problems: Vec<KeyProblem>,
    dialect: Dialect,
    /// The file with the method's tensors.
    path: PathBuf,
}

/// What becomes of modules saved beside a method.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heads {
    Read,
    PassOver,
}

impl Read {
    fn new(
        directory: &Path,
        registry: &Registry,
        base: &Base,
        device: &Device,
        heads: Heads,
    ) -> Result<Self> {
        let (theirs, mut config) = match Layout::open(directory)? {
            Layout::Adapters(theirs) => {
                let config = theirs.config(registry, base)?;
                (Some(theirs), config)
            }
            Layout::Peft(fields) => {
                let origin = directory.join(ADAPTER_CONFIG).display().to_string();
                (None, AdapterConfig::from_fields(fields, registry, &origin)?)
            }
        };
        let dialect = theirs.as_ref().map_or(config.method.dialect(), |theirs| theirs.dialect());
        let passed_over = match heads {
            Heads::Read => Vec::new(),
            Heads::PassOver => std::mem::take(&mut config.modules_to_save),
        };
        let no_rows = heads == Heads::PassOver && !config.trainable_token_indices.is_empty();
        if no_rows {
            let directory = directory.display();
            let field = TokenIndices::FIELD;
            tracing::warn!("{directory}: its rows of embeddings ({field}) are not used here");
            config.trainable_token_indices = TokenIndices::default();
        }
        if let (Some(theirs), Heads::Read) = (&theirs, heads) {
            theirs.check_head(base)?;
        }
        let start_path = directory.join(ADAPTER_START);
        let (path, mut tensors, start) = match &theirs {
            Some(theirs) => (theirs.weights().to_path_buf(), theirs.tensors()?, None),
            None => {
                let path = weights_in(directory);
                let tensors = read_tensors(&path)?;
                let start = start_path.exists().then(|| read_safetensors(&start_path));
                (path, tensors, start.transpose()?)
            }
        };
        Size::check_file(&config.method.sizes(base)?, &tensors)?;
        if theirs.is_none() {
            tensors = keys::unwrapped(tensors);
        }
        tensors.retain(|key, _| {
            let is_row = no_rows && key.ends_with(TokenIndices::ROWS);
            !is_copy(key) && !is_row && !ModulesToSave::is_within(module_of(key), &passed_over)
        });
        let mut heads_of_tables = base.sites().filter(|site| site.tied_to.is_some());
        let of_head = |site: &Site| tensors.keys().any(|key| key.starts_with(&site.key("")));
        if config.ensure_weight_tying && !heads_of_tables.any(|site| of_head(site)) {
            config = config.not_tied(registry)?;
        }
        let context = InitContext::new(base, device).read();
        let context = if start.is_some() { context.restored() } else { context };
        let mut built = Adapter::build(config, &context)?;
        if theirs.is_none() {
            let expected = built.0.specs(base);
            let expected: BTreeSet<&str> = expected.iter().map(|spec| spec.key.as_str()).collect();
            tensors = under_their_prefix(tensors, &expected, &path);
            if let Some(config) = Beside::find(&built.0, base, &tensors, &expected, heads, &path)? {
                tensors = config.tensors;
                built = Adapter::build_over(config.config, &config.carried, &context)?;
            }
        }
        let (mut adapter, unmatched) = built;
        if theirs.is_none() {
            // HF PEFT saves what is left after training.
            adapter.method.finish();
        }
        let not_finite = tensors.iter().filter(|(_, data)| !is_finite(data));
        let mut problems: Vec<KeyProblem> =
            not_finite.map(|(key, _)| KeyProblem::NotFinite { key: key.clone() }).collect();
        let mut taken = |mut tensors: TensorMap, of_start: bool| {
            let file = Exchange::read(&mut tensors).in_dialect(dialect.clone());
            let mut file = if of_start { file.of_start() } else { file };
            adapter.method.exchange(&mut file, base);
            let problems = file.into_problems();
            let unexpected = tensors
                .into_iter()
                .map(|(key, data)| KeyProblem::Unexpected { key, found: data.shape().to_vec() });
            problems.into_iter().chain(unexpected).collect::<Vec<_>>()
        };
        problems.extend(taken(tensors, false));
        if let Some(start) = start {
            fits(start_path, &taken(start, true))?;
        }
        Ok(Self { adapter, unmatched, problems, dialect, path })
    }
}

/// Whether all values are numbers.
fn is_finite(data: &TensorData) -> bool {
    match data.dtype() {
        // All of them, without a branch at each.
        DType::F32 => data.as_slice::<f32>().is_ok_and(|values| {
            values.iter().fold(true, |finite, value| finite & value.is_finite())
        }),
        dtype => !dtype.is_float() || data.iter::<f32>().all(f32::is_finite),
    }
}

/// The tensors with the prefix that their keys should have, where all have another.
fn under_their_prefix(tensors: TensorMap, expected: &BTreeSet<&str>, path: &Path) -> TensorMap {
    let found = tensors.keys().map(String::as_str).collect();
    let Some(prefix) = keys::other_prefix(&found, expected) else { return tensors };
    let [found, should] = [&prefix.found, &prefix.expected];
    tracing::warn!("{}: all keys begin with {found:?}, read as {should:?}", path.display());
    let renamed =
        |(key, data): (String, TensorData)| (prefix.replaced_in(&key).unwrap_or(key), data);
    tensors.into_iter().map(renamed).collect()
}

/// Refuses a file that does not fit.
fn fits(path: PathBuf, problems: &[KeyProblem]) -> Result<()> {
    if problems.is_empty() {
        return Ok(());
    }
    let shown: Vec<String> = problems.iter().take(2).map(ToString::to_string).collect();
    let more = problems.len() - shown.len();
    let more = if more > 0 {
        format!("; and {more} more, which `peft check` lists")
    } else {
        String::new()
    };
    Err(Error::Keys { path, problems: shown.join("; ") + &more })
}

/// Removes a file, if it is there.
fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::file(path, e)),
        _ => Ok(()),
    }
}

/// The file with HF PEFT's tensors; old versions wrote PyTorch's own format.
pub(crate) fn weights_in(directory: &Path) -> PathBuf {
    let (new, old) = (directory.join(ADAPTER_WEIGHTS), directory.join("adapter_model.bin"));
    if old.exists() && !new.exists() { old } else { new }
}

/// The path of the module that a key is of.
fn module_of(key: &str) -> &str {
    let prefixes = ["base_model.model.", "base_model."];
    let path = prefixes.iter().find_map(|prefix| key.strip_prefix(prefix)).unwrap_or(key);
    path.rsplit_once('.').map_or(path, |(module, _)| module)
}

/// Whether a file holds the same tensor under another key.
fn is_copy(key: &str) -> bool {
    // With `bias: all`, HF PEFT also saves its wrappers' own copies of a saved module's biases;
    // adapter-hub/adapters saves its pool of prefixes once more with each layer.
    [".modules_to_save.", ".original_module.", ".prefix_tuning.pool."]
        .iter()
        .any(|part| key.contains(part))
}
