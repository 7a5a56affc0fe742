//! The innermost product: a few rows by a few registers of columns, held in registers.

use pulp::Simd;

/// The left side of a product: numbers at any distance.
#[derive(Clone, Copy)]
pub(super) struct Left {
    pub(super) start: *const f32,
    /// From a row to the next.
    pub(super) row: usize,
    /// From a column to the next.
    pub(super) column: usize,
}

/// The right side: rows whose numbers lie side by side.
#[derive(Clone, Copy)]
pub(super) struct Right<T = f32> {
    pub(super) start: *const T,
    /// From a row to the next.
    pub(super) row: usize,
}

/// The most rows of a tile, where a register holds this many numbers.
pub(super) const fn most_rows(lanes: usize) -> usize {
    // AVX-512 and NEON have 32 registers, the others 16.
    if lanes == 8 || lanes == 1 { 4 } else { 8 }
}

/// The registers side by side in a tile, where a register holds this many numbers.
pub(super) const fn most_registers(lanes: usize) -> usize {
    if lanes == 1 { 8 } else { 3 }
}

/// `tile!(ROWS, REGISTERS)` for a tile of this size; where the number of lanes rules a branch out, it is
/// not compiled.
macro_rules! of_size {
    ($simd:ident, [$rows:expr, $registers:expr], $tile:ident) => {
        if most_registers($simd::F32_LANES) == 3 && most_rows($simd::F32_LANES) == 8 {
            match $registers {
                1 => of_rows!($rows, 1, $tile; 1, 2, 3, 4, 5, 6, 7, 8),
                2 => of_rows!($rows, 2, $tile; 1, 2, 3, 4, 5, 6, 7, 8),
                _ => of_rows!($rows, 3, $tile; 1, 2, 3, 4, 5, 6, 7, 8),
            }
        } else if most_registers($simd::F32_LANES) == 3 {
            match $registers {
                1 => of_rows!($rows, 1, $tile; 1, 2, 3, 4),
                2 => of_rows!($rows, 2, $tile; 1, 2, 3, 4),
                _ => of_rows!($rows, 3, $tile; 1, 2, 3, 4),
            }
        } else {
            of_rows!($rows, 8, $tile; 1, 2, 3, 4)
        }
    };
}

macro_rules! of_rows {
    ($rows:expr, $registers:literal, $tile:ident; $($number:literal),*) => {
        match $rows {
            $($number => $tile!($number, $registers),)*
            _ => unreachable!("no more rows than in a tile"),
        }
    };
}

pub(super) use {of_rows, of_size};

/// The sums of a tile, `[rows][registers]`.
pub(super) type Sums<S, const ROWS: usize, const WIDE: usize> = [[<S as Simd>::f32s; WIDE]; ROWS];

/// The sums with `left · right` over `depth` added.
///
/// Plain loops over arrays, without closures: what is not inlined whole is not held in registers.
///
/// # Safety
/// `left` has `ROWS` rows of `depth` numbers, `right` has `depth` rows of `WIDE` registers.
#[inline(always)]
pub(super) unsafe fn add<S: Simd, const ROWS: usize, const WIDE: usize>(
    simd: S,
    mut sums: Sums<S, ROWS, WIDE>,
    left: Left,
    right: Right,
    depth: usize,
) -> Sums<S, ROWS, WIDE> {
    let (mut numbers, mut line) = (left.start, right.start);
    for _ in 0..depth {
        let mut registers = [simd.splat_f32s(0.0); WIDE];
        for (number, register) in registers.iter_mut().enumerate() {
            // SAFETY: the right side has `WIDE` registers in each of `depth` rows.
            *register =
                unsafe { line.add(number * S::F32_LANES).cast::<S::f32s>().read_unaligned() };
        }
        for (row, sums) in sums.iter_mut().enumerate() {
            // SAFETY: all rows of the left side have `depth` numbers.
            let value = simd.splat_f32s(unsafe { *numbers.add(row * left.row) });
            for (sum, register) in sums.iter_mut().zip(registers) {
                *sum = simd.mul_add_e_f32s(value, register, *sum);
            }
        }
        numbers = numbers.wrapping_add(left.column);
        line = line.wrapping_add(right.row);
    }
    sums
}

/// Reads a tile's rows of `columns` numbers, zeros behind them.
///
/// # Safety
/// There are `ROWS` rows of `columns` numbers, `distance` from one to the next.
#[inline(always)]
pub(super) unsafe fn read<S: Simd, const ROWS: usize, const WIDE: usize>(
    simd: S,
    from: *const f32,
    distance: usize,
    columns: usize,
) -> Sums<S, ROWS, WIDE> {
    let mut sums = [[simd.splat_f32s(0.0); WIDE]; ROWS];
    for (row, sums) in sums.iter_mut().enumerate() {
        for (register, sum) in sums.iter_mut().enumerate() {
            let place = register * S::F32_LANES;
            if place + S::F32_LANES <= columns {
                // SAFETY: the whole register lies within the row.
                *sum =
                    unsafe { from.add(row * distance + place).cast::<S::f32s>().read_unaligned() };
            } else if place < columns {
                // SAFETY: as many numbers of the row are left from `place` on.
                let rest = unsafe {
                    std::slice::from_raw_parts(from.add(row * distance + place), columns - place)
                };
                *sum = simd.partial_load_f32s(rest);
            }
        }
    }
    sums
}

/// Writes the sums as rows of `columns` numbers.
///
/// # Safety
/// There is room for `ROWS` rows of `columns` numbers, `distance` from one to the next, which
/// nobody else reads or writes meanwhile.
#[inline(always)]
pub(super) unsafe fn write<S: Simd, const ROWS: usize, const WIDE: usize>(
    simd: S,
    sums: Sums<S, ROWS, WIDE>,
    to: *mut f32,
    distance: usize,
    columns: usize,
) {
    for (row, sums) in sums.into_iter().enumerate() {
        for (register, sum) in sums.into_iter().enumerate() {
            let place = register * S::F32_LANES;
            if place + S::F32_LANES <= columns {
                // SAFETY: the whole register lies within the row.
                unsafe {
                    to.add(row * distance + place).cast::<S::f32s>().write_unaligned(sum);
                }
            } else if place < columns {
                // SAFETY: as many numbers of the row are left from `place` on.
                let rest = unsafe {
                    std::slice::from_raw_parts_mut(to.add(row * distance + place), columns - place)
                };
                simd.partial_store_f32s(rest, sum);
            }
        }
    }
}
