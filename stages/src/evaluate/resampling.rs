//! Confidence intervals and comparisons of scores: the bootstrap and permutations of rows.

use std::collections::HashMap;
use std::path::Path;

use engine::{Context, OutputColumn, StageFailure};
use metrics::bootstrap::{draw, interval, p_of_differences};
use metrics::permutation::Permutations;
use metrics::relative_entropy::{self, by_kernel_density, relative_entropy};
use serde_json::{Map, Value, json};

use super::column::Column;
use super::metric::{Metric, Range, Score};
use super::totals::{BLEU_COUNTS, Totals};
use super::{Bootstrap, Estimator, Params};
use crate::support::parallel::parallel_map;
use crate::support::rows::read_rows;

/// Keeps the numbers that resample rows apart from all others drawn from the same seed.
const DRAW: u64 = 0x6472_6177_2072_6f77;
const SWAP: u64 = 0x7377_6170_2072_6f77;

/// The ends of the names of columns.
const INTERVAL: [&str; 2] = ["low", "high"];
const GAIN: [&str; 4] = ["gain", "gain_low", "gain_high", "gain_p"];
const PERMUTATION_P: &str = "permutation_p";
/// The shares of rows that score higher than in the baseline, and lower; the rest score the same.
const SIDES: [&str; 2] = ["higher", "lower"];
/// Of the two distributions of a score, and the other way round.
const RELATIVE_ENTROPY: [&str; 2] = ["relative_entropy", "relative_entropy_reversed"];

/// Returns the columns for tables. They are shown by name only.
pub(super) fn columns(params: &Params) -> Vec<OutputColumn> {
    let mut columns = Vec::new();
    for metric in resampleable(params) {
        let mut add = |end: &str, digits: Option<u8>, by: &str| {
            let column = metric.column(params);
            let definition = column.definition.map(|mut definition| {
                definition.parts.push(by.to_owned());
                definition
            });
            columns.push(OutputColumn {
                label: format!("{} {}", metric.label, end.replace('_', " ")),
                digits,
                definition,
                ..OutputColumn::by_name_only(name(metric, end))
            });
        };
        let digits = Some(metric.digits);
        let interval = |of: &Bootstrap| format!("{} % of {} resamples", of.confidence * 100.0, of.resamples);
        if let Some(bootstrap) = &params.bootstrap {
            INTERVAL.into_iter().for_each(|end| add(end, digits, &interval(bootstrap)));
        }
        if let Some(compare) = &params.compare {
            let interval = interval(&compare.bootstrap());
            for end in GAIN {
                let is_p = end.ends_with("_p");
                add(end, if is_p { None } else { digits }, &interval);
            }
            if let Some(permutations) = compare.permutations {
                add(PERMUTATION_P, None, &format!("at most {permutations} permutations"));
            }
            if metric.max_order().is_none() {
                SIDES.into_iter().for_each(|end| add(end, None, "compared row by row"));
                if metric.range != Range::Integers {
                    let estimator = match params.relative_entropy {
                        Estimator::Bins => "counts in bins",
                        Estimator::KernelDensity => "Gaussian kernels",
                    };
                    RELATIVE_ENTROPY.into_iter().for_each(|end| add(end, None, estimator));
                }
            }
        }
    }
    columns
}

fn resampleable(params: &Params) -> impl Iterator<Item = &'static Metric> {
    params.metrics.iter().copied().filter(|metric| metric.is_of_single_rows())
}

fn name(metric: &Metric, end: &str) -> String {
    format!("{}_{end}", metric.name)
}

/// Returns the numbers of those columns.
pub(super) fn measure(
    params: &Params,
    totals: &Totals,
    context: &Context,
) -> Result<Map<String, Value>, StageFailure> {
    let mut numbers_by_name = Map::new();
    let Some(columns) = &totals.columns else { return Ok(numbers_by_name) };
    let context_seed = context.seed()?;
    let seed = context_seed ^ DRAW;
    let threads = context.cores() as usize;
    let columns: Vec<(&'static Metric, &Column)> = params.metrics.iter().copied().zip(columns).collect();
    let columns: Vec<_> = columns.into_iter().filter(|(metric, _)| metric.is_of_single_rows()).collect();
    if let Some(bootstrap) = &params.bootstrap {
        let all = resample_all(bootstrap, totals.rows, seed, threads, |rows| {
            columns.iter().map(|(_, column)| column.estimate(rows.iter().copied())).collect()
        });
        for (at, (metric, _)) in columns.iter().enumerate() {
            let resampled: Vec<f64> = all.iter().filter_map(|numbers| numbers[at]).collect();
            let names = INTERVAL.map(|end| name(metric, end));
            insert(&mut numbers_by_name, names, ends(&resampled, bootstrap), || totals.reason(metric));
        }
    }
    if let (Some(compare), Some(ids)) = (&params.compare, &totals.ids) {
        let bootstrap = &compare.bootstrap();
        let baseline = read_baseline(context.input("baseline")?, ids, &columns)?;
        let gain = |ours: &Column, theirs: &Column, rows: &[usize]| {
            Some(ours.estimate(rows.iter().copied())? - theirs.estimate(rows.iter().copied())?)
        };
        let all = resample_all(bootstrap, totals.rows, seed, threads, |rows| {
            columns.iter().zip(&baseline).map(|((_, ours), theirs)| gain(ours, theirs, rows)).collect()
        });
        let permuted = compare.permutations.map(|most| {
            let permutations = Permutations::new(totals.rows, most, context_seed ^ SWAP);
            let compute = |swapped: &[bool]| {
                let columns = columns.iter().zip(&baseline);
                columns.map(|((_, ours), theirs)| ours.gain_if_swapped(theirs, swapped)).collect::<Vec<_>>()
            };
            let numbers: Vec<u64> = (0..permutations.count()).collect();
            let all = parallel_map(&numbers, threads, |number| compute(&permutations.swapped(*number)));
            (permutations, all)
        });
        let rows: Vec<usize> = (0..totals.rows).collect();
        for (at, ((metric, ours), theirs)) in columns.iter().zip(&baseline).enumerate() {
            let resampled: Vec<f64> = all.iter().filter_map(|numbers| numbers[at]).collect();
            let numbers = gain(ours, theirs, &rows).zip(ends(&resampled, bootstrap));
            let numbers = numbers.map(|(gain, [low, high])| [gain, low, high, p_of_differences(&resampled)]);
            let why = || format!("{}, here or in the baseline", totals.reason(metric));
            insert(&mut numbers_by_name, GAIN.map(|end| name(metric, end)), numbers, why);
            if let Some((permutations, all)) = &permuted {
                let permuted: Vec<f64> = all.iter().filter_map(|numbers| numbers[at]).collect();
                let p = gain(ours, theirs, &rows).map(|gain| [permutations.p(gain, &permuted)]);
                insert(&mut numbers_by_name, [name(metric, PERMUTATION_P)], p, why);
            }
            if let (Column::Numbers(ours), Column::Numbers(theirs)) = (*ours, theirs) {
                let both: Vec<(f64, f64)> =
                    ours.iter().zip(theirs).filter_map(|(a, b)| (*a).zip(*b)).collect();
                let count = |is_so: fn(&f64, &f64) -> bool| {
                    let rows = both.iter().filter(|(ours, theirs)| is_so(ours, theirs)).count();
                    rows as f64 / both.len() as f64
                };
                let shares = (!both.is_empty()).then(|| [count(f64::gt), count(f64::lt)]);
                insert(&mut numbers_by_name, SIDES.map(|end| name(metric, end)), shares, why);
                if metric.range != Range::Integers {
                    let [ours, theirs] =
                        [ours, theirs].map(|all| all.iter().flatten().copied().collect::<Vec<_>>());
                    let entropy = |first: &[f64], second: &[f64]| match params.relative_entropy {
                        Estimator::Bins => relative_entropy(first, second, relative_entropy::BINS),
                        Estimator::KernelDensity => by_kernel_density(first, second),
                    };
                    let both = entropy(&ours, &theirs).zip(entropy(&theirs, &ours));
                    let names = RELATIVE_ENTROPY.map(|end| name(metric, end));
                    insert(&mut numbers_by_name, names, both.map(<[f64; 2]>::from), || {
                        let narrow = "all scores of one of the models are the same";
                        if ours.is_empty() || theirs.is_empty() { why() } else { narrow.to_owned() }
                    });
                }
            }
        }
    }
    Ok(numbers_by_name)
}

fn insert<const N: usize>(
    numbers_by_name: &mut Map<String, Value>,
    names: [String; N],
    numbers: Option<[f64; N]>,
    why: impl Fn() -> String,
) {
    for (at, name) in names.into_iter().enumerate() {
        let value = numbers.map_or_else(|| json!({ "missing": why() }), |numbers| numbers[at].into());
        numbers_by_name.insert(name, value);
    }
}

fn ends(resampled: &[f64], bootstrap: &Bootstrap) -> Option<[f64; 2]> {
    interval(resampled, bootstrap.confidence).ok().map(|interval| [interval.low, interval.high])
}

/// Bootstrap rows again and again, and finds something out about each draw.
fn resample_all(
    bootstrap: &Bootstrap,
    rows: usize,
    seed: u64,
    threads: usize,
    compute: impl Fn(&[usize]) -> Vec<Option<f64>> + Sync,
) -> Vec<Vec<Option<f64>>> {
    let numbers: Vec<u64> = (0..bootstrap.resamples as u64).collect();
    parallel_map(&numbers, threads, |number| compute(&draw(rows, seed, *number)))
}

/// Reads the scores of the same rows by another model, in the order of ours.
fn read_baseline(
    folder: &Path,
    ids: &[String],
    columns: &[(&'static Metric, &Column)],
) -> Result<Vec<Column>, StageFailure> {
    let mut by_id: HashMap<String, Vec<Score>> = HashMap::new();
    for row in read_rows(folder)? {
        let row = row?;
        let mut scores = Vec::with_capacity(columns.len());
        for (metric, column) in columns {
            let field = match column {
                Column::Counts { .. } => BLEU_COUNTS,
                Column::Numbers(_) => metric.name,
            };
            let value = row.get(field).ok_or_else(|| {
                StageFailure::new(format!("the baseline has no `{}`", metric.name))
                    .help("let both stages name the same metrics")
            })?;
            scores.push(match column {
                Column::Counts { .. } => {
                    serde_json::from_value(value.clone()).map(Score::Counts).map_err(|error| {
                        StageFailure::caused(format!("read `{field}` of row `{}`", row.id()), error)
                    })?
                }
                Column::Numbers(_) => value.as_f64().map_or(Score::Missing, Score::Number),
            });
        }
        by_id.insert(row.id().to_owned(), scores);
    }
    let mut baseline: Vec<Column> = columns.iter().map(|(metric, _)| Column::new(metric)).collect();
    for id in ids {
        let scores = by_id.get(id).ok_or_else(|| {
            StageFailure::new(format!("the baseline has no row `{id}`")).help("both must score the same rows")
        })?;
        baseline.iter_mut().zip(scores).for_each(|(column, score)| column.push(*score));
    }
    Ok(baseline)
}
