//! Modules trained as a whole beside a method: a task head, above all.

mod tokens;

pub use tokens::TokenIndices;

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use tokens::TrainedRows;

use crate::{
    Base, BaseSite, Edit, Edits, Error, Exchange, Hooks, Layout, Method, NormEdit, Pass, Replaced,
    Result, Role, Site, SiteKind, TableEdit, trained_copy,
};

/// Full trained copies of a few modules, saved with the adapter: HF PEFT's `modules_to_save`, and of
/// rows of embeddings: its `trainable_token_indices`.
///
/// The copies start from the base's values. The base's own stay as they are. A head that is tied to an
/// embedding keeps the base's table beside a copy of the embedding, as in HF PEFT, and gets a copy of
/// its own where it is named; [`tied`](Self::tied) (HF PEFT's `ensure_weight_tying`) gives both one
/// copy. Trained rows of an embedding are also the head's.
#[derive(Module, Debug)]
pub struct ModulesToSave {
    /// By [`Site::index`].
    modules: Vec<Option<SavedModule>>,
    /// By [`Site::index`] of a head: the embedding whose copy, or rows, it has.
    #[module(skip)]
    follows: Vec<Option<usize>>,
    /// Whether one of the modules is an embedding.
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
    /// Rows of a table that is not copied as a whole.
    rows: Option<TrainedRows>,
}

impl SavedModule {
    fn copy(entry: &BaseSite, device: &Device) -> Self {
        Self {
            weight: entry.weight.as_ref().map(|w| trained_copy(&w.dense(), device)),
            gain: entry.gain.as_ref().map(|g| trained_copy(g, device)),
            bias: entry.bias.as_ref().map(|b| trained_copy(b, device)),
            rows: None,
        }
    }
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
            modules[entry.site.index] = Some(SavedModule::copy(entry, device));
        }
        Ok(Self { modules, follows: vec![None; base.len()], embeddings })
    }

    /// The same, where a head and the embedding that it is tied to have one copy, if either is named.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn tied(base: &Base, names: &[String], device: &Device) -> Result<Self> {
        let mut all = Self::new(base, names, device)?;
        for (head, embedding) in tied_heads(base) {
            let own = all.modules[head].take();
            if own.is_none() && all.modules[embedding].is_none() {
                continue;
            }
            let copy = || SavedModule::copy(base.at_index(embedding), device);
            all.modules[embedding].get_or_insert_with(copy);
            all.modules[head] = own.map(|module| SavedModule { weight: None, ..module });
            all.follows[head] = Some(embedding);
            all.embeddings = true;
        }
        Ok(all)
    }

    /// With copies of rows of tables, on `device`.
    ///
    /// # Errors
    /// If a table or a row is not there, is named twice, or is saved as a whole already.
    pub fn with_tokens(
        mut self,
        base: &Base,
        tokens: &TokenIndices,
        device: &Device,
    ) -> Result<Self> {
        let device = device.clone().autodiff();
        let mut tables = tokens.tables(base)?;
        for (head, embedding) in tied_heads(base) {
            let rows_of = |index: usize| tables.iter().find(|(entry, _)| entry.site.index == index);
            let (Some((_, of_embedding)), of_head) = (rows_of(embedding), rows_of(head)) else {
                continue;
            };
            if of_head.is_none_or(|(_, of_head)| of_head == of_embedding) {
                self.follows[head] = Some(embedding);
                tables.retain(|(entry, _)| entry.site.index != head);
            }
        }
        for (entry, indices) in tables {
            let module = &mut self.modules[entry.site.index];
            if module.is_some() {
                let expected = "is in modules_to_save too: train all of it, or rows of it";
                return Err(Error::config(TokenIndices::FIELD, &entry.site.path, expected));
            }
            let weight = base.weight(&entry.site);
            let table = match entry.site.is_unembedding {
                true => weight.transpose(),
                false => weight.clone(),
            };
            let rows = TrainedRows::new(&table, indices, &device);
            let (weight, gain, bias) = (None, None, None);
            *module = Some(SavedModule { weight, gain, bias, rows: Some(rows) });
            self.embeddings = true;
        }
        Ok(self)
    }

    /// The names that select nothing in `base`.
    pub fn unmatched<'n>(base: &Base, names: &'n [String]) -> Vec<&'n str> {
        let selects = |name: &String| {
            base.sites().any(|site| Self::selects(site, std::slice::from_ref(name)))
        };
        names.iter().filter(|name| !selects(name)).map(String::as_str).collect()
    }

    /// Whether no module is saved.
    pub fn is_empty(&self) -> bool {
        self.modules.iter().all(Option::is_none)
    }

    /// Whether embeddings, or rows of them, are among what is saved.
    pub fn has_embeddings(&self) -> bool {
        self.embeddings
    }

    /// Names the rows of tables with their keys, which end in `name`.
    pub fn exchange_rows(&mut self, file: &mut Exchange<'_>, base: &Base, name: &str) {
        for site in base.sites() {
            let module = self.modules.get_mut(site.index).and_then(Option::as_mut);
            if let Some(rows) = module.and_then(|module| module.rows.as_mut()) {
                file.param(site.key(name), &mut rows.values, Layout::AsIs);
            }
        }
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

/// The heads of `base` that are tied to an embedding, each with the embedding, by [`Site::index`].
fn tied_heads(base: &Base) -> impl Iterator<Item = (usize, usize)> {
    base.sites().filter_map(|site| Some((site.index, site.tied_to?)))
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
        let followed = self.follows.get(site.index).copied().flatten();
        let module = match followed {
            Some(embedding) => self.modules[embedding].as_ref(),
            None => self.at(site),
        };
        match module {
            Some(SavedModule { rows: Some(rows), .. }) => TableEdit::Rows(rows.edit()),
            // The weight of a head of its own is that of a linear layer.
            Some(SavedModule { weight: Some(weight), .. })
                if followed.is_some() || site.kind == SiteKind::Embedding =>
            {
                TableEdit::Replaced(weight.val())
            }
            _ => TableEdit::Keep,
        }
    }
}

impl Method for ModulesToSave {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        for entry in base.iter() {
            let site = &entry.site;
            if let Some(module) = self.follows[site.index].and_then(|i| self.modules[i].as_mut())
                && let Some(weight) = &mut module.weight
            {
                file.repeated(site.key("weight"), weight, Layout::AsIs);
            }
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
        self.exchange_rows(file, base, TokenIndices::ROWS);
    }
}
