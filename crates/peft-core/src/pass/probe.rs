//! What methods decide while they run.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::Site;

/// Collects what methods decide while a model runs under them: the values of gates, the attention
/// of a fusion over its adapters.
///
/// A clone is a handle on the same collection.
#[derive(Debug, Clone, Default)]
pub struct Probe {
    seen: Arc<Mutex<BTreeMap<(usize, String), Seen>>>,
}

#[derive(Debug)]
struct Seen {
    path: String,
    layer: Option<usize>,
    sums: Vec<f64>,
    count: usize,
}

/// The mean of what was decided at one site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// The site's path.
    pub path: String,
    /// Its layer.
    pub layer: Option<usize>,
    /// What was decided: `lora_gate`, `fusion`.
    pub name: String,
    /// The mean of each value: one of a gate, one for each adapter of a fusion.
    pub mean: Vec<f64>,
    /// Over how many rows or tokens.
    pub count: usize,
}

impl Probe {
    /// Notes `values`, `[rows, n]`.
    pub fn record(&self, site: &Site, name: &str, values: Tensor<2>) {
        let [rows, n] = values.dims();
        let sums = values.sum_dim(0).into_data().convert::<f64>();
        let sums = sums.try_into_vec::<f64>().expect("it was converted");
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = seen.entry((site.index, name.to_string())).or_insert_with(|| Seen {
            path: site.path.clone(),
            layer: site.layer,
            sums: vec![0.0; n],
            count: 0,
        });
        entry.sums.iter_mut().zip(sums).for_each(|(sum, value)| *sum += value);
        entry.count += rows;
    }

    /// What was noted so far, in the order of sites.
    pub fn observations(&self) -> Vec<Observation> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter()
            .map(|((_, name), seen)| Observation {
                path: seen.path.clone(),
                layer: seen.layer,
                name: name.clone(),
                mean: seen.sums.iter().map(|sum| sum / seen.count.max(1) as f64).collect(),
                count: seen.count,
            })
            .collect()
    }
}
