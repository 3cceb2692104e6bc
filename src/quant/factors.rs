use crate::base::Result;
use crate::base::codec::{Reader, Write as _};

/// What turns an integer product into a distance: `left.offset + right.offset - left.scale * right.scale * product`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Factors {
    /// Of [`Sq8`](super::Sq8): L2: the quantization step times the square root of 2. IP: the step. COSINE: one over the length of the
    /// code.
    pub(crate) scale: f32,
    /// L2: the squared length of the decoded vector. IP: 0. COSINE: a half (0 and 1/2 for the zero vector's scale and offset).
    pub(crate) offset: f32,
}

impl Factors {
    #[inline(always)]
    pub(crate) fn distance(self, other: Self, product: i32) -> f32 {
        self.offset + other.offset - self.scale * other.scale * product as f32
    }

    pub(crate) fn write(&self, bytes: &mut Vec<u8>) {
        bytes.put_f32(self.scale);
        bytes.put_f32(self.offset);
    }

    /// Those of `rows` rows. `Corrupt`, with the offset, when there are fewer bytes.
    pub(crate) fn read(reader: &mut Reader<'_>, rows: usize) -> Result<Vec<Self>> {
        let number = |bytes: [u8; 4]| f32::from_le_bytes(bytes);
        let pairs = reader.bytes(rows.saturating_mul(8))?.as_chunks::<8>().0;
        let pair =
            |&[a, b, c, d, e, f, g, h]: &[u8; 8]| Self { scale: number([a, b, c, d]), offset: number([e, f, g, h]) };
        Ok(pairs.iter().map(pair).collect())
    }
}
