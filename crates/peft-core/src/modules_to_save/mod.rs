//! Modules trained as a whole beside a method: a task head, above all.

mod tokens;

pub use tokens::TokenIndices;

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use tokens::TrainedRows;

use crate::{
    Base, Edit, Edits, Error, Exchange, Hooks, Layout, Method, NormEdit, Pass, Replaced, Result,
    Role, Site, SiteKind, TableEdit, trained_copy,
};

/// Full trained copies of a few modules, saved with the adapter: HF PEFT's `modules_to_save`, and of
/// rows of embeddings: its `trainable_token_indices`.
///
/// The copies start from the base's values. The base's own stay as they are. A head that is tied to
/// an embedding stays tied to the copy.
#[derive(Module, Debug)]
pub struct ModulesToSave {
    /// By [`Site::index`].
    modules: Vec<Option<SavedModule>>,
    /// Whether one of them is an embedding.
    #[module(skip)]
    embeddings: bool,
}

#[derive(Module, Debug)]
struct SavedModule {
    /// `[d_in, d_out]`, or `[entries, d]` of an embedding.
    weight: Option<Param<Tensor<2>>>,
    /// `[d]` gain of a norm.
    gain: Option<Param<Tensor<1>>>,
    /// `[d_out]`.
    bias: Option<Param<Tensor<1>>>,
    /// Rows of an embedding that is not copied as a whole.
    rows: Option<TrainedRows>,
}

impl ModulesToSave {
    /// Copies of the modules named by `names`, on `device`.
    ///
    /// As in HF PEFT, a name selects every module whose path ends with it (`classifier` selects
    /// `pre_classifier` too), and all that is inside.
    ///
    /// # Errors
    /// If a name selects biases of attention by distance.
    pub fn new(base: &Base, names: &[String], device: &Device) -> Result<Self> {
        let mut modules = vec![None; base.len()];
        let mut embeddings = false;
        for entry in base.iter().filter(|entry| Self::selects(&entry.site, names)) {
            if entry.site.role == Role::RelativePosition {
                return Err(Error::config(
                    "modules_to_save",
                    &entry.site.path,
                    "biases of attention by distance cannot be trained as a whole here; choose \
                     heads, linear layers, norms or other embeddings",
                ));
            }
            embeddings |= entry.site.kind == SiteKind::Embedding;
            modules[entry.site.index] = Some(SavedModule {
                // A weight that is the embeddings' stays theirs.
                weight: (entry.weight.clone().filter(|_| !entry.site.tied))
                    .map(|w| trained_copy(&w.dense(), device)),
                gain: entry.gain.as_ref().map(|g| trained_copy(g, device)),
                bias: entry.bias.as_ref().map(|b| trained_copy(b, device)),
                rows: None,
            });
        }
        Ok(Self { modules, embeddings })
    }

    /// With copies of rows of embeddings, on `device`.
    ///
    /// # Errors
    /// If an embedding or a row is not there, is named twice, or is saved as a whole already.
    pub fn with_tokens(
        mut self,
        base: &Base,
        tokens: &TokenIndices,
        device: &Device,
    ) -> Result<Self> {
        let device = device.clone().autodiff();
        for (entry, indices) in tokens.tables(base)? {
            let module = &mut self.modules[entry.site.index];
            if module.is_some() {
                let expected = "is in modules_to_save too: train all of it, or rows of it";
                return Err(Error::config(TokenIndices::FIELD, &entry.site.path, expected));
            }
            let rows = TrainedRows::new(base.weight(&entry.site), indices, &device);
            let (weight, gain, bias) = (None, None, None);
            *module = Some(SavedModule { weight, gain, bias, rows: Some(rows) });
            self.embeddings = true;
        }
        Ok(self)
    }

    /// Whether no module is saved.
    pub fn is_empty(&self) -> bool {
        self.modules.iter().all(Option::is_none)
    }

    /// Whether embeddings, or rows of them, are among what is saved.
    pub fn has_embeddings(&self) -> bool {
        self.embeddings
    }

    fn at(&self, site: &Site) -> Option<&SavedModule> {
        self.modules.get(site.index)?.as_ref()
    }

    /// Whether a site belongs to one of the modules named.
    pub fn selects(site: &Site, names: &[String]) -> bool {
        let has_tensors = !matches!(site.kind, SiteKind::Attention | SiteKind::Sublayer);
        has_tensors && Self::is_within(&site.path, names)
    }

    /// Whether a module is, or lies in, one of the modules named.
    pub fn is_within(path: &str, names: &[String]) -> bool {
        let mut ends = path.match_indices('.').map(|(i, _)| i).chain([path.len()]);
        ends.any(|end| names.iter().any(|name| path[..end].ends_with(name)))
    }
}

impl Hooks for ModulesToSave {
    fn linear(&self, site: &Site, _pass: &Pass<'_>) -> Edits {
        let Some(module) = self.at(site) else { return Edits::none() };
        let weight = module.weight.as_ref().map(|weight| Replaced(weight.val()));
        let weight = weight.map(|weight| Edit::Weight(Arc::new(weight)));
        weight.into_iter().chain(module.bias.as_ref().map(|bias| Edit::Bias(bias.val()))).collect()
    }
    fn norm(&self, site: &Site, _pass: &Pass<'_>) -> NormEdit {
        match self.at(site) {
            Some(SavedModule { gain: Some(gain), bias, .. }) => {
                NormEdit::set(gain.val(), bias.as_ref().map(Param::val))
            }
            _ => NormEdit::default(),
        }
    }
    fn table(&self, site: &Site, _pass: &Pass<'_>) -> TableEdit {
        match self.at(site) {
            Some(SavedModule { weight: Some(weight), .. }) => TableEdit::Replaced(weight.val()),
            Some(SavedModule { rows: Some(rows), .. }) => TableEdit::Rows(rows.edit()),
            _ => TableEdit::Keep,
        }
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
            if let Some(rows) = &mut module.rows {
                file.param(site.key(TokenIndices::ROWS), &mut rows.values, Layout::AsIs);
            }
        }
    }
}
