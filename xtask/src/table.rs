//! Tables on a terminal.

/// The rows with their columns aligned, the first row being the heads: text on the left, numbers
/// on the right.
pub fn render(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let cell = |row: &Vec<String>, column: usize| row.get(column).cloned().unwrap_or_default();
    let widths: Vec<usize> = (0..columns)
        .map(|c| rows.iter().map(|row| cell(row, c).chars().count()).max().unwrap_or(0))
        .collect();
    let numeric: Vec<bool> =
        (0..columns).map(|c| rows.iter().skip(1).all(|row| is_number(&cell(row, c)))).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for column in 0..columns {
            let (cell, width) = (cell(row, column), widths[column]);
            let cell = if numeric[column] {
                format!("{cell:>width$}  ")
            } else {
                format!("{cell:<width$}  ")
            };
            line.push_str(&cell);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn is_number(cell: &str) -> bool {
    cell.is_empty() || cell == "-" || cell.trim_end_matches(['x', '%']).parse::<f64>().is_ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_are_aligned_on_the_right() {
        let rows = [["case", "s"], ["a", "10.5"], ["long", "2"]];
        let rows = rows.map(|row| row.map(String::from).to_vec());
        assert_eq!(super::render(&rows), "case     s\na     10.5\nlong     2\n");
    }
}
