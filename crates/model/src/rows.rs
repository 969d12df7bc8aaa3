//! Ranges of rows for parallel work, cut by the data and never by the number of threads.

use std::ops::Range;

use rayon::prelude::*;

/// Cuts the rows of a matrix into runs of about `entries` entries; a longer row is a run of its own.
pub(crate) fn blocks(indptr: &[usize], entries: usize) -> Vec<Range<usize>> {
    let rows = indptr.len() - 1;
    let mut out = Vec::new();
    let mut start = 0;
    while start < rows {
        // Empty rows cost something as well: a run holds at most as many rows as entries.
        let most = (start + entries).min(rows);
        let end = indptr[..=most].partition_point(|at| *at <= indptr[start] + entries) - 1;
        let end = end.clamp(start + 1, most);
        out.push(start..end);
        start = end;
    }
    out
}

/// Cuts a slice into pieces of these sizes.
pub(crate) fn split_by<'a, T>(mut slice: &'a mut [T], sizes: &[usize]) -> Vec<&'a mut [T]> {
    sizes
        .iter()
        .map(|size| {
            let (piece, rest) = std::mem::take(&mut slice).split_at_mut(*size);
            slice = rest;
            piece
        })
        .collect()
}

/// Slices one after the other, copied on all threads.
pub(crate) fn concat<T: Copy + Default + Send + Sync>(slices: &[&[T]]) -> Vec<T> {
    let sizes: Vec<usize> = slices.iter().map(|slice| slice.len()).collect();
    let mut out = vec![T::default(); sizes.iter().sum()];
    split_by(&mut out, &sizes).into_par_iter().zip(slices).for_each(|(out, slice)| out.copy_from_slice(slice));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_all_rows_once_and_keep_long_rows_alone() {
        assert_eq!(blocks(&[0, 2, 4, 14, 14, 15], 4), [0..2, 2..3, 3..5]);
        assert_eq!(blocks(&[0], 4), []);
        assert_eq!(blocks(&[0, 0, 0, 0], 2), [0..2, 2..3]);
    }

    #[test]
    fn pieces_have_their_sizes() {
        let mut numbers = [1, 2, 3];
        let pieces = split_by(&mut numbers, &[1, 0, 2]);
        assert_eq!(pieces, [&mut [1][..], &mut [][..], &mut [2, 3][..]]);
    }

    #[test]
    fn slices_follow_each_other() {
        assert_eq!(concat(&[&[1, 2][..], &[], &[3]]), [1, 2, 3]);
        assert_eq!(concat::<u32>(&[]), [0u32; 0]);
    }
}
