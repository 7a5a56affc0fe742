//! CSV and TSV.

use std::path::Path;

use csv::ByteRecord;

use super::{LabelColumn, Layout, Record, header, quotes};
use crate::{Error, Result, lines};

/// How the cells of a row are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// By commas, with quotes around what has commas, quotes or line ends.
    Csv,
    /// By tabs; a quote is a letter like any other.
    Tsv,
}

impl Form {
    fn delimiter(self) -> u8 {
        match self {
            Self::Csv => b',',
            Self::Tsv => b'\t',
        }
    }

    /// All rows of a file that are not empty.
    pub(super) fn rows(self, path: &Path) -> Result<Vec<ByteRecord>> {
        let bytes = lines::read(path)?;
        if self == Self::Csv {
            quotes::check(path, &bytes, self.delimiter())?;
        }
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(self.delimiter())
            .quoting(self == Self::Csv)
            .has_headers(false)
            .flexible(true)
            .from_reader(&bytes[..]);
        // A reader counts the empty lines before a row to it.
        let (mut line, mut counted) = (1, 0);
        let mut rows = Vec::new();
        for row in reader.byte_records() {
            let mut row = row.map_err(|e| Error::file(path, e))?;
            let mut position = row.position().cloned().unwrap_or_else(csv::Position::new);
            let start = usize::try_from(position.byte()).unwrap_or(bytes.len()).min(bytes.len());
            let empty = bytes[start..].iter().take_while(|byte| b"\r\n".contains(byte)).count();
            let ended = bytes[counted..start + empty].iter().filter(|&&byte| byte == b'\n');
            (line, counted) = (line + ended.count() as u64, start + empty);
            position.set_line(line);
            row.set_position(Some(position));
            rows.push(row);
        }
        Ok(rows)
    }

    /// The rows of a file as records.
    pub(super) fn records(
        self,
        path: &Path,
        layout: &Layout,
        label: LabelColumn,
    ) -> Result<Vec<Record>> {
        let rows = self.rows(path)?;
        let Some(first) = rows.first() else { return Ok(Vec::new()) };
        let names = (0..first.len()).map(|index| text(path, first, index));
        let (places, has_header) =
            layout.locate(path, &names.collect::<Result<Vec<_>>>()?, label)?;
        if !has_header {
            header::check(path, &rows, layout, &places)?;
        }
        self.check_lengths(path, &rows)?;
        let records = rows.iter().skip(has_header.into()).map(|row| {
            let cell = |index: &usize| text(path, row, *index);
            places.record(layout, line(row), places.label.as_ref(), cell)
        });
        records.collect()
    }

    /// Checks that no row has more cells than the first one: what belongs to one cell was taken for
    /// two, and the cells behind it are not what they should be.
    fn check_lengths(self, path: &Path, rows: &[ByteRecord]) -> Result<()> {
        let Some(width) = rows.first().map(ByteRecord::len) else { return Ok(()) };
        let is_long =
            |row: &&ByteRecord| row.iter().skip(width).any(|cell| !cell.trim_ascii().is_empty());
        let mut long = rows.iter().filter(is_long);
        let Some(row) = long.next() else { return Ok(()) };
        let found = format!("{} columns, but the first row has {width}", row.len());
        match self {
            Self::Csv => {
                let reason = format!("{found}; a text with commas stands in quotes");
                Err(Error::row(path, line(row), reason))
            }
            Self::Tsv => {
                tracing::warn!(
                    "{}, line {}: {found}, as in {} more rows: are there tabs in texts?",
                    path.display(),
                    line(row),
                    long.count()
                );
                Ok(())
            }
        }
    }
}

/// The line of a row, from 1.
pub(super) fn line(row: &ByteRecord) -> u64 {
    row.position().map_or(0, csv::Position::line)
}

/// A cell of a row.
fn text(path: &Path, row: &ByteRecord, index: usize) -> Result<String> {
    let bytes = row.get(index).ok_or_else(|| {
        let reason = format!("{} columns, but column {} is needed", row.len(), index + 1);
        Error::row(path, line(row), reason)
    })?;
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let reason = format!("column {}: not UTF-8 from byte {}", index + 1, e.valid_up_to());
        Error::row(path, line(row), reason)
    })?;
    Ok(text.to_string())
}
