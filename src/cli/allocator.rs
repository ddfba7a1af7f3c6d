//! The global allocator of the binary: the system's, wiping every block before it is given back (promise P5).
//!
//! Secrets pass through buffers of other crates (hyper's, h2's, rustls', serde_json's) that nobody wipes. Zeroing on
//! free catches all of them at once. `realloc` never grows in place or leaves a copy behind: it allocates, copies,
//! wipes and frees. Memory of C libraries is not covered; they hold ciphertext and digests only.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    arch::asm,
};

use crate::kernel::wiping;

/// The system's allocator, wiping what is freed.
pub struct Wiping;

#[expect(
    unsafe_code,
    reason = "an allocator cannot be written without; `cli::pipeline::exec::child` is the only other place"
)]
// SAFETY: every block comes from `System` under the very layout that it is given back with, and nobody else writes to
// a block between its wiping and its freeing.
unsafe impl GlobalAlloc for Wiping {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        unsafe {
            if wiping::is_on() {
                block.write_bytes(0, layout.size());
                // Takes the pointer and may read what it points to, so the compiler cannot drop the write as dead.
                asm!("/* {0} */", in(reg) block, options(nostack, preserves_flags));
            }
            System.dealloc(block, layout);
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // The caller promises that `new_size`, rounded up to the alignment, does not pass `isize::MAX`.
        let fresh = unsafe { self.alloc(Layout::from_size_align_unchecked(new_size, layout.align())) };
        if !fresh.is_null() {
            unsafe {
                fresh.copy_from_nonoverlapping(block, layout.size().min(new_size));
                self.dealloc(block, layout);
            }
        }
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(unsafe_code, reason = "the allocator is called by hand")]
    fn growing_keeps_the_content_and_shrinking_cuts_it() {
        let layout = Layout::from_size_align(8, 8).unwrap();
        // SAFETY: the block is used within its size and freed once, under its last layout.
        unsafe {
            let block = Wiping.alloc(layout);
            block.copy_from_nonoverlapping(b"secret!!".as_ptr(), 8);
            let grown = Wiping.realloc(block, layout, 4_096);
            assert_eq!(std::slice::from_raw_parts(grown, 8), b"secret!!");
            let shrunk = Wiping.realloc(grown, Layout::from_size_align(4_096, 8).unwrap(), 3);
            assert_eq!(std::slice::from_raw_parts(shrunk, 3), b"sec");
            Wiping.dealloc(shrunk, Layout::from_size_align(3, 8).unwrap());
        }
    }
}
