//! Memory that is read soon.

#[cfg(target_arch = "x86_64")]
use pulp::core_arch::x86::Sse;

/// Numbers in a cache line.
#[cfg(target_arch = "x86_64")]
const LINE: usize = 16;

/// Asks the processor for memory before it is read; a machine that cannot be asked brings it when it is read.
#[derive(Clone, Copy)]
pub(crate) struct Ahead {
    #[cfg(target_arch = "x86_64")]
    sse: Option<Sse>,
}

impl Ahead {
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Self {
            #[cfg(target_arch = "x86_64")]
            sse: Sse::try_new(),
        }
    }

    /// Asks for the whole cache lines of a row.
    #[inline(always)]
    pub(crate) fn fetch(self, row: &[f32]) {
        #[cfg(target_arch = "x86_64")]
        if let Some(sse) = self.sse {
            for line in row.as_chunks::<LINE>().0 {
                sse._mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(line.as_ptr().cast());
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = row;
    }
}
