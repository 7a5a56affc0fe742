//! Products of a few rows with panels.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::Panels;
use super::pairs::PairProduct;
use super::tile::{self, Left, Right, Sums, most_registers, most_rows, of_rows, of_size};
use crate::Element;

/// One product of a sum of products: `left · panels`.
#[derive(Clone, Copy)]
pub(crate) struct Term<'a> {
    /// The left side, from its first number on.
    pub(crate) left: &'a [f32],
    /// From a row of it to the next.
    pub(crate) row: usize,
    /// From a column of it to the next.
    pub(crate) column: usize,
    /// The right side. Where it is in bf16, the left one lies row after row, and is rounded.
    pub(crate) panels: &'a Panels,
    /// How many rows of the right side are used.
    pub(crate) depth: usize,
}

impl<'a> Term<'a> {
    /// With a left side that lies row after row, as wide as the right side is deep.
    pub(crate) fn new(left: &'a [f32], panels: &'a Panels) -> Self {
        Self { left, row: panels.depth(), column: 1, panels, depth: panels.depth() }
    }
}

/// What a sum of products begins with.
#[derive(Clone, Copy)]
pub(crate) enum Start<'a> {
    /// Zeros.
    Zero,
    /// The same number for all rows of a column.
    Bias(&'a [f32]),
    /// What is there.
    Output,
}

impl Start<'_> {
    /// A tile of it.
    ///
    /// # Safety
    /// `out` has as many rows of these columns, `distance` from one to the next.
    #[inline(always)]
    pub(super) unsafe fn sums<S: Simd, const ROWS: usize, const WIDE: usize>(
        self,
        simd: S,
        out: *const f32,
        distance: usize,
        columns: Range<usize>,
    ) -> Sums<S, ROWS, WIDE> {
        let wide = columns.len();
        match self {
            Start::Zero => [[simd.splat_f32s(0.0); WIDE]; ROWS],
            Start::Bias(bias) => {
                let bias = bias[columns].as_ptr();
                // SAFETY: the bias has these columns, and at a distance of nothing each row is it.
                unsafe { tile::read::<S, ROWS, WIDE>(simd, bias, 0, wide) }
            }
            // SAFETY: as the caller says.
            Start::Output => unsafe { tile::read::<S, ROWS, WIDE>(simd, out, distance, wide) },
        }
    }
}

/// `start + Σ left · panels`: products of the same shape `[rows, columns]`.
#[derive(Clone, Copy)]
pub(crate) struct Products<'a> {
    pub(crate) terms: &'a [Term<'a>],
    pub(crate) start: Start<'a>,
}

/// The arguments of [`Products::run`]: a function of its own, compiled once for each level of
/// instructions, as all its tiles are.
struct Run<'a> {
    products: &'a Products<'a>,
    rows: usize,
    panels: Range<usize>,
    out: *mut f32,
    distance: usize,
}

impl WithSimd for Run<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { products, rows, panels, out, distance } = self;
        let Some(first) = products.terms.first() else { return };
        let most = most_rows(S::F32_LANES);
        for Term { left, row, column, panels, depth } in products.terms {
            let alike = [first.panels.columns(), first.panels.width()];
            assert_eq!([panels.columns(), panels.width()], alike, "products of one shape");
            assert!(*depth <= panels.depth(), "a right side of {depth} rows");
            if rows > 0 && *depth > 0 {
                let last = (rows - 1) * row + (depth - 1) * column;
                assert!(last < left.len(), "a left side of {rows} rows");
            }
        }
        for number in panels {
            let columns = first.panels.columns_of(number);
            let mut row = 0;
            while row < rows {
                let count = most.min(rows - row);
                // SAFETY: the left sides have these rows, and `out` too, as the caller of `run` says.
                unsafe {
                    let out = out.add(row * distance + columns.start);
                    let width = first.panels.width() / S::F32_LANES;
                    products.tiles(
                        simd,
                        [count, width],
                        row,
                        number,
                        columns.clone(),
                        out,
                        distance,
                    );
                }
                row += count;
            }
        }
    }
}

impl Run<'_> {
    /// The same with some right sides in bf16: one after another, then those in f32.
    ///
    /// # Safety
    /// As [`Products::run`].
    #[inline(never)]
    unsafe fn mixed<S: Simd>(self, simd: S) {
        let Self { products, rows, panels, out, distance } = self;
        let Products { terms, mut start } = *products;
        let (half, rest): (Vec<Term<'_>>, Vec<Term<'_>>) =
            terms.iter().partition(|term| term.panels.element() == Element::Bf16);
        for term in &half {
            let panels = panels.clone();
            // SAFETY: as the caller says.
            unsafe { PairProduct { term, start, rows, panels, out, distance }.run(simd) };
            start = Start::Output;
        }
        if !rest.is_empty() {
            let products = &Products { terms: &rest, start };
            simd.vectorize(Run { products, rows, panels, out, distance });
        }
    }
}

impl Products<'_> {
    /// Writes some panels of the product: of `rows` rows that lie `distance` apart in `out`.
    ///
    /// # Safety
    /// `out` has room for that many rows of as many columns, and nobody else reads or writes those
    /// of these panels meanwhile.
    #[inline(always)]
    pub(crate) unsafe fn run<S: Simd>(
        &self,
        simd: S,
        rows: usize,
        panels: Range<usize>,
        out: *mut f32,
        distance: usize,
    ) {
        let run = Run { products: self, rows, panels, out, distance };
        if self.terms.iter().any(|term| term.panels.element() == Element::Bf16) {
            // SAFETY: as the caller says.
            return unsafe { run.mixed(simd) };
        }
        simd.vectorize(run);
    }

    /// The tile of this size.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    unsafe fn tiles<S: Simd>(
        &self,
        simd: S,
        [rows, registers]: [usize; 2],
        row: usize,
        panel: usize,
        columns: Range<usize>,
        out: *mut f32,
        distance: usize,
    ) {
        macro_rules! tile {
            ($rows:literal, $registers:literal) => {
                // SAFETY: as the caller says.
                unsafe {
                    self.tile::<S, $rows, $registers>(simd, row, panel, columns, out, distance)
                }
            };
        }
        of_size!(S, [rows, registers], tile);
    }

    #[inline(always)]
    unsafe fn tile<S: Simd, const ROWS: usize, const WIDE: usize>(
        &self,
        simd: S,
        row: usize,
        panel: usize,
        columns: Range<usize>,
        out: *mut f32,
        distance: usize,
    ) {
        let wide = columns.len();
        // SAFETY: `out` has these rows.
        let mut sums = unsafe { self.start.sums::<S, ROWS, WIDE>(simd, out, distance, columns) };
        for term in self.terms {
            let left = Left {
                start: term.left.as_ptr().wrapping_add(row * term.row),
                row: term.row,
                column: term.column,
            };
            let right =
                Right { start: term.panels.panel(panel).as_ptr(), row: term.panels.width() };
            // SAFETY: `run` has seen that the left side has as many rows, as long as the panel is
            // deep, and a panel has whole registers.
            sums = unsafe { tile::add(simd, sums, left, right, term.depth) };
        }
        // SAFETY: `out` has these rows.
        unsafe { tile::write(simd, sums, out, distance, wide) };
    }
}

/// Adds `leftᵀ · right` to `sums`, `[left columns, right columns]`: what a weight's gradient is.
///
/// `left` is `[depth, left columns]`, `right` `[depth, right columns]`, row after row.
#[inline(always)]
pub(crate) fn transposed_sum<S: Simd>(
    simd: S,
    left: &[f32],
    right: &[f32],
    shape: [usize; 3],
    sums: &mut [f32],
) {
    simd.vectorize(Transposed { left, right, shape, sums });
}

/// The arguments of [`transposed_sum`].
struct Transposed<'a> {
    left: &'a [f32],
    right: &'a [f32],
    /// Rows of both, columns of the left, columns of the right.
    shape: [usize; 3],
    sums: &'a mut [f32],
}

impl WithSimd for Transposed<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { left, right, shape: [depth, rows, columns], sums } = self;
        assert!(left.len() >= depth * rows && right.len() >= depth * columns, "{depth} rows");
        assert_eq!(sums.len(), rows * columns, "a sum for each pair of columns");
        let lanes = S::F32_LANES;
        let wide = if lanes == 1 { 1 } else { most_registers(lanes) * lanes };
        // What is read beyond a row's end must lie within the matrix.
        let mut padded = Vec::new();
        let mut column = 0;
        while column < columns {
            let width = wide.min(columns - column);
            let registers = width.div_ceil(lanes);
            let right = if width == registers * lanes {
                Right { start: right[column..].as_ptr(), row: columns }
            } else {
                padded.clear();
                padded.resize(depth * registers * lanes, 0.0);
                let lines = padded.chunks_mut(registers * lanes);
                for (line, right) in lines.zip(right.chunks(columns)) {
                    line[..width].copy_from_slice(&right[column..column + width]);
                }
                Right { start: padded.as_ptr(), row: registers * lanes }
            };
            let mut row = 0;
            while row < rows {
                let count = most_rows(lanes).min(rows - row);
                let left = Left { start: left[row..].as_ptr(), row: 1, column: rows };
                let out = sums[row * columns + column..].as_mut_ptr();
                macro_rules! tile {
                ($rows:literal, $registers:literal) => {
                    // SAFETY: both sides have `depth` rows of these columns, and `sums` has as many
                    // rows and columns.
                    unsafe {
                        let tile = tile::read::<S, $rows, $registers>(simd, out, columns, width);
                        let tile = tile::add(simd, tile, left, right, depth);
                        tile::write(simd, tile, out, columns, width);
                    }
                };
            }
                macro_rules! of_rows {
                ($($rows:literal),*) => {
                    match [count, registers] {
                        $([$rows, 1] => tile!($rows, 1),
                        [$rows, 2] => tile!($rows, 2),
                        [$rows, _] => tile!($rows, 3),)*
                        _ => unreachable!("no more rows than in a tile"),
                    }
                };
            }
                if most_rows(lanes) == 8 {
                    of_rows!(1, 2, 3, 4, 5, 6, 7, 8);
                } else {
                    of_rows!(1, 2, 3, 4);
                }
                row += count;
            }
            column += width;
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::bf16;

    use super::*;
    use crate::matmul::Source;
    use crate::simd::run;

    /// Numbers that are neither small nor alike.
    fn values(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 22) as f32 - 2.0
        };
        (0..count).map(|_| next()).collect()
    }

    fn exact(left: &[f32], right: &[f32], [rows, depth, columns]: [usize; 3]) -> Vec<f64> {
        let mut out = vec![0.0; rows * columns];
        for row in 0..rows {
            for place in 0..depth {
                for column in 0..columns {
                    let product = f64::from(left[row * depth + place])
                        * f64::from(right[place * columns + column]);
                    out[row * columns + column] += product;
                }
            }
        }
        out
    }

    fn assert_near(found: &[f32], exact: &[f64], what: &str) {
        assert_eq!(found.len(), exact.len());
        for (found, exact) in found.iter().zip(exact) {
            let difference = (f64::from(*found) - exact).abs();
            assert!(difference < 1e-4 * exact.abs().max(1.0), "{what}: {found} for {exact}");
        }
    }

    struct Kernel<'a> {
        products: Products<'a>,
        shape: [usize; 2],
        panels: usize,
        out: &'a mut [f32],
    }

    impl WithSimd for Kernel<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            let [rows, columns] = self.shape;
            assert_eq!(self.out.len(), rows * columns);
            // SAFETY: there is room for the whole product, and nobody else has it.
            unsafe {
                self.products.run(simd, rows, 0..self.panels, self.out.as_mut_ptr(), columns);
            }
        }
    }

    #[test]
    fn sums_of_products_of_any_shape_are_those_of_f64() {
        for [rows, depth, columns] in
            [[1, 1, 1], [3, 5, 7], [13, 17, 50], [9, 33, 48], [31, 7, 130]]
        {
            let (left, right) = (values(rows * depth, 1), values(depth * columns, 2));
            let (low, high) = (values(rows * 3, 3), values(3 * columns, 4));
            let bias = values(columns, 5);
            let source = Source::new(&right, [depth, columns]);
            let flipped: Vec<f32> =
                (0..depth * columns).map(|i| right[i % depth * columns + i / depth]).collect();
            for source in [source, Source::new(&flipped, [columns, depth]).transposed()] {
                let panels = Panels::new(source);
                assert_eq!(panels.dense(), right);
                assert_eq!(
                    panels.at(depth - 1, columns / 2),
                    right[(depth - 1) * columns + columns / 2]
                );
                let small = Panels::scaled(Source::new(&high, [3, columns]), 0.5);
                let terms = [Term::new(&left, &panels), Term::new(&low, &small)];
                let mut out = vec![f32::NAN; rows * columns];
                let mut run_from = |start| {
                    let products = Products { terms: &terms, start };
                    let (shape, panels) = ([rows, columns], panels.count());
                    run(Kernel { products, shape, panels, out: &mut out });
                };
                run_from(Start::Bias(&bias));
                run_from(Start::Output);
                let [first, second] = [
                    exact(&left, &right, [rows, depth, columns]),
                    exact(&low, &high, [rows, 3, columns]),
                ];
                let expected: Vec<f64> = first
                    .iter()
                    .zip(&second)
                    .enumerate()
                    .map(|(place, (a, b))| f64::from(bias[place % columns]) + 2.0 * (a + 0.5 * b))
                    .collect();
                assert_near(&out, &expected, &format!("{rows} x {depth} x {columns}"));
            }
        }
    }

    #[test]
    fn products_in_bf16_are_those_of_f64_of_rounded_numbers() {
        let round = |values: &[f32]| -> Vec<f32> {
            values.iter().map(|value| bf16::from_f32(*value).to_f32()).collect()
        };
        for [rows, depth, columns] in
            [[1, 1, 1], [3, 5, 7], [13, 17, 50], [9, 32, 48], [31, 71, 130]]
        {
            let (left, right) = (values(rows * depth, 1), values(depth * columns, 2));
            let (low, high) = (values(rows * 3, 3), values(3 * columns, 4));
            let bias = values(columns, 5);
            let flipped: Vec<f32> =
                (0..depth * columns).map(|i| right[i % depth * columns + i / depth]).collect();
            let straight = Source::new(&right, [depth, columns]);
            for source in [straight, Source::new(&flipped, [columns, depth]).transposed()] {
                let panels = Panels::on_all_cores(source, Element::Bf16);
                assert_eq!(panels.dense(), round(&right));
                let last = [depth - 1, columns / 2];
                assert_eq!(panels.at(last[0], last[1]), round(&right)[last[0] * columns + last[1]]);
                // A term in f32 beside it is not rounded.
                let small = Panels::scaled(Source::new(&high, [3, columns]), 0.5);
                let terms = [Term::new(&left, &panels), Term::new(&low, &small)];
                let expected: Vec<f64> =
                    exact(&round(&left), &round(&right), [rows, depth, columns])
                        .iter()
                        .zip(exact(&low, &high, [rows, 3, columns]))
                        .enumerate()
                        .map(|(place, (a, b))| f64::from(bias[place % columns]) + a + 0.5 * b)
                        .collect();
                let products = Products { terms: &terms, start: Start::Bias(&bias) };
                let (shape, panels) = ([rows, columns], panels.count());
                let what = format!("{rows} x {depth} x {columns}");
                let mut out = vec![f32::NAN; rows * columns];
                run(Kernel { products, shape, panels, out: &mut out });
                assert_near(&out, &expected, &what);
            }
        }
    }

    struct Sum<'a>(&'a [f32], &'a [f32], [usize; 3], &'a mut [f32]);

    impl WithSimd for Sum<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            transposed_sum(simd, self.0, self.1, self.2, self.3);
        }
    }

    #[test]
    fn transposed_sums_are_those_of_f64() {
        for [depth, rows, columns] in [[1, 1, 1], [11, 3, 5], [40, 8, 96], [23, 9, 70]] {
            let (left, right) = (values(depth * rows, 6), values(depth * columns, 7));
            let mut sums = values(rows * columns, 8);
            let flipped: Vec<f32> =
                (0..depth * rows).map(|i| left[i % depth * rows + i / depth]).collect();
            let product = exact(&flipped, &right, [rows, depth, columns]);
            let expected: Vec<f64> =
                sums.iter().zip(&product).map(|(s, p)| f64::from(*s) + p).collect();
            run(Sum(&left, &right, [depth, rows, columns], &mut sums));
            assert_near(&sums, &expected, &format!("{depth} x {rows} x {columns}"));
        }
    }

    #[test]
    #[ignore = "a measurement"]
    fn rate() {
        for [rows, depth, columns] in
            [[64, 384, 384], [64, 384, 1536], [64, 1536, 384], [64, 384, 8]]
        {
            let (left, right) = (values(rows * depth, 1), values(depth * columns, 2));
            let source = Source::new(&right, [depth, columns]);
            for element in [Element::F32, Element::Bf16] {
                let panels = Panels::on_all_cores(source, element);
                let terms = [Term::new(&left, &panels)];
                let mut out = vec![0.0; rows * columns];
                let times = 2000;
                let start = std::time::Instant::now();
                for _ in 0..times {
                    let products = Products { terms: &terms, start: Start::Zero };
                    run(Kernel {
                        products,
                        shape: [rows, columns],
                        panels: panels.count(),
                        out: &mut out,
                    });
                }
                let seconds = start.elapsed().as_secs_f64();
                println!(
                    "{rows} x {depth} x {columns}, {element:?}: {:.1} GFLOP/s",
                    2e-9 * (rows * depth * columns * times) as f64 / seconds
                );
            }
        }
    }
}
