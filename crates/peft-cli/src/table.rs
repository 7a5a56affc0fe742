//! Tables on a terminal.

use std::io::Write;

/// A column: its name, and whether it holds numbers, which stand on the right.
pub struct Column {
    pub name: &'static str,
    pub numbers: bool,
}

/// A column of words.
pub const fn words(name: &'static str) -> Column {
    Column { name, numbers: false }
}

/// A column of numbers.
pub const fn numbers(name: &'static str) -> Column {
    Column { name, numbers: true }
}

/// Writes rows in columns as wide as what is in them.
pub fn write_table(
    out: &mut impl Write,
    columns: &[Column],
    rows: &[Vec<String>],
) -> std::io::Result<()> {
    let head: Vec<String> = columns.iter().map(|column| column.name.into()).collect();
    let width = |column: usize| {
        let all = rows.iter().chain([&head]).map(|row| row[column].chars().count());
        all.max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    for row in [&head].into_iter().chain(rows) {
        let cells = row.iter().zip(columns).zip(&widths).map(|((cell, column), &width)| {
            if column.numbers { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}
