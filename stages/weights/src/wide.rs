//! The same function for wider registers.

/// Compiles a function again for AVX2 and for AVX-512, and takes the widest that the processor has.
///
/// All do the same operations in the same order, so their results are the same: registers only
/// decide how many numbers are taken at once. `mul_add` rounds once everywhere; where the processor
/// cannot do that at once (before 2013), it is slow.
#[macro_export]
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
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($argument: $type),*) $(-> $returned)? {
                plain($($argument),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
            fn avx512($($argument: $type),*) $(-> $returned)? {
                plain($($argument),*)
            }

            #[cfg(target_arch = "x86_64")]
            {
                if std::is_x86_feature_detected!("avx512f")
                    && std::is_x86_feature_detected!("avx512bw")
                    && std::is_x86_feature_detected!("avx512dq")
                    && std::is_x86_feature_detected!("avx512vl")
                {
                    // SAFETY: The function needs nothing but what was just found to be there.
                    #[allow(unsafe_code, reason = "a function for given instructions is unsafe to call")]
                    return unsafe { avx512($($argument),*) };
                }
                if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
                    // SAFETY: As above.
                    #[allow(unsafe_code, reason = "a function for given instructions is unsafe to call")]
                    return unsafe { avx2($($argument),*) };
                }
            }
            plain($($argument),*)
        }
    };
}

pub(crate) use wide;
