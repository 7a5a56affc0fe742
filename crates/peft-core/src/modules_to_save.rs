//! Modules trained as a whole beside a method: a task head, above all.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use crate::{
    Base, Change, Error, Exchange, Hooks, Layout, LinearLayer, Method, NormLayer, Result, Site,
    SiteKind,
};

/// Full trained copies of a few modules, saved with the adapter: HF PEFT's `modules_to_save`.
///
/// The copies start from the base's values. The base's own stay as they are.
#[derive(Module, Debug)]
pub struct ModulesToSave {
    /// By [`Site::index`].
    modules: Vec<Option<SavedModule>>,
}

#[derive(Module, Debug)]
struct SavedModule {
    /// `[d_in, d_out]`, or `[entries, d]` of an embedding.
    weight: Option<Param<Tensor<2>>>,
    /// `[d]` gain of a norm.
    gain: Option<Param<Tensor<1>>>,
    /// `[d_out]`.
    bias: Option<Param<Tensor<1>>>,
}

impl ModulesToSave {
    /// Copies of the modules named by `names`, on `device`.
    ///
    /// As in HF PEFT, a name selects every module whose path ends with it (`classifier` selects
    /// `pre_classifier` too), and all that is inside.
    ///
    /// # Errors
    /// If a name selects an embedding, or if `names` is not empty and none selects anything.
    pub fn new(base: &Base, names: &[String], device: &Device) -> Result<Self> {
        let device = device.clone().autodiff();
        let mut modules = vec![None; base.len()];
        for entry in base.iter().filter(|entry| is_saved(&entry.site, names)) {
            if entry.site.kind == SiteKind::Embedding {
                return Err(Error::config(
                    "modules_to_save",
                    &entry.site.path,
                    "embeddings cannot be trained as a whole here; choose heads, linear layers \
                     or norms",
                ));
            }
            modules[entry.site.index] = Some(SavedModule {
                // A weight that is the embeddings' stays theirs.
                weight: (entry.weight.clone().filter(|_| !entry.site.tied))
                    .map(|w| trained_copy(w.dense(), &device)),
                gain: entry.gain.clone().map(|g| trained_copy(g, &device)),
                bias: entry.bias.clone().map(|b| trained_copy(b, &device)),
            });
        }
        Ok(Self { modules })
    }

    /// Whether no module is saved.
    pub fn is_empty(&self) -> bool {
        self.modules.iter().all(Option::is_none)
    }

    fn at(&self, site: &Site) -> Option<&SavedModule> {
        self.modules.get(site.index)?.as_ref()
    }
}

/// Whether a site belongs to one of the modules named.
pub(crate) fn is_saved(site: &Site, names: &[String]) -> bool {
    let has_tensors = !matches!(site.kind, SiteKind::Attention | SiteKind::Sublayer);
    has_tensors && is_in(&site.path, names)
}

/// Whether a module is, or lies in, one of the modules named.
pub(crate) fn is_in(path: &str, names: &[String]) -> bool {
    let mut ends = path.match_indices('.').map(|(i, _)| i).chain([path.len()]);
    ends.any(|end| names.iter().any(|name| path[..end].ends_with(name)))
}

fn trained_copy<const D: usize>(tensor: Tensor<D>, device: &Device) -> Param<Tensor<D>> {
    Param::from_tensor(Tensor::from_data(tensor.into_data(), device))
}

impl Hooks for ModulesToSave {
    fn weight(&self, layer: &LinearLayer<'_>) -> Option<Tensor<2>> {
        self.at(layer.site())?.weight.as_ref().map(Param::val)
    }
    fn bias(&self, layer: &LinearLayer<'_>) -> Option<Tensor<1>> {
        self.at(layer.site())?.bias.as_ref().map(Param::val)
    }
    fn norm_gain(&self, layer: &NormLayer<'_>) -> Option<Tensor<1>> {
        self.at(layer.site())?.gain.as_ref().map(Param::val)
    }
    fn norm_bias(&self, layer: &NormLayer<'_>) -> Option<Tensor<1>> {
        self.at(layer.site())?.bias.as_ref().map(Param::val)
    }
}

impl Method for ModulesToSave {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        for entry in base.iter() {
            let site = &entry.site;
            let Some(module) = self.modules.get_mut(site.index).and_then(Option::as_mut) else {
                continue;
            };
            if let Some(weight) = &mut module.weight {
                file.param(site.key("weight"), weight, site.layout());
            }
            if let Some(gain) = &mut module.gain {
                file.param(site.key("weight"), gain, Layout::AsIs);
            }
            if let Some(bias) = &mut module.bias {
                file.param(site.key("bias"), bias, Layout::AsIs);
            }
        }
    }

    fn change(&self, site: &Site) -> Change {
        let Some(module) = self.at(site) else { return Change::default() };
        let matrix = module.weight.is_some();
        Change {
            weight: site.num_params() - if site.has_bias { site.d_out() } else { 0 },
            bias: if module.bias.is_some() { site.d_out() } else { 0 },
            rank: if matrix { site.d_in().min(site.d_out()) } else { 0 },
        }
    }
}
