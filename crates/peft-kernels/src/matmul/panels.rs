//! A matrix laid out for products: panels of a few columns, row after row.

use std::ops::Range;

use rayon::prelude::*;

use super::pairs;
use super::tile::most_registers;
use crate::{Element, simd};

/// A matrix `[depth, columns]` as panels `[panel][depth][width]`, the last filled up with zeros; in
/// bf16 `[panel][depth / 2][width]` pairs of numbers that are one above the other.
#[derive(Clone)]
pub(crate) struct Panels {
    depth: usize,
    columns: usize,
    width: usize,
    element: Element,
    values: Vec<Line>,
}

/// A line of the cache, where every panel begins: the bits of f32 numbers or of pairs.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u32; LINE]);

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

impl Source<'_> {
    /// Writes a panel of `width` columns in pairs.
    fn lay_out_pairs(self, number: usize, width: usize, panel: &mut [u32]) {
        let Self { values, depth, columns, row, column } = self;
        let first = number * width;
        let inside = width.min(columns - first);
        let at = |place: usize, beside: usize| match place < depth {
            true => values[place * row + (first + beside) * column],
            false => 0.0,
        };
        if column == 1 {
            for (pair, line) in panel.chunks_mut(width).enumerate() {
                for (beside, word) in line[..inside].iter_mut().enumerate() {
                    *word = pairs::pair(at(2 * pair, beside), at(2 * pair + 1, beside));
                }
            }
        } else {
            for beside in 0..inside {
                for pair in 0..depth.div_ceil(2) {
                    let word = pairs::pair(at(2 * pair, beside), at(2 * pair + 1, beside));
                    panel[pair * width + beside] = word;
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
        let mut panels = Self::empty(Element::F32);
        panels.fill(source, factor);
        panels
    }

    /// Lays a matrix out on all cores: a large one, that is laid out once. In bf16 each number is
    /// rounded to the nearest.
    pub(crate) fn on_all_cores(source: Source<'_>, element: Element) -> Self {
        let mut panels = Self::empty(element);
        panels.resize(source);
        let size = panels.size();
        if size > 0 {
            let (width, length) = (panels.width, panels.count() * size);
            match element {
                Element::F32 => {
                    let all = panels.floats_mut()[..length].par_chunks_mut(size).enumerate();
                    all.for_each(|(number, panel)| source.lay_out(number, width, 1.0, panel));
                }
                Element::Bf16 => {
                    let all = panels.words_mut()[..length].par_chunks_mut(size).enumerate();
                    all.for_each(|(number, panel)| source.lay_out_pairs(number, width, panel));
                }
            }
        }
        panels
    }

    fn empty(element: Element) -> Self {
        Self { depth: 0, columns: 0, width: 0, element, values: Vec::new() }
    }

    /// Lays another matrix out in the place of this one, in f32.
    pub(crate) fn fill(&mut self, source: Source<'_>, factor: f32) {
        self.element = Element::F32;
        self.resize(source);
        let size = self.size();
        if size > 0 {
            let (width, length) = (self.width, self.count() * size);
            let all = self.floats_mut()[..length].chunks_mut(size).enumerate();
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
        (self.depth, self.columns, self.width) = (depth, columns, width);
        let length = self.size() * self.count();
        self.values.clear();
        self.values.resize(length.div_ceil(LINE), Line([0; LINE]));
    }

    /// The words of a panel.
    fn size(&self) -> usize {
        self.width * self.lines()
    }

    /// The lines of a panel, each as many words as it is wide.
    fn lines(&self) -> usize {
        match self.element {
            Element::F32 => self.depth,
            Element::Bf16 => self.depth.div_ceil(2),
        }
    }

    /// What its numbers are.
    pub(crate) fn element(&self) -> Element {
        self.element
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

    /// A panel in f32, `[depth, width]`.
    pub(crate) fn panel(&self, number: usize) -> &[f32] {
        assert_eq!(self.element, Element::F32, "a panel of f32");
        &self.floats()[number * self.size()..(number + 1) * self.size()]
    }

    /// A panel in bf16, `[depth / 2, width]`.
    pub(crate) fn pairs(&self, number: usize) -> &[u32] {
        assert_eq!(self.element, Element::Bf16, "a panel of bf16");
        &self.words()[number * self.size()..(number + 1) * self.size()]
    }

    /// The number at a place.
    pub(crate) fn at(&self, row: usize, column: usize) -> f32 {
        let place = column / self.width * self.size() + column % self.width;
        match self.element {
            Element::F32 => f32::from_bits(self.words()[place + row * self.width]),
            Element::Bf16 => pairs::halves(self.words()[place + row / 2 * self.width])[row % 2],
        }
    }

    /// The numbers, row after row.
    pub(crate) fn dense(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.depth * self.columns];
        for number in 0..self.count() {
            let columns = self.columns_of(number);
            let words = &self.words()[number * self.size()..(number + 1) * self.size()];
            for (place, row) in values.chunks_mut(self.columns).enumerate() {
                let line = match self.element {
                    Element::F32 => place,
                    Element::Bf16 => place / 2,
                };
                let line = &words[line * self.width..][..self.width];
                for (to, word) in row[columns.clone()].iter_mut().zip(line) {
                    *to = match self.element {
                        Element::F32 => f32::from_bits(*word),
                        Element::Bf16 => pairs::halves(*word)[place % 2],
                    };
                }
            }
        }
        values
    }

    fn words(&self) -> &[u32] {
        // SAFETY: a line is an array of words, without anything between one and the next.
        unsafe { std::slice::from_raw_parts(self.values.as_ptr().cast(), self.values.len() * LINE) }
    }

    fn words_mut(&mut self) -> &mut [u32] {
        let count = self.values.len() * LINE;
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.values.as_mut_ptr().cast(), count) }
    }

    fn floats(&self) -> &[f32] {
        let words = self.words();
        // SAFETY: as many numbers as words, of the same size; any bits are a number.
        unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), words.len()) }
    }

    fn floats_mut(&mut self) -> &mut [f32] {
        let words = self.words_mut();
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), words.len()) }
    }
}
