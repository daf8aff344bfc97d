//! Parquet, by its column writers.

use std::io::{self, Write};
use std::sync::Arc;

use parquet::basic::{Compression, ConvertedType, Repetition, Type as PhysicalType, ZstdLevel};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::types::Type;

use super::table::{COLUMNS, Cell, Kind};

/// Rows that are gathered before they are written: a few megabytes.
const ROWS_PER_GROUP: usize = 10_000;

/// Writes rows in groups.
pub(super) struct Writer<W: Write + Send> {
    file: SerializedFileWriter<W>,
    /// The rows of the next group, column by column.
    columns: Vec<(Kind, Vec<Cell>)>,
}

impl<W: Write + Send> Writer<W> {
    pub(super) fn new(sink: W, keep: &[String]) -> io::Result<Self> {
        let columns: Vec<_> = COLUMNS.into_iter().chain(keep.iter().map(|name| (name.as_str(), Kind::Text))).collect();
        let fields: Result<Vec<_>, ParquetError> = columns.iter().map(|(name, kind)| field(name, *kind)).collect();
        let schema = Type::group_type_builder("outcomes").with_fields(fields?).build()?;
        let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
        let file = SerializedFileWriter::new(sink, Arc::new(schema), Arc::new(properties))?;
        Ok(Self { file, columns: columns.into_iter().map(|(_, kind)| (kind, Vec::new())).collect() })
    }

    pub(super) fn row(&mut self, cells: Vec<Cell>) -> io::Result<()> {
        for ((_, column), cell) in self.columns.iter_mut().zip(cells) {
            column.push(cell);
        }
        let is_full = self.columns.first().is_some_and(|(_, column)| column.len() >= ROWS_PER_GROUP);
        if is_full { self.write_group() } else { Ok(()) }
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        self.write_group()?;
        Ok(self.file.into_inner()?)
    }

    fn write_group(&mut self) -> io::Result<()> {
        if self.columns.iter().all(|(_, column)| column.is_empty()) {
            return Ok(());
        }
        let mut group = self.file.next_row_group()?;
        for (kind, cells) in &mut self.columns {
            let Some(mut writer) = group.next_column()? else { break };
            let cells = std::mem::take(cells);
            match kind {
                Kind::Text => write::<ByteArrayType>(&mut writer, cells, |cell| match cell {
                    Cell::Text(text) => Some(ByteArray::from(text.into_bytes())),
                    _ => None,
                })?,
                Kind::Integer => write::<Int64Type>(&mut writer, cells, |cell| match cell {
                    Cell::Integer(number) => Some(number),
                    _ => None,
                })?,
                Kind::Number => write::<DoubleType>(&mut writer, cells, |cell| match cell {
                    Cell::Number(number) => Some(number),
                    _ => None,
                })?,
                Kind::Boolean => write::<BoolType>(&mut writer, cells, |cell| match cell {
                    Cell::Boolean(is_true) => Some(is_true),
                    _ => None,
                })?,
            }
            writer.close()?;
        }
        group.close()?;
        Ok(())
    }
}

/// Writes a column: the values that are there, and for each row whether there is one.
fn write<T: DataType>(
    writer: &mut SerializedColumnWriter<'_>,
    cells: Vec<Cell>,
    value_of: impl Fn(Cell) -> Option<T::T>,
) -> Result<(), ParquetError> {
    let values: Vec<_> = cells.into_iter().map(value_of).collect();
    let levels: Vec<i16> = values.iter().map(|value| i16::from(value.is_some())).collect();
    let values: Vec<_> = values.into_iter().flatten().collect();
    writer.typed::<T>().write_batch(&values, Some(&levels), None)?;
    Ok(())
}

fn field(name: &str, kind: Kind) -> Result<Arc<Type>, ParquetError> {
    let (physical, converted) = match kind {
        Kind::Text => (PhysicalType::BYTE_ARRAY, ConvertedType::UTF8),
        Kind::Integer => (PhysicalType::INT64, ConvertedType::NONE),
        Kind::Number => (PhysicalType::DOUBLE, ConvertedType::NONE),
        Kind::Boolean => (PhysicalType::BOOLEAN, ConvertedType::NONE),
    };
    let field = Type::primitive_type_builder(name, physical).with_converted_type(converted);
    Ok(Arc::new(field.with_repetition(Repetition::OPTIONAL).build()?))
}
