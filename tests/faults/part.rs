//! One part of the faults: how often it tries, from which seed, and what came of it.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// How many parts share the minutes of a long run: those that can try for as long as they like.
const PARTS: u32 = 16;

/// A generator of random numbers that is the same everywhere: SplitMix64.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64, name: &str) -> Self {
        let mix = |state: u64, byte: u8| (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Self(name.bytes().fold(seed.wrapping_add(0xcbf2_9ce4_8422_2325), mix))
    }

    pub(super) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below a limit that is not 0.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        (self.number() % limit as u64) as usize
    }

    /// Returns a part of a time.
    pub(super) fn moment(&mut self, of: Duration) -> Duration {
        of.mul_f64((self.number() >> 11) as f64 / (1u64 << 53) as f64)
    }

    pub(super) fn choose<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// A part of the faults. It tries a few times, or as long as `$PIPELINE_FAULTS` gives it, and says
/// at the end what came of it; what went wrong is collected, so that a long run tells all of it.
pub(super) struct Part {
    name: &'static str,
    pub random: Random,
    seed: u64,
    until: Instant,
    tries: u32,
    counts: Vec<(&'static str, u32)>,
    problems: Vec<String>,
}

impl Part {
    /// Begins a part; `counted` is what its line tells of, beside the tries.
    pub(super) fn begin(name: &'static str, counted: &[&'static str]) -> Self {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<f64>().ok());
        let minutes = number("PIPELINE_FAULTS").unwrap_or(0.0).max(0.0);
        let seed = number("PIPELINE_FAULTS_SEED").unwrap_or(1.0) as u64;
        Self {
            name,
            random: Random::new(seed, name),
            seed,
            until: Instant::now() + Duration::from_secs_f64(minutes * 60.0 / f64::from(PARTS)),
            tries: 0,
            counts: counted.iter().map(|what| (*what, 0)).collect(),
            problems: Vec::new(),
        }
    }

    /// Returns whether to try once more: `at_least` so often, and as long as there is time.
    pub(super) fn tries_again(&mut self, at_least: u32) -> bool {
        let again = self.tries < at_least || (Instant::now() < self.until);
        self.tries += u32::from(again);
        again
    }

    /// Counts a try where all that there is to try is tried.
    pub(super) fn tries(&mut self) {
        self.tries += 1;
    }

    /// Counts something that is told of.
    pub(super) fn count(&mut self, what: &'static str) {
        match self.counts.iter_mut().find(|(known, _)| *known == what) {
            Some((_, count)) => *count += 1,
            None => self.counts.push((what, 1)),
        }
    }

    /// Counts something that must not be, and remembers how it came to it.
    pub(super) fn problem(&mut self, what: &'static str, how: impl Into<String>) {
        self.count(what);
        self.problems.push(format!("{what} at try {}: {}", self.tries, how.into()));
    }

    /// Counts what is not as it must be.
    pub(super) fn equals<T: PartialEq + Debug>(
        &mut self,
        what: &'static str,
        made: &T,
        expected: &T,
        how: &str,
    ) {
        if made != expected {
            self.problem(what, format!("{how}: {made:?} and not {expected:?}"));
        }
    }

    /// Says what came of it, and fails if anything was wrong.
    #[track_caller]
    pub(super) fn finish(self) {
        let told = self.counts.iter().map(|(what, count)| format!(", {count} {what}")).collect::<String>();
        eprintln!("{}: {} tries{told} (seed {})", self.name, self.tries, self.seed);
        assert!(
            self.problems.is_empty(),
            "{}, from PIPELINE_FAULTS_SEED={}:\n{}",
            self.name,
            self.seed,
            self.problems.join("\n")
        );
    }
}

/// Says that something was not tried, and why.
pub(super) fn skipped(test: &str, why: &str) {
    eprintln!("SKIPPED: {test}: {why}");
}
