//! Rows of an embedding trained beside a method: those of new tokens, above all.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::rows::ints;
use crate::{Base, BaseSite, Error, FrozenWeight, Result, Role, Site, SiteKind, TableRows};

/// Which rows of which embeddings are trained: HF PEFT's `trainable_token_indices`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TokenIndices {
    /// Of the token embedding.
    Words(Vec<usize>),
    /// By the name of the embedding's module, or the end of its path.
    Modules(BTreeMap<String, Vec<usize>>),
}

impl Default for TokenIndices {
    fn default() -> Self {
        Self::Words(Vec::new())
    }
}

impl TokenIndices {
    /// The field of `adapter_config.json`.
    pub const FIELD: &str = "trainable_token_indices";

    /// What HF PEFT calls the rows in its files, after the path of their table.
    pub const ROWS: &str = "token_adapter.trainable_tokens_delta";

    /// Whether no row is trained.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Words(indices) => indices.is_empty(),
            Self::Modules(modules) => modules.values().all(Vec::is_empty),
        }
    }

    /// The tables of `base` that are meant, of embeddings and of a language model's head, each with
    /// its rows.
    pub(crate) fn tables<'b>(&self, base: &'b Base) -> Result<Vec<(&'b BaseSite, Vec<usize>)>> {
        let is_table = |site: &Site| site.kind == SiteKind::Embedding || site.is_unembedding;
        let all = || base.iter().filter(|entry| is_table(&entry.site));
        let no_match = |name: &str| {
            let available: Vec<&str> = all().map(|entry| entry.site.name()).collect();
            Error::NoMatch {
                field: Self::FIELD.into(),
                pattern: name.into(),
                what: "embedding".into(),
                available: available.join(", "),
            }
        };
        let mut tables = Vec::new();
        match self {
            Self::Words(indices) if indices.is_empty() => {}
            Self::Words(indices) => {
                let words = all().find(|entry| entry.site.role == Role::WordEmbedding);
                let words = words.ok_or_else(|| no_match("of tokens"))?;
                tables.push((words, indices.clone()));
            }
            Self::Modules(modules) => {
                for (name, indices) in modules {
                    let found = all().find(|entry| entry.site.path.ends_with(name.as_str()));
                    tables.push((found.ok_or_else(|| no_match(name))?, indices.clone()));
                }
            }
        }
        for (number, (entry, indices)) in tables.iter().enumerate() {
            let rows = match entry.site.is_unembedding {
                true => entry.site.d_out(),
                false => entry.site.d_in(),
            };
            let wrong =
                |index: &usize, expected: String| Err(Error::config(Self::FIELD, index, expected));
            if let Some(index) = indices.iter().find(|index| **index >= rows) {
                return wrong(index, format!("{} has {rows} rows", entry.site.path));
            }
            let mut sorted = indices.clone();
            sorted.sort_unstable();
            if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
                return wrong(&twice[0], "is there twice".into());
            }
            if tables[..number].iter().any(|(other, _)| other.site.index == entry.site.index) {
                let expected = "is named twice";
                return Err(Error::config(Self::FIELD, &entry.site.path, expected));
            }
        }
        Ok(tables)
    }
}

/// Trained copies of some rows of a table. As in HF PEFT, whose name for them says otherwise, they
/// take the place of the table's own: they are no differences.
#[derive(Module, Debug)]
pub(crate) struct TrainedRows {
    /// `[indices, d]`.
    pub(crate) values: Param<Tensor<2>>,
    #[module(skip)]
    indices: Arc<[usize]>,
}

impl TrainedRows {
    pub(crate) fn new(table: &FrozenWeight, indices: Vec<usize>, device: &Device) -> Self {
        let rows = table.rows(ints(indices.iter().copied(), &table.device()));
        let values = Param::from_tensor(Tensor::from_data(rows.into_data(), device));
        Self { values, indices: indices.into() }
    }

    /// What they do to their table.
    pub(crate) fn edit(&self) -> TableRows {
        TableRows { indices: self.indices.clone(), values: self.values.val() }
    }
}
