//! Floating-point numbers as files hold them: F32, F16 and BF16, little-endian.
//!
//! Numbers are narrowed to the nearest, and halfway between two to the even one, as PyTorch
//! does.

use crate::wide::wide;
use half::f16;
use half::slice::HalfFloatSliceExt as _;
use safetensors::Dtype;

/// Returns how many bytes a number takes, if it is of a type that can be computed with.
pub fn width(dtype: Dtype) -> Option<usize> {
    match dtype {
        Dtype::F32 => Some(4),
        Dtype::F16 | Dtype::BF16 => Some(2),
        _ => None,
    }
}

/// Widens numbers.
///
/// # Panics
/// If the type has no [`width`], or there are not as many numbers as places.
pub fn decode(dtype: Dtype, bytes: &[u8], values: &mut [f32]) {
    assert_eq!(Some(bytes.len()), width(dtype).map(|width| width * values.len()), "numbers of {dtype:?}");
    match dtype {
        Dtype::F32 => decode_f32(bytes, values),
        Dtype::BF16 => decode_bf16(bytes, values),
        _ => decode_f16(bytes, values),
    }
}

/// Narrows numbers.
///
/// # Panics
/// As [`decode`].
pub fn encode(dtype: Dtype, values: &[f32], bytes: &mut [u8]) {
    assert_eq!(Some(bytes.len()), width(dtype).map(|width| width * values.len()), "numbers of {dtype:?}");
    match dtype {
        Dtype::F32 => encode_f32(values, bytes),
        Dtype::BF16 => encode_bf16(values, bytes),
        _ => encode_f16(values, bytes),
    }
}

wide! {
    fn decode_f32(bytes: &[u8], values: &mut [f32]) {
        for (value, number) in values.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *value = f32::from_le_bytes(*number);
        }
    }
}

wide! {
    fn decode_bf16(bytes: &[u8], values: &mut [f32]) {
        for (value, number) in values.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *value = f32::from_bits(u32::from(u16::from_le_bytes(*number)) << 16);
        }
    }
}

wide! {
    fn encode_f32(values: &[f32], bytes: &mut [u8]) {
        for (number, value) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(values) {
            *number = value.to_le_bytes();
        }
    }
}

wide! {
    fn encode_bf16(values: &[f32], bytes: &mut [u8]) {
        for (number, value) in bytes.as_chunks_mut::<2>().0.iter_mut().zip(values) {
            *number = to_bf16(*value).to_le_bytes();
        }
    }
}

/// How many numbers of F16 are converted at once: the processor's own conversion is for many.
const BLOCK: usize = 64;

fn decode_f16(bytes: &[u8], values: &mut [f32]) {
    let mut block = [f16::ZERO; BLOCK];
    for (values, bytes) in values.chunks_mut(BLOCK).zip(bytes.chunks(2 * BLOCK)) {
        let block = &mut block[..values.len()];
        for (number, bytes) in block.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *number = f16::from_le_bytes(*bytes);
        }
        block.convert_to_f32_slice(values);
    }
}

fn encode_f16(values: &[f32], bytes: &mut [u8]) {
    let mut block = [f16::ZERO; BLOCK];
    for (values, bytes) in values.chunks(BLOCK).zip(bytes.chunks_mut(2 * BLOCK)) {
        let block = &mut block[..values.len()];
        block.convert_from_f32_slice(values);
        for (number, bytes) in block.iter().zip(bytes.as_chunks_mut::<2>().0) {
            *bytes = number.to_le_bytes();
        }
    }
}

/// Returns the number that is left when one is stored in a type and read again.
#[inline(always)]
pub fn rounded(dtype: Dtype, value: f32) -> f32 {
    match dtype {
        Dtype::BF16 => f32::from_bits(u32::from(to_bf16(value)) << 16),
        Dtype::F16 => f16::from_f32(value).to_f32(),
        _ => value,
    }
}

/// As `half::bf16::from_f32`, without its branch, so that it goes by many numbers at a time.
#[inline(always)]
fn to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    // Only a NaN overflows, and it is not taken.
    let nearest = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    let nan = (bits >> 16) | 0x40;
    (if value.is_nan() { nan } else { nearest }) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;

    #[test]
    fn all_short_numbers_survive() {
        let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        let mut values = vec![0.0; 1 << 16];
        let mut again = vec![0; 1 << 17];
        for dtype in [Dtype::BF16, Dtype::F16] {
            decode(dtype, &bytes, &mut values);
            encode(dtype, &values, &mut again);
            for (old, new) in bytes.as_chunks::<2>().0.iter().zip(again.as_chunks::<2>().0) {
                let is_nan = match dtype {
                    Dtype::BF16 => bf16::from_le_bytes(*old).is_nan() && bf16::from_le_bytes(*new).is_nan(),
                    _ => f16::from_le_bytes(*old).is_nan() && f16::from_le_bytes(*new).is_nan(),
                };
                assert!(old == new || is_nan, "{dtype:?} {old:?} {new:?}");
            }
        }
    }

    #[test]
    fn narrowing_is_to_the_nearest_and_even() {
        let bits = (0..1u32 << 20).map(|step| step.wrapping_mul(0x9e37_79b1));
        let edges =
            [0, 0x7f80_0000, 0xff80_0000, 0x7fc0_0000, 0x7f80_0001, 0x7fff_ffff, 0x3f80_8000, 0x3f81_8000];
        for value in bits.chain(edges).map(f32::from_bits) {
            let expected = bf16::from_f32(value);
            let found = bf16::from_bits(to_bf16(value));
            assert!(found == expected || found.is_nan() && expected.is_nan(), "{value:e}");
        }
        assert_eq!(rounded(Dtype::F32, 1.1), 1.1);
        assert_eq!(rounded(Dtype::F16, 1.0 + f32::EPSILON), 1.0);
        assert_eq!(rounded(Dtype::BF16, 1.0 + 1.0 / 256.0), 1.0);
        assert_eq!(rounded(Dtype::BF16, 1.0 + 3.0 / 256.0), 1.0 + 1.0 / 64.0);
    }
}
