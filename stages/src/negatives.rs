//! `kind = "negatives"`: holds the targets of rows against what a model made of the same inputs.
//!
//! The outputs come from a model of ours, as predictions of these very rows, or from a file of
//! somebody else's. An output that says what the target says is never dispreferred.

use std::collections::BTreeMap;

use corpus::negatives::{MatchedBy, NegativesReport, OnEmpty, Output, Outputs, Rejected, unpaired};
use corpus::{Direction, Prediction};
use engine::{Context, Isolation, NoTuning, Ports, Stage, StageFailure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::artifacts::{PREDICTIONS, PREFERENCES, REPORT, ROWS, UNPAIRED};
use crate::support::rows::{RowWriter, read_records, read_rows, write_json};

/// How to find the outputs of rows, and which to take.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Params {
    /// The field with the output, in rows of a file of outputs.
    #[serde(default = "output")]
    field: String,
    /// What makes a row of such a file the output of a row. Predictions go by their id.
    #[serde(default)]
    matched_by: MatchedBy,
    /// What to do about outputs that are empty.
    #[serde(default)]
    on_empty: OnEmpty,
}

fn output() -> String {
    "output".to_owned()
}

/// Makes preferences.
pub(crate) struct Negatives;

impl Stage for Negatives {
    const KIND: &'static str = "negatives";
    /// 2: fields of `report.json` are in snake case.
    const VERSION: u32 = 2;
    const ISOLATION: Isolation = Isolation::Subprocess;
    type Params = Params;
    type Tuning = NoTuning;

    fn ports(_: &Params) -> Ports {
        let files = |ports: Ports, direction: &Direction| ports.many(direction.name(), ROWS);
        let inputs = Ports::new().input("rows", ROWS).many("predictions", PREDICTIONS);
        Direction::ALL
            .iter()
            .fold(inputs, files)
            .output("preferences", PREFERENCES)
            .output("unpaired", UNPAIRED)
            .output("report", REPORT)
    }

    fn run(params: &Params, _: &NoTuning, context: &mut Context) -> Result<(), StageFailure> {
        let mut all = read_outputs(params, context)?;
        let mut preferences = RowWriter::create(&context.output("preferences")?)?;
        let mut one_by_one = RowWriter::create(&context.output("unpaired")?)?;
        let mut taken = 0u64;
        for (done, row) in read_rows(context.input("rows")?)?.enumerate() {
            let row = row?;
            for (direction, outputs) in &mut all {
                let rejected = outputs.reject(&row, params.on_empty).map_err(|error| {
                    StageFailure::caused(
                        format!("reject an output of row `{}` for {direction}", row.id()),
                        error,
                    )
                })?;
                if let Rejected::Preference(preference) = rejected {
                    preferences.write(&preference)?;
                    for one in unpaired(preference) {
                        one_by_one.write(&one)?;
                    }
                    taken += 1;
                }
            }
            if done % 1024 == 0 {
                context.progress(done as u64, 0, "rows");
            }
        }
        preferences.finish()?;
        one_by_one.finish()?;
        let reports: BTreeMap<_, _> =
            all.iter().map(|(direction, outputs)| (direction.name(), outputs.report())).collect();
        for (direction, report) in &reports {
            add_notes(direction, report, params, context);
        }
        if taken == 0 {
            let each = reports.iter().map(|(direction, report)| format!("{direction}: {}", counts(report)));
            let message = format!("no row has an output to reject; {}", each.collect::<Vec<_>>().join("; "));
            return Err(StageFailure::new(message)
                .help("check that the outputs were made of these rows, and what they are `matched_by`"));
        }
        write_json(&context.output("report")?.join("report.json"), &reports)
    }
}

/// Reads all outputs, by direction.
fn read_outputs(params: &Params, context: &Context) -> Result<BTreeMap<Direction, Outputs>, StageFailure> {
    let mut all: BTreeMap<Direction, Outputs> = BTreeMap::new();
    for input in context.inputs("predictions") {
        for prediction in read_records::<Prediction>(&input.folder)? {
            let prediction = prediction?;
            let direction = prediction.direction;
            let outputs = all.entry(direction).or_insert_with(|| Outputs::new(direction, MatchedBy::Id));
            outputs.add(Output::from(&prediction));
        }
    }
    for direction in Direction::ALL {
        let files = context.inputs(direction.name());
        if files.is_empty() {
            continue;
        }
        let mut outputs = Outputs::new(*direction, params.matched_by);
        for input in files {
            for row in read_rows(&input.folder)? {
                let row = row?;
                let output =
                    Output::of(&row, &params.field, *direction, params.matched_by).map_err(|error| {
                        StageFailure::caused(format!("read the outputs for {direction}"), error)
                            .help("name the `field` of the output; `matched_by` says which others are needed")
                    })?;
                outputs.add(output);
            }
        }
        if all.insert(*direction, outputs).is_some() {
            let message = format!("outputs for {direction} come as `predictions` and as `{direction}`");
            return Err(StageFailure::new(message).help("give one of them"));
        }
    }
    if all.is_empty() {
        return Err(StageFailure::new("there are no outputs to reject")
            .help("give `predictions`, or rows with outputs as `mol2cap` or `cap2mol`"));
    }
    Ok(all)
}

/// Says what became of the rows of a direction.
fn add_notes(direction: &str, report: &NegativesReport, params: &Params, context: &mut Context) {
    context.log(format_args!("{direction}: {} preferences; {}", report.taken, counts(report)));
    let mut note = |rows: u64, what: &str| {
        if rows > 0 {
            context.note(format!("{direction}: {rows} {what}"));
        }
    };
    note(report.rows_without_output, "rows left out: no output");
    note(report.same_text + report.same_molecule, "rows left out: the output is the target");
    note(report.empty, "rows left out: the output is empty");
    note(report.further_outputs, "outputs left out: not the first of their row");
    if params.matched_by == MatchedBy::Id {
        note(report.outputs_without_row, "outputs left out: none of the rows has their id");
    }
}

fn counts(report: &NegativesReport) -> String {
    format!(
        "of {} rows {} have no output, {} have the target's text, {} the target's molecule, {} nothing; \
         {} of {} outputs have no row",
        report.rows,
        report.rows_without_output,
        report.same_text,
        report.same_molecule,
        report.empty,
        report.outputs_without_row,
        report.outputs
    )
}

#[cfg(test)]
mod tests {
    use engine::testing::{StageTest, ports};
    use serde_json::json;

    use super::*;
    use crate::support::testing::ROWS as TARGETS;

    #[test]
    fn an_output_is_rejected_unless_it_says_what_the_target_says() {
        let outputs = "{\"id\":\"a\",\"output\":\"It is water.\"}\n{\"id\":\"b\",\"output\":\"It is ethanol.\"}\n\
                       {\"id\":\"z\",\"output\":\"of no row\"}\n";
        let run = StageTest::<Negatives>::new("matched_by = 'id'")
            .input("rows", &[("rows.jsonl", TARGETS)])
            .input("mol2cap", &[("rows.jsonl", outputs)])
            .run()
            .unwrap();
        let preference = json!({
            "id": "a/mol2cap", "direction": "mol2cap", "input": "CO", "chosen": "It is methanol.",
            "rejected": "It is water.",
        });
        assert_eq!(run.json_lines("preferences", "rows.jsonl"), [preference]);
        let unpaired = run.json_lines("unpaired", "rows.jsonl");
        let labels: Vec<_> = unpaired.iter().map(|row| (&row["output"], &row["desirable"])).collect();
        assert_eq!(
            labels,
            [(&json!("It is methanol."), &json!(true)), (&json!("It is water."), &json!(false))]
        );
        let report = &run.json("report", "report.json")["mol2cap"];
        assert_eq!(
            (&report["rows"], &report["taken"], &report["same_text"]),
            (&json!(3), &json!(1), &json!(1))
        );
        assert!(run.notes().contains(&"mol2cap: 1 rows left out: no output".to_owned()), "{:?}", run.notes());
    }

    #[test]
    fn nothing_to_reject_is_a_failure_with_the_counts() {
        let test =
            || StageTest::<Negatives>::new("matched_by = 'id'").input("rows", &[("rows.jsonl", TARGETS)]);
        let failure = test().run().unwrap_err();
        assert_eq!(failure.message, "there are no outputs to reject");
        let outputs = "{\"id\":\"z\",\"output\":\"of no row\"}\n";
        let failure = test().input("mol2cap", &[("rows.jsonl", outputs)]).run().unwrap_err();
        assert!(
            failure.message.starts_with("no row has an output to reject; mol2cap: of 3 rows"),
            "{failure}"
        );
        assert!(failure.help.unwrap().contains("`matched_by`"));
    }

    #[test]
    fn what_is_wrong_is_said_of_its_field() {
        let path = |params: &str| ports::<Negatives>(params).unwrap_err().path;
        assert_eq!(path("matched_by = 'chance'"), "matched_by");
        assert_eq!(path("on_empty = 3"), "on_empty");
        assert_eq!(path("fields = 'x'"), "fields");
    }
}
