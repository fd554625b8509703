//! Choices that look random and depend on nothing but what they are made for.

const CONTEXT: &str = "corpus compose v1: the choices of one caption";

/// A stream of numbers from a BLAKE3 hash of a seed, an identity and a list of properties.
pub(super) struct Draw(blake3::OutputReader);

impl Draw {
    pub(super) fn new(seed: u64, identity: &str, properties: &[&str]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
        hasher.update(&seed.to_le_bytes());
        hasher.update(&(properties.len() as u64).to_le_bytes());
        // Lengths keep apart what would read the same when joined.
        for text in std::iter::once(&identity).chain(properties) {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
        Self(hasher.finalize_xof())
    }

    /// Returns a number below `bound`, each as likely as the others.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        let bound = bound as u64;
        // The numbers above the last whole multiple would favour the small remainders.
        let unfair = u64::MAX - u64::MAX % bound;
        loop {
            let mut bytes = [0; 8];
            self.0.fill(&mut bytes);
            let number = u64::from_le_bytes(bytes);
            if number < unfair {
                return (number % bound) as usize;
            }
        }
    }

    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_input_counts() {
        let first = |mut draw: Draw| draw.below(1 << 40);
        let base = first(Draw::new(1, "a", &["b", "c"]));
        assert_eq!(base, first(Draw::new(1, "a", &["b", "c"])));
        assert_ne!(base, first(Draw::new(2, "a", &["b", "c"])));
        assert_ne!(base, first(Draw::new(1, "x", &["b", "c"])));
        assert_ne!(base, first(Draw::new(1, "a", &["c", "b"])));
        assert_ne!(base, first(Draw::new(1, "a", &["bc"])));
    }

    #[test]
    fn numbers_are_even() {
        let mut draw = Draw::new(7, "", &[]);
        let mut counts = [0; 6];
        for _ in 0..6_000 {
            counts[draw.below(6)] += 1;
        }
        assert!(counts.iter().all(|count| (880..1_120).contains(count)), "{counts:?}");
    }
}
