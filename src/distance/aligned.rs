#![expect(unsafe_code, reason = "a slice of lines is viewed as a slice of their elements")]

use std::fmt;

use super::pages::ask_for_large;

mod sealed {
    pub trait Plain: Copy + Default {}
    impl Plain for i8 {}
    impl Plain for u8 {}
    impl Plain for u32 {}
    impl Plain for f32 {}
}
use sealed::Plain;

/// One cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// A growable array that starts on a cache line, so that rows of a multiple of 64 bytes never straddle one more line than they
/// fill, and aligned loads stay possible. Elements are plain numbers: `i8`, `u8`, `u32`, `f32`.
#[derive(Clone)]
pub struct AlignedVec<T: Plain> {
    lines: Vec<Line>,
    len: usize,
    element: std::marker::PhantomData<T>,
}

impl<T: Plain> AlignedVec<T> {
    const PER_LINE: usize = 64 / size_of::<T>();

    /// An empty array; allocates nothing.
    pub const fn new() -> Self {
        Self { lines: Vec::new(), len: 0, element: std::marker::PhantomData }
    }

    /// Grows to `len` elements, the new ones zero. A smaller `len` changes nothing.
    pub fn grow(&mut self, len: usize) {
        if len > self.len {
            let lines = len.div_ceil(Self::PER_LINE);
            if lines > self.lines.capacity() {
                self.move_to(lines.max(self.lines.len() + self.lines.len() / 8));
            }
            self.lines.resize(lines, Line([0; 64]));
            self.len = len;
        }
    }

    /// Makes room for `additional` more elements, exactly.
    pub fn reserve_exact(&mut self, additional: usize) {
        let lines = (self.len + additional).div_ceil(Self::PER_LINE);
        if lines > self.lines.capacity() {
            self.move_to(lines);
        }
    }

    /// Moves to memory for exactly so many lines. What of it are large pages is decided when it is first written: before that it is told.
    fn move_to(&mut self, capacity: usize) {
        let mut lines = Vec::with_capacity(capacity);
        ask_for_large(lines.as_mut_ptr(), capacity);
        lines.extend_from_slice(&self.lines);
        self.lines = lines;
    }

    /// Gives back what [`Self::grow`] took in advance, an eighth at most.
    pub fn settle(&mut self) {
        if self.lines.capacity() > self.lines.len() {
            self.move_to(self.lines.len());
        }
    }

    /// Eight bytes each, as the machine orders them; the last ones may reach past the last element.
    #[inline(always)]
    pub fn words(&self) -> &[u64] {
        let words = (self.len * size_of::<T>()).div_ceil(8);
        // SAFETY: a line is eight words, aligned to more than one needs; `lines` covers all elements (`grow`).
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), words) }
    }

    /// The same, to change them.
    #[inline(always)]
    pub fn words_mut(&mut self) -> &mut [u64] {
        let words = (self.len * size_of::<T>()).div_ceil(8);
        // SAFETY: as in `words`; the borrow is unique because `self` is, and every word is valid as elements.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), words) }
    }

    /// How many bytes are held.
    pub fn memory_bytes(&self) -> usize {
        self.lines.capacity() * 64
    }
}

impl<T: Plain> Default for AlignedVec<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Plain> std::ops::Deref for AlignedVec<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: `lines` holds at least `len * size_of::<T>()` initialised bytes (`grow`), aligned to 64, and every bit pattern is
        // a value of the sealed number types.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl<T: Plain> std::ops::DerefMut for AlignedVec<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`; the borrow is unique because `self` is, and every number is valid as the bytes of a line.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

impl<T: Plain + fmt::Debug> fmt::Debug for AlignedVec<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_with_zeros_and_stays_aligned() {
        let mut array = AlignedVec::<u32>::new();
        assert!(array.is_empty());
        for len in [1, 15, 16, 17, 1000, 10] {
            let before = array.len();
            array.grow(len);
            assert_eq!(array.len(), len.max(before));
            assert_eq!(array.as_ptr() as usize % 64, 0);
            assert!(array[before..].iter().all(|&element| element == 0));
            array.fill(7);
        }
        assert!(array.memory_bytes() >= 4000);
        for len in 1_000..20_000 {
            array.grow(len);
            assert!(array.memory_bytes() <= len * 4 * 9 / 8 + 128, "{len}: {}", array.memory_bytes());
        }
        array.settle();
        assert_eq!(array.memory_bytes(), 19_999usize.div_ceil(16) * 64);
    }
}
