//! Parquet, by its own record reader: Arrow would be four fifths of the tree.

use std::io::{self, Read};

use bytes::Bytes;
use parquet::file::reader::{ChunkReader, FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::schema::types::Type;
use serde_json::{Number, Value};

use super::super::columns::Fields;
use super::{Result, Sink};

/// Reads a file in place.
pub(super) fn read_file(file: std::fs::File, sink: &mut Sink) -> Result<()> {
    let size_bytes = file.metadata()?.len();
    read_chunks(file, size_bytes, sink)
}

/// Reads what cannot be gone to and fro in: all of it is taken into memory.
pub(super) fn read(mut source: impl Read, sink: &mut Sink) -> Result<()> {
    let mut bytes = Vec::new();
    source.read_to_end(&mut bytes)?;
    read_chunks(Bytes::from(bytes), 0, sink)
}

fn read_chunks(chunks: impl ChunkReader + 'static, size_bytes: u64, sink: &mut Sink) -> Result<()> {
    let reader = SerializedFileReader::new(chunks).map_err(io::Error::from)?;
    let metadata = reader.metadata().file_metadata();
    let (schema, rows) = (metadata.schema(), metadata.num_rows().max(1) as u64);
    sink.columns
        .check(|name| schema.get_fields().iter().any(|column| column.name() == name))
        .map_err(io::Error::other)?;
    let used: Vec<_> = schema.get_fields().iter().filter(|column| sink.columns.uses(column.name())).cloned().collect();
    let projection = Type::group_type_builder(schema.name()).with_fields(used).build().map_err(io::Error::from)?;

    let mut counted_bytes = 0;
    for (row, number) in reader.get_row_iter(Some(projection)).map_err(io::Error::from)?.zip(1..) {
        // The reader jumps in the file, so the bytes are counted by the rows.
        let so_far =
            u64::try_from(u128::from(size_bytes) * u128::from(number) / u128::from(rows)).unwrap_or(size_bytes);
        sink.position.add_bytes(so_far.saturating_sub(counted_bytes));
        counted_bytes = so_far.max(counted_bytes);
        let columns = row.map_err(io::Error::from)?.into_columns();
        let fields: Result<Fields, String> = columns
            .into_iter()
            .map(|(column, field)| match value_of(field) {
                Some(value) => Ok((column, value)),
                None => Err(format!("column {column:?} is not UTF-8")),
            })
            .collect();
        match fields {
            Ok(fields) => sink.fields(number, &fields)?,
            Err(reason) => sink.reject(number, None, reason)?,
        }
    }
    Ok(())
}

/// A value as JSON; none for bytes that are no text.
fn value_of(field: Field) -> Option<Value> {
    Some(match field {
        Field::Null => Value::Null,
        Field::Bool(value) => value.into(),
        Field::Byte(value) => value.into(),
        Field::Short(value) => value.into(),
        Field::Int(value) => value.into(),
        Field::Long(value) => value.into(),
        Field::UByte(value) => value.into(),
        Field::UShort(value) => value.into(),
        Field::UInt(value) => value.into(),
        Field::ULong(value) => value.into(),
        Field::Float(value) => Number::from_f64(value.into()).into(),
        Field::Double(value) => Number::from_f64(value).into(),
        Field::Str(text) => text.into(),
        // Text that its writer did not mark as such.
        Field::Bytes(bytes) => std::str::from_utf8(bytes.data()).ok()?.into(),
        Field::Group(row) => row.into_columns().into_iter().map(pair).collect::<Option<_>>().map(Value::Object)?,
        Field::ListInternal(list) => list.elements().iter().cloned().map(value_of).collect::<Option<_>>()?,
        // Times, dates and decimals as they are usually written.
        other => other.to_string().into(),
    })
}

fn pair((column, field): (String, Field)) -> Option<(String, Value)> {
    Some((column, value_of(field)?))
}
