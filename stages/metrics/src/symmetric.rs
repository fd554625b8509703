//! Symmetric matrices, row by row: a root, a product, the eigenvalues.

/// A matrix as its rows.
pub(crate) type Rows = Vec<Vec<f64>>;

fn dot(one: &[f64], other: &[f64]) -> f64 {
    one.iter().zip(other).map(|(a, b)| a * b).sum()
}

/// Adds a multiple of one vector to another.
fn add(to: &mut [f64], vector: &[f64], times: f64) {
    to.iter_mut().zip(vector).for_each(|(to, number)| *to += number * times);
}

/// Returns the columns of an L with L Lᵀ = the matrix, which has no negative eigenvalues but for
/// rounding: Cholesky's decomposition, the largest of what is left on the diagonal first, until
/// nothing but rounding is left.
pub(crate) fn root(matrix: &Rows) -> Rows {
    let mut left: Vec<f64> = matrix.iter().enumerate().map(|(at, row)| row[at]).collect();
    let smallest = left.iter().copied().fold(0.0, f64::max) * f64::EPSILON * left.len() as f64;
    let mut columns: Rows = Vec::new();
    while let Some((pivot, most)) = left.iter().copied().enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b)) {
        if most <= smallest || columns.len() == left.len() {
            break;
        }
        let mut column = matrix[pivot].clone();
        for known in &columns {
            add(&mut column, known, -known[pivot]);
        }
        column.iter_mut().for_each(|number| *number /= most.sqrt());
        left.iter_mut().zip(&column).for_each(|(left, number)| *left -= number * number);
        left[pivot] = 0.0;
        columns.push(column);
    }
    columns
}

/// Returns Lᵀ M L of the columns of an L and a symmetric M.
pub(crate) fn between(columns: &Rows, matrix: &Rows) -> Rows {
    let products: Rows =
        columns.iter().map(|column| matrix.iter().map(|row| dot(row, column)).collect()).collect();
    let mut product: Rows =
        columns.iter().map(|column| products.iter().map(|product| dot(column, product)).collect()).collect();
    // The two halves differ in last bits.
    for row in 1..product.len() {
        let (above, below) = product.split_at_mut(row);
        let mirrored = above.iter().map(|other| other[row]);
        below[0].iter_mut().zip(mirrored).for_each(|(number, other)| *number = other);
    }
    product
}

/// Returns the eigenvalues of a symmetric matrix of finite numbers, in no order: reflections make
/// it tridiagonal (Householder, 1958), rotations diagonal (the implicit QL method, Dubrulle,
/// Martin and Wilkinson, 1968).
pub(crate) fn eigenvalues(matrix: Rows) -> Vec<f64> {
    let (mut diagonal, mut beside) = tridiagonal(matrix);
    let size = diagonal.len();
    beside.push(0.0);
    for least in 0..size {
        // A few turns find each; the limit is there for rounding that never settles.
        for _ in 0..100 {
            let is_small = |at: &usize| {
                let near = diagonal[*at].abs() + diagonal[*at + 1].abs();
                beside[*at].abs() <= f64::EPSILON * near
            };
            let most = (least..size - 1).find(is_small).unwrap_or(size - 1);
            if most == least {
                break;
            }
            turn(&mut diagonal, &mut beside, least, most);
        }
    }
    diagonal
}

/// Makes the numbers beside the diagonal smaller from one row to another.
fn turn(diagonal: &mut [f64], beside: &mut [f64], least: usize, most: usize) {
    let shift = (diagonal[least + 1] - diagonal[least]) / (2.0 * beside[least]);
    let mut g = diagonal[most] - diagonal[least] + beside[least] / (shift + shift.hypot(1.0).copysign(shift));
    let (mut sine, mut cosine, mut moved) = (1.0, 1.0, 0.0);
    for at in (least..most).rev() {
        let (f, b) = (sine * beside[at], cosine * beside[at]);
        let length = f.hypot(g);
        beside[at + 1] = length;
        if length == 0.0 {
            diagonal[at + 1] -= moved;
            beside[most] = 0.0;
            return;
        }
        (sine, cosine) = (f / length, g / length);
        g = diagonal[at + 1] - moved;
        let r = (diagonal[at] - g) * sine + 2.0 * cosine * b;
        moved = sine * r;
        diagonal[at + 1] = g + moved;
        g = cosine * r - b;
    }
    diagonal[least] -= moved;
    beside[least] = g;
    beside[most] = 0.0;
}

/// Returns the diagonal, and the numbers beside it, of a tridiagonal matrix with the same
/// eigenvalues.
fn tridiagonal(mut matrix: Rows) -> (Vec<f64>, Vec<f64>) {
    let (mut diagonal, mut beside) = (Vec::new(), Vec::new());
    while let Some(mut first) = (!matrix.is_empty()).then(|| matrix.swap_remove(0)) {
        // The last row stands where the first was, and so must its column.
        diagonal.push(first.swap_remove(0));
        let mut v = first;
        for row in &mut matrix {
            row.swap_remove(0);
        }
        let Some(begin) = v.first().copied() else { break };
        let length = dot(&v, &v).sqrt();
        if v[1..].iter().all(|number| *number == 0.0) {
            beside.push(begin);
            continue;
        }
        let mirrored = -length.copysign(begin);
        beside.push(mirrored);
        v[0] -= mirrored;
        let scale = 2.0 / dot(&v, &v);
        let mut w: Vec<f64> = matrix.iter().map(|row| scale * dot(row, &v)).collect();
        let half = scale / 2.0 * dot(&w, &v);
        add(&mut w, &v, -half);
        for ((row, one), other) in matrix.iter_mut().zip(&v).zip(&w) {
            add(row, &w, -one);
            add(row, &v, -other);
        }
    }
    (diagonal, beside)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sorted(mut numbers: Vec<f64>) -> Vec<f64> {
        numbers.sort_by(f64::total_cmp);
        numbers
    }

    #[test]
    fn eigenvalues_by_hand() {
        assert!(eigenvalues(Vec::new()).is_empty());
        assert_eq!(eigenvalues(vec![vec![3.0]]), [3.0]);
        assert_eq!(sorted(eigenvalues(vec![vec![2.0, 0.0], vec![0.0, 1.0]])), [1.0, 2.0]);
        let found = sorted(eigenvalues(vec![vec![2.0, 1.0], vec![1.0, 2.0]]));
        assert!((found[0] - 1.0).abs() < 1e-15 && (found[1] - 3.0).abs() < 1e-15, "{found:?}");
        // A string of five beads: 2 - 2 cos(k pi / 6).
        let string = |row: usize, column: usize| match row.abs_diff(column) {
            0 => 2.0,
            1 => -1.0,
            _ => 0.0,
        };
        let string: Rows = (0..5).map(|row| (0..5).map(|column| string(row, column)).collect()).collect();
        for (number, found) in (1..).zip(sorted(eigenvalues(string))) {
            let exact = 2.0 - 2.0 * (f64::from(number) * std::f64::consts::PI / 6.0).cos();
            assert!((found - exact).abs() < 1e-14, "{found} {exact}");
        }
    }

    proptest! {
        #[test]
        fn traces_of_powers_are_kept(numbers in prop::collection::vec(-3.0..3.0f64, 1..120)) {
            let size = (numbers.len() as f64).sqrt() as usize;
            let at = |row: usize, column: usize| numbers[row.min(column) * size + row.max(column)];
            let matrix: Rows = (0..size).map(|row| (0..size).map(|column| at(row, column)).collect()).collect();
            let trace: f64 = (0..size).map(|row| matrix[row][row]).sum();
            let squares: f64 = matrix.iter().map(|row| dot(row, row)).sum();
            let found = eigenvalues(matrix);
            prop_assert!((found.iter().sum::<f64>() - trace).abs() < 1e-11);
            prop_assert!((dot(&found, &found) - squares).abs() < 1e-10);
        }

        #[test]
        fn a_root_is_one(vectors in prop::collection::vec(prop::array::uniform6(-3.0..3.0f64), 1..9)) {
            // Of fewer than six vectors it has fewer than six columns.
            let product = |a: usize, b: usize| vectors.iter().map(|vector| vector[a] * vector[b]).sum::<f64>();
            let matrix: Rows = (0..6).map(|row| (0..6).map(|column| product(row, column)).collect()).collect();
            let root = root(&matrix);
            prop_assert!(root.len() <= vectors.len().min(6) + 1);
            for (row, numbers) in matrix.iter().enumerate() {
                for (column, number) in numbers.iter().enumerate() {
                    let found: f64 = root.iter().map(|one| one[row] * one[column]).sum();
                    prop_assert!((found - number).abs() < 1e-10, "{found} {number}");
                }
            }
        }
    }
}
