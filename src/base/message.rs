//! MessagePack.

use std::fmt;

use serde::Deserialize;

/// The value in `bytes`; what comes after it is left alone.
///
/// Its type is erased from the decoder: one decoder for each type that is read took a sixth of what a browser downloads.
///
/// # Errors
/// That says what is wrong: bytes that are no MessagePack, or another value.
pub fn decode<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, impl fmt::Display + use<T>> {
    let mut decoder = rmp_serde::Deserializer::from_read_ref(bytes);
    erased_serde::deserialize::<T>(&mut <dyn erased_serde::Deserializer<'_>>::erase(&mut decoder))
}
