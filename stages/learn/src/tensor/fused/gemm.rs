//! Matrix products on slices, by the crate `gemm`, on one thread.

use super::operation::Matrix;

/// A matrix in a slice: how many numbers lie from one row to the next, and from one column.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    numbers: &'a [f32],
    rows: usize,
    columns: usize,
    by_row: usize,
    by_column: usize,
}

impl<'a> View<'a> {
    /// Looks at rows that lie `by_row` numbers from each other.
    pub(super) fn new(numbers: &'a [f32], [rows, columns]: [usize; 2], by_row: usize) -> Self {
        let view = Self { numbers, rows, columns, by_row, by_column: 1 };
        assert!(view.end() <= numbers.len(), "a matrix ends within its slice");
        view
    }

    /// Swaps rows and columns.
    pub(super) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            by_row: self.by_column,
            by_column: self.by_row,
            ..self
        }
    }

    fn end(&self) -> usize {
        if self.rows == 0 || self.columns == 0 {
            0
        } else {
            (self.rows - 1) * self.by_row + (self.columns - 1) * self.by_column + 1
        }
    }
}

impl<'a> From<Matrix<'a>> for View<'a> {
    fn from(matrix: Matrix<'a>) -> Self {
        Self::new(matrix.numbers, [matrix.rows, matrix.columns], matrix.columns)
    }
}

/// Returns `a b`, row after row.
pub(super) fn multiply(a: View<'_>, b: View<'_>) -> Vec<f32> {
    let (rows, columns) = (a.rows, b.columns);
    if rows * columns == 0 || a.columns == 0 {
        return vec![0.0; rows * columns];
    }
    let mut output = Vec::with_capacity(rows * columns);
    // SAFETY: There is room for the rows, all of which are written before they count.
    #[expect(unsafe_code, reason = "the library of matrix products takes pointers")]
    unsafe {
        gemm(a, b, output.as_mut_ptr(), columns, false);
        output.set_len(rows * columns);
    }
    output
}

/// Writes `a b` into rows that lie `by_row` numbers from each other, or adds it to what is there.
pub(super) fn multiply_into(a: View<'_>, b: View<'_>, into: &mut [f32], by_row: usize, add: bool) {
    let (rows, columns) = (a.rows, b.columns);
    if rows * columns == 0 {
        return;
    }
    assert!((rows - 1) * by_row + columns <= into.len() && columns <= by_row, "a result has room");
    // SAFETY: All its rows are within the slice.
    #[expect(unsafe_code, reason = "the library of matrix products takes pointers")]
    unsafe {
        gemm(a, b, into.as_mut_ptr(), by_row, add);
    }
}

/// # Safety
/// Each of the result's rows, `by_row` apart, can be written; and read, where something is added.
#[expect(unsafe_code, reason = "the library of matrix products takes pointers")]
unsafe fn gemm(a: View<'_>, b: View<'_>, into: *mut f32, by_row: usize, add: bool) {
    assert_eq!(a.columns, b.rows, "a product's inner sizes are the same");
    // SAFETY: The inputs end within their slices, which a view checks when it is made.
    unsafe {
        gemm::gemm(
            a.rows,
            b.columns,
            a.columns,
            into,
            1,
            by_row as isize,
            add,
            a.numbers.as_ptr(),
            a.by_column as isize,
            a.by_row as isize,
            b.numbers.as_ptr(),
            b.by_column as isize,
            b.by_row as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize) -> Vec<f32> {
        (0..count).map(|number| (number * 7 % 13) as f32 - 6.0).collect()
    }

    #[test]
    fn products_of_views_are_those_of_their_numbers() {
        let (a, b) = (numbers(5 * 8), numbers(4 * 9));
        // Three columns of eight, and four rows of six out of nine.
        let (left, right) = (View::new(&a, [5, 4], 8), View::new(&b, [4, 6], 9));
        let expected = |row: usize, column: usize| -> f32 {
            (0..4).map(|inner| a[row * 8 + inner] * b[inner * 9 + column]).sum()
        };
        let output = multiply(left, right);
        let back = multiply(right.transposed(), left.transposed());
        let mut into = vec![1.0; 5 * 7];
        multiply_into(left, right, &mut into, 7, true);
        for row in 0..5 {
            for column in 0..6 {
                assert_eq!(output[row * 6 + column], expected(row, column));
                assert_eq!(back[column * 5 + row], expected(row, column));
                assert_eq!(into[row * 7 + column], 1.0 + expected(row, column));
            }
            assert_eq!(into[row * 7 + 6], 1.0);
        }
        assert_eq!(multiply(View::new(&a, [2, 0], 0), View::new(&b, [0, 2], 2)), [0.0; 4]);
    }

    #[test]
    fn a_view_does_not_reach_beyond() {
        let beyond = || View::new(&[0.0; 7], [2, 4], 4).end();
        assert!(std::panic::catch_unwind(beyond).is_err());
        assert_eq!(View::new(&[0.0; 8], [2, 4], 4).end(), 8);
    }
}
