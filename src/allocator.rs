//! The allocator of the program, and of benches that stand for it.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long freed memory is kept for what comes next, in milliseconds.
///
/// A training step frees what the next one asks for again. Given back to the system in between, as
/// mimalloc does after ten milliseconds, it is a tenth of a step's time to get it again.
const KEPT: std::ffi::c_long = 1000;

/// `mi_option_purge_delay`, which the crate has no name for; the same in versions 2 and 3.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Tells the allocator how it is used; to be called before anything else.
pub fn settle() {
    // SAFETY: There is one thread yet, and the option is a number that any may be set to.
    #[allow(unsafe_code)]
    unsafe {
        libmimalloc_sys::mi_option_set_default(PURGE_DELAY, KEPT);
    }
}
