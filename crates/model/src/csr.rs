//! Sparse matrices by rows.

use rayon::prelude::*;

use crate::error::{Error, Result, same_length};
use crate::rows::{blocks, concat, split_by};

/// The most rows or columns: they are numbered by `u32`.
const MOST: u64 = u32::MAX as u64;
/// Entries of a piece of a transposed matrix, at least: fewer are not worth a task.
const PIECE: usize = 1 << 17;
/// Pieces, at most: each looks for its place in every row, which costs more than it saves from 16 on.
const MOST_PIECES: usize = 8;

/// A sparse matrix in compressed rows, columns ascending inside a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Csr {
    indptr: Vec<usize>,
    indices: Vec<u32>,
    values: Vec<f32>,
    columns: usize,
}

/// Some rows of a matrix, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    /// Where each of them ends.
    pub(crate) ends: Vec<usize>,
    /// The columns of all entries, ascending inside a row.
    pub(crate) indices: Vec<u32>,
    pub(crate) values: Vec<f32>,
}

impl Csr {
    /// Takes the three arrays of a matrix: the entries of row r are those from `indptr[r]` to `indptr[r + 1]`.
    ///
    /// # Shapes
    /// indptr: rows + 1; indices and values: one entry per stored pair
    /// # Errors
    /// [`Error::Shape`] for lengths that contradict each other, [`Error::Unsorted`] for `indptr` that falls or columns
    /// of a row that do not ascend strictly, [`Error::OutOfRange`] for a column beyond the last one,
    /// [`Error::NotFinite`], [`Error::TooMany`].
    pub fn new(indptr: Vec<usize>, indices: Vec<u32>, values: Vec<f32>, columns: usize) -> Result<Self> {
        same_length("values", indices.len(), values.len())?;
        let rows = indptr.len().checked_sub(1).ok_or(Error::Shape { name: "indptr", expected: 1, actual: 0 })?;
        fits("rows", rows)?;
        fits("columns", columns)?;
        same_length("indices", indptr[rows], indices.len())?;
        same_length("first row start", 0, indptr[0])?;
        if let Some(row) = (0..rows).find(|&row| indptr[row] > indptr[row + 1]) {
            return Err(Error::Unsorted { name: "indptr", position: row + 1 });
        }
        let matrix = Self { indptr, indices, values, columns };
        for row in 0..rows {
            let (columns, values) = matrix.row(row);
            if let Some(position) = columns.windows(2).position(|pair| pair[0] >= pair[1]) {
                return Err(Error::Unsorted { name: "columns of a row", position: matrix.indptr[row] + position + 1 });
            }
            if let Some(last) = columns.last().filter(|last| **last as usize >= matrix.columns) {
                return Err(Error::out_of_range("column", last, format!("[0, {})", matrix.columns)));
            }
            if values.iter().any(|value| !value.is_finite()) {
                return Err(Error::NotFinite { what: "a value", row, iteration: None });
            }
        }
        Ok(matrix)
    }

    /// Takes arrays that are valid by construction.
    pub(crate) fn from_valid(indptr: Vec<usize>, indices: Vec<u32>, values: Vec<f32>, columns: usize) -> Self {
        debug_assert_eq!(indptr.last().copied(), Some(indices.len()));
        Self { indptr, indices, values, columns }
    }

    /// The rows of some parts, which are valid by construction, one after the other.
    pub(crate) fn of_parts(parts: &[Rows], columns: usize) -> Self {
        let mut indptr = Vec::with_capacity(1 + parts.iter().map(|part| part.ends.len()).sum::<usize>());
        indptr.push(0usize);
        let mut start = 0;
        for part in parts {
            indptr.extend(part.ends.iter().map(|end| start + end));
            start += part.indices.len();
        }
        let indices = concat(&parts.iter().map(|part| &part.indices[..]).collect::<Vec<_>>());
        let values = concat(&parts.iter().map(|part| &part.values[..]).collect::<Vec<_>>());
        Self::from_valid(indptr, indices, values, columns)
    }

    /// The number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.indptr.len() - 1
    }

    /// The number of columns.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The number of stored entries.
    #[must_use]
    pub fn nnz(&self) -> usize {
        self.indices.len()
    }

    /// The columns and values of row `i`.
    #[must_use]
    pub fn row(&self, i: usize) -> (&[u32], &[f32]) {
        let range = self.indptr[i]..self.indptr[i + 1];
        (&self.indices[range.clone()], &self.values[range])
    }

    /// Where each row starts, and the number of entries at the end.
    #[must_use]
    pub fn indptr(&self) -> &[usize] {
        &self.indptr
    }

    /// The columns of all entries, row after row.
    #[must_use]
    pub fn indices(&self) -> &[u32] {
        &self.indices
    }

    /// The values of all entries, row after row.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Some of the rows, in their order.
    #[must_use]
    pub(crate) fn of_rows(&self, keep: impl Fn(u32) -> bool) -> Self {
        let (mut indptr, mut indices, mut values) = (vec![0], Vec::new(), Vec::new());
        for (row, bounds) in (0u32..).zip(self.indptr.windows(2)) {
            if keep(row) {
                indices.extend_from_slice(&self.indices[bounds[0]..bounds[1]]);
                values.extend_from_slice(&self.values[bounds[0]..bounds[1]]);
                indptr.push(indices.len());
            }
        }
        Self::from_valid(indptr, indices, values, self.columns)
    }

    /// The same entries by columns.
    ///
    /// # Cost
    /// A counting sort, O(nnz + columns + pieces·rows·log columns), on all threads of the current rayon pool; 8 bytes per
    /// entry for the result.
    #[must_use]
    pub fn transpose(&self) -> Self {
        self.transpose_in(self.nnz().div_ceil(MOST_PIECES).max(PIECE))
    }

    /// [`Csr::transpose`] in pieces of about so many entries.
    ///
    /// Each piece is a range of columns, and takes its part of every row.
    fn transpose_in(&self, piece: usize) -> Self {
        let mut indptr = vec![0usize; self.columns + 1];
        for &column in &self.indices {
            indptr[column as usize + 1] += 1;
        }
        for column in 0..self.columns {
            indptr[column + 1] += indptr[column];
        }
        let mut indices = vec![0u32; self.nnz()];
        let mut values = vec![0f32; self.nnz()];
        let pieces = blocks(&indptr, piece);
        let sizes: Vec<usize> = pieces.iter().map(|columns| indptr[columns.end] - indptr[columns.start]).collect();
        let places = split_by(&mut indices, &sizes).into_iter().zip(split_by(&mut values, &sizes)).collect::<Vec<_>>();
        pieces.into_par_iter().zip(places).for_each(|(columns, (indices, values))| {
            let first = indptr[columns.start];
            let mut next: Vec<usize> = indptr[columns.clone()].iter().map(|start| start - first).collect();
            for row in 0..self.rows() {
                let (of_row, value) = self.row(row);
                let start = of_row.partition_point(|column| (*column as usize) < columns.start);
                for (column, value) in of_row[start..].iter().zip(&value[start..]) {
                    let Some(slot) = next.get_mut(*column as usize - columns.start) else { break };
                    #[allow(clippy::cast_possible_truncation)] // rows are numbered by u32
                    let row = row as u32;
                    (indices[*slot], values[*slot]) = (row, *value);
                    *slot += 1;
                }
            }
        });
        Self { indptr, indices, values, columns: self.rows() }
    }
}

fn fits(name: &'static str, count: usize) -> Result<()> {
    let count = count as u64;
    if count > MOST { Err(Error::TooMany { name, count, most: MOST }) } else { Ok(()) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn small() -> Csr {
        // 1 . 2
        // . . .
        // . 3 4
        Csr::new(vec![0, 2, 2, 4], vec![0, 2, 1, 2], vec![1., 2., 3., 4.], 3).unwrap()
    }

    #[test]
    fn rows_are_what_went_in() {
        let matrix = small();
        assert_eq!((matrix.rows(), matrix.columns(), matrix.nnz()), (3, 3, 4));
        assert_eq!(matrix.row(0), (&[0, 2][..], &[1., 2.][..]));
        assert_eq!(matrix.row(1), (&[][..], &[][..]));
    }

    #[test]
    fn some_rows_keep_their_order() {
        let some = small().of_rows(|row| row != 0);
        assert_eq!(some, Csr::new(vec![0, 0, 2], vec![1, 2], vec![3., 4.], 3).unwrap());
        assert_eq!(small().of_rows(|_| false), Csr::new(vec![0], vec![], vec![], 3).unwrap());
        assert_eq!(small().of_rows(|_| true), small());
    }

    #[test]
    fn rows_of_parts_follow_each_other() {
        let part = |ends: &[usize], indices: &[u32]| {
            let values = indices.iter().map(|column| *column as f32).collect();
            Rows { ends: ends.to_vec(), indices: indices.to_vec(), values }
        };
        let whole = Csr::of_parts(&[part(&[2, 2], &[0, 2]), part(&[], &[]), part(&[1, 3], &[1, 0, 1])], 3);
        let expected = Csr::new(vec![0, 2, 2, 3, 5], vec![0, 2, 1, 0, 1], vec![0., 2., 1., 0., 1.], 3).unwrap();
        assert_eq!(whole, expected);
        assert_eq!(Csr::of_parts(&[], 3), Csr::new(vec![0], vec![], vec![], 3).unwrap());
    }

    #[test]
    fn transpose_moves_each_entry_to_its_column() {
        let by_column = small().transpose();
        let expected = Csr::new(vec![0, 1, 2, 4], vec![0, 2, 0, 2], vec![1., 3., 2., 4.], 3).unwrap();
        assert_eq!(by_column, expected);
        assert_eq!(by_column.transpose(), small());
    }

    #[test]
    fn transpose_is_the_same_in_pieces_of_any_size() {
        let rows: Vec<Vec<u32>> =
            (0..40u32).map(|row| (0..30).filter(|c| (row * 7 + c * 5) % 6 < 2).collect()).collect();
        let indptr = (0..=rows.len()).map(|row| rows[..row].iter().map(Vec::len).sum()).collect();
        let indices = rows.concat();
        #[allow(clippy::cast_precision_loss)]
        let values = (0..indices.len()).map(|entry| entry as f32).collect();
        let matrix = Csr::new(indptr, indices, values, 31).unwrap();
        let whole = matrix.transpose_in(matrix.nnz());
        for (column, bounds) in (0u32..).zip(whole.indptr().windows(2)) {
            let entry = |row: u32| {
                let (columns, values) = matrix.row(row as usize);
                columns.binary_search(&column).ok().map(|at| (row, values[at]))
            };
            let found = whole.indices()[bounds[0]..bounds[1]].iter().zip(&whole.values()[bounds[0]..bounds[1]]);
            assert!(found.map(|(row, value)| (*row, *value)).eq((0..40).filter_map(entry)), "column {column}");
        }
        for piece in [1, 2, 7, 50] {
            assert_eq!(matrix.transpose_in(piece), whole);
        }
    }

    #[test]
    fn transpose_of_no_rows_has_no_columns() {
        let empty = Csr::new(vec![0], vec![], vec![], 2).unwrap();
        assert_eq!(empty.transpose(), Csr::new(vec![0, 0, 0], vec![], vec![], 0).unwrap());
    }

    #[test]
    fn contradictions_are_refused() {
        assert!(matches!(Csr::new(vec![], vec![], vec![], 1), Err(Error::Shape { name: "indptr", .. })));
        assert!(matches!(Csr::new(vec![0, 2], vec![0], vec![1.], 1), Err(Error::Shape { name: "indices", .. })));
        assert!(matches!(Csr::new(vec![0, 1], vec![0], vec![], 1), Err(Error::Shape { name: "values", .. })));
        assert!(matches!(Csr::new(vec![1, 1], vec![0], vec![1.], 1), Err(Error::Shape { .. })));
        assert!(matches!(
            Csr::new(vec![0, 2, 1], vec![0], vec![1.], 1),
            Err(Error::Unsorted { name: "indptr", position: 2 })
        ));
        assert!(matches!(
            Csr::new(vec![0, 2], vec![1, 1], vec![1., 1.], 2),
            Err(Error::Unsorted { name: "columns of a row", position: 1 })
        ));
        assert!(matches!(Csr::new(vec![0, 1], vec![2], vec![1.], 2), Err(Error::OutOfRange { name: "column", .. })));
        assert!(matches!(Csr::new(vec![0, 1], vec![0], vec![f32::NAN], 1), Err(Error::NotFinite { row: 0, .. })));
    }
}
