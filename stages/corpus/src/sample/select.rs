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
const GROUP_CONTEXT: &str = "corpus sample v1: rank of a group under a seed";

/// Says why a sample cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SampleError {
    /// There is no row left to take.
    #[error(
        "no row is left to take: of {candidates}, {}{excluded} are in the rows to be disjoint from",
        and_too_long(*.too_long)
    )]
    NothingLeft {
        /// How many rows there were.
        candidates: u64,
        /// How many were too long.
        too_long: u64,
        /// How many were excluded.
        excluded: u64,
    },
    /// More rows are asked for than there are.
    #[error(
        "{asked} rows are asked for and {eligible} can be taken: of {candidates}, {}{excluded} are \
         in the rows to be disjoint from and {repeated} repeat an earlier one",
        and_too_long(*.too_long)
    )]
    TooFew {
        /// How many rows were asked for.
        asked: u64,
        /// How many can be taken.
        eligible: u64,
        /// How many rows there were.
        candidates: u64,
        /// How many were too long.
        too_long: u64,
        /// How many were excluded.
        excluded: u64,
        /// How many repeat an earlier one.
        repeated: u64,
    },
}

fn and_too_long(rows: u64) -> String {
    if rows == 0 { String::new() } else { format!("{rows} are too long, ") }
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

/// Holds what a sample is to be disjoint from.
#[derive(Clone, Debug, Default)]
pub struct Excluded {
    /// Rows of these identities are not taken.
    pub identities: Identities,
    /// Rows of these groups are not taken.
    pub groups: Identities,
}

/// Counts one stratum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct StratumReport {
    /// How many of its rows can be taken.
    pub eligible: u64,
    /// How many are.
    pub taken: u64,
}

/// Counts groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct GroupReport {
    /// How many rows are excluded for their group alone.
    pub excluded_rows: u64,
    /// How many groups have rows that can be taken.
    pub eligible: u64,
    /// How many have rows that are.
    pub taken: u64,
    /// The groups of which only a part of what can be taken is.
    pub in_part: Vec<String>,
}

/// Says what a sample is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct SampleReport {
    /// How many rows there were.
    pub candidates: u64,
    /// How many of them have a molecule that cannot be read, and stand for themselves.
    pub unparsable: u64,
    /// How many have a field that is too long, by the first such field, if there are any.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub too_long: BTreeMap<String, u64>,
    /// How many of the others are in the rows to be disjoint from.
    pub excluded: u64,
    /// How many of the rest repeat an earlier one and were dropped.
    pub repeated: u64,
    /// How many are left.
    pub eligible: u64,
    /// How many of these were taken.
    pub taken: u64,
    /// The rows that can be taken and those that are, by stratum, if there are strata.
    pub strata: BTreeMap<String, StratumReport>,
    /// The groups, if there are groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<GroupReport>,
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
/// The sample depends on the identities, the groups, the strata and the seed, not on the order of
/// the rows, but for [`Take::First`], which depends on nothing else. Rows of one identity have one
/// rank: they come in together, but for the last place, which goes to the earlier row. Memory is
/// bounded by the identities, groups and strata, not by the rows' text.
pub fn sample(
    candidates: impl IntoIterator<Item = Candidate>,
    excluded: &Excluded,
    sampling: &Sampling,
) -> Result<Sampled, SampleError> {
    let mut report = SampleReport::default();
    let ranks = Ranks::new(sampling);
    let mut seen = Identities::default();
    let mut strata: BTreeMap<Option<String>, Vec<Ranked>> = BTreeMap::new();
    let mut groups = Groups::default();
    for (position, candidate) in candidates.into_iter().enumerate() {
        let Candidate { identity, stratum, group, too_long } = candidate;
        report.candidates += 1;
        report.unparsable += u64::from(identity.unparsable);
        if let Some(field) = too_long {
            *report.too_long.entry(field).or_default() += 1;
            continue;
        }
        let number = group.as_deref().map(|group| groups.number(group));
        if excluded.identities.contains(&identity.text) {
            report.excluded += 1;
        } else if group.as_deref().is_some_and(|group| excluded.groups.contains(group)) {
            report.excluded += 1;
            groups.excluded_rows += 1;
        } else if sampling.distinct && !seen.insert(&identity.text) {
            report.repeated += 1;
        } else {
            let (group, rank) = (ranks.of_group(group.as_deref()), ranks.of(&identity.text));
            strata.entry(stratum).or_default().push(Ranked { group, rank, position });
            groups.eligible(number, position);
            report.eligible += 1;
        }
    }
    let wanted = wanted(sampling.take, &report)?;
    let positions = apportion(strata, wanted, &mut report);
    report.taken = positions.len() as u64;
    report.groups = groups.report(&positions);
    Ok(Sampled { positions, report })
}

/// The places of identities and groups in the order in which they are taken.
struct Ranks {
    identities: [u8; 32],
    groups: [u8; 32],
    are_in_order: bool,
}

impl Ranks {
    fn new(sampling: &Sampling) -> Self {
        let key = |context| blake3::derive_key(context, &sampling.seed.to_le_bytes());
        let are_in_order = matches!(sampling.take, Take::First(_));
        Self { identities: key(RANK_CONTEXT), groups: key(GROUP_CONTEXT), are_in_order }
    }

    fn of(&self, identity: &str) -> [u8; 32] {
        if self.are_in_order {
            [0; 32]
        } else {
            *blake3::keyed_hash(&self.identities, identity.as_bytes()).as_bytes()
        }
    }

    fn of_group(&self, group: Option<&str>) -> [u8; 32] {
        match group {
            Some(group) if !self.are_in_order => {
                *blake3::keyed_hash(&self.groups, group.as_bytes()).as_bytes()
            }
            _ => [0; 32],
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Ranked {
    group: [u8; 32],
    rank: [u8; 32],
    position: usize,
}

/// The groups met so far, and which rows that can be taken are of which.
#[derive(Default)]
struct Groups {
    numbers: BTreeMap<String, usize>,
    of: BTreeMap<usize, usize>,
    excluded_rows: u64,
}

impl Groups {
    fn number(&mut self, group: &str) -> usize {
        let next = self.numbers.len();
        match self.numbers.get(group) {
            Some(number) => *number,
            None => *self.numbers.entry(group.to_owned()).or_insert(next),
        }
    }

    fn eligible(&mut self, group: Option<usize>, position: usize) {
        if let Some(group) = group {
            self.of.insert(position, group);
        }
    }

    /// Counts the groups, if there are any.
    fn report(self, taken: &[usize]) -> Option<GroupReport> {
        if self.numbers.is_empty() {
            return None;
        }
        let mut counts = vec![StratumReport::default(); self.numbers.len()];
        for group in self.of.values() {
            counts[*group].eligible += 1;
        }
        for position in taken {
            if let Some(group) = self.of.get(position) {
                counts[*group].taken += 1;
            }
        }
        let in_part = self.numbers.iter().filter(|(_, number)| {
            let StratumReport { eligible, taken } = counts[**number];
            0 < taken && taken < eligible
        });
        Some(GroupReport {
            excluded_rows: self.excluded_rows,
            eligible: counts.iter().filter(|group| group.eligible > 0).count() as u64,
            taken: counts.iter().filter(|group| group.taken > 0).count() as u64,
            in_part: in_part.map(|(name, _)| name.clone()).collect(),
        })
    }
}

fn wanted(take: Take, report: &SampleReport) -> Result<u64, SampleError> {
    let SampleReport { candidates, excluded, repeated, eligible, .. } = *report;
    let too_long = report.too_long.values().sum();
    if eligible == 0 {
        return Err(SampleError::NothingLeft { candidates, too_long, excluded });
    }
    match take {
        Take::Fraction(fraction) => Ok(fraction.of(eligible)),
        Take::Count(count) | Take::First(count) if count.get() <= eligible => Ok(count.get()),
        Take::Count(count) | Take::First(count) => {
            let asked = count.get();
            Err(SampleError::TooFew { asked, eligible, candidates, too_long, excluded, repeated })
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
        let identity = Identified { text: text.to_owned(), unparsable: false };
        Candidate { identity, stratum: None, group: None, too_long: None }
    }

    fn of_stratum(text: &str, stratum: &str) -> Candidate {
        Candidate { stratum: Some(stratum.to_owned()), ..plain(text) }
    }

    fn of_group(text: &str, group: &str) -> Candidate {
        Candidate { group: Some(group.to_owned()), ..plain(text) }
    }

    fn without(identities: &[&str]) -> Excluded {
        Excluded { identities: identities.iter().collect(), ..Excluded::default() }
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
        let sampled = sample(numbers(20), &Excluded::default(), &count(5)).unwrap();
        assert_eq!(sampled.positions, [1, 9, 13, 14, 17]);
    }

    #[test]
    fn another_seed_is_another_sample() {
        let none = Excluded::default();
        let one = sample(numbers(100), &none, &count(10)).unwrap();
        let other = sample(numbers(100), &none, &Sampling { seed: 43, ..count(10) }).unwrap();
        assert_ne!(one.positions, other.positions);
    }

    #[test]
    fn repeats_and_excluded_rows_are_counted() {
        let rows = ["a", "b", "a", "c", "b", "d"].map(plain);
        let excluded = without(&["d", "e"]);
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
        let excluded = without(&["a"]);
        let error = sample([plain("a")], &excluded, &count(1)).unwrap_err();
        assert_eq!(error, SampleError::NothingLeft { candidates: 1, too_long: 0, excluded: 1 });
    }

    #[test]
    fn strata_keep_their_proportions() {
        let rows = (0..100).map(|n| {
            let stratum = if n % 10 == 0 { "rare" } else { "common" };
            of_stratum(&n.to_string(), stratum)
        });
        let sampled = sample(rows, &Excluded::default(), &count(20)).unwrap();
        let taken: Vec<_> =
            sampled.report.strata.iter().map(|(name, s)| (name.as_str(), s.eligible, s.taken)).collect();
        assert_eq!(taken, [("common", 90, 18), ("rare", 10, 2)]);
    }

    #[test]
    fn the_first_rows_are_the_first_that_can_be_taken() {
        let mut rows = numbers(9);
        rows[2].too_long = Some("molecule".to_owned());
        rows[4].identity.text = "0".to_owned();
        let take = Take::First(4.try_into().unwrap());
        let sampling = Sampling { take, seed: 42, distinct: true };
        let sampled = sample(rows.clone(), &without(&["1"]), &sampling).unwrap();
        assert_eq!(sampled.positions, [0, 3, 5, 6]);
        let other = sample(rows.clone(), &without(&["1"]), &Sampling { seed: 43, ..sampling }).unwrap();
        assert_eq!(other, sampled);
        let take = Take::First(7.try_into().unwrap());
        let error = sample(rows, &without(&["1"]), &Sampling { take, ..sampling }).unwrap_err();
        let expected = "7 rows are asked for and 6 can be taken: of 9, 1 are too long, 1 are in the \
                        rows to be disjoint from and 1 repeat an earlier one";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn rows_that_are_too_long_are_counted_by_field() {
        let mut rows = numbers(4);
        for (row, field) in [(0, "molecule"), (1, "caption"), (3, "molecule")] {
            rows[row].too_long = Some(field.to_owned());
        }
        let sampled = sample(rows.clone(), &Excluded::default(), &count(1)).unwrap();
        assert_eq!(sampled.positions, [2]);
        let expected = [("caption".to_owned(), 1), ("molecule".to_owned(), 2)];
        assert_eq!(sampled.report.too_long, expected.into());
        let error = sample(rows, &without(&["2"]), &count(1)).unwrap_err().to_string();
        let expected = "no row is left to take: of 4, 3 are too long, 1 are in the rows to be disjoint from";
        assert_eq!(error, expected);
    }

    #[test]
    fn a_report_without_groups_and_lengths_is_what_it_was() {
        let sampled = sample(numbers(2), &Excluded::default(), &count(1)).unwrap();
        let expected = "{\"candidates\":2,\"unparsable\":0,\"excluded\":0,\"repeated\":0,\
                        \"eligible\":2,\"taken\":1,\"strata\":{}}";
        assert_eq!(serde_json::to_string(&sampled.report).unwrap(), expected);
    }

    #[test]
    fn groups_are_taken_whole_but_for_the_last() {
        let rows: Vec<_> = (0..60).map(|n| of_group(&n.to_string(), &(n % 6).to_string())).collect();
        let sampled = sample(rows.clone(), &Excluded::default(), &count(25)).unwrap();
        let report = sampled.report.groups.clone().unwrap();
        assert_eq!((report.eligible, report.taken, report.in_part.len()), (6, 3, 1));
        // What shares no group with them is of the other three.
        let groups = sampled.positions.iter().filter_map(|position| rows[*position].group.as_ref());
        let excluded = Excluded { groups: groups.collect(), ..Excluded::default() };
        let rest = sample(rows.clone(), &excluded, &count(30)).unwrap();
        assert_eq!((rest.report.excluded, rest.report.eligible), (30, 30));
        assert_eq!(rest.report.groups.unwrap().excluded_rows, 30);
        assert!(sample(rows, &excluded, &count(31)).is_err());
    }

    fn grouped() -> impl Strategy<Value = Vec<Candidate>> {
        prop::collection::btree_map(0..200u32, 0..9u8, 1..60).prop_map(|rows| {
            rows.into_iter().map(|(n, group)| of_group(&n.to_string(), &group.to_string())).collect()
        })
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
            let none = Excluded::default();
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
            let none = Excluded::default();
            let small = sample(rows.clone(), &none, &Sampling { seed, ..count(small) }).unwrap();
            let large = sample(rows, &none, &Sampling { seed, ..count(large) }).unwrap();
            let large: BTreeSet<_> = large.positions.into_iter().collect();
            prop_assert!(small.positions.iter().all(|position| large.contains(position)));
        }

        #[test]
        fn a_sample_is_disjoint_from_what_is_excluded(rows in rows(), seed: u64) {
            let halves = rows.iter().step_by(2).map(|row| &row.identity.text);
            let out = Excluded { identities: halves.collect(), ..Excluded::default() };
            let take = Take::Fraction(Fraction::new(1.0).unwrap());
            let sampling = Sampling { take, seed, distinct: false };
            if let Ok(sampled) = sample(rows.clone(), &out, &sampling) {
                prop_assert!(identities(&rows, &sampled).iter().all(|text| !out.identities.contains(text)));
                prop_assert_eq!(sampled.report.excluded, out.identities.len() as u64);
            } else {
                prop_assert_eq!(rows.len(), out.identities.len());
            }
        }

        #[test]
        fn what_is_disjoint_by_group_shares_none(rows in grouped(), seed: u64, a in 1..60u64) {
            let all = rows.len() as u64;
            let none = Excluded::default();
            let sampled = sample(rows.clone(), &none, &Sampling { seed, ..count(a.min(all)) }).unwrap();
            let groups = |positions: &[usize]| -> BTreeSet<String> {
                positions.iter().filter_map(|position| rows[*position].group.clone()).collect()
            };
            let theirs = groups(&sampled.positions);
            let report = sampled.report.groups.unwrap();
            prop_assert_eq!(report.taken, theirs.len() as u64);
            prop_assert!(report.in_part.len() <= 1, "{:?}", report.in_part);
            let excluded = Excluded { groups: theirs.iter().collect(), ..Excluded::default() };
            let take = Take::Fraction(Fraction::new(1.0).unwrap());
            let sampling = Sampling { take, seed, distinct: false };
            if let Ok(rest) = sample(rows.clone(), &excluded, &sampling) {
                prop_assert!(groups(&rest.positions).is_disjoint(&theirs));
            }
            // A smaller sample is inside this one, groups or not.
            let smaller = Sampling { seed, ..count(a.min(all).div_ceil(2)) };
            let smaller = sample(rows, &none, &smaller).unwrap();
            prop_assert!(smaller.positions.iter().all(|position| sampled.positions.contains(position)));
        }

        #[test]
        fn all_of_everything_is_everything(rows in rows(), seed: u64) {
            let take = Take::Fraction(Fraction::new(1.0).unwrap());
            let sampling = Sampling { take, seed, distinct: false };
            let sampled = sample(rows.clone(), &Excluded::default(), &sampling).unwrap();
            prop_assert_eq!(sampled.positions, (0..rows.len()).collect::<Vec<_>>());
        }
    }
}
