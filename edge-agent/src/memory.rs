//! What the C library's allocator keeps to itself.
//!
//! Its memory never comes back by itself, and glibc's allocator gives every thread an arena of its own, up to eight for each
//! core: measured with 100 functions on two cores, that is 10 MiB of 57 at rest and 20 of 77 under load.

/// Has the threads share arenas, one for each core. To be called before there are threads.
pub fn share_arenas() {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    allocator::share_arenas(i32::try_from(cores).unwrap_or(i32::MAX));
}

/// Gives back what was freed: worth it after much was, for it takes some milliseconds.
pub fn give_back() {
    allocator::give_back();
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "there is no safe way to tell the allocator")]
mod allocator {
    pub(super) fn share_arenas(arenas: i32) {
        // SAFETY: it may be called at any time, and sets a number.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, arenas) };
    }

    pub(super) fn give_back() {
        // SAFETY: it may be called at any time, and touches nothing that is in use.
        unsafe { libc::malloc_trim(0) };
    }
}

/// Others have no arenas.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
mod allocator {
    pub(super) fn share_arenas(_: i32) {}

    pub(super) fn give_back() {}
}
