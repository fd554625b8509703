//! Edit distance: Levenshtein, 1966: the fewest insertions, deletions and substitutions.
//!
//! Units are characters (Unicode scalar values, as Python counts them) for texts, or whole
//! elements for [`distance_of`]. As the published scripts have it, a corpus has the mean over all
//! rows, whether or not they are molecules.

/// Returns the distance of two texts in characters.
pub fn distance(a: &str, b: &str) -> usize {
    if a.is_ascii() && b.is_ascii() {
        return distance_of(a.as_bytes(), b.as_bytes());
    }
    distance_of(&a.chars().collect::<Vec<_>>(), &b.chars().collect::<Vec<_>>())
}

/// Returns the distance of two sequences in elements.
pub fn distance_of<T: PartialEq>(a: &[T], b: &[T]) -> usize {
    let prefix = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[prefix..], &b[prefix..]);
    let suffix = a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[..a.len() - suffix], &b[..b.len() - suffix]);
    let mut costs: Vec<usize> = (0..=b.len()).collect();
    for (row, ours) in a.iter().enumerate() {
        let mut diagonal = row;
        costs[0] = row + 1;
        for (at, theirs) in b.iter().enumerate() {
            let above = costs[at + 1];
            let substituted = diagonal + usize::from(ours != theirs);
            costs[at + 1] = substituted.min(above + 1).min(costs[at] + 1);
            diagonal = above;
        }
    }
    costs[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn small_distances() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!((distance("", ""), distance("", "abc"), distance("a", "")), (0, 3, 1));
        assert_eq!(distance("naïve", "naive"), 1);
        assert_eq!(distance_of(&["a", "b"], &["b"]), 1);
    }

    proptest! {
        #[test]
        fn it_is_a_metric(a in "[abc]{0,12}", b in "[abc]{0,12}", c in "[abc]{0,12}") {
            prop_assert_eq!(distance(&a, &b) == 0, a == b);
            prop_assert_eq!(distance(&a, &b), distance(&b, &a));
            prop_assert!(distance(&a, &c) <= distance(&a, &b) + distance(&b, &c));
            prop_assert!(distance(&a, &b) >= a.len().abs_diff(b.len()));
            prop_assert!(distance(&a, &b) <= a.len().max(b.len()));
        }
    }
}
