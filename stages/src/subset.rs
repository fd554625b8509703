//! `kind = "subset"`: samples rows, seeded, stratified, deduplicated, disjoint from others.
//!
//! Rows are ranked by a hash of the seed and their identity, so a sample does not depend on
//! their order, and a smaller sample lies inside a larger one. Rows come out in their order.
//! Rows that resemble each other can be kept together, on one side of a split.

use corpus::sample::{
    Candidate, Excluded, Group, Identity, MaxChars, SampleReport, Sampling, Take, Traits, sample,
};
use corpus::{MissingField, Row};
use engine::{Context, FieldError, Isolation, NoTuning, Ports, Resources, Stage, StageFailure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::artifacts::{REPORT, ROWS};
use crate::support::parallel::parallel_map;
use crate::support::rows::{RowWriter, read_rows, read_rows_of_all, write_json};

/// Which rows to take.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Params {
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
    /// Which rows stay together: groups are taken whole, but for the last, and none that has a
    /// row in `exclude`.
    group: Option<Group>,
    /// How many characters fields may have; rows with more are left out, and counted.
    max_chars: Option<MaxChars>,
}

fn by_id() -> Identity {
    Identity::Field(corpus::ID.to_owned())
}

/// Samples rows.
pub(crate) struct Subset;

/// How many rows are read before their identities are computed, on several threads.
const BATCH: usize = 8192;

impl Stage for Subset {
    const KIND: &'static str = "subset";
    /// 2: fields of `report.json` are in snake case; `exclude` and `max_chars` have these names.
    const VERSION: u32 = 2;
    const SEEDED: bool = true;
    const ISOLATION: Isolation = Isolation::Subprocess;
    const RENAMED: &'static [(&'static str, &'static str)] =
        &[("inputs.without", "inputs.exclude"), ("longest", "max_chars")];
    type Params = Params;
    type Tuning = NoTuning;

    fn ports(_: &Params) -> Ports {
        Ports::new().several("rows", ROWS).many("exclude", ROWS).output("rows", ROWS).output("report", REPORT)
    }

    fn check(params: &Params) -> Result<(), FieldError> {
        if params.stratify.is_some() && params.group.is_some() {
            let message = "`stratify` spreads a sample over the rows and `group` gathers it";
            return Err(FieldError::new("stratify", message).help("use one of them"));
        }
        match &params.max_chars {
            Some(max_chars) if max_chars.0.is_empty() => {
                Err(FieldError::new("max_chars", "`max_chars` names no field")
                    .help("write `max_chars = { FIELD = CHARACTERS }`"))
            }
            _ => Ok(()),
        }
    }

    fn resources(params: &Params) -> Resources {
        // Molecules are compared by their canonical form, which is slow to find.
        let cores = if matches!(params.identity, Identity::Molecule(_)) { 4 } else { 1 };
        Resources { cores, ..Resources::default() }
    }

    fn run(params: &Params, _: &NoTuning, context: &mut Context) -> Result<(), StageFailure> {
        let threads = context.cores() as usize;
        let (identity, group) = (&params.identity, params.group.as_ref());
        let apart = Traits { identity, group, stratify: None, max_chars: None };
        let mut excluded = Excluded::default();
        for input in context.inputs("exclude") {
            let rows = read_rows(&input.folder)?;
            for_each_row(rows, threads, |row| Candidate::of(row, &apart), &mut |candidate: Candidate| {
                excluded.identities.insert(&candidate.identity.text);
                if let Some(group) = &candidate.group {
                    excluded.groups.insert(group);
                }
            })?;
        }
        let traits =
            Traits { stratify: params.stratify.as_deref(), max_chars: params.max_chars.as_ref(), ..apart };
        let mut candidates = Vec::new();
        for_each_row(
            read_rows_of_all(context.inputs("rows"))?,
            threads,
            |row| Candidate::of(row, &traits),
            &mut |candidate| {
                candidates.push(candidate);
                context.progress(candidates.len() as u64, 0, "rows");
            },
        )?;
        let sampling = Sampling { take: params.take, seed: context.seed()?, distinct: params.distinct };
        let sampled = sample(candidates, &excluded, &sampling)
            .map_err(|error| StageFailure::caused("sample rows", error))?;
        add_notes(params, &sampled.report, context);
        let mut writer = RowWriter::create(&context.output("rows")?)?;
        let mut wanted = sampled.positions.iter().copied().peekable();
        for (position, row) in read_rows_of_all(context.inputs("rows"))?.enumerate() {
            if wanted.next_if_eq(&position).is_some() {
                writer.write(&row?)?;
            }
        }
        writer.finish()?;
        write_json(&context.output("report")?.join("report.json"), &sampled.report)
    }
}

/// Says what was taken and what was not.
fn add_notes(params: &Params, report: &SampleReport, context: &mut Context) {
    context.log(format_args!(
        "{} of {} rows: {} excluded, {} repeated, {} eligible",
        report.taken, report.candidates, report.excluded, report.repeated, report.eligible
    ));
    if let Some(groups) = &report.groups {
        context.log(format_args!(
            "{} of {} groups, in part {:?}; {} rows excluded for their group alone",
            groups.taken, groups.eligible, groups.in_part, groups.excluded_rows
        ));
    }
    if report.unparsable > 0 {
        context.note(format!("{} molecules cannot be read, and are compared as text", report.unparsable));
    }
    if report.repeated > 0 {
        context.note(format!("{} rows repeat an earlier one, and were left out", report.repeated));
    }
    for (field, rows) in &report.too_long {
        let most = params.max_chars.as_ref().and_then(|max_chars| max_chars.0.get(field));
        let most = most.map_or_else(String::new, |most| format!(" than {most} characters"));
        context.note(format!("{rows} rows left out: their `{field}` is longer{most}"));
    }
}

/// Computes a value for every row, on several threads, and hands them over in the order of the rows.
fn for_each_row<T: Send>(
    rows: impl Iterator<Item = Result<Row, StageFailure>>,
    threads: usize,
    compute: impl Fn(&Row) -> Result<T, MissingField> + Sync,
    on_value: &mut dyn FnMut(T),
) -> Result<(), StageFailure> {
    let mut rows = rows.peekable();
    while rows.peek().is_some() {
        let batch = rows.by_ref().take(BATCH).collect::<Result<Vec<_>, _>>()?;
        for value in parallel_map(&batch, threads, &compute) {
            on_value(value.map_err(|error| StageFailure::new(error.to_string()))?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use engine::testing::{StageRun, StageTest, ports};
    use serde_json::Value;

    use super::*;

    fn rows(ids: std::ops::Range<u32>) -> String {
        ids.map(|id| format!("{{\"id\":\"{id}\",\"text\":\"{}\"}}\n", "x".repeat(id as usize % 5))).collect()
    }

    fn sampled(params: &str, seed: u64) -> StageRun {
        StageTest::<Subset>::new(params)
            .input("rows", &[("rows.jsonl", &rows(0..20))])
            .input("rows", &[("rows.jsonl", &rows(20..40))])
            .input("exclude", &[("rows.jsonl", &rows(0..10))])
            .seed(seed)
            .run()
            .unwrap()
    }

    fn ids(run: &StageRun) -> Vec<String> {
        let id = |row: Value| row["id"].as_str().unwrap().to_owned();
        run.json_lines("rows", "rows.jsonl").into_iter().map(id).collect()
    }

    #[test]
    fn a_smaller_sample_is_inside_a_larger_one_and_none_has_what_is_left_out() {
        let (small, large) = (ids(&sampled("take.count = 5", 1)), ids(&sampled("take.count = 9", 1)));
        assert_eq!((small.len(), large.len()), (5, 9));
        assert!(small.iter().all(|id| large.contains(id)), "{small:?} {large:?}");
        assert!(large.iter().all(|id| id.parse::<u32>().unwrap() >= 10), "{large:?}");
        assert!(large.is_sorted_by_key(|id| id.parse::<u32>().unwrap()), "in the order of the rows");
        assert_ne!(large, ids(&sampled("take.count = 9", 2)));
    }

    #[test]
    fn the_report_counts_what_was_not_taken() {
        let run = sampled("take.fraction = 1\nmax_chars.text = 2", 0);
        let report = run.json("report", "report.json");
        assert_eq!((&report["candidates"], &report["excluded"]), (&40.into(), &6.into()));
        assert_eq!(report["taken"], ids(&run).len());
        assert_eq!(run.notes(), ["16 rows left out: their `text` is longer than 2 characters"]);
    }

    #[test]
    fn an_id_that_occurs_in_two_inputs_fails() {
        let failure = StageTest::<Subset>::new("take.count = 1")
            .input("rows", &[("rows.jsonl", &rows(0..2))])
            .input("rows", &[("rows.jsonl", &rows(1..3))])
            .run()
            .unwrap_err();
        assert_eq!(failure.message, "the id `1` occurs twice in the rows taken together");
    }

    #[test]
    fn what_is_wrong_is_said_of_its_field() {
        let path = |params: &str| ports::<Subset>(&format!("take.count = 1\n{params}")).unwrap_err().path;
        assert_eq!(path("stratify = 'a'\ngroup.field = 'b'"), "stratify");
        assert_eq!(path("max_chars = {}"), "max_chars");
        assert_eq!(path("identity.molecule = 3"), "identity.molecule");
        assert_eq!(ports::<Subset>("take.fraction = 1.5").unwrap_err().path, "take.fraction");
    }
}
