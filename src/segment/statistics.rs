use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use arrow_array::{Array, ArrayRef};
use arrow_schema::{DataType, TimeUnit};

use crate::base::codec::{Reader, Write};
use crate::base::{Error, Result};

/// What is known of the values of one column in one block without reading it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Statistics {
    /// How many are null.
    pub nulls: u32,
    /// Between what the others lie.
    pub range: Range,
}

/// The least and the greatest value, both included.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Range {
    /// Not known, or there is none.
    #[default]
    None,
    /// Of integers.
    Int(i64, i64),
    /// Of floats, which are finite.
    Double(f64, f64),
    /// Of text by its bytes, cut: no value begins with less than the first, and none with more than the second.
    Text(Vec<u8>, Vec<u8>),
}

/// Tells the number of rows, and the statistics, of a column in one block; `None` when nothing is known of it.
pub type Known<'k> = &'k dyn Fn(&str) -> Option<(u32, &'k Statistics)>;

impl Statistics {
    /// Text is cut to this many bytes: longer ones would make the layout as long as the column.
    pub const TEXT_BYTES_MAX: usize = 32;

    /// Of a column.
    pub fn of(array: &ArrayRef) -> Self {
        macro_rules! bounds {
            ($kind:ty, $wide:ty, $range:path) => {{
                let values = || array.as_primitive::<$kind>().iter().flatten().map(<$wide>::from);
                let (least, most) = (
                    values().reduce(|a, b| if b < a { b } else { a }),
                    values().reduce(|a, b| if b > a { b } else { a }),
                );
                least.zip(most).map(|(least, most)| $range(least, most))
            }};
        }
        let range = match array.data_type() {
            DataType::Int8 => bounds!(Int8Type, i64, Range::Int),
            DataType::Int16 => bounds!(Int16Type, i64, Range::Int),
            DataType::Int32 => bounds!(Int32Type, i64, Range::Int),
            DataType::Int64 => bounds!(Int64Type, i64, Range::Int),
            DataType::Timestamp(TimeUnit::Microsecond, _) => bounds!(TimestampMicrosecondType, i64, Range::Int),
            DataType::Float32 => bounds!(Float32Type, f64, Range::Double),
            DataType::Float64 => bounds!(Float64Type, f64, Range::Double),
            DataType::Utf8 => {
                let cut = |text: &str| text.as_bytes()[..text.len().min(Self::TEXT_BYTES_MAX)].to_vec();
                let values = || array.as_string::<i32>().iter().flatten();
                values().min().zip(values().max()).map(|(least, most)| Range::Text(cut(least), cut(most)))
            }
            _ => None,
        };
        Self { nulls: array.null_count() as u32, range: range.unwrap_or_default() }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(self.nulls);
        match &self.range {
            Range::None => out.put_u8(0),
            Range::Int(least, most) => {
                out.put_u8(1);
                [least, most].into_iter().for_each(|value| out.put_u64(*value as u64));
            }
            Range::Double(least, most) => {
                out.put_u8(2);
                [least, most].into_iter().for_each(|value| out.put_u64(value.to_bits()));
            }
            Range::Text(least, most) => {
                out.put_u8(3);
                for text in [least, most] {
                    out.put_u8(text.len() as u8);
                    out.put_bytes(text);
                }
            }
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let nulls = reader.u32()?;
        let at = reader.offset();
        let range = match reader.u8()? {
            0 => Range::None,
            1 => Range::Int(reader.u64()? as i64, reader.u64()? as i64),
            2 => Range::Double(f64::from_bits(reader.u64()?), f64::from_bits(reader.u64()?)),
            3 => {
                let mut text = || {
                    let len = usize::from(reader.u8()?);
                    Ok::<_, Error>(reader.bytes(len)?.to_vec())
                };
                Range::Text(text()?, text()?)
            }
            other => return Err(Error::corrupt(format!("at byte {at}: statistics of kind {other}"))),
        };
        Ok(Self { nulls, range })
    }
}
