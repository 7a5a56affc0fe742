//! Rows of Parquet files.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use parquet::column::page::Page;
use parquet::file::metadata::{FileMetaData, ParquetMetaData};
use parquet::file::reader::{FileReader, Length, SerializedFileReader};
use parquet::record::Field;
use parquet::schema::types::Type;
use serde_json::{Map, Value};

use super::bounded_file::BoundedFile;
use super::objects::Object;
use crate::{Error, Result};

/// Where the library `datasets` keeps what columns mean.
const FEATURES: &str = "huggingface";

/// How many bytes rows may take however small their file is: repeated values are packed to nothing.
const MOST_UNPACKED: u64 = 256 << 20;

/// How many times larger than their file rows may be: text is packed to a tenth, at best.
const MOST_GROWTH: u64 = 100;

/// What a value takes at least, whatever it is packed to.
const VALUE_BYTES: u64 = 16;

const DAMAGED: &str = "a damaged Parquet file";

/// Gives each row to `add`, with its number. Columns that are not `wanted` are null.
pub(super) fn rows(
    path: &Path,
    wanted: &dyn Fn(&str) -> bool,
    add: &mut dyn FnMut(u64, Object) -> Result<()>,
) -> Result<()> {
    let file = File::open(path).map_err(|e| Error::file(path, e))?;
    // The reader trusts a file's numbers in places.
    let read = catch_unwind(AssertUnwindSafe(|| read(path, file, wanted, add)));
    read.unwrap_or_else(|_| Err(Error::file(path, DAMAGED)))
}

fn read(
    path: &Path,
    file: File,
    wanted: &dyn Fn(&str) -> bool,
    add: &mut dyn FnMut(u64, Object) -> Result<()>,
) -> Result<()> {
    let file = BoundedFile::new(file).map_err(|e| Error::file(path, e))?;
    let length = file.len();
    let reader = SerializedFileReader::new(file).map_err(|e| Error::file(path, e))?;
    if !fits(reader.metadata(), length) {
        return Err(Error::file(path, DAMAGED));
    }
    let unpacked = unpacked(reader.metadata());
    if unpacked > MOST_UNPACKED.max(length.saturating_mul(MOST_GROWTH)) {
        let reason = format!("{unpacked} bytes of rows in a file of {length}: too many to be text");
        return Err(Error::file(path, reason));
    }
    if !dictionaries_fit(&reader).map_err(|e| Error::file(path, e))? {
        return Err(Error::file(path, DAMAGED));
    }
    let metadata = reader.metadata().file_metadata();
    let schema = metadata.schema();
    let columns = schema.get_fields();
    let names = class_names(metadata);
    let read: Vec<Arc<Type>> =
        columns.iter().filter(|column| wanted(column.name())).cloned().collect();
    let empty: Object = columns.iter().map(|c| (c.name().to_string(), Value::Null)).collect();
    if read.is_empty() {
        // What is missing is said of the first row.
        return if metadata.num_rows() > 0 { add(1, empty) } else { Ok(()) };
    }
    let projection = Type::group_type_builder(schema.name()).with_fields(read).build();
    let rows = projection.and_then(|projection| reader.get_row_iter(Some(projection)));
    for (row, number) in rows.map_err(|e| Error::file(path, e))?.zip(1..) {
        let row = row.map_err(|e| Error::row(path, number, e))?;
        let mut object = empty.clone();
        for (name, field) in row.get_column_iter() {
            object.insert(name.clone(), value(field, names.get(name)));
        }
        add(number, object)?;
    }
    Ok(())
}

/// Whether all columns lie within a file of this many bytes, and have a value for each row.
fn fits(metadata: &ParquetMetaData, length: u64) -> bool {
    let mut columns = metadata
        .row_groups()
        .iter()
        .flat_map(|group| group.columns().iter().map(|column| (group.num_rows(), column)));
    columns.all(|(rows, column)| {
        let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
        let end = start.checked_add(column.compressed_size());
        let is_within = end.and_then(|end| u64::try_from(end).ok()).is_some_and(|e| e <= length);
        let is_filled = (0..=column.num_values()).contains(&rows);
        start >= 0 && column.compressed_size() >= 0 && is_filled && is_within
    })
}

/// Whether no dictionary says that it has more values than bytes: room is made for as many as it says.
fn dictionaries_fit(reader: &impl FileReader) -> parquet::errors::Result<bool> {
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group)?;
        for column in 0..group.num_columns() {
            let mut pages = group.get_column_page_reader(column)?;
            while let Some(next) = pages.peek_next_page()? {
                if !next.is_dict {
                    pages.skip_next_page()?;
                    continue;
                }
                if let Some(Page::DictionaryPage { buf, num_values, .. }) = pages.get_next_page()?
                    && num_values as usize > buf.len()
                {
                    return Ok(false);
                }
            }
        }
    }
    Ok(true)
}

/// How many bytes the values of all columns take, at least.
fn unpacked(metadata: &ParquetMetaData) -> u64 {
    let columns = metadata.row_groups().iter().flat_map(|group| group.columns());
    let sizes = columns.map(|column| {
        let [bytes, values] = [column.uncompressed_size(), column.num_values()]
            .map(|number| u64::try_from(number).unwrap_or(u64::MAX));
        bytes.saturating_add(values.saturating_mul(VALUE_BYTES))
    });
    sizes.fold(0, u64::saturating_add)
}

/// A field as JSON; `names` are those of the classes that its numbers stand for.
fn value(field: &Field, names: Option<&Value>) -> Value {
    match field {
        Field::Bytes(bytes) => match std::str::from_utf8(bytes.data()) {
            Ok(text) => text.into(),
            Err(_) => field.to_json_value(),
        },
        Field::ListInternal(list) => {
            list.elements().iter().map(|field| value(field, names)).collect()
        }
        _ => {
            let value = field.to_json_value();
            let index = value.as_u64().and_then(|index| usize::try_from(index).ok());
            let name = index.and_then(|index| names?.get(index)).cloned();
            name.unwrap_or(value)
        }
    }
}

/// The names of the classes in columns that have such, which `datasets` writes.
fn class_names(metadata: &FileMetaData) -> Map<String, Value> {
    let entries = metadata.key_value_metadata().into_iter().flatten();
    let text = entries.filter(|entry| entry.key == FEATURES).find_map(|e| e.value.as_ref());
    let about: Value = text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let features = about.pointer("/info/features").and_then(Value::as_object);
    let names = features.into_iter().flatten().filter_map(|(column, feature)| {
        let names = feature.get("names").or_else(|| feature.pointer("/feature/names"))?;
        Some((column.clone(), names.clone()))
    });
    names.collect()
}
