//! A few tokens times a matrix: reading the matrix takes longer than computing, and each of its
//! rows is read once for all tokens.

use weights::wide;

use super::simd::dots;

/// The most tokens that it is for.
pub(super) const MAX_SKINNY_ROWS: usize = 8;

/// Multiplies a few rows of a length with the rows of a matrix; column after column.
pub(super) fn skinny_gemm(x: &[f32], weight: &[f32], length: usize, output: &mut [f32]) {
    let rows = x.len() / length.max(1);
    assert!(
        rows <= MAX_SKINNY_ROWS && x.len() == rows * length && output.len() * length == rows * weight.len()
    );
    if rows == 0 {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx512f") && std::is_x86_feature_detected!("avx512dq") {
        // SAFETY: The processor has the instructions, and the slices were just found to fit.
        #[expect(unsafe_code, reason = "intrinsics of AVX-512")]
        return unsafe { avx512::skinny_gemm(x, weight, length, output) };
    }
    plain(x, weight, length, output);
}

wide! {
    fn plain(x: &[f32], weight: &[f32], length: usize, output: &mut [f32]) {
        let rows = x.len() / length;
        let row = |number: usize| &x[number * length..(number + 1) * length];
        let mut begin = 0;
        while begin < rows {
            let count = (rows - begin).min(4);
            for (weight, output) in weight.chunks_exact(length).zip(output.chunks_exact_mut(rows)) {
                let output = &mut output[begin..begin + count];
                match count {
                    1 => output.copy_from_slice(&dots([row(begin)], weight)),
                    2 => output.copy_from_slice(&dots([row(begin), row(begin + 1)], weight)),
                    3 => output.copy_from_slice(&dots([row(begin), row(begin + 1), row(begin + 2)], weight)),
                    _ => {
                        let four = [row(begin), row(begin + 1), row(begin + 2), row(begin + 3)];
                        output.copy_from_slice(&dots(four, weight));
                    }
                }
            }
            begin += count;
        }
    }
}

/// The same bits, written for registers of sixteen numbers: several columns are computed at once,
/// so that additions need not wait for each other, and compilers left to themselves put the sums
/// into memory.
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "intrinsics of AVX-512")]
mod avx512 {
    use std::arch::x86_64::{
        __m512, _mm_add_ps, _mm_add_ss, _mm_cvtss_f32, _mm_movehl_ps, _mm_shuffle_ps, _mm256_add_ps,
        _mm256_castps256_ps128, _mm256_extractf128_ps, _mm512_castps512_ps256, _mm512_extractf32x8_ps,
        _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_setzero_ps,
    };

    use crate::tensor::fused::simd::LANES;

    /// # Safety
    /// The processor has AVX-512 F and DQ; `x` has from one to eight rows of `length`, and `output` a
    /// number for each of them and each row of `weight`.
    #[target_feature(enable = "avx512f,avx512dq")]
    pub(super) unsafe fn skinny_gemm(x: &[f32], weight: &[f32], length: usize, output: &mut [f32]) {
        // SAFETY: As the caller promises.
        unsafe {
            match x.len() / length {
                1 => columns::<1, 8>(x, weight, length, output),
                2 => columns::<2, 4>(x, weight, length, output),
                3 => columns::<3, 4>(x, weight, length, output),
                4 => columns::<4, 4>(x, weight, length, output),
                5 => columns::<5, 2>(x, weight, length, output),
                6 => columns::<6, 2>(x, weight, length, output),
                7 => columns::<7, 2>(x, weight, length, output),
                _ => columns::<8, 2>(x, weight, length, output),
            }
        }
    }

    /// # Safety
    /// As above, with `R` rows.
    #[inline(always)]
    unsafe fn columns<const R: usize, const C: usize>(
        x: &[f32],
        weight: &[f32],
        length: usize,
        output: &mut [f32],
    ) {
        let all = weight.len() / length;
        let (whole, rest) = (all - all % C, all % C);
        // SAFETY: Whatever is read lies in rows that there are.
        unsafe {
            for column in (0..whole).step_by(C) {
                let output = &mut output[column * R..(column + C) * R];
                tile::<R, C>(x, &weight[column * length..(column + C) * length], length, output);
            }
            for column in whole..whole + rest {
                let output = &mut output[column * R..(column + 1) * R];
                tile::<R, 1>(x, &weight[column * length..(column + 1) * length], length, output);
            }
        }
    }

    /// # Safety
    /// As above, with `C` rows of the matrix.
    #[inline(always)]
    #[expect(clippy::needless_range_loop, reason = "rows and columns by number: both loops are unrolled")]
    unsafe fn tile<const R: usize, const C: usize>(
        x: &[f32],
        weight: &[f32],
        length: usize,
        output: &mut [f32],
    ) {
        let whole = length - length % LANES;
        // SAFETY: Sixteen numbers from each place lie within their row.
        let sums = unsafe {
            let mut sums = [[_mm512_setzero_ps(); R]; C];
            for at in (0..whole).step_by(LANES) {
                let mut by = [_mm512_setzero_ps(); C];
                for (column, by) in by.iter_mut().enumerate() {
                    *by = _mm512_loadu_ps(weight.as_ptr().add(column * length + at));
                }
                for row in 0..R {
                    let x = _mm512_loadu_ps(x.as_ptr().add(row * length + at));
                    for column in 0..C {
                        sums[column][row] = _mm512_fmadd_ps(x, by[column], sums[column][row]);
                    }
                }
            }
            sums
        };
        for column in 0..C {
            for row in 0..R {
                // SAFETY: The processor has the instructions.
                let mut sum = unsafe { total(sums[column][row]) };
                for at in whole..length {
                    sum += x[row * length + at] * weight[column * length + at];
                }
                output[column * R + row] = sum;
            }
        }
    }

    /// Adds the lanes up, by halves.
    ///
    /// # Safety
    /// The processor has AVX-512 F and DQ.
    #[inline(always)]
    unsafe fn total(lanes: __m512) -> f32 {
        // SAFETY: As the caller promises.
        unsafe {
            let eight = _mm256_add_ps(_mm512_castps512_ps256(lanes), _mm512_extractf32x8_ps::<1>(lanes));
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_change_no_bit() {
        for rows in 1..=MAX_SKINNY_ROWS {
            for (length, columns) in [(1, 3), (16, 1), (37, 19), (64, 8), (100, 9)] {
                let numbers = |count: usize, of: usize| -> Vec<f32> {
                    (0..count).map(|number| (number * of % 101) as f32 / 7.0 - 7.0).collect()
                };
                let (x, weight) = (numbers(rows * length, 31), numbers(columns * length, 17));
                let mut output = vec![0.0; rows * columns];
                let mut expected = output.clone();
                skinny_gemm(&x, &weight, length, &mut output);
                plain(&x, &weight, length, &mut expected);
                assert_eq!(output, expected, "{rows} rows of {length}");
                let exact: f32 = x[..length].iter().zip(&weight).map(|(x, weight)| x * weight).sum();
                assert!((output[0] - exact).abs() <= 1e-3 * exact.abs().max(1.0));
            }
        }
    }
}
