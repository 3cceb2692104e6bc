//! Little-endian reading and writing with bounds, and CRC-32C.
//!
//! A [`Reader`] never panics and never allocates by a length that it read: whatever the bytes say, a length is checked
//! against what remains first. Offsets in errors count from the start of the bytes handed in.

use super::{Error, Result};

/// CRC-32C (Castagnoli) of `bytes`.
pub fn checksum(bytes: &[u8]) -> u32 {
    checksum_append(0, bytes)
}

/// Continues [`checksum`] with more bytes.
pub fn checksum_append(checksum: u32, bytes: &[u8]) -> u32 {
    #[cfg(native)]
    return crc32c::crc32c_append(checksum, bytes);
    #[cfg(browser)]
    super::crc::append(checksum, bytes)
}

/// Appends little-endian values to bytes.
pub trait Write {
    /// Appends as they are.
    fn put_bytes(&mut self, bytes: &[u8]);
    /// Appends one byte.
    fn put_u8(&mut self, value: u8) {
        self.put_bytes(&[value]);
    }
    /// Appends 2 bytes.
    fn put_u16(&mut self, value: u16) {
        self.put_bytes(&value.to_le_bytes());
    }
    /// Appends 4 bytes.
    fn put_u32(&mut self, value: u32) {
        self.put_bytes(&value.to_le_bytes());
    }
    /// Appends 8 bytes.
    fn put_u64(&mut self, value: u64) {
        self.put_bytes(&value.to_le_bytes());
    }
    /// Appends 4 bytes.
    fn put_f32(&mut self, value: f32) {
        self.put_bytes(&value.to_le_bytes());
    }
}

impl Write for Vec<u8> {
    fn put_bytes(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Reads little-endian values from bytes that may be wrong.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    /// Where the next value starts.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.offset
    }

    /// The next `len` bytes.
    ///
    /// # Errors
    /// `Corrupt`, with the offset, when fewer remain; nothing is consumed then. The same for all readers below.
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8]> {
        if len > self.remaining() {
            return Err(Error::corrupt(format!(
                "at byte {}: {len} bytes expected, {} remain",
                self.offset,
                self.remaining()
            )));
        }
        let start = self.offset;
        self.offset += len;
        Ok(&self.bytes[start..self.offset])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.bytes(N)?.try_into().expect("bytes(N) gives N bytes"))
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Four bytes.
    pub fn f32(&mut self) -> Result<f32> {
        Ok(f32::from_le_bytes(self.array()?))
    }
}

/// The 16-bit floats in `bytes` as 32-bit ones, as many as `numbers` has room for. Only of finite ones.
///
/// The exponent of a 16-bit float, moved to its place among 32 bits, is too small by the difference of the two biases: a
/// product with two to the power of that difference sets it right, that of subnormal numbers too, without a branch.
pub fn widen_f16(bytes: &[u8], numbers: &mut [f32]) {
    const SCALE: f32 = f32::from_bits((127 + 127 - 15) << 23);
    for (number, half) in numbers.iter_mut().zip(bytes.as_chunks().0) {
        let bits = u32::from(u16::from_le_bytes(*half));
        let magnitude = f32::from_bits((bits & 0x7fff) << 13) * SCALE;
        *number = f32::from_bits(magnitude.to_bits() | (bits & 0x8000) << 16);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finite_half_is_widened_exactly() {
        for bits in 0..=u16::MAX {
            let half = half::f16::from_bits(bits);
            let mut number = [f32::NAN];
            widen_f16(&bits.to_le_bytes(), &mut number);
            assert!(!half.is_finite() || number[0].to_bits() == half.to_f32().to_bits(), "{bits:#x}");
        }
    }

    #[test]
    fn checksum_is_castagnoli() {
        // The check value of CRC-32C from RFC 3720, B.4, and of "123456789".
        assert_eq!(checksum(&[0; 32]), 0x8a91_36aa);
        assert_eq!(checksum(b"123456789"), 0xe306_9283);
        assert_eq!(checksum_append(checksum(b"1234"), b"56789"), 0xe306_9283);
    }

    #[test]
    fn round_trip_and_bounds() {
        let mut bytes = Vec::new();
        bytes.put_u8(1);
        bytes.put_u16(2);
        bytes.put_u32(3);
        bytes.put_u64(4);
        bytes.put_f32(5.5);
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.u8().unwrap(), 1);
        assert_eq!(reader.u16().unwrap(), 2);
        assert_eq!(reader.u32().unwrap(), 3);
        assert_eq!(reader.u64().unwrap(), 4);
        assert_eq!(reader.f32().unwrap(), 5.5);
        let error = reader.bytes(usize::MAX).unwrap_err();
        assert!(error.message().contains("at byte 19"), "{error}");
        assert_eq!(reader.remaining(), 0);
    }
}
