//! Rows of a batch by the method that they belong to.

use burn::tensor::{Bool, Int, Tensor, TensorData};

/// Where rows are filled up.
#[derive(Clone, Copy)]
pub(super) enum End {
    Front,
    Back,
}

/// Fills an axis up with zeros.
pub(super) fn fill<const D: usize>(
    tensor: Tensor<D>,
    axis: usize,
    length: usize,
    end: End,
) -> Tensor<D> {
    let mut shape = tensor.dims();
    if shape[axis] == length {
        return tensor;
    }
    shape[axis] = length - shape[axis];
    let zeros = Tensor::zeros(shape, &tensor.device());
    match end {
        End::Front => Tensor::cat(vec![zeros, tensor], axis),
        End::Back => Tensor::cat(vec![tensor, zeros], axis),
    }
}

/// Which rows belong to which method.
#[derive(Debug, Clone)]
pub(super) struct Groups {
    /// Each method with its rows.
    pub(super) rows: Vec<(Option<usize>, Vec<i64>)>,
    /// Where each row of the batch lies once the groups are put one after another; empty where
    /// they lie so already.
    back: Vec<i64>,
}

impl Groups {
    pub(super) fn new(rows: &[Option<usize>], methods: usize) -> Self {
        let all = std::iter::once(None).chain((0..methods).map(Some));
        let of = |method| {
            let own = rows.iter().enumerate().filter(|(_, m)| **m == method);
            (method, own.map(|(row, _)| row as i64).collect::<Vec<_>>())
        };
        let mut groups: Vec<_> = all.map(of).filter(|(_, rows)| !rows.is_empty()).collect();
        groups.sort_by_key(|(_, rows)| rows[0]);
        let order: Vec<i64> = groups.iter().flat_map(|(_, rows)| rows.clone()).collect();
        let mut back = vec![0; order.len()];
        for (place, row) in order.iter().enumerate() {
            back[*row as usize] = place as i64;
        }
        let in_order = back.iter().enumerate().all(|(row, place)| row as i64 == *place);
        Self { rows: groups, back: if in_order { Vec::new() } else { back } }
    }

    /// The method of a row, and which one of that method's rows it is.
    ///
    /// # Panics
    /// If there is no such row.
    pub(super) fn of(&self, row: usize) -> (Option<usize>, usize) {
        let place = |rows: &[i64]| rows.iter().position(|own| *own as usize == row);
        let found = self.rows.iter().find_map(|(method, rows)| Some((*method, place(rows)?)));
        found.unwrap_or_else(|| panic!("row {row} of a batch of {}", self.count()))
    }

    fn count(&self) -> usize {
        self.rows.iter().map(|(_, rows)| rows.len()).sum()
    }

    pub(super) fn split<const D: usize>(
        &self,
        tensor: Tensor<D>,
    ) -> Vec<(Option<usize>, Tensor<D>)> {
        let (batch, count) = (tensor.dims()[0], self.count());
        assert_eq!(batch, count, "a batch of {batch} rows, of which {count} name their adapter");
        let take = |(method, rows): &(Option<usize>, Vec<i64>)| {
            let part = if self.back.is_empty() {
                tensor.clone().narrow(0, rows[0] as usize, rows.len())
            } else {
                tensor.clone().select(0, indices(rows, &tensor))
            };
            (*method, part)
        };
        self.rows.iter().map(take).collect()
    }

    pub(super) fn join<const D: usize>(&self, parts: Vec<Tensor<D>>) -> Tensor<D> {
        let joined = if parts.len() == 1 {
            parts.into_iter().next().expect("one part")
        } else {
            Tensor::cat(parts, 0)
        };
        if self.back.is_empty() {
            return joined;
        }
        let order = indices(&self.back, &joined);
        joined.select(0, order)
    }

    pub(super) fn split_mask(&self, mask: Option<Tensor<2, Bool>>) -> Vec<Option<Tensor<2, Bool>>> {
        match mask {
            None => vec![None; self.rows.len()],
            Some(mask) => self
                .split(mask.float())
                .into_iter()
                .map(|(_, part)| Some(part.greater_elem(0.5)))
                .collect(),
        }
    }

    /// A number for each row, or none at all, by group.
    pub(super) fn split_rows(&self, values: &[usize]) -> Vec<Vec<usize>> {
        let of = |rows: &Vec<i64>| match values {
            [] => Vec::new(),
            _ => rows.iter().map(|row| values[*row as usize]).collect(),
        };
        self.rows.iter().map(|(_, rows)| of(rows)).collect()
    }

    /// Numbers of the groups' rows, 0 where a group has none, in the order of the batch.
    pub(super) fn join_rows(&self, parts: Vec<(Vec<usize>, usize)>) -> Vec<usize> {
        if parts.iter().all(|(values, _)| values.is_empty()) {
            return Vec::new();
        }
        let filled = parts.into_iter().flat_map(|(mut values, rows)| {
            values.resize(rows, 0);
            values
        });
        let joined: Vec<usize> = filled.collect();
        match self.back.is_empty() {
            true => joined,
            false => self.back.iter().map(|place| joined[*place as usize]).collect(),
        }
    }

    /// The mask of parts of `(mask, rows, length)`, filled up to `longest`.
    pub(super) fn join_mask(
        &self,
        parts: Vec<(Option<Tensor<2, Bool>>, usize, usize)>,
        longest: usize,
        end: End,
    ) -> Option<Tensor<2, Bool>> {
        if parts.iter().all(|(mask, _, length)| mask.is_none() && *length == longest) {
            return None;
        }
        let device = parts.iter().find_map(|(mask, ..)| mask.as_ref().map(|mask| mask.device()));
        let device = device.unwrap_or_default();
        let parts = parts.into_iter().map(|(mask, rows, length)| {
            let mask = match mask {
                Some(mask) => mask.float(),
                None => Tensor::ones([rows, length], &device),
            };
            fill(mask, 1, longest, end)
        });
        Some(self.join(parts.collect()).greater_elem(0.5))
    }
}

fn indices<const D: usize>(rows: &[i64], like: &Tensor<D>) -> Tensor<1, Int> {
    Tensor::from_data(TensorData::from(rows), &like.device().without_autodiff())
}
