//! A matrix laid out for products: panels of a few columns, row after row.

use std::ops::Range;

use rayon::prelude::*;

use super::tile::most_registers;
use crate::simd;

/// A matrix `[depth, columns]` as panels `[panel][depth][width]`, the last filled up with zeros.
#[derive(Clone)]
pub(crate) struct Panels {
    depth: usize,
    columns: usize,
    width: usize,
    values: Vec<Line>,
}

/// A line of the cache, where every panel begins.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

const LINE: usize = 16;

/// A matrix to lay out: `[depth, columns]` within rows of any distance.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) depth: usize,
    pub(crate) columns: usize,
    /// From a number to that below it.
    pub(crate) row: usize,
    /// From a number to that beside it.
    pub(crate) column: usize,
}

impl<'a> Source<'a> {
    /// A matrix `[depth, columns]`, row after row.
    pub(crate) fn new(values: &'a [f32], [depth, columns]: [usize; 2]) -> Self {
        assert_eq!(values.len(), depth * columns, "as many numbers as [{depth}, {columns}]");
        Self { values, depth, columns, row: columns, column: 1 }
    }

    /// The same matrix the other way round.
    pub(crate) fn transposed(self) -> Self {
        Self {
            depth: self.columns,
            columns: self.depth,
            row: self.column,
            column: self.row,
            ..self
        }
    }

    /// Writes a panel of `width` columns, each number times `factor`.
    fn lay_out(self, number: usize, width: usize, factor: f32, panel: &mut [f32]) {
        let Self { values, depth, columns, row, column } = self;
        let first = number * width;
        let inside = width.min(columns - first);
        if column == 1 {
            for (place, line) in panel.chunks_mut(width).enumerate() {
                let from = place * row + first;
                for (to, from) in line.iter_mut().zip(&values[from..from + inside]) {
                    *to = from * factor;
                }
            }
        } else {
            // A few columns at a time, so that what is read stays in the cache.
            for beside in 0..inside {
                let from = &values[(first + beside) * column..];
                for place in 0..depth {
                    panel[place * width + beside] = from[place * row] * factor;
                }
            }
        }
    }
}

impl std::fmt::Debug for Panels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Panels[{}, {}]", self.depth, self.columns)
    }
}

impl Panels {
    /// Lays a matrix out.
    pub(crate) fn new(source: Source<'_>) -> Self {
        Self::scaled(source, 1.0)
    }

    /// Lays a matrix out, each number times `factor`.
    pub(crate) fn scaled(source: Source<'_>, factor: f32) -> Self {
        let mut panels = Self { depth: 0, columns: 0, width: 0, values: Vec::new() };
        panels.fill(source, factor);
        panels
    }

    /// Lays a matrix out on all cores: a large one, that is laid out once.
    pub(crate) fn on_all_cores(source: Source<'_>) -> Self {
        let mut panels = Self { depth: 0, columns: 0, width: 0, values: Vec::new() };
        panels.resize(source);
        let panel = panels.depth * panels.width;
        if panel > 0 {
            let (width, length) = (panels.width, panels.count() * panel);
            let all = panels.floats_mut()[..length].par_chunks_mut(panel).enumerate();
            all.for_each(|(number, panel)| source.lay_out(number, width, 1.0, panel));
        }
        panels
    }

    /// Lays another matrix out in the place of this one.
    pub(crate) fn fill(&mut self, source: Source<'_>, factor: f32) {
        self.resize(source);
        let panel = self.depth * self.width;
        if panel > 0 {
            let (width, length) = (self.width, self.count() * panel);
            let all = self.floats_mut()[..length].chunks_mut(panel).enumerate();
            all.for_each(|(number, panel)| source.lay_out(number, width, factor, panel));
        }
    }

    /// Makes room for a matrix, all zeros.
    fn resize(&mut self, source: Source<'_>) {
        let Source { depth, columns, .. } = source;
        let lanes = simd::lanes();
        // As few registers as hold all columns, where one panel does.
        let most = most_registers(lanes);
        let least = if lanes == 1 { most } else { 1 };
        let registers = columns.div_ceil(lanes).clamp(least, most);
        let width = lanes * registers;
        let length = depth * width * columns.div_ceil(width);
        (self.depth, self.columns, self.width) = (depth, columns, width);
        self.values.clear();
        self.values.resize(length.div_ceil(LINE), Line([0.0; LINE]));
    }

    /// Rows.
    pub(crate) fn depth(&self) -> usize {
        self.depth
    }

    /// Columns.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// The columns of a panel.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// The number of panels.
    pub(crate) fn count(&self) -> usize {
        self.columns.div_ceil(self.width.max(1))
    }

    /// The columns of a panel, without those that fill it up.
    pub(crate) fn columns_of(&self, number: usize) -> Range<usize> {
        let first = number * self.width;
        first..self.columns.min(first + self.width)
    }

    /// A panel, `[depth, width]`.
    pub(crate) fn panel(&self, number: usize) -> &[f32] {
        let size = self.depth * self.width;
        &self.floats()[number * size..(number + 1) * size]
    }

    /// The number at a place.
    pub(crate) fn at(&self, row: usize, column: usize) -> f32 {
        self.panel(column / self.width)[row * self.width + column % self.width]
    }

    /// The numbers, row after row.
    pub(crate) fn dense(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.depth * self.columns];
        for number in 0..self.count() {
            let columns = self.columns_of(number);
            let lines = self.panel(number).chunks(self.width);
            for (line, row) in lines.zip(values.chunks_mut(self.columns)) {
                row[columns.clone()].copy_from_slice(&line[..columns.len()]);
            }
        }
        values
    }

    fn floats(&self) -> &[f32] {
        // SAFETY: a line is an array of f32, without anything between one and the next.
        unsafe { std::slice::from_raw_parts(self.values.as_ptr().cast(), self.values.len() * LINE) }
    }

    fn floats_mut(&mut self) -> &mut [f32] {
        let count = self.values.len() * LINE;
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.values.as_mut_ptr().cast(), count) }
    }
}
