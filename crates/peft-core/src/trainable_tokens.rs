//! Rows of an embedding trained beside a method: those of new tokens, above all.

use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::tensor::{Device, IndexingUpdateOp, Int, Tensor};
use serde::{Deserialize, Serialize};

use crate::{Base, BaseSite, Error, FrozenWeight, Result, Role, SiteKind};

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
    /// Whether no row is trained.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Words(indices) => indices.is_empty(),
            Self::Modules(modules) => modules.values().all(Vec::is_empty),
        }
    }

    /// The embeddings of `base` that are meant, each with its rows.
    pub(crate) fn tables<'b>(&self, base: &'b Base) -> Result<Vec<(&'b BaseSite, Vec<usize>)>> {
        let embeddings = || base.iter().filter(|entry| entry.site.kind == SiteKind::Embedding);
        let no_match = |name: &str| {
            let available: Vec<&str> = embeddings().map(|entry| entry.site.name()).collect();
            Error::NoMatch {
                field: FIELD.into(),
                pattern: name.into(),
                what: "embedding".into(),
                available: available.join(", "),
            }
        };
        let mut tables = Vec::new();
        match self {
            Self::Words(indices) if indices.is_empty() => {}
            Self::Words(indices) => {
                let words = embeddings().find(|entry| entry.site.role == Role::WordEmbedding);
                let words = words.ok_or_else(|| no_match("of tokens"))?;
                tables.push((words, indices.clone()));
            }
            Self::Modules(modules) => {
                for (name, indices) in modules {
                    let found = embeddings().find(|entry| entry.site.path.ends_with(name.as_str()));
                    tables.push((found.ok_or_else(|| no_match(name))?, indices.clone()));
                }
            }
        }
        for (number, (entry, indices)) in tables.iter().enumerate() {
            let rows = entry.site.d_in();
            let wrong =
                |index: &usize, expected: String| Err(Error::config(FIELD, index, expected));
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
                return Err(Error::config(FIELD, &entry.site.path, expected));
            }
        }
        Ok(tables)
    }
}

/// The field of `adapter_config.json`.
pub(crate) const FIELD: &str = "trainable_token_indices";

/// What HF PEFT calls the rows, behind the path of their table.
pub(crate) const ROWS: &str = "token_adapter.trainable_tokens_delta";

/// Trained copies of some rows of a table. As in HF PEFT, whose name for them says otherwise, they
/// take the place of the table's own: they are no differences.
#[derive(Module, Debug)]
pub(crate) struct TrainedRows {
    /// `[indices, d]`.
    pub(crate) values: Param<Tensor<2>>,
    #[module(skip)]
    indices: Vec<usize>,
}

impl TrainedRows {
    pub(crate) fn new(table: &FrozenWeight, indices: Vec<usize>, device: &Device) -> Self {
        let table = table.dense();
        let rows = table.clone().select(0, positions(&indices, &table.device()));
        let values = Param::from_tensor(Tensor::from_data(rows.into_data(), device));
        Self { values, indices }
    }

    /// The number of rows.
    pub(crate) fn len(&self) -> usize {
        self.indices.len()
    }

    /// `table` with these rows.
    pub(crate) fn within(&self, table: Tensor<2>) -> Tensor<2> {
        let values = self.values.val();
        let device = values.device();
        let [entries, _] = table.dims();
        let is_trained: Vec<bool> = (0..entries).map(|row| self.indices.contains(&row)).collect();
        let is_trained =
            Tensor::<1, burn::tensor::Bool>::from_data(is_trained.as_slice(), &table.device());
        let rest = table.mask_fill(is_trained.unsqueeze_dim(1), 0.0).to_device(&device);
        rest.select_assign(0, positions(&self.indices, &device), values, IndexingUpdateOp::Add)
    }
}

fn positions(indices: &[usize], device: &Device) -> Tensor<1, Int> {
    let indices: Vec<i64> = indices.iter().map(|index| *index as i64).collect();
    Tensor::from_data(indices.as_slice(), device)
}
