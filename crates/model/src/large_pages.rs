//! Memory for what is large and read or written in no order.

use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;
use pulp::bytemuck::{self, Pod};

/// What has so many bytes lies in large pages where the system has them.
const LEAST: usize = 8 << 20;

/// Numbers, zero at first.
///
/// A row that is read from anywhere in a large matrix costs a look into the page tables for each page that it touches,
/// and on a virtual machine each look costs several. Pages of 2 MB need few enough entries to stay in the processor. The
/// system is asked for them, and may say no: then pages are small, as ever.
///
/// New memory is as dear: each page of it is made by the system at the first write.
pub(crate) enum Numbers<T> {
    Mapped(MmapMut),
    Owned(Vec<T>),
}

impl<T: Pod> Numbers<T> {
    pub(crate) fn zeroed(count: usize) -> Self {
        Self::mapped(count).unwrap_or_else(|| Self::Owned(vec![T::zeroed(); count]))
    }

    #[cfg(target_os = "linux")]
    fn mapped(count: usize) -> Option<Self> {
        let bytes = count.checked_mul(size_of::<T>()).filter(|bytes| *bytes >= LEAST)?;
        let map = MmapMut::map_anon(bytes).ok()?;
        // Advice that is not taken changes nothing but speed.
        drop(map.advise(memmap2::Advice::HugePage));
        Some(Self::Mapped(map))
    }

    #[cfg(not(target_os = "linux"))]
    fn mapped(_count: usize) -> Option<Self> {
        None
    }
}

impl<T: Pod> Deref for Numbers<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            // A map begins at a page and was made for whole numbers.
            Self::Mapped(map) => bytemuck::cast_slice(map),
            Self::Owned(numbers) => numbers,
        }
    }
}

impl<T: Pod> DerefMut for Numbers<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match self {
            Self::Mapped(map) => bytemuck::cast_slice_mut(map),
            Self::Owned(numbers) => numbers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_any_count_are_zero_and_keep_what_is_written() {
        for count in [0, 1, 1000, LEAST / 4 - 1, LEAST / 4, LEAST / 4 + 12_345] {
            let mut numbers = Numbers::<f32>::zeroed(count);
            assert_eq!(numbers.len(), count);
            assert!(numbers.iter().all(|number| *number == 0.0));
            if let Some(last) = numbers.last_mut() {
                *last = 3.5;
                assert_eq!(numbers[count - 1], 3.5);
            }
        }
    }
}
