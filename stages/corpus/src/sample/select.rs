//! Candidates to the positions of the rows that are taken.
//!
//! With strata, the rows of one are taken at the shares (k - 1/2) / n of its n rows, in order of
//! rank, and all of these are merged: Webster's apportionment. Largest remainders would come as
//! close to proportion, but there a larger sample can have fewer rows of a stratum, and so would
//! not hold the smaller one.

use super::candidate::Candidate;
use super::take::{Sampling, Take};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::{BTreeMap, HashSet};

const RANK_CONTEXT: &str = "corpus sample v1: rank of an identity under a seed";

/// Says why a sample cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SampleError {
    /// There is no row left to take.
    #[error("no row is left to take: of {candidates}, {excluded} are in the rows to be disjoint from")]
    NothingLeft {
        /// How many rows there were.
        candidates: u64,
        /// How many were excluded.
        excluded: u64,
    },
    /// More rows are asked for than there are.
    #[error(
        "{asked} rows are asked for and {eligible} can be taken: of {candidates}, {excluded} are \
         in the rows to be disjoint from and {repeated} repeat an earlier one"
    )]
    TooFew {
        /// How many rows were asked for.
        asked: u64,
        /// How many can be taken.
        eligible: u64,
        /// How many rows there were.
        candidates: u64,
        /// How many were excluded.
        excluded: u64,
        /// How many repeat an earlier one.
        repeated: u64,
    },
}

/// Holds a set of identities as hashes, 32 bytes each.
#[derive(Clone, Debug, Default)]
pub struct Identities(HashSet<[u8; 32]>);

impl Identities {
    /// Adds an identity, and says whether it is new.
    pub fn insert(&mut self, identity: &str) -> bool {
        self.0.insert(hashed(identity))
    }

    /// Says whether an identity is in the set.
    pub fn contains(&self, identity: &str) -> bool {
        self.0.contains(&hashed(identity))
    }

    /// Returns how many identities there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Says whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<S: AsRef<str>> FromIterator<S> for Identities {
    fn from_iter<I: IntoIterator<Item = S>>(identities: I) -> Self {
        Self(identities.into_iter().map(|identity| hashed(identity.as_ref())).collect())
    }
}

fn hashed(identity: &str) -> [u8; 32] {
    *blake3::hash(identity.as_bytes()).as_bytes()
}

/// Counts one stratum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct StratumReport {
    /// How many of its rows can be taken.
    pub eligible: u64,
    /// How many are.
    pub taken: u64,
}

/// Says what a sample is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SampleReport {
    /// How many rows there were.
    pub candidates: u64,
    /// How many of them have a molecule that cannot be read, and stand for themselves.
    pub unparsable: u64,
    /// How many are in the rows to be disjoint from.
    pub excluded: u64,
    /// How many of the others repeat an earlier one and were dropped.
    pub repeated: u64,
    /// How many are left.
    pub eligible: u64,
    /// How many of these were taken.
    pub taken: u64,
    /// The rows that can be taken and those that are, by stratum, if there are strata.
    pub strata: BTreeMap<String, StratumReport>,
}

/// Holds a sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sampled {
    /// The positions of the rows taken, from 0, in the order of the input.
    pub positions: Vec<usize>,
    /// What it is made of.
    pub report: SampleReport,
}

/// Takes a sample of the candidates that are not `excluded`.
///
/// The sample depends on the identities, the strata and the seed, not on the order of the rows.
/// Rows of one identity have one rank: they come in together, but for the last place, which goes
/// to the earlier row. Memory is bounded by the identities and strata, not by the rows' text.
pub fn sample(
    candidates: impl IntoIterator<Item = Candidate>,
    excluded: &Identities,
    sampling: &Sampling,
) -> Result<Sampled, SampleError> {
    let mut report = SampleReport::default();
    let key = blake3::derive_key(RANK_CONTEXT, &sampling.seed.to_le_bytes());
    let mut seen = Identities::default();
    let mut strata: BTreeMap<Option<String>, Vec<Ranked>> = BTreeMap::new();
    for (position, candidate) in candidates.into_iter().enumerate() {
        let Candidate { identity, stratum } = candidate;
        report.candidates += 1;
        report.unparsable += u64::from(identity.unparsable);
        if excluded.contains(&identity.text) {
            report.excluded += 1;
        } else if sampling.distinct && !seen.insert(&identity.text) {
            report.repeated += 1;
        } else {
            let rank = *blake3::keyed_hash(&key, identity.text.as_bytes()).as_bytes();
            strata.entry(stratum).or_default().push(Ranked { rank, position });
            report.eligible += 1;
        }
    }
    let wanted = wanted(sampling.take, &report)?;
    let positions = apportion(strata, wanted, &mut report);
    report.taken = positions.len() as u64;
    Ok(Sampled { positions, report })
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Ranked {
    rank: [u8; 32],
    position: usize,
}

fn wanted(take: Take, report: &SampleReport) -> Result<u64, SampleError> {
    let SampleReport { candidates, excluded, repeated, eligible, .. } = *report;
    if eligible == 0 {
        return Err(SampleError::NothingLeft { candidates, excluded });
    }
    match take {
        Take::Fraction(fraction) => Ok(fraction.of(eligible)),
        Take::Count(count) if count.get() <= eligible => Ok(count.get()),
        Take::Count(count) => {
            let asked = count.get();
            Err(SampleError::TooFew { asked, eligible, candidates, excluded, repeated })
        }
    }
}

/// A row and how much of its stratum is taken once it is: `odd / (2 * of)`.
struct Share {
    odd: u64,
    of: u64,
    ranked: Ranked,
    stratum: usize,
}

impl Share {
    fn order(&self, other: &Self) -> Ordering {
        let ours = u128::from(self.odd) * u128::from(other.of);
        let theirs = u128::from(other.odd) * u128::from(self.of);
        ours.cmp(&theirs).then_with(|| self.ranked.cmp(&other.ranked))
    }
}

fn apportion(
    strata: BTreeMap<Option<String>, Vec<Ranked>>,
    wanted: u64,
    report: &mut SampleReport,
) -> Vec<usize> {
    let mut names = Vec::new();
    let mut shares = Vec::new();
    for (stratum, (name, mut rows)) in strata.into_iter().enumerate() {
        names.push((name, StratumReport { eligible: rows.len() as u64, taken: 0 }));
        rows.sort_unstable();
        let of = rows.len() as u64;
        let odds = (0..).map(|k| 2 * k + 1);
        shares.extend(rows.into_iter().zip(odds).map(|(ranked, odd)| Share { odd, of, ranked, stratum }));
    }
    shares.sort_unstable_by(Share::order);
    // `wanted` is at most the number of rows, which fits.
    shares.truncate(wanted as usize);
    for share in &shares {
        names[share.stratum].1.taken += 1;
    }
    report.strata = names.into_iter().filter_map(|(name, counts)| Some((name?, counts))).collect();
    let mut positions: Vec<usize> = shares.into_iter().map(|share| share.ranked.position).collect();
    positions.sort_unstable();
    positions
}

#[cfg(test)]
mod tests {
    use super::super::candidate::Identified;
    use super::super::fraction::Fraction;
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn plain(text: &str) -> Candidate {
        Candidate { identity: Identified { text: text.to_owned(), unparsable: false }, stratum: None }
    }

    fn of_stratum(text: &str, stratum: &str) -> Candidate {
        Candidate { stratum: Some(stratum.to_owned()), ..plain(text) }
    }

    fn count(count: u64) -> Sampling {
        let take = Take::Count(count.try_into().unwrap());
        Sampling { take, seed: 42, distinct: false }
    }

    fn numbers(n: usize) -> Vec<Candidate> {
        (0..n).map(|number| plain(&number.to_string())).collect()
    }

    #[test]
    fn a_sample_is_what_it_was() {
        // A golden value: another sample for the same seed would change every result made of it.
        let sampled = sample(numbers(20), &Identities::default(), &count(5)).unwrap();
        assert_eq!(sampled.positions, [1, 9, 13, 14, 17]);
    }

    #[test]
    fn another_seed_is_another_sample() {
        let none = Identities::default();
        let one = sample(numbers(100), &none, &count(10)).unwrap();
        let other = sample(numbers(100), &none, &Sampling { seed: 43, ..count(10) }).unwrap();
        assert_ne!(one.positions, other.positions);
    }

    #[test]
    fn repeats_and_excluded_rows_are_counted() {
        let rows = ["a", "b", "a", "c", "b", "d"].map(plain);
        let excluded: Identities = ["d", "e"].into_iter().collect();
        let sampling = Sampling { distinct: true, ..count(3) };
        let sampled = sample(rows.clone(), &excluded, &sampling).unwrap();
        assert_eq!(sampled.positions, [0, 1, 3]);
        let SampleReport { excluded: out, repeated, eligible, taken, .. } = sampled.report;
        assert_eq!((out, repeated, eligible, taken), (1, 2, 3, 3));

        let error = sample(rows, &excluded, &Sampling { distinct: true, ..count(4) }).unwrap_err();
        let expected = "4 rows are asked for and 3 can be taken: of 6, 1 are in the rows to be \
                        disjoint from and 2 repeat an earlier one";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn nothing_to_take_is_an_error() {
        let excluded: Identities = ["a"].into_iter().collect();
        let error = sample([plain("a")], &excluded, &count(1)).unwrap_err();
        assert_eq!(error, SampleError::NothingLeft { candidates: 1, excluded: 1 });
    }

    #[test]
    fn strata_keep_their_proportions() {
        let rows = (0..100).map(|n| {
            let stratum = if n % 10 == 0 { "rare" } else { "common" };
            of_stratum(&n.to_string(), stratum)
        });
        let sampled = sample(rows, &Identities::default(), &count(20)).unwrap();
        let taken: Vec<_> =
            sampled.report.strata.iter().map(|(name, s)| (name.as_str(), s.eligible, s.taken)).collect();
        assert_eq!(taken, [("common", 90, 18), ("rare", 10, 2)]);
    }

    fn rows() -> impl Strategy<Value = Vec<Candidate>> {
        prop::collection::btree_map(0..200u32, 0..4u8, 1..60).prop_map(|rows| {
            rows.into_iter().map(|(n, s)| of_stratum(&n.to_string(), &s.to_string())).collect()
        })
    }

    fn identities(rows: &[Candidate], sampled: &Sampled) -> BTreeSet<String> {
        sampled.positions.iter().map(|position| rows[*position].identity.text.clone()).collect()
    }

    proptest! {
        #[test]
        fn the_order_of_rows_changes_nothing(rows in rows(), seed: u64, percent in 1..=100u32) {
            let take = Take::Fraction(Fraction::new(f64::from(percent) / 100.0).unwrap());
            let sampling = Sampling { take, seed, distinct: true };
            let mut reversed = rows.clone();
            reversed.reverse();
            let none = Identities::default();
            let one = sample(rows.clone(), &none, &sampling).unwrap();
            let other = sample(reversed.clone(), &none, &sampling).unwrap();
            prop_assert_eq!(identities(&rows, &one), identities(&reversed, &other));
            prop_assert_eq!(one.report, other.report);
            prop_assert!(one.positions.is_sorted());
        }

        #[test]
        fn a_smaller_sample_is_inside_a_larger(rows in rows(), seed: u64, a in 1..60u64, b in 1..60u64) {
            let total = rows.len() as u64;
            let (small, large) = (a.min(b).min(total), a.max(b).min(total));
            let none = Identities::default();
            let small = sample(rows.clone(), &none, &Sampling { seed, ..count(small) }).unwrap();
            let large = sample(rows, &none, &Sampling { seed, ..count(large) }).unwrap();
            let large: BTreeSet<_> = large.positions.into_iter().collect();
            prop_assert!(small.positions.iter().all(|position| large.contains(position)));
        }

        #[test]
        fn a_sample_is_disjoint_from_what_is_excluded(rows in rows(), seed: u64) {
            let out: Identities = rows.iter().step_by(2).map(|row| &row.identity.text).collect();
            let take = Take::Fraction(Fraction::new(1.0).unwrap());
            let sampling = Sampling { take, seed, distinct: false };
            if let Ok(sampled) = sample(rows.clone(), &out, &sampling) {
                prop_assert!(identities(&rows, &sampled).iter().all(|text| !out.contains(text)));
                prop_assert_eq!(sampled.report.excluded, out.len() as u64);
            } else {
                prop_assert_eq!(rows.len(), out.len());
            }
        }

        #[test]
        fn all_of_everything_is_everything(rows in rows(), seed: u64) {
            let take = Take::Fraction(Fraction::new(1.0).unwrap());
            let sampling = Sampling { take, seed, distinct: false };
            let sampled = sample(rows.clone(), &Identities::default(), &sampling).unwrap();
            prop_assert_eq!(sampled.positions, (0..rows.len()).collect::<Vec<_>>());
        }
    }
}
