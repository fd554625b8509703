//! Matrices in four bits on a GPU: kernels that unpack them, or multiply with them as they are.
//!
//! They are CubeCL's, compiled for whatever GPU there is as they are first used. Eight numbers lie
//! in each word, the first in the high half of its lowest byte.

#![allow(missing_docs, clippy::too_many_arguments, reason = "what the macros of kernels expand to is theirs")]

use burn::backend::{Backend, Dispatch, backend_extension};
use burn_backend::tensor::{FloatTensor, IntTensor};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use burn_tensor::{DType, Device, FloatDType, Int, Shape, Tensor, TensorData};
use cubecl::calculate_cube_count_elemwise;
use cubecl::prelude::*;

use crate::tensor::nf4::{BLOCK, LEVELS, NESTED_BLOCK, Nf4, Scales, dynamic_map};

/// How many numbers lie in a word.
const WORD: usize = 8;

/// How many units multiply one row of a matrix together; a power of two.
const UNITS: usize = 128;

/// The most tokens that are multiplied with a matrix as it is.
const MAX_SKINNY_ROWS: usize = 8;

/// A matrix in four bits on a GPU.
#[derive(Debug, Clone)]
pub(crate) struct DevicePacked {
    /// The numbers, eight to a word; behind them, where scales are packed, those of the blocks, four
    /// to a word.
    words: Tensor<1, Int>,
    /// The scales, or what theirs are scaled by; behind them the levels of numbers, those of scales,
    /// and what the scales' mean is.
    floats: Tensor<1>,
    layout: Layout,
}

/// How a matrix lies there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    rows: usize,
    columns: usize,
    /// Whether scales are packed.
    is_double: bool,
    /// How many words are before those of the scales.
    codes_at: usize,
    /// How many floats are before the levels.
    levels_at: usize,
    /// Whether what comes out is in 16 bits.
    is_half: bool,
}

impl Layout {
    fn dtype(self) -> DType {
        if self.is_half { DType::BF16 } else { DType::F32 }
    }
}

/// What a GPU does with such matrices.
#[backend_extension(Cube, Fusion: cfg(feature = "cuda"))]
pub(crate) trait Packed: Backend {
    /// Unpacks one.
    #[fusion(meta = |_words, _floats, layout| unpacked(layout))]
    fn nf4_unpack(words: IntTensor<Self>, floats: FloatTensor<Self>, layout: Layout) -> FloatTensor<Self>;

    /// Multiplies a few tokens, `[tokens, columns]`, with one's transpose.
    #[fusion(meta = |x, _words, _floats, layout| multiplied(x, layout))]
    fn nf4_times_few(
        x: FloatTensor<Self>,
        words: IntTensor<Self>,
        floats: FloatTensor<Self>,
        layout: Layout,
    ) -> FloatTensor<Self>;
}

#[cfg(feature = "cuda")]
fn unpacked(layout: &Layout) -> burn::backend::fusion::custom::TensorSpec {
    burn::backend::fusion::custom::TensorSpec::new(Shape::new([layout.rows, layout.columns]), layout.dtype())
}

#[cfg(feature = "cuda")]
fn multiplied(
    x: &burn::backend::fusion::custom::TensorSpec,
    layout: &Layout,
) -> burn::backend::fusion::custom::TensorSpec {
    burn::backend::fusion::custom::TensorSpec::new(Shape::new([x.shape[0], layout.rows]), x.dtype)
}

impl Packed for CubeBackend {
    fn nf4_unpack(words: CubeTensor, floats: CubeTensor, layout: Layout) -> CubeTensor {
        let (client, device) = (words.client.clone(), words.device.clone());
        let shape = Shape::new([layout.rows, layout.columns]);
        let found = empty_device_contiguous_dtype(client.clone(), device, shape, layout.dtype());
        let count = (layout.rows * layout.columns).div_ceil(WORD);
        let cube_dim = CubeDim::new(&client, count);
        let cube_count = calculate_cube_count_elemwise(&client, count, cube_dim);
        // SAFETY: Units beyond the last number write nothing, and read no word that is not there.
        #[allow(unsafe_code, reason = "a kernel is launched without checks of bounds")]
        unsafe {
            let launch = if layout.is_half {
                unpack::launch_unchecked::<half::bf16>
            } else {
                unpack::launch_unchecked::<f32>
            };
            launch(
                &client,
                cube_count,
                cube_dim,
                words.into_buffer_arg(),
                floats.into_buffer_arg(),
                found.clone().into_buffer_arg(),
                layout.rows * layout.columns,
                layout.codes_at,
                layout.levels_at,
                layout.is_double,
            );
        }
        found
    }

    fn nf4_times_few(x: CubeTensor, words: CubeTensor, floats: CubeTensor, layout: Layout) -> CubeTensor {
        let x = into_contiguous(x);
        let tokens = x.meta.shape()[0];
        let client = x.client.clone();
        let shape = Shape::new([tokens, layout.rows]);
        let found = empty_device_contiguous_dtype(client.clone(), x.device.clone(), shape, x.dtype);
        let cube_count = CubeCount::new_1d(layout.rows as u32);
        let cube_dim = CubeDim::new_1d(UNITS as u32);
        // SAFETY: There is a cube for each row of the matrix, and a row ends at a word's end.
        #[allow(unsafe_code, reason = "a kernel is launched without checks of bounds")]
        unsafe {
            let launch = match x.dtype {
                DType::BF16 => times_few::launch_unchecked::<half::bf16>,
                _ => times_few::launch_unchecked::<f32>,
            };
            launch(
                &client,
                cube_count,
                cube_dim,
                x.into_buffer_arg(),
                words.into_buffer_arg(),
                floats.into_buffer_arg(),
                found.clone().into_buffer_arg(),
                layout.rows,
                layout.columns,
                layout.codes_at,
                layout.levels_at,
                layout.is_double,
                tokens,
            );
        }
        found
    }
}

/// Returns what the numbers of a word are scaled by.
#[cube]
fn scale(
    word: usize,
    words: &[u32],
    floats: &[f32],
    codes_at: usize,
    levels_at: usize,
    #[comptime] is_double: bool,
) -> f32 {
    let block = word / comptime![BLOCK / WORD];
    if comptime![is_double] {
        let code = (words[codes_at + block / 4] >> (8 * (block as u32 % 4))) & 255;
        let level = floats[levels_at + comptime![LEVELS.len()] + code as usize];
        level * floats[block / comptime![NESTED_BLOCK]] + floats[levels_at + comptime![LEVELS.len() + 256]]
    } else {
        floats[block]
    }
}

/// Returns one of the eight levels of a word.
#[cube]
fn level(word: u32, floats: &[f32], levels_at: usize, #[comptime] place: usize) -> f32 {
    let shift = comptime![(8 * (place / 2) + if place.is_multiple_of(2) { 4 } else { 0 }) as u32];
    floats[levels_at + ((word >> shift) & 15) as usize]
}

#[cube(launch_unchecked)]
fn unpack<F: Float>(
    words: &[u32],
    floats: &[f32],
    found: &mut [F],
    count: usize,
    codes_at: usize,
    levels_at: usize,
    #[comptime] is_double: bool,
) {
    let at = ABSOLUTE_POS;
    if at * WORD >= count {
        terminate!();
    }
    let (word, scale) = (words[at], scale(at, words, floats, codes_at, levels_at, is_double));
    #[unroll]
    for place in 0..WORD {
        if at * WORD + place < count {
            found[at * WORD + place] = F::cast_from(level(word, floats, levels_at, place) * scale);
        }
    }
}

/// A cube makes one column of the result: its units share the words of one row of the matrix, each
/// of which is read once for all tokens.
#[cube(launch_unchecked)]
fn times_few<F: Float>(
    x: &[F],
    words: &[u32],
    floats: &[f32],
    found: &mut [F],
    rows: usize,
    columns: usize,
    codes_at: usize,
    levels_at: usize,
    #[comptime] is_double: bool,
    #[comptime] tokens: usize,
) {
    let row = CUBE_POS;
    let unit = UNIT_POS as usize;
    let in_row = columns / WORD;
    let mut sums = Array::<f32>::new(tokens);
    #[unroll]
    for token in 0..tokens {
        sums[token] = 0.0f32;
    }
    for place in range_stepped(unit, in_row, UNITS) {
        let at = row * in_row + place;
        let (word, scale) = (words[at], scale(at, words, floats, codes_at, levels_at, is_double));
        #[unroll]
        for inside in 0..WORD {
            let weight = level(word, floats, levels_at, inside) * scale;
            #[unroll]
            for token in 0..tokens {
                sums[token] += weight * f32::cast_from(x[token * columns + place * WORD + inside]);
            }
        }
    }
    let mut shared = Shared::<[f32]>::new_slice(UNITS * tokens);
    #[unroll]
    for token in 0..tokens {
        shared[token * UNITS + unit] = sums[token];
    }
    sync_cube();
    #[unroll]
    for step in 0..comptime![UNITS.ilog2() as usize] {
        let half = comptime![UNITS >> (step + 1)];
        if unit < half {
            #[unroll]
            for token in 0..tokens {
                let sum = shared[token * UNITS + unit] + shared[token * UNITS + unit + half];
                shared[token * UNITS + unit] = sum;
            }
        }
        sync_cube();
    }
    if unit < tokens {
        found[unit * rows + row] = F::cast_from(shared[unit * UNITS]);
    }
}

impl DevicePacked {
    /// Moves a matrix to a GPU.
    pub(crate) fn new(packed: &Nf4, device: &Device) -> Self {
        let mut words = words(&packed.packed);
        let codes_at = words.len();
        let (mut floats, levels, offset) = match &packed.scales {
            Scales::Plain(scales) => (scales.clone(), [0.0; 256], 0.0),
            Scales::Double { codes, nested, offset } => {
                words.extend(self::words(codes));
                (nested.clone(), dynamic_map(), *offset)
            }
        };
        let levels_at = floats.len();
        floats.extend(LEVELS.into_iter().chain(levels).chain([offset]));
        let ([rows, columns], counts) = (packed.shape, [words.len(), floats.len()]);
        let is_double = matches!(packed.scales, Scales::Double { .. });
        Self {
            words: Tensor::from_data(TensorData::new(words, [counts[0]]), device),
            floats: Tensor::from_data(TensorData::new(floats, [counts[1]]), device),
            layout: Layout { rows, columns, is_double, codes_at, levels_at, is_half: false },
        }
    }

    /// Unpacks it, `[rows, columns]`.
    pub(crate) fn unpack(&self, dtype: FloatDType) -> Tensor<2> {
        let layout = Layout { is_half: dtype == FloatDType::BF16, ..self.layout };
        let (words, floats) = (self.words.clone().into_dispatch(), self.floats.clone().into_dispatch());
        Tensor::from_dispatch(Dispatch::nf4_unpack(words, floats, layout))
    }

    /// Multiplies `[tokens, columns]` with its transpose as it is, where tokens are few.
    pub(crate) fn times(&self, x: &Tensor<2>) -> Option<Tensor<2>> {
        let [tokens, columns] = x.dims();
        let is_fit = (1..=MAX_SKINNY_ROWS).contains(&tokens) && columns % WORD == 0 && !x.is_autodiff();
        is_fit.then(|| {
            let (words, floats) = (self.words.clone().into_dispatch(), self.floats.clone().into_dispatch());
            let x = x.clone().into_dispatch();
            Tensor::from_dispatch(Dispatch::nf4_times_few(x, words, floats, self.layout))
        })
    }
}

/// Puts bytes into words, the first lowest.
fn words(bytes: &[u8]) -> Vec<i32> {
    let word = |bytes: &[u8]| {
        let mut whole = [0; 4];
        whole[..bytes.len()].copy_from_slice(bytes);
        i32::from_le_bytes(whole)
    };
    bytes.chunks(4).map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::device::{is_cpu, tested_device};
    use crate::tensor::random::{Purpose, Random};

    fn packed(shape: [usize; 2], double: bool) -> Nf4 {
        let mut random = Random::new(1, Purpose::Adapter, shape[0] as u64);
        Nf4::quantise(&random.uniform(shape[0] * shape[1], 0.1), shape, double)
    }

    fn numbers(tensor: Tensor<2>) -> Vec<f32> {
        tensor.cast(FloatDType::F32).into_data().try_into_vec().unwrap()
    }

    /// Returns the device, if it is one that has kernels.
    fn device() -> Option<Device> {
        Some(tested_device()).filter(|device| !is_cpu(device))
    }

    #[test]
    fn it_unpacks_what_was_packed() {
        let Some(device) = device() else {
            return eprintln!("skipped: PIPELINE_TEST_DEVICE names no GPU");
        };
        for shape in [[3, 5], [7, 64], [130, 200], [512, 256]] {
            for double in [false, true] {
                let packed = packed(shape, double);
                let there = DevicePacked::new(&packed, &device);
                let (found, expected) = (numbers(there.unpack(FloatDType::F32)), packed.dequantise());
                for (found, expected) in found.iter().zip(&expected) {
                    assert!((found - expected).abs() <= 2e-7 * expected.abs(), "{found}, not {expected}");
                }
                assert_eq!(found.len(), expected.len());
            }
        }
    }

    #[test]
    fn a_few_tokens_are_multiplied_with_it_as_it_is() {
        let Some(device) = device() else {
            return eprintln!("skipped: PIPELINE_TEST_DEVICE names no GPU");
        };
        for (shape, tokens) in [([5, 8], 1), ([130, 200], 3), ([64, 1000], 8)] {
            for double in [false, true] {
                let packed = packed(shape, double);
                let there = DevicePacked::new(&packed, &device);
                let mut random = Random::new(2, Purpose::Adapter, tokens as u64);
                let x = TensorData::new(random.uniform(tokens * shape[1], 1.0), [tokens, shape[1]]);
                let x = Tensor::<2>::from_data(x, &device);
                let found = numbers(there.times(&x).expect("they are few"));
                let expected = numbers(x.matmul(there.unpack(FloatDType::F32).transpose()));
                let scale = expected.iter().fold(0f32, |most, number| most.max(number.abs()));
                for (found, expected) in found.iter().zip(&expected) {
                    assert!((found - expected).abs() <= 1e-5 * scale, "{found}, not {expected}");
                }
                assert_eq!(found.len(), expected.len());
            }
        }
        let there = DevicePacked::new(&packed([4, 12], false), &device);
        assert!(there.times(&Tensor::zeros([1, 12], &device)).is_none());
        assert!(there.times(&Tensor::zeros([9, 12], &device)).is_none());
    }
}
