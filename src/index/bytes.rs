use crate::base::codec::Reader;
use crate::base::{Error, Result};

/// As large as the model allows a vector of floats to be; keeps a dimension that was read from deciding an allocation alone.
pub(super) const DIM_MAX: u32 = 32_768;

/// A number of 4 bytes, which must be in a range.
pub(super) fn field(reader: &mut Reader<'_>, name: &str, min: u32, max: u32) -> Result<u32> {
    let at = reader.offset();
    let value = reader.u32()?;
    if !(min..=max).contains(&value) {
        return Err(Error::corrupt(format!("at byte {at}: {name} {value}, expected {min} to {max}")));
    }
    Ok(value)
}
