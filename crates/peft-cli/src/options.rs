//! Flags that several subcommands share.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use burn::tensor::Device;
use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{Args, ValueEnum};
use peft::format::{Adapter, Composition, Registry};
use peft::models::Precision;
use peft::train::{AdaptedModel, AdapterPaths, RunDirectory, TaskFile};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::models::{ResolvedModel, is_model, resolve};

/// The model, unless a flag or an adapter names one.
pub const DEFAULT_MODEL: &str = "minilm";

/// Which model.
#[derive(Args)]
pub struct ModelOptions {
    /// A directory, a Hugging Face id (`owner/name`, `owner/name@revision`), or a short name
    /// (`minilm`) [default: the base of the adapter; without one, minilm]
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,
    /// Use local directories and the cache only; download nothing
    #[arg(long)]
    pub offline: bool,
    /// Precision of the frozen weights: `f32`, `bf16` (computed in it), `f16`, `8bit`, `4bit`, or
    /// `stored`, the precision of the files [default: that of the adapter's training; without one,
    /// stored]
    #[arg(long, value_name = "PRECISION")]
    pub load_in: Option<Precision>,
}

impl ModelOptions {
    /// The model's directory, downloaded if necessary; by default the base of the adapters.
    pub fn resolve<'a>(
        &self,
        adapters: impl IntoIterator<Item = &'a PathBuf>,
    ) -> anyhow::Result<ResolvedModel> {
        model_of(self.model.as_deref(), adapters, self.offline)
    }

    /// The model with adapters over it, composed to one.
    pub fn load(
        &self,
        adapters: &AdapterPaths,
        device: &Device,
    ) -> anyhow::Result<(ResolvedModel, AdaptedModel)> {
        let resolved = self.resolve(adapters.adapters.iter().chain(&adapters.fusion))?;
        let adapted = self.load_from(&resolved, adapters, device)?;
        Ok((resolved, adapted))
    }

    /// The same for a model that was resolved.
    pub fn load_from(
        &self,
        resolved: &ResolvedModel,
        adapters: &AdapterPaths,
        device: &Device,
    ) -> anyhow::Result<AdaptedModel> {
        let (directory, registry) = (&resolved.directory, peft::registry());
        Ok(AdaptedModel::load(directory, adapters, &registry, self.load_in, device)?)
    }
}

/// The model called `name`, or else the one that the adapters were made for; the last one's, if
/// they differ. Warns of an adapter made for another model.
pub fn model_of<'a>(
    name: Option<&str>,
    adapters: impl IntoIterator<Item = &'a PathBuf>,
    offline: bool,
) -> anyhow::Result<ResolvedModel> {
    let mut adapters: Vec<(&Path, Option<String>)> = adapters
        .into_iter()
        .map(|adapter| Ok((adapter.as_path(), Adapter::made_for(adapter)?)))
        .collect::<anyhow::Result<_>>()?;
    let resolved = match (name, adapters.last()) {
        (Some(name), _) => resolve(name, offline)?,
        (None, None) => resolve(DEFAULT_MODEL, offline)?,
        (None, Some((adapter, Some(base)))) => {
            let found = beside(base, adapter).map_or_else(|| resolve(base, offline), Ok);
            found.with_context(|| {
                format!("{}: made for {base}; --model can name another", adapter.display())
            })?
        }
        (None, Some((adapter, None))) => {
            bail!("{}: does not say what model it is for: give --model", adapter.display())
        }
    };
    adapters.dedup();
    for (adapter, base) in adapters {
        if let Some(base) = base.filter(|base| !is_called(&resolved, base)) {
            let (adapter, name) = (adapter.display(), &resolved.name);
            tracing::warn!("{adapter}: the adapter was made for {base}, not for {name}");
        }
    }
    Ok(resolved)
}

/// How far above an adapter its base is looked for: beside a run directory, that is.
const LEVELS: usize = 4;

/// The directory of a base that an adapter names by a relative path, which was that of another
/// working directory: in one of the directories above the adapter.
fn beside(base: &str, adapter: &Path) -> Option<ResolvedModel> {
    if Path::new(base).is_absolute() || Path::new(base).exists() {
        return None;
    }
    let adapter = std::fs::canonicalize(adapter).ok()?;
    let directory = adapter.ancestors().take(LEVELS).map(|above| above.join(base));
    let directory = directory.into_iter().find(|path| is_model(path))?;
    Some(ResolvedModel { name: base.into(), directory })
}

/// Whether `name` is the model's: the same name, or another path to its directory.
fn is_called(model: &ResolvedModel, name: &str) -> bool {
    let directory = || std::fs::canonicalize(&model.directory).ok();
    model.name == name || std::fs::canonicalize(name).is_ok_and(|path| directory() == Some(path))
}

/// Which adapters.
#[derive(Args)]
pub struct AdapterOptions {
    /// The directory of an adapter, of a run, or of a composition (`peft compose`); several are composed
    /// in order, the first nearest to the model
    #[arg(long = "adapter", value_name = "DIR", value_parser = adapter_parser())]
    pub adapters: Vec<PathBuf>,
    /// How several adapters become one
    #[arg(long, requires = "adapters")]
    pub compose: Option<ComposeName>,
    /// The weight of each adapter, for --compose average: `0.7,0.3`; they are divided by their sum
    /// [default: equal]
    #[arg(long, value_name = "WEIGHTS", requires = "compose", value_delimiter = ',', value_parser = number)]
    pub weights: Vec<f64>,
    /// How many tokens of each text are under each adapter, for --compose split: `2,7`; those behind
    /// are under the last
    #[arg(long, value_name = "TOKENS", requires = "compose", value_delimiter = ',')]
    pub splits: Vec<usize>,
    /// How many rows of the batch are under each adapter, for --compose batch-split: `1,2`
    #[arg(long, value_name = "ROWS", requires = "compose", value_delimiter = ',')]
    pub batch_sizes: Vec<usize>,
    /// The directory of a trained fusion, for --compose fuse
    #[arg(long, value_name = "DIR", requires = "compose", value_parser = adapter_parser())]
    pub fusion: Option<PathBuf>,
    /// Layers in which the adapter is not used, from 0: `0,1` (AdapterDrop)
    #[arg(long, value_name = "LAYERS", requires = "adapters", value_delimiter = ',')]
    pub leave_out: Vec<usize>,
}

/// The directory of an adapter; a run directory stands for the adapter in it.
pub fn adapter_parser() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().map(RunDirectory::adapter_in)
}

/// A number: `nan` and `inf` are none.
pub fn number(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_string())?;
    if number.is_finite() { Ok(number) } else { Err("must be finite".into()) }
}

/// How several adapters become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ComposeName {
    /// One on another
    Stack,
    /// Side by side: one output for each adapter
    Parallel,
    /// The mean of what they compute
    Average,
    /// Attention over them (AdapterFusion)
    Fuse,
    /// Each on a stretch of every text
    Split,
    /// Each on some rows of a batch
    BatchSplit,
    /// Each on the rows of its task, which the inputs name (`task_ids`)
    MultiTask,
}

impl AdapterOptions {
    /// # Errors
    /// If there are numbers of another composition, or none for this one.
    pub fn paths(&self) -> anyhow::Result<AdapterPaths> {
        use ComposeName::{Average, BatchSplit, Split};
        for (option, given, of) in [
            ("--weights", !self.weights.is_empty(), Average),
            ("--splits", !self.splits.is_empty(), Split),
            ("--batch-sizes", !self.batch_sizes.is_empty(), BatchSplit),
        ] {
            let asked = self.compose == Some(of);
            let name = of.to_possible_value();
            let name = name.as_ref().map_or("", |name| name.get_name());
            if given && !asked {
                bail!("{option} is for --compose {name}");
            }
            if asked && !given && of != Average {
                bail!("--compose {name} needs {option}, a number for each adapter");
            }
        }
        let composition = self.compose.map(|name| match name {
            ComposeName::Stack => Composition::Stack,
            ComposeName::Parallel => Composition::Parallel,
            ComposeName::Average => Composition::Average { weights: self.weights.clone() },
            ComposeName::Fuse => Composition::Fuse,
            ComposeName::MultiTask => Composition::MultiTask,
            ComposeName::Split => Composition::Split { splits: self.splits.clone() },
            ComposeName::BatchSplit => {
                Composition::BatchSplit { batch_sizes: self.batch_sizes.clone() }
            }
        });
        if let ([directory], None) = (&self.adapters[..], &composition) {
            let leave_out = self.leave_out.clone();
            return Ok(AdapterPaths { leave_out, ..AdapterPaths::in_directory(directory)? });
        }
        let (adapters, fusion) = (self.adapters.clone(), self.fusion.clone());
        Ok(AdapterPaths { adapters, composition, fusion, leave_out: self.leave_out.clone() })
    }

    /// What to run: each adapter on its own, if they are side by side; otherwise all as one.
    ///
    /// # Errors
    /// As [`paths`](Self::paths).
    pub fn runs(&self) -> anyhow::Result<Vec<AdapterPaths>> {
        let all = self.paths()?;
        Ok(match all.composition {
            Some(Composition::BatchSplit { .. } | Composition::MultiTask) => {
                bail!(
                    "--compose batch-split and multi-task are for one batch, of `peft forward`; here, \
                     --compose parallel runs every text under every adapter"
                )
            }
            Some(Composition::Parallel) => {
                let one = |adapter: &PathBuf| AdapterPaths {
                    leave_out: all.leave_out.clone(),
                    ..AdapterPaths::one(adapter)
                };
                all.adapters.iter().map(one).collect()
            }
            _ => vec![all],
        })
    }
}

/// A short name for the adapter in a directory: `a` for `runs/a/adapter`.
pub fn adapter_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    let name = match path.parent().and_then(|parent| parent.file_name()) {
        Some(parent) if name == "adapter" => parent,
        _ => name,
    };
    name.to_string_lossy().into_owned()
}

/// The meaning of a model's outputs, without which texts cannot be labelled.
pub fn known_task(task: Option<&TaskFile>) -> anyhow::Result<&TaskFile> {
    task.context(
        "what the outputs mean is not known: the adapter has no task.json, and the model no \
         labels of its own",
    )
}

/// On which device.
#[derive(Args)]
pub struct DeviceOptions {
    /// One of those that `peft devices` lists; `cuda:1` where there are several
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
}

impl DeviceOptions {
    /// The device, by default the first that is compiled in.
    pub fn device(&self) -> anyhow::Result<Device> {
        let default = peft::device_names();
        let name = self.device.as_deref().or(default.first().copied());
        Ok(peft::device(name.context("no backend is compiled in")?)?)
    }
}

/// Settings of the method, `key=value`.
#[derive(Args)]
pub struct SettingOptions {
    /// A setting of the method, as adapter_config.json has it: `rank=8`, `target_modules=query,key`
    /// (names), `target_modules=".*\.layer\.[01]\..*dense"` (a regular expression),
    /// `rank_pattern={"key":2}`
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse_setting)]
    pub settings: Vec<(String, Value)>,
}

impl SettingOptions {
    /// The settings of a method, under their names in its file.
    pub fn fields(&self, registry: &Registry, method: &str) -> anyhow::Result<Map<String, Value>> {
        canonical(registry, method, self.settings.iter().cloned())
    }
}

/// Settings of a method under their names in its file, each of them once.
pub fn canonical(
    registry: &Registry,
    method: &str,
    settings: impl IntoIterator<Item = (String, Value)>,
) -> anyhow::Result<Map<String, Value>> {
    let mut fields = Map::new();
    for (key, value) in settings {
        let field = registry.canonical(method, &key);
        if let Some(other) = fields.get(field) {
            bail!("{key} = {value}: {field} is set to {other} already; set it once");
        }
        fields.insert(field.into(), value);
    }
    Ok(fields)
}

/// Lists of module names may be written without brackets and quotes.
const NAME_LISTS: &[&str] = &["target_modules", "exclude_modules", "modules_to_save"];

fn parse_setting(text: &str) -> Result<(String, Value), String> {
    let (key, value) = text.split_once('=').ok_or("a setting has the form KEY=VALUE")?;
    let is_name = |part: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '.')
    };
    let parts: Vec<&str> = value.split(',').map(str::trim).collect();
    if NAME_LISTS.contains(&key) && parts.iter().all(|part| is_name(part)) && value != "null" {
        return Ok((key.into(), parts.into()));
    }
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.into()));
    Ok((key.into(), value))
}
