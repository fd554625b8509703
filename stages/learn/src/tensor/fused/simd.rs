//! Many numbers side by side, as registers hold them. All of it is inlined into functions that
//! `weights::wide!` compiles for wider registers; the order of operations is always the same.

/// How many numbers are taken at once.
pub(super) const LANES: usize = 16;

/// Adds the lanes up, by halves.
#[inline(always)]
pub(super) fn total(lanes: [f32; LANES]) -> f32 {
    let mut lanes = lanes;
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Returns the inner products of some vectors with one, which is read once for all.
#[inline(always)]
pub(super) fn dots<const R: usize>(vectors: [&[f32]; R], by: &[f32]) -> [f32; R] {
    let (by_whole, by_rest) = by.as_chunks::<LANES>();
    let parts = vectors.map(|vector| vector[..by.len()].as_chunks::<LANES>());
    let mut sums = [[0f32; LANES]; R];
    for (place, by) in by_whole.iter().enumerate() {
        for (sum, (whole, _)) in sums.iter_mut().zip(&parts) {
            let vector = &whole[place];
            for lane in 0..LANES {
                sum[lane] = vector[lane].mul_add(by[lane], sum[lane]);
            }
        }
    }
    let mut actual = sums.map(total);
    for (actual, (_, rest)) in actual.iter_mut().zip(&parts) {
        for (number, by) in rest.iter().zip(by_rest) {
            *actual += number * by;
        }
    }
    actual
}

/// Returns the inner product of two vectors.
#[inline(always)]
pub(super) fn dot(vector: &[f32], by: &[f32]) -> f32 {
    let [actual] = dots([vector], by);
    actual
}

/// Returns the sum of all squares, in double precision.
#[inline(always)]
pub(super) fn squares(numbers: &[f32]) -> f64 {
    let (whole, rest) = numbers.as_chunks::<LANES>();
    let mut sums = [0f64; LANES];
    for numbers in whole {
        for lane in 0..LANES {
            let number = f64::from(numbers[lane]);
            sums[lane] = number.mul_add(number, sums[lane]);
        }
    }
    let square = |number: &f32| f64::from(*number) * f64::from(*number);
    sums.iter().sum::<f64>() + rest.iter().map(square).sum::<f64>()
}

/// Returns the largest number.
#[inline(always)]
pub(super) fn largest(numbers: &[f32]) -> f32 {
    let (whole, rest) = numbers.as_chunks::<LANES>();
    let mut most = [f32::NEG_INFINITY; LANES];
    for numbers in whole {
        for lane in 0..LANES {
            most[lane] = if numbers[lane] > most[lane] { numbers[lane] } else { most[lane] };
        }
    }
    let larger = |most: f32, number: &f32| if *number > most { *number } else { most };
    rest.iter().fold(most.iter().fold(f32::NEG_INFINITY, larger), larger)
}

/// Adds numbers up.
#[inline(always)]
pub(super) fn sum(numbers: &[f32]) -> f32 {
    let (whole, rest) = numbers.as_chunks::<LANES>();
    let mut sums = [0f32; LANES];
    for numbers in whole {
        for lane in 0..LANES {
            sums[lane] += numbers[lane];
        }
    }
    rest.iter().fold(total(sums), |sum, number| sum + number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_counts_all_numbers() {
        for length in 0..70 {
            let numbers: Vec<f32> = (0..length).map(|number| (number * 7 % 11) as f32 - 5.0).collect();
            let ones = vec![1f32; length];
            let expected: f32 = numbers.iter().sum();
            assert_eq!(sum(&numbers), expected);
            assert_eq!(dots([&numbers, &ones], &ones), [expected, length as f32]);
            let squares: f32 = numbers.iter().map(|number| number * number).sum();
            assert_eq!((dot(&numbers, &numbers), super::squares(&numbers)), (squares, f64::from(squares)));
            let most = numbers.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(largest(&numbers), most);
        }
    }
}
