//! Captions held against their references by a small model with random weights: what is judged,
//! what is kept, what it comes to.

use serde_json::{Value, json};

use crate::lab::{Lab, below, signal, wait_until};

const PREDICTIONS: [[&str; 3]; 4] = [
    ["a", "The molecule is a drug and a nutrient. It is sweet.", "The molecule is a drug. It impacts pain."],
    ["b", "The molecule is a salt that impacts cancer.", "The molecule is sour."],
    ["c", "The molecule is a drug.", ""],
    ["d", "The molecule is a drug and a nutrient. It is sweet.", "The molecule is a drug. It impacts pain."],
];

fn predictions(rows: &[[&str; 3]]) -> String {
    let line = |[id, reference, prediction]: &[&str; 3]| {
        let row = json!({ "id": id, "direction": "mol2cap", "input": "C", "reference": reference, "prediction": prediction });
        format!("{row}\n")
    };
    rows.iter().map(line).collect()
}

fn lab(stage: &str, more: &str) -> Lab {
    let lab = Lab::with(&format!(
        "[stages.nli]\nkind = \"source\"\npath = \"nli\"\nformat = \"model\"\n\n\
         [stages.captions]\nkind = \"command\"\nfiles = [\"captions.jsonl\"]\n\
         run = \"cp files/captions.jsonl outputs/predictions/rows.jsonl\"\n\
         outputs.predictions.type = \"predictions\"\n\n\
         [stages.judged]\nkind = \"judge\"\n{stage}\n\n{more}\n"
    ));
    lab.write_judge("nli");
    lab.write("captions.jsonl", predictions(&PREDICTIONS));
    lab
}

const INPUTS: &str = "inputs = { predictions = \"captions\", model = \"nli\" }";

fn judged(lab: &Lab) -> Vec<Value> {
    lab.made("judged", "rows.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

#[test]
fn texts_are_judged_in_parts_in_both_directions() {
    let lab = lab(&format!("{INPUTS}\nlevels = [\"full\", \"sentence\", \"atomic\"]"), "");
    let told = lab.run(["run", "x.toml"]).expect(0);
    told.says(&["1 of 4 captions are empty"]);
    let rows = judged(&lab);
    let atomic = &rows[0]["levels"]["atomic"];
    assert_eq!(
        atomic["reference"],
        json!(["The molecule is a drug.", "The molecule is a nutrient.", "The molecule is sweet."])
    );
    assert_eq!(atomic["prediction"], json!(["The molecule is a drug.", "The molecule impacts pain."]));
    let shape = |matrix: &Value| (matrix.as_array().unwrap().len(), matrix[0].as_array().unwrap().len());
    assert_eq!((shape(&atomic["from_reference"]), shape(&atomic["from_prediction"])), ((3, 2), (2, 3)));
    let verdict = numbers(&atomic["from_reference"][2][1]);
    assert!(verdict.len() == 3 && (verdict.iter().sum::<f64>() - 1.0).abs() < 1e-6, "{verdict:?}");
    assert_ne!(atomic["from_reference"][0][1], atomic["from_prediction"][1][0]);
    // The same text on both sides is the same pair in both directions.
    assert_eq!(atomic["from_reference"][0][0], atomic["from_prediction"][0][0]);
    assert_eq!(rows[0]["levels"], rows[3]["levels"]);
    assert_eq!(rows[1]["levels"]["sentence"]["reference"].as_array().unwrap().len(), 1);
    assert_eq!((&rows[2]["is_empty"], &rows[2]["levels"]["full"]["prediction"]), (&json!(true), &json!([])));
}

#[test]
fn order_and_cores_change_nothing() {
    let made = |cores: u32, rows: &[[&str; 3]]| {
        let lab = lab(&format!("{INPUTS}\nlevels = [\"full\", \"atomic\"]\nresources.cores = {cores}"), "");
        lab.write("captions.jsonl", predictions(rows));
        lab.run(["run", "x.toml"]).expect(0);
        judged(&lab)
    };
    let one = made(1, &PREDICTIONS);
    assert_eq!(made(2, &PREDICTIONS), one);
    let mut reversed = PREDICTIONS;
    reversed.reverse();
    let mut found = made(2, &reversed);
    found.reverse();
    assert_eq!(found, one);
}

#[test]
fn labels_may_stand_in_any_order() {
    let run = |labels: Value| {
        let lab = lab(&format!("{INPUTS}\nlevels = [\"full\"]"), "");
        let mut config: Value = serde_json::from_str(&lab.read("nli/config.json")).unwrap();
        config["id2label"] = labels;
        lab.write("nli/config.json", config.to_string());
        lab
    };
    let first = |lab: &Lab| {
        lab.run(["run", "x.toml"]).expect(0);
        numbers(&judged(lab)[0]["levels"]["full"]["from_reference"][0][0])
    };
    let [entailment, neutral, contradiction] =
        first(&run(json!({ "0": "entailment", "1": "neutral", "2": "contradiction" }))).try_into().unwrap();
    let found = first(&run(json!({ "0": "Contradiction", "1": "ENTAILMENT", "2": "neutral" })));
    assert_eq!(found, [neutral, contradiction, entailment]);
    let told = run(json!({ "0": "yes", "1": "no", "2": "maybe" })).run(["run", "x.toml"]).expect(3);
    told.says(&["has no `entailment`; its labels are yes, no, maybe"]);
}

const POOLED: &str = "[stages.scores]\nkind = \"evaluate\"\ninputs = { judgements = \"judged\" }\nmetrics = [\
    \"entailment\", \"entailment_win_rate\", \"coverage_atomic\", \"hallucination_atomic\"]\nbootstrap = { resamples = 50 }";

#[test]
fn what_was_judged_is_pooled_without_the_model() {
    let lab = lab(&format!("{INPUTS}\nlevels = [\"full\", \"atomic\"]"), POOLED);
    lab.run(["run", "x.toml"]).expect(0).says(&["1 rows lack a score", "an empty caption"]);
    let metrics: Value = serde_json::from_str(&lab.made("scores", "metrics.json")).unwrap();
    let rows = judged(&lab);
    let matrix = |row: &Value, from: &str| -> Vec<Vec<Vec<f64>>> {
        serde_json::from_value(row["levels"]["atomic"][from].clone()).unwrap()
    };
    let mean = |numbers: Vec<f64>| numbers.iter().sum::<f64>() / numbers.len() as f64;
    let pool = |from: &str, label: usize, better: fn(f64, f64) -> f64| {
        let judged = rows.iter().filter(|row| row["is_empty"] == false);
        mean(
            judged
                .map(|row| {
                    let matrix = matrix(row, from);
                    let column = |at: usize| matrix.iter().map(|row| row[at][label]).reduce(better).unwrap();
                    mean((0..matrix[0].len()).map(column).collect())
                })
                .collect(),
        )
    };
    for (name, expected) in [
        ("hallucination_atomic", pool("from_reference", 2, f64::min)),
        ("coverage_atomic", pool("from_prediction", 0, f64::max)),
    ] {
        let found = metrics[name].as_f64().unwrap();
        assert!((found - expected).abs() < 1e-7, "{name}: {found} {expected}");
        assert!(metrics[format!("{name}_low")].as_f64() <= Some(found), "{metrics}");
    }
    assert_eq!((&metrics["rows"], &metrics["empty_predictions"]), (&json!(4), &json!(1)));
    let by_row = lab.made("scores", "rows.jsonl");
    let third: Value = serde_json::from_str(by_row.lines().nth(2).unwrap()).unwrap();
    assert_eq!((&third["id"], &third["entailment"]), (&json!("c"), &Value::Null));
    // Another way to pool runs no model.
    lab.edit("x.toml", "\"coverage_atomic\"", "\"coverage_full\"");
    assert_eq!(lab.run(["run", "x.toml"]).expect(0).ran(), ["scores"]);
    lab.edit("x.toml", "\"coverage_full\"", "\"coverage_sentence\"");
    lab.run(["run", "x.toml"])
        .expect(3)
        .says(&["`coverage_sentence` is of level `sentence`", "add `sentence`"]);
}

#[test]
fn a_model_may_have_listed_the_facts() {
    let stage = "inputs = { predictions = \"captions\", model = \"nli\", prediction_facts = \"facts\", \
                 reference_facts = \"facts\" }\nlevels = [\"atomic\"]\nfacts = \"listed\"";
    let lab = lab(stage, "[stages.facts]\nkind = \"source\"\npath = \"facts.jsonl\"");
    let facts =
        |id: &str| format!("{}\n", json!({ "id": id, "output": "Facts:\n* It is a drug\n* It is sweet" }));
    lab.write("facts.jsonl", ["a", "b", "c", "d"].map(facts).concat());
    lab.run(["run", "x.toml"]).expect(0);
    assert_eq!(judged(&lab)[1]["levels"]["atomic"]["prediction"], json!(["It is a drug", "It is sweet"]));
    lab.write("facts.jsonl", ["a", "b", "c"].map(facts).concat());
    lab.run(["run", "x.toml"]).expect(3).says(&["`reference_facts` has no row `d`"]);
}

#[test]
fn what_cannot_be_judged_is_refused() {
    let plan = |stage: &str, says: &str| drop(lab(stage, "").run(["plan", "x.toml"]).expect(2).says(&[says]));
    plan(&format!("{INPUTS}\nlevels = []"), "`levels` is empty");
    plan(&format!("{INPUTS}\nlevels = [\"full\", \"full\"]"), "`levels` names one twice");
    plan(&format!("{INPUTS}\nlevels = [\"full\"]\nfacts = \"lpm24_rules\""), "`facts` changes nothing");
    plan(&format!("{INPUTS}\nlevels = [\"atomic\"]\nfield = \"facts\""), "`field` changes nothing");
    let run = |lab: Lab, says: &[&str]| drop(lab.run(["run", "x.toml"]).expect(3).says(says));
    let other = lab(&format!("{INPUTS}\nlevels = [\"full\"]"), "");
    other.edit("captions.jsonl", "mol2cap", "cap2mol");
    run(other, &["prediction `a` is of cap2mol, and only captions can be judged"]);
    let none = lab(&format!("{INPUTS}\nlevels = [\"full\"]"), "");
    none.write("captions.jsonl", "");
    run(none, &["there are no predictions to judge"]);
    let broken = lab(&format!("{INPUTS}\nlevels = [\"full\"]"), "");
    broken.edit("nli/config.json", "\"num_hidden_layers\": 3", "\"num_hidden_layers\": 4");
    run(broken, &["there is no tensor `deberta.encoder.layer.3."]);
}

#[test]
fn two_fields_of_any_rows_can_be_judged() {
    let stage = "inputs = { rows = \"pairs\", model = \"nli\" }\nlevels = [\"full\", \"atomic\"]\n\
                 texts = { reference = \"caption\", prediction = \"output\" }";
    let rows = lab(stage, "[stages.pairs]\nkind = \"source\"\npath = \"pairs.jsonl\"");
    let line = |[id, reference, prediction]: &[&str; 3]| {
        format!("{}\n", json!({ "id": id, "caption": reference, "output": prediction }))
    };
    rows.write("pairs.jsonl", PREDICTIONS.iter().map(line).collect::<String>());
    rows.run(["run", "x.toml"]).expect(0).says(&["1 of 4 captions are empty"]);
    let predictions = lab(&format!("{INPUTS}\nlevels = [\"full\", \"atomic\"]"), "");
    predictions.run(["run", "x.toml"]).expect(0);
    assert_eq!(judged(&rows), judged(&predictions));
    rows.edit("x.toml", "prediction = \"output\"", "prediction = \"outptu\"");
    rows.run(["run", "x.toml"]).expect(3).says(&["outptu", "name the fields of both `texts`"]);
    rows.write("pairs.jsonl", "");
    rows.edit("x.toml", "texts = { reference = \"caption\", prediction = \"outptu\" }\n", "");
    rows.run(["plan", "x.toml"]).expect(2).says(&["needs an input `predictions`"]);
}

#[test]
fn long_references_can_be_pooled_alone() {
    let lab = lab(&format!("{INPUTS}\nlevels = [\"full\"]"), POOLED);
    lab.edit("x.toml", ", \"coverage_atomic\", \"hallucination_atomic\"", "");
    lab.edit("x.toml", "bootstrap", "min_reference_words = 8\nbootstrap");
    // References of 11, 8, 5 and 11 words.
    lab.run(["run", "x.toml"])
        .expect(0)
        .says(&["1 of 4 predictions are left out: their references are short"]);
    let metrics: Value = serde_json::from_str(&lab.made("scores", "metrics.json")).unwrap();
    assert_eq!((&metrics["rows"], &metrics["empty_predictions"]), (&json!(3), &json!(0)));
    assert_eq!(judged(&lab)[1]["reference_words"], 8);
}

/// A model with random weights lists what it likes; whatever it is, it is what is judged.
#[test]
fn a_generate_stage_lists_the_facts() {
    let model = "\
[stages.rows]
kind = \"source\"
path = \"rows.jsonl\"

[stages.tokenizer]
kind = \"tokenizer\"
inputs = { rows = \"rows\" }
model.bpe = { vocab_size = 280 }

[stages.llm]
kind = \"train\"
inputs = { tokenizer = \"tokenizer\", rows = \"rows\" }
prompts.mol2cap = \"mol2cap.txt\"
objective.sft = {}
length.steps = 0
model.llama = { hidden_size = 16, intermediate_size = 24, num_hidden_layers = 1, num_attention_heads = 2, max_position_embeddings = 160 }

[stages.of_captions]
kind = \"generate\"
inputs = { model = \"llm\", predictions = \"captions\" }
text = \"prediction\"
prompt = \"decompose.txt\"
max_new_tokens = 24

[stages.of_references]
kind = \"generate\"
inputs = { model = \"llm\", rows = \"rows\" }
text.field = \"caption\"
prompt = \"decompose.txt\"
max_new_tokens = 24
";
    let stage = "inputs = { predictions = \"captions\", model = \"nli\", prediction_facts = \"of_captions\", \
                 reference_facts = \"of_references\" }\nlevels = [\"atomic\"]\nfacts = \"listed\"";
    let lab = lab(stage, model);
    lab.write("decompose.txt", "### User:\nList the facts:\n{text}\n### Assistant:\n");
    lab.write("mol2cap.txt", "{molecule} is {caption}\n");
    let row = |[id, caption, _]: &[&str; 3]| {
        format!("{}\n", json!({ "id": id, "molecule": "C", "caption": caption }))
    };
    lab.write("rows.jsonl", PREDICTIONS.iter().map(row).collect::<String>());
    lab.run(["run", "x.toml"]).expect(0).says(&["1 texts are empty: the model is not asked about them"]);
    let listed = |stage: &str| -> Vec<Value> {
        lab.made(stage, "rows.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let (captions, references) = (listed("of_captions"), listed("of_references"));
    assert_eq!((&captions[2]["id"], &captions[2]["output"]), (&json!("c"), &json!("")));
    assert_eq!(captions[1]["input"], PREDICTIONS[1][2]);
    assert_eq!(captions[0]["output"], captions[3]["output"], "one text, one answer");
    let mut facts = 0;
    for ((row, caption), reference) in judged(&lab).iter().zip(&captions).zip(&references) {
        for (side, output) in [("prediction", caption), ("reference", reference)] {
            let output = output["output"].as_str().unwrap().replace("**", "");
            for fact in row["levels"]["atomic"][side].as_array().unwrap() {
                assert!(output.contains(fact.as_str().unwrap()), "{fact} is not in {output}");
                facts += 1;
            }
        }
    }
    assert!(facts > 0, "nothing was listed: {captions:?}");
    // References of predictions are the same texts.
    lab.edit("x.toml", "text = \"prediction\"", "text = \"reference\"");
    lab.run(["run", "x.toml"]).expect(0);
    let outputs = |rows: Vec<Value>| rows.into_iter().map(|row| row["output"].clone()).collect::<Vec<_>>();
    assert_eq!(outputs(listed("of_captions")), outputs(references));
    // What is wrong is said before anything runs, but for what stands in the files.
    let refused = |from: &str, to: &str, says: &str| {
        lab.edit("x.toml", from, to);
        lab.run(["plan", "x.toml"]).expect(2).says(&[says]);
        lab.edit("x.toml", to, from);
    };
    refused(
        "text = \"reference\"",
        "direction = \"mol2cap\"\ntext = \"reference\"",
        "`direction` and `text` are given",
    );
    refused("text.field = \"caption\"\n", "batch_size = 3\n", "`direction` is missing");
    refused("text = \"reference\"", "text = \"input\"", "`input`");
    lab.write("decompose.txt", "### User:\nList the facts.\n");
    lab.run(["run", "x.toml"]).expect(3).says(&["decompose.txt", "the prompt has no `{text}`"]);
}

#[test]
fn a_killed_judge_goes_on_and_ends_with_the_same_bytes() {
    let (whole, killed) = (long_judging(), long_judging());
    whole.run(["run", "x.toml"]).expect(0);
    let _ = kill_when_kept(&killed);
    assert_eq!(killed.run(["run", "x.toml"]).expect(0).ran(), ["judged"]);
    killed.run(["log", "x.toml", "judged"]).expect(0).shows(&["rows were judged before"]);
    assert_eq!(judged(&whole), judged(&killed));
}

/// A probability that was changed is as good JSON as the one before.
#[test]
fn kept_judgements_that_were_changed_are_made_anew() {
    let (whole, killed) = (long_judging(), long_judging());
    whole.run(["run", "x.toml"]).expect(0);
    let path = kill_when_kept(&killed).with_file_name("rows.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    let place = text.find("0.").expect("a probability") + 2;
    let mut bytes = text.into_bytes();
    bytes[place] = if bytes[place] == b'7' { b'3' } else { b'7' };
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(killed.run(["run", "x.toml"]).expect(0).ran(), ["judged"]);
    let log = killed.run(["log", "x.toml", "judged"]).expect(0);
    let _ = log.shows(&["rows that a killed attempt had kept are discarded and computed again"]);
    assert_eq!(judged(&whole), judged(&killed));
}

fn long_judging() -> Lab {
    let lab = lab(&format!("{INPUTS}\nlevels = [\"full\", \"sentence\", \"atomic\"]"), "");
    let row = |row: usize| {
        let reference = format!("The molecule is a drug of number {row} and a nutrient. It is sweet.");
        let prediction = format!("The molecule is a salt. It impacts {row} pains and is a drug.");
        json!({ "id": format!("r{row}"), "direction": "mol2cap", "input": "C", "reference": reference,
            "prediction": prediction })
    };
    let rows: String = (0..320).map(|at| format!("{}\n", row(at))).collect();
    lab.write("captions.jsonl", rows);
    lab
}

/// Kills a judge when it has kept a batch; returns the file with the batches' digests.
fn kill_when_kept(lab: &Lab) -> std::path::PathBuf {
    let mut child = lab.spawn(["run", "x.toml"]);
    let kept = || {
        let works = std::fs::read_dir(lab.cache().join("work")).into_iter().flatten().flatten();
        works
            .map(|work| work.path().join("keep/rows.digests"))
            .find(|path| path.metadata().is_ok_and(|kept| kept.len() > 0))
    };
    wait_until("a batch is kept", || kept().is_some());
    for process in below(child.id()) {
        signal(process, rustix::process::Signal::KILL);
    }
    assert!(!child.wait().unwrap().success());
    kept().expect("it outlives the kill")
}
