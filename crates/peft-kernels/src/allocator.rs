//! The allocator of programs that train and infer on the CPU.

use std::alloc::{GlobalAlloc, Layout};
use std::ffi::c_int;
use std::sync::Once;

use libmimalloc_sys::mi_option_set_default;
use mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc 3: milliseconds until freed memory goes back to the system.
/// The bindings have no name for it.
const PURGE_DELAY: c_int = 15;

/// mimalloc, which keeps what is freed: every operation allocates large tensors, the next step asks
/// for the same ones, and pages that the system gives anew are cleared first, which takes longer
/// than many an operation. `MIMALLOC_PURGE_DELAY` (milliseconds) has the last word.
///
/// ```
/// #[global_allocator]
/// static ALLOCATOR: peft_kernels::TensorAllocator = peft_kernels::TensorAllocator;
///
/// let blocks: Vec<Vec<u8>> = (0..4).map(|size| vec![0; size << 20]).collect();
/// assert_eq!(blocks[3].len(), 3 << 20);
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct TensorAllocator;

impl TensorAllocator {
    /// What has the pages; told before the first of them what to do with freed ones.
    fn pages(&self) -> MiMalloc {
        static TOLD: Once = Once::new();
        // SAFETY: an option that there is; the call allocates nothing.
        TOLD.call_once(|| unsafe { mi_option_set_default(PURGE_DELAY, -1) });
        MiMalloc
    }
}

// SAFETY: all is left to mimalloc.
unsafe impl GlobalAlloc for TensorAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller says; so below.
        unsafe { self.pages().alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { self.pages().alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above; what is freed was allocated, and the option set before.
        unsafe { MiMalloc.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        unsafe { MiMalloc.realloc(block, layout, size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_is_that_of_the_delay() {
        use libmimalloc_sys::mi_option_get;
        // SAFETY: reading options.
        let of = |option| unsafe { mi_option_get(option) };
        let layout = Layout::from_size_align(1 << 20, 64).expect("a layout");
        // SAFETY: the layout is not empty, and the block freed as it was allocated.
        unsafe {
            let block = TensorAllocator.alloc(layout);
            TensorAllocator.dealloc(block, layout);
        }
        assert_eq!(of(PURGE_DELAY), -1);
    }
}
