/// The full-precision vectors of a segment's rows, borrowed: `[rows, dim]`, row-major, row 0 first.
#[derive(Debug, Clone, Copy)]
pub struct Vectors<'a> {
    /// `rows * dim` numbers.
    pub data: &'a [f32],
    /// Numbers in a row.
    pub dim: usize,
}

impl<'a> Vectors<'a> {
    /// Views `data` as rows. Panics when it is no whole number of rows, or `dim` is 0.
    pub fn new(data: &'a [f32], dim: usize) -> Self {
        assert!(dim > 0 && data.len().is_multiple_of(dim), "{} numbers are no rows of {dim}", data.len());
        Self { data, dim }
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.data.len() / self.dim
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// Row `row`. Panics past the end.
    pub fn row(&self, row: u32) -> &'a [f32] {
        &self.data[row as usize * self.dim..][..self.dim]
    }
}
