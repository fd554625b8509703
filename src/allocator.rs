//! The allocator of the program, and of benches that stand for it.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long freed memory is kept before it is returned to the system, in milliseconds.
///
/// A training step allocates what the one before it freed. If that was returned in between, as
/// mimalloc does after ten milliseconds, fetching it again takes a tenth of a step's time.
const KEPT: std::ffi::c_long = 1000;

/// `mi_option_purge_delay`, which the crate has no name for; the same in versions 2 and 3.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Configures the allocator; to be called before anything else.
pub(crate) fn configure() {
    // SAFETY: There is only one thread yet, and any number is a valid value of the option.
    #[expect(unsafe_code, reason = "the allocator is configured through its C interface")]
    unsafe {
        libmimalloc_sys::mi_option_set_default(PURGE_DELAY, KEPT);
    }
}
