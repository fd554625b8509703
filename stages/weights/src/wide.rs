//! The same function for wider registers.

/// Compiles a function a second time for AVX2, and takes that one where the processor has it.
///
/// Both do the same operations in the same order, so their results are the same: registers only
/// decide how many numbers are taken at once.
macro_rules! wide {
    (
        $(#[$meta:meta])*
        $vis:vis fn $name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $returned:ty)? $body:block
    ) => {
        $(#[$meta])*
        $vis fn $name($($argument: $type),*) $(-> $returned)? {
            #[inline(always)]
            fn plain($($argument: $type),*) $(-> $returned)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2")]
            fn avx2($($argument: $type),*) $(-> $returned)? {
                plain($($argument),*)
            }

            #[cfg(target_arch = "x86_64")]
            if std::is_x86_feature_detected!("avx2") {
                // SAFETY: The function needs nothing but what was just found to be there.
                #[allow(unsafe_code)]
                return unsafe { avx2($($argument),*) };
            }
            plain($($argument),*)
        }
    };
}

pub(crate) use wide;
