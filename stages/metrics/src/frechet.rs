//! Fréchet distance: Fréchet, 1957, of two normal distributions, Dowson and Landau, 1982:
//! |m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^½), squared, as Preuer et al., 2018, use it on ChemNet's
//! activations.
//!
//! Covariances are divided by n - 1, as numpy's `cov` does. The trace of the root is the sum of
//! the roots of the eigenvalues of Lᵀ C2 L, where L Lᵀ = C1: it is symmetric, and has those of
//! C1 C2. The reference code takes the root of the product itself (scipy's `sqrtm`) and adds 1e-6 to the
//! diagonals where that fails, which is not needed here. Where there are fewer vectors than
//! dimensions the distance is defined all the same, and too large: compare sets of one size.

use crate::symmetric::{Rows, between, eigenvalues, root};

/// How many vectors are read to find an origin, before sums begin.
const FIRST: usize = 256;

/// Says why two sets of vectors have no distance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrechetError {
    /// One has fewer than two vectors, and so no covariance.
    #[error("a set of {0} has no covariance: at least two are needed")]
    TooFew(usize),
    /// Their vectors are of different sizes.
    #[error("vectors of {0} and of {1} numbers cannot be compared")]
    Sizes(usize, usize),
    /// A number is infinite or not a number.
    #[error("a vector holds NaN or infinity")]
    NotFinite,
}

/// Holds what the mean and the covariance of vectors are made of. Its size does not grow with
/// their number.
#[derive(Clone, Debug)]
pub struct Moments {
    size: usize,
    count: usize,
    /// The first vectors, until their mean is taken for the origin of what is summed.
    first: Vec<Vec<f64>>,
    origin: Option<Vec<f64>>,
    sum: Vec<f64>,
    /// The lower triangle of the sum of outer products, row by row.
    products: Vec<f64>,
}

impl Moments {
    /// Makes the moments of no vectors of a size.
    pub fn new(size: usize) -> Self {
        let products = vec![0.0; size * (size + 1) / 2];
        Self { size, count: 0, first: Vec::new(), origin: None, sum: vec![0.0; size], products }
    }

    /// Returns how many vectors were added.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Adds a vector. The order of adding touches last bits.
    ///
    /// # Panics
    /// If it is of another size.
    pub fn add(&mut self, vector: &[f32]) {
        assert_eq!(vector.len(), self.size, "moments are of vectors of one size");
        self.count += 1;
        let vector: Vec<f64> = vector.iter().map(|number| f64::from(*number)).collect();
        match &self.origin {
            Some(origin) => add(&vector, origin, &mut self.sum, &mut self.products),
            None => {
                self.first.push(vector);
                if self.first.len() == FIRST {
                    self.fix_origin();
                }
            }
        }
    }

    /// Begins to sum: far from the origin, most digits of squares would be lost.
    fn fix_origin(&mut self) {
        let first = std::mem::take(&mut self.first);
        let mut origin = vec![0.0; self.size];
        for vector in &first {
            origin.iter_mut().zip(vector).for_each(|(sum, number)| *sum += number);
        }
        origin.iter_mut().for_each(|sum| *sum /= first.len().max(1) as f64);
        first.iter().for_each(|vector| add(vector, &origin, &mut self.sum, &mut self.products));
        self.origin = Some(origin);
    }

    /// Returns mean and covariance.
    fn normal(&self) -> Result<(Vec<f64>, Rows), FrechetError> {
        if self.count < 2 {
            return Err(FrechetError::TooFew(self.count));
        }
        let mut settled = self.clone();
        if settled.origin.is_none() {
            settled.fix_origin();
        }
        let Self { size, origin, sum, products, .. } = settled;
        let count = self.count as f64;
        let mean = origin.iter().flatten().zip(&sum).map(|(origin, sum)| origin + sum / count).collect();
        let covariance_of = |row: usize, column: usize| {
            let (low, high) = (row.min(column), row.max(column));
            (products[high * (high + 1) / 2 + low] - sum[row] * sum[column] / count) / (count - 1.0)
        };
        let covariance: Rows =
            (0..size).map(|row| (0..size).map(|column| covariance_of(row, column)).collect()).collect();
        if covariance.iter().flatten().all(|number| number.is_finite()) {
            Ok((mean, covariance))
        } else {
            Err(FrechetError::NotFinite)
        }
    }
}

fn add(vector: &[f64], origin: &[f64], sum: &mut [f64], products: &mut [f64]) {
    let from: Vec<f64> = vector.iter().zip(origin).map(|(number, origin)| number - origin).collect();
    sum.iter_mut().zip(&from).for_each(|(sum, number)| *sum += number);
    let mut rest = products;
    for (row, by) in from.iter().enumerate() {
        let (products, below) = rest.split_at_mut(row + 1);
        products.iter_mut().zip(&from).for_each(|(sum, number)| *sum += by * number);
        rest = below;
    }
}

/// Returns the distance of two sets of vectors: 0 for equal ones, up to rounding.
///
/// # Errors
/// [`FrechetError`].
///
/// ```
/// use metrics::frechet::{Moments, distance};
///
/// let moments = |numbers: [f32; 2]| {
///     let mut moments = Moments::new(1);
///     numbers.iter().for_each(|number| moments.add(&[*number]));
///     moments
/// };
/// // Means 0 and 3, deviations √2 and √8: 3² + (√8 - √2)².
/// let fid = distance(&moments([-1.0, 1.0]), &moments([1.0, 5.0]))?;
/// assert!((fid - 11.0).abs() < 1e-12);
/// # Ok::<(), metrics::frechet::FrechetError>(())
/// ```
pub fn distance(one: &Moments, other: &Moments) -> Result<f64, FrechetError> {
    if one.size != other.size {
        return Err(FrechetError::Sizes(one.size, other.size));
    }
    let ((mean, covariance), (other_mean, other_covariance)) = (one.normal()?, other.normal()?);
    let apart: f64 = mean.iter().zip(&other_mean).map(|(a, b)| (a - b) * (a - b)).sum();
    let trace = |matrix: &Rows| matrix.iter().enumerate().map(|(at, row)| row[at]).sum::<f64>();
    let traces = trace(&covariance) + trace(&other_covariance);
    let values = eigenvalues(between(&root(&covariance), &other_covariance));
    let of_root: f64 = values.iter().map(|value| value.max(0.0).sqrt()).sum();
    Ok(apart + traces - 2.0 * of_root)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn moments<const N: usize>(vectors: &[[f32; N]]) -> Moments {
        let mut moments = Moments::new(N);
        vectors.iter().for_each(|vector| moments.add(vector));
        moments
    }

    #[test]
    fn it_is_numpys() {
        // numpy 2.4, the root of the product of covariances by its eigenvectors.
        let one = moments(&[
            [0.1, 0.9, 0.3],
            [0.4, -0.5, 0.2],
            [0.8, 0.1, -0.7],
            [-0.3, 0.6, 0.5],
            [0.2, 0.2, 0.9],
        ]);
        let other = moments(&[[0.6, 0.1, 0.4], [-0.2, -0.9, 0.1], [0.3, 0.3, 0.3], [0.9, -0.4, 0.8]]);
        let found = distance(&one, &other).unwrap();
        assert!((found - 0.8806018786548461).abs() < 1e-6, "{found}");
        assert!((distance(&other, &one).unwrap() - found).abs() < 1e-12);
    }

    #[test]
    fn numbers_far_from_0_keep_their_digits() {
        let near: Vec<[f32; 2]> = (0..600).map(|n| [(n % 7) as f32, (n % 11) as f32]).collect();
        let far: Vec<[f32; 2]> = near.iter().map(|[a, b]| [a + 65536.0, b - 65536.0]).collect();
        let (near, far) = (moments(&near).normal().unwrap().1, moments(&far).normal().unwrap().1);
        let pairs = near.iter().flatten().zip(far.iter().flatten());
        assert!(pairs.into_iter().all(|(near, far)| (near - far).abs() < 1e-9));
    }

    #[test]
    fn what_has_no_distance_is_refused() {
        let two = moments(&[[0.0, 1.0], [1.0, 0.0]]);
        assert_eq!(distance(&two, &moments(&[[0.0, 1.0]])), Err(FrechetError::TooFew(1)));
        assert_eq!(distance(&two, &moments(&[[0.0], [1.0]])), Err(FrechetError::Sizes(2, 1)));
        assert_eq!(distance(&two, &moments(&[[f32::NAN, 0.0]; 2])), Err(FrechetError::NotFinite));
        let error = distance(&Moments::new(2), &two).unwrap_err().to_string();
        assert_eq!(error, "a set of 0 has no covariance: at least two are needed");
    }

    proptest! {
        #[test]
        fn it_is_a_distance(
            one in prop::collection::vec(prop::array::uniform3(-10.0..10.0f32), 2..20),
            other in prop::collection::vec(prop::array::uniform3(-10.0..10.0f32), 2..20),
        ) {
            let (one, other) = (moments(&one), moments(&other));
            prop_assert!(distance(&one, &one).unwrap().abs() < 1e-5);
            let found = distance(&one, &other).unwrap();
            prop_assert!(found > -1e-5);
            prop_assert!((found - distance(&other, &one).unwrap()).abs() < 1e-5);
        }
    }
}
