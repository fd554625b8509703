//! NF4: weights in four bits, Dettmers et al., 2023 (QLoRA), section 3, with the bytes of
//! bitsandbytes.
//!
//! A matrix is taken row by row in blocks of 64 numbers. A block is divided by its largest
//! magnitude, and each number becomes the nearest of 16 levels, an exact midpoint the lower one;
//! two share a byte, the first in the high half. With double quantisation the largest magnitudes
//! are themselves in eight bits: less their mean, in blocks of 256, as the nearest of the 256
//! levels of a signed dynamic map (Dettmers et al., 2021, section 2).

use rayon::prelude::*;

/// The levels: quantiles of a normal distribution, with an exact 0.
pub(crate) const LEVELS: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// The level that is 0.
const ZERO: u8 = 7;

/// How many numbers share a largest magnitude.
pub(crate) const BLOCK: usize = 64;

/// How many largest magnitudes share one of their own.
pub(crate) const NESTED_BLOCK: usize = 256;

/// A matrix in four bits.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Nf4 {
    /// Two numbers to a byte; an odd one out is followed by a 0.
    pub packed: Vec<u8>,
    /// The largest magnitude of each block.
    pub scales: Scales,
    /// `[out, in]`.
    pub shape: [usize; 2],
}

/// The largest magnitudes of blocks.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Scales {
    /// As they are.
    Plain(Vec<f32>),
    /// In eight bits.
    Double {
        /// Levels of the dynamic map.
        codes: Vec<u8>,
        /// The largest magnitude of each block of 256.
        nested: Vec<f32>,
        /// The mean, which was taken off.
        offset: f32,
    },
}

impl Nf4 {
    /// Packs a matrix, row by row.
    pub(crate) fn quantise(numbers: &[f32], shape: [usize; 2], double: bool) -> Self {
        debug_assert_eq!(numbers.len(), shape[0] * shape[1]);
        // Each byte is computed by itself, so threads change nothing.
        let scales: Vec<f32> = numbers.par_chunks(BLOCK).with_min_len(256).map(largest).collect();
        let midpoints = midpoints();
        let code = |place: usize| match numbers.get(place) {
            // A block of zeros has no largest magnitude to divide by.
            Some(number) if scales[place / BLOCK] > 0.0 => level(number / scales[place / BLOCK], &midpoints),
            _ => ZERO,
        };
        let bytes = (0..numbers.len().div_ceil(2)).into_par_iter().with_min_len(1 << 13);
        let packed = bytes.map(|byte| (code(2 * byte) << 4) | code(2 * byte + 1)).collect();
        let scales = if double { Scales::double(&scales) } else { Scales::Plain(scales) };
        Self { packed, scales, shape }
    }

    /// Unpacks it, row by row.
    pub(crate) fn dequantise(&self) -> Vec<f32> {
        let count = self.shape[0] * self.shape[1];
        let mut numbers = Vec::with_capacity(count + 1);
        for (bytes, scale) in self.packed.chunks(BLOCK / 2).zip(self.scales.plain()) {
            // The sixteen products of a block, evaluated_at up.
            let levels = LEVELS.map(|level| level * scale);
            numbers.extend(
                bytes
                    .iter()
                    .flat_map(|byte| [levels[usize::from(byte >> 4)], levels[usize::from(byte & 15)]]),
            );
        }
        numbers.truncate(count);
        numbers
    }

    /// Returns how many bytes it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.packed.len()
            + match &self.scales {
                Scales::Plain(scales) => 4 * scales.len(),
                Scales::Double { codes, nested, .. } => codes.len() + 4 * nested.len() + 4,
            }
    }
}

impl Scales {
    fn double(scales: &[f32]) -> Self {
        let offset = mean(scales);
        let map = dynamic_map();
        let (mut codes, mut nested) = (Vec::with_capacity(scales.len()), Vec::new());
        for block in scales.chunks(NESTED_BLOCK) {
            let block: Vec<f32> = block.iter().map(|scale| scale - offset).collect();
            let largest = largest(&block);
            nested.push(largest);
            let code = |number: &f32| {
                if largest > 0.0 { nearest(number / largest, &map) } else { nearest(0.0, &map) }
            };
            codes.extend(block.iter().map(code));
        }
        Self::Double { codes, nested, offset }
    }

    /// Returns them as f32.
    pub(crate) fn plain(&self) -> Vec<f32> {
        match self {
            Self::Plain(scales) => scales.clone(),
            Self::Double { codes, nested, offset } => {
                let map = dynamic_map();
                let blocks = codes.chunks(NESTED_BLOCK).zip(nested);
                blocks
                    .flat_map(|(codes, largest)| {
                        codes
                            .iter()
                            .map(|code| map[usize::from(*code)] * largest + offset)
                            .collect::<Vec<_>>()
                    })
                    .collect()
            }
        }
    }
}

fn largest(numbers: &[f32]) -> f32 {
    numbers.iter().fold(0.0, |largest, number| number.abs().max(largest))
}

/// Returns the mean. Added up in double precision: the reference's sum is in single precision and
/// in pairs, and comes to the same number after rounding but for a last bit.
fn mean(numbers: &[f32]) -> f32 {
    (numbers.iter().map(|number| f64::from(*number)).sum::<f64>() / numbers.len().max(1) as f64) as f32
}

/// Returns the midpoints between neighbouring levels.
fn midpoints() -> [f32; 15] {
    std::array::from_fn(|place| ((f64::from(LEVELS[place]) + f64::from(LEVELS[place + 1])) / 2.0) as f32)
}

/// Returns the level nearest to a number in `[-1, 1]`, of two the lower.
fn level(number: f32, midpoints: &[f32; 15]) -> u8 {
    midpoints.iter().map(|midpoint| u8::from(number > *midpoint)).sum()
}

/// Returns the place of the number of a sorted map that is nearest, of two the lower.
fn nearest(number: f32, map: &[f32; 256]) -> u8 {
    let above = map.partition_point(|level| *level < number).min(255);
    let below = above.saturating_sub(1);
    if number - map[below] <= map[above] - number { below as u8 } else { above as u8 }
}

/// Returns the signed dynamic map of eight bits, sorted: seven decades up to 1, each with twice
/// the levels of the one below it, the same below 0, 0 itself and 1.
pub(crate) fn dynamic_map() -> [f32; 256] {
    let mut map = Vec::with_capacity(256);
    for exponent in 0..7 {
        let levels = 1usize << exponent;
        let boundary = |place: usize| 0.1 + 0.9 * place as f64 / levels as f64;
        for place in 0..levels {
            let mean = (boundary(place) as f32 + boundary(place + 1) as f32) / 2.0;
            let level = (10f64.powi(exponent - 6) * f64::from(mean)) as f32;
            map.extend([level, -level]);
        }
    }
    map.extend([0.0, 1.0]);
    map.sort_by(f32::total_cmp);
    map.try_into().expect("254 levels and two")
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::SafeTensors;

    struct Golden(Vec<u8>);

    impl Golden {
        fn open() -> Self {
            Self(std::fs::read(crate::testing::golden("nf4/expected.safetensors")).unwrap())
        }

        fn bytes(&self, name: &str) -> Vec<u8> {
            SafeTensors::deserialize(&self.0).unwrap().tensor(name).unwrap().data().to_vec()
        }

        /// Numbers of any width, as f32.
        fn floats(&self, name: &str) -> Vec<f32> {
            let found = SafeTensors::deserialize(&self.0).unwrap();
            let view = found.tensor(name).unwrap();
            let halves =
                view.data().chunks_exact(2).map(|bytes| u16::from_le_bytes(bytes.try_into().unwrap()));
            match view.dtype() {
                safetensors::Dtype::F32 => view
                    .data()
                    .chunks_exact(4)
                    .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
                    .collect(),
                safetensors::Dtype::BF16 => halves.map(|bits| half::bf16::from_bits(bits).to_f32()).collect(),
                safetensors::Dtype::F16 => halves.map(|bits| half::f16::from_bits(bits).to_f32()).collect(),
                other => panic!("{other:?}"),
            }
        }

        fn shape(&self, name: &str) -> [usize; 2] {
            let found = SafeTensors::deserialize(&self.0).unwrap();
            found.tensor(name).unwrap().shape().try_into().unwrap()
        }

        fn dtype(&self, name: &str) -> safetensors::Dtype {
            SafeTensors::deserialize(&self.0).unwrap().tensor(name).unwrap().dtype()
        }

        /// Rounds as the reference does when it casts to the dtype of the weight.
        fn cast(&self, name: &str, numbers: &[f32]) -> Vec<f32> {
            let round = |number: &f32| match self.dtype(name) {
                safetensors::Dtype::BF16 => half::bf16::from_f32(*number).to_f32(),
                safetensors::Dtype::F16 => half::f16::from_f32(*number).to_f32(),
                _ => *number,
            };
            numbers.iter().map(round).collect()
        }
    }

    const NAMES: [&str; 4] = ["w0", "w1", "w2", "w3"];

    #[test]
    fn the_maps_are_the_references() {
        let golden = Golden::open();
        assert_eq!(LEVELS.to_vec(), golden.floats("code_nf4"));
        let (ours, theirs) = (dynamic_map().to_vec(), golden.floats("code_dynamic8"));
        let off = ours.iter().zip(&theirs).map(|(one, other)| (one - other).abs() / other.abs().max(1e-6));
        assert!(off.fold(0.0, f32::max) < 2e-7);
    }

    #[test]
    fn bytes_and_numbers_are_the_references() {
        let golden = Golden::open();
        for name in NAMES {
            let weight = format!("{name}.weight");
            let packed = Nf4::quantise(&golden.floats(&weight), golden.shape(&weight), false);
            assert_eq!(packed.packed, golden.bytes(&format!("{name}.packed")), "{name}");
            assert_eq!(packed.scales.plain(), golden.floats(&format!("{name}.absmax")), "{name}");
            let dequant = format!("{name}.dequant");
            // Two of the matrices have no plain values in the reference.
            if SafeTensors::deserialize(&golden.0).unwrap().tensor(&dequant).is_ok() {
                let ours = golden.cast(&dequant, &packed.dequantise());
                assert_eq!(ours, golden.floats(&dequant), "{name}");
            }
        }
    }

    #[test]
    fn double_quantisation_is_the_references() {
        let golden = Golden::open();
        for name in NAMES {
            let weight = format!("{name}.weight");
            let packed = Nf4::quantise(&golden.floats(&weight), golden.shape(&weight), true);
            assert_eq!(packed.packed, golden.bytes(&format!("{name}.packed")), "{name}");
            let Scales::Double { codes, nested, offset } = &packed.scales else { panic!("{name}") };
            let theirs = golden.bytes(&format!("{name}.dq.absmax_u8"));
            // The reference's codes are not always the nearest.
            assert!(codes.iter().zip(&theirs).all(|(one, other)| one.abs_diff(*other) <= 1), "{name}");
            let off = |ours: &[f32], theirs: &[f32]| {
                assert_eq!(ours.len(), theirs.len());
                let off = ours.iter().zip(theirs).map(|(one, other)| (one - other).abs());
                off.fold(0.0, f32::max)
            };
            assert!(off(nested, &golden.floats(&format!("{name}.dq.nested_absmax"))) < 1e-7, "{name}");
            assert!(off(&[*offset], &golden.floats(&format!("{name}.dq.offset"))) < 1e-7, "{name}");
            // With the reference's own codes its numbers come out again.
            let scales = Scales::Double {
                codes: theirs,
                nested: golden.floats(&format!("{name}.dq.nested_absmax")),
                offset: golden.floats(&format!("{name}.dq.offset"))[0],
            };
            let plain = scales.plain();
            let wanted = golden.floats(&format!("{name}.dq.absmax_dequant"));
            assert!(off(&plain, &wanted) < 1e-7, "{name}");
            let dequant = format!("{name}.dq.dequant");
            let found = golden.cast(&dequant, &Nf4 { scales, ..packed }.dequantise());
            let wanted = golden.floats(&dequant);
            let step = match golden.dtype(&dequant) {
                safetensors::Dtype::F32 => 4e-7,
                safetensors::Dtype::F16 => 5e-4,
                _ => 4e-3,
            };
            assert!(
                found
                    .iter()
                    .zip(&wanted)
                    .all(|(one, other)| (one - other).abs() <= step * other.abs().max(1e-3)),
                "{name}"
            );
        }
    }

    #[test]
    fn a_block_of_zeros_and_an_odd_count() {
        let packed = Nf4::quantise(&[0.0; 65], [1, 65], true);
        assert_eq!(packed.dequantise(), vec![0.0; 65]);
        let packed = Nf4::quantise(&[0.5, -0.25, 0.125], [3, 1], false);
        assert_eq!((packed.packed.len(), packed.packed[1] & 15), (2, ZERO));
        assert_eq!(packed.dequantise()[0], 0.5);
        assert_eq!(packed.bytes(), 2 + 4);
    }

    #[test]
    fn an_exact_midpoint_takes_the_lower_level() {
        let midpoint = midpoints()[8];
        let packed = Nf4::quantise(&[1.0, midpoint], [1, 2], false);
        assert_eq!(packed.packed, [0xf8]);
    }
}
