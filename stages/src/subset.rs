//! `kind = "subset"`: samples rows, seeded, stratified, deduplicated, disjoint from others.
//!
//! Rows are ranked by a hash of the seed and their identity, so a sample does not depend on
//! their order, and a smaller sample lies inside a larger one. Rows come out in their order.

use corpus::Row;
use corpus::sample::{Candidate, Identified, Identities, Identity, MissingField, Sampling, Take, sample};
use engine::{Context, Failure, Place, Ports, Resources, Stage};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::artifacts::{REPORT, ROWS};
use crate::rows::{RowWriter, read_rows, write_json};

/// Which rows to take.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// How many: a share of the rows that can be taken, or a number.
    take: Take,
    /// What makes two rows the same: the text of a field, or the molecule in it.
    #[serde(default = "by_id")]
    identity: Identity,
    /// Whether only the first of equal rows counts.
    #[serde(default)]
    distinct: bool,
    /// A field whose values keep their shares in the sample.
    stratify: Option<String>,
}

fn by_id() -> Identity {
    Identity::Field(corpus::ID.to_owned())
}

/// Samples rows.
pub struct Subset;

/// How many rows are read before their identities are found, side by side.
const BATCH: usize = 8192;

impl Stage for Subset {
    const KIND: &'static str = "subset";
    const VERSION: u32 = 1;
    const SEEDED: bool = true;
    const PLACE: Place = Place::Worker;
    type Params = Params;

    fn ports(_: &Params) -> Ports {
        Ports::new().input("rows", ROWS).many("without", ROWS).output("rows", ROWS).output("report", REPORT)
    }

    fn resources(params: &Params) -> Resources {
        // Molecules are compared by their canonical form, which is slow to find.
        let cores = if matches!(params.identity, Identity::Molecule(_)) { 4 } else { 1 };
        Resources { cores, ..Resources::default() }
    }

    fn run(params: &Params, context: &mut Context) -> Result<(), Failure> {
        let threads = context.cores() as usize;
        let mut excluded = Identities::default();
        let without: Vec<_> = context.inputs("without").iter().map(|input| input.folder.clone()).collect();
        for folder in without {
            let rows = read_rows(&folder)?;
            in_batches(rows, threads, |row| params.identity.of(row), &mut |found: Identified| {
                excluded.insert(&found.text);
            })?;
        }
        let rows_folder = context.input("rows")?.to_owned();
        let mut candidates = Vec::new();
        in_batches(
            read_rows(&rows_folder)?,
            threads,
            |row| Candidate::of(row, &params.identity, params.stratify.as_deref()),
            &mut |candidate| {
                candidates.push(candidate);
                context.progress(candidates.len() as u64, 0, "rows");
            },
        )?;
        let sampling = Sampling { take: params.take, seed: context.seed()?, distinct: params.distinct };
        let sampled = sample(candidates, &excluded, &sampling)
            .map_err(|error| Failure::caused("sample rows", error))?;
        let report = &sampled.report;
        context.log(format_args!(
            "{} of {} rows: {} excluded, {} repeated, {} eligible",
            report.taken, report.candidates, report.excluded, report.repeated, report.eligible
        ));
        if report.unparsable > 0 {
            context.note(format!("{} molecules cannot be read, and are compared as text", report.unparsable));
        }
        if report.repeated > 0 {
            context.note(format!("{} rows repeat an earlier one, and were left out", report.repeated));
        }
        let mut writer = RowWriter::create(&context.output("rows")?)?;
        let mut wanted = sampled.positions.iter().copied().peekable();
        for (position, row) in read_rows(&rows_folder)?.enumerate() {
            if wanted.next_if_eq(&position).is_some() {
                writer.write(&row?)?;
            }
        }
        writer.finish()?;
        write_json(&context.output("report")?.join("report.json"), report)
    }
}

/// Finds something out about every row, side by side, and hears of it in the order of the rows.
fn in_batches<T: Send>(
    rows: impl Iterator<Item = Result<Row, Failure>>,
    threads: usize,
    find: impl Fn(&Row) -> Result<T, MissingField> + Sync,
    hear: &mut dyn FnMut(T),
) -> Result<(), Failure> {
    let mut rows = rows.peekable();
    while rows.peek().is_some() {
        let batch = rows.by_ref().take(BATCH).collect::<Result<Vec<_>, _>>()?;
        let share = batch.len().div_ceil(threads.max(1));
        let found: Vec<Result<T, MissingField>> = std::thread::scope(|scope| {
            let parts: Vec<_> = batch
                .chunks(share)
                .map(|part| scope.spawn(|| part.iter().map(&find).collect::<Vec<_>>()))
                .collect();
            parts.into_iter().flat_map(|part| part.join().expect("finding does not panic")).collect()
        });
        for one in found {
            hear(one.map_err(|error| Failure::new(error.to_string()))?);
        }
    }
    Ok(())
}
