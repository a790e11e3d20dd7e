//! The module's allocator.
//!
//! An instance lives for one event, and most events need some hundred bytes. What the module's last page of memory has left
//! behind the data is handed out first, for nearly nothing. So these events never ask for another page, which the gateway
//! would have to copy the memory for. What does not fit there comes from the standard library's allocator.
#![allow(unsafe_code, reason = "an allocator hands out pointers")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;

use crate::arena::Arena;

#[global_allocator]
static HEAP: Heap = Heap(UnsafeCell::new(Arena::EMPTY));

unsafe extern "C" {
    // The linker's: where the data ends, and where the memory ends that a module begins with.
    static __heap_base: u8;
    static __heap_end: u8;
}

struct Heap(UnsafeCell<Arena>);

// SAFETY: a module has one thread.
unsafe impl Sync for Heap {}

impl Heap {
    fn with<T>(&self, use_it: impl FnOnce(&mut Arena) -> T) -> T {
        // SAFETY: there is one thread, and what is done with an arena allocates nothing, so nobody else has it now.
        use_it(unsafe { &mut *self.0.get() })
    }
}

// SAFETY: the arena's blocks are aligned, in the module's memory, and in nobody else's hands: not in the system's, which has
// only pages that it asked for itself. All others are the system's. The linker's addresses say which is which.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let at = self.with(|arena| {
            let end = &raw const __heap_end as usize;
            if !arena.has(end - 1) {
                *arena = Arena::new(&raw const __heap_base as usize, end);
            }
            arena.take(layout.size(), layout.align())
        });
        match at {
            Some(at) => at as *mut u8,
            // SAFETY: as the caller promised.
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let ours = self.with(|arena| {
            let ours = arena.has(block as usize);
            if ours {
                arena.give_back(block as usize, layout.size());
            }
            ours
        });
        if !ours {
            // SAFETY: as the caller promised.
            unsafe { System.dealloc(block, layout) }
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, wanted: usize) -> *mut u8 {
        let (ours, done) = self.with(|arena| {
            let ours = arena.has(block as usize);
            (ours, ours && arena.resize(block as usize, layout.size(), wanted))
        });
        if !ours {
            // SAFETY: as the caller promised.
            return unsafe { System.realloc(block, layout, wanted) };
        }
        if done {
            return block;
        }
        // SAFETY: as the caller promised, size and alignment are those of a layout.
        let new = unsafe { self.alloc(Layout::from_size_align_unchecked(wanted, layout.align())) };
        if !new.is_null() {
            // SAFETY: both have so many bytes, and the new one is nobody else's.
            unsafe {
                std::ptr::copy_nonoverlapping(block, new, layout.size().min(wanted));
                self.dealloc(block, layout);
            }
        }
        new
    }
}
