//! What a model predicted against its references: what is scored, what is missing, what is said.

use serde_json::{Value, json};

use crate::lab::{Lab, Told, below, wait_until};

const OUTPUTS: &str = "id\tmolecule\tcaption\toutput\tguess\n\
    a\tCCO\tan alcohol\tan alcohol\tOCC\n\
    b\tCCC\ta small gas\ta gas\tCCC\n\
    c\tCCN\tan amine\t\tC1CC\n\
    d\t[Na+].[Cl-]\ta salt\tsalt of the sea\tC\n";

fn lab(stage: &str) -> Lab {
    let lab = Lab::with(&format!(
        "[stages.outputs]\nkind = \"source\"\npath = \"outputs.tsv\"\n\n\
         [stages.scores]\nkind = \"evaluate\"\ninputs = {{ rows = \"outputs\" }}\n{stage}\n"
    ));
    lab.write("outputs.tsv", OUTPUTS);
    lab
}

fn molecules(more: &str) -> Lab {
    lab(&format!("direction = \"cap2mol\"\nfield = \"guess\"\n{more}"))
}

fn captions(more: &str) -> Lab {
    lab(&format!("direction = \"mol2cap\"\n{more}"))
}

fn metrics(lab: &Lab) -> Value {
    lab.run(["run", "x.toml"]).expect(0);
    serde_json::from_str(&lab.made("scores", "metrics.json")).unwrap()
}

fn rows(lab: &Lab) -> Vec<Value> {
    lab.made("scores", "rows.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[track_caller]
fn is_refused(lab: &Lab, pieces: &[&str]) -> Told {
    lab.run(["plan", "x.toml"]).expect(2).says(pieces)
}

#[test]
fn molecules_are_scored_by_row_and_in_all() {
    let lab = molecules(
        "metrics = [\"exact\", \"exact_string\", \"validity\", \"levenshtein\", \"maccs_fts\", \
         \"maccs_fts_invalid_zero\", \"rdk_fts\", \"length_deviation\", \"bleu\"]",
    );
    let told = lab.run(["run", "x.toml"]).expect(0);
    told.says(&["1 of 4 predictions are no molecules"]);
    let found = metrics(&lab);
    assert_eq!(
        (&found["exact"], &found["exact_string"], &found["validity"]),
        (&json!(0.5), &json!(0.25), &json!(0.75))
    );
    assert_eq!(
        (&found["rows"], &found["empty_predictions"], &found["invalid_predictions"]),
        (&json!(4), &json!(0), &json!(1))
    );
    let rows = rows(&lab);
    assert_eq!(
        (&rows[0]["id"], &rows[0]["exact"], &rows[0]["maccs_fts"]),
        (&json!("a"), &json!(1.0), &json!(1.0))
    );
    // Row c is no molecule: not compared, or 0. Row d has two without bonds, which are unlike.
    assert_eq!((&rows[2]["maccs_fts"], &rows[2]["maccs_fts_invalid_zero"]), (&Value::Null, &json!(0.0)));
    assert_eq!((&rows[3]["rdk_fts"], &rows[3]["length_deviation"]), (&json!(0.0), &json!(-10.0)));
    assert_eq!(rows[1]["bleu_counts"]["matched"], json!([3, 2, 1, 0]));
    let mean = (rows[0]["rdk_fts"].as_f64().unwrap() + rows[1]["rdk_fts"].as_f64().unwrap()) / 3.0;
    assert_eq!(found["rdk_fts"].as_f64(), Some(mean));
    let distributions: Value = serde_json::from_str(&lab.made("scores", "distributions.json")).unwrap();
    assert_eq!(distributions["validity"]["counts"][19], 3);
}

#[test]
fn rules_about_what_is_empty_are_switches() {
    let lab = molecules("metrics = [\"validity\", \"rdk_fts\"]\nempty_fingerprints = \"one\"");
    lab.edit("outputs.tsv", "C1CC", "");
    assert_eq!((&metrics(&lab)["validity"], &rows(&lab)[3]["rdk_fts"]), (&json!(0.75), &json!(1.0)));
    lab.edit("x.toml", "empty_fingerprints = \"one\"", "empty_prediction = \"valid\"");
    assert_eq!((&metrics(&lab)["validity"], &rows(&lab)[2]["rdk_fts"]), (&json!(1.0), &json!(0.0)));
    assert_eq!(metrics(&lab)["empty_predictions"], 1);
}

#[test]
fn captions_are_scored_by_row_and_in_all() {
    let lab = captions("metrics = [\"bleu2\", \"rouge1\", \"rougeL\", \"length_deviation\"]");
    lab.run(["run", "x.toml"]).expect(0).says(&["1 of 4 predictions are empty"]);
    let (found, rows) = (metrics(&lab), rows(&lab));
    assert_eq!(
        (&rows[0]["rouge1"], &rows[1]["rouge1"], &rows[2]["rouge1"]),
        (&json!(1.0), &json!(0.8), &json!(0.0))
    );
    assert_eq!(rows[3]["length_deviation"], 2.0);
    // 5 of 9 words and 1 of 6 pairs, of which one each for the empty caption; 8 words against 9.
    let expected = ((5.0f64 / 9.0 * (1.0 / 6.0)).sqrt()) * (1.0f64 - 9.0 / 8.0).exp();
    assert!((found["bleu2"].as_f64().unwrap() - expected).abs() < 1e-12, "{found} {expected}");
}

#[test]
fn word_pieces_are_counted_where_there_is_a_vocabulary() {
    let lab = captions("metrics = [\"bleu2\"]\ntokens.wordpiece = \"pieces.txt\"");
    lab.write("pieces.txt", "[UNK]\na\n##n\ngas\nsalt\n");
    lab.run(["run", "x.toml"]).expect(0);
    // "an alcohol" is a, ##n and an unknown word.
    assert_eq!(rows(&lab)[0]["bleu_counts"]["output_tokens"], 3);
    lab.write("pieces.txt", "a\ngas\n");
    lab.run(["run", "x.toml"]).expect(3).says(&["the vocabulary has no `[UNK]`", "pieces.txt"]);
}

#[test]
fn any_tokenizer_can_split_captions() {
    let lab = captions("metrics = [\"bleu2\", \"meteor_no_wordnet\"]\ntokens.tokenizer = \"words.json\"");
    let tokenizer = |unknown: &str| {
        json!({ "version": "1.0", "added_tokens": [], "pre_tokenizer": { "type": "Whitespace" },
            "model": { "type": "WordLevel", "vocab": { "a": 0, "gas": 1, "[UNK]": 2 }, "unk_token": unknown } })
        .to_string()
    };
    lab.write("words.json", tokenizer("[UNK]"));
    lab.run(["run", "x.toml"]).expect(0);
    // "a gas" against "a small gas".
    assert_eq!(rows(&lab)[1]["bleu_counts"]["output_tokens"], 2);
    assert_eq!(rows(&lab)[1]["bleu_counts"]["matched"], json!([2, 0, 0, 0]));
    // Two of three words in two chunks: 10 P R / (R + 9 P), halved.
    let meteor = rows(&lab)[1]["meteor_no_wordnet"].as_f64().unwrap();
    assert!((meteor - 10.0 / 14.5 / 2.0).abs() < 1e-9, "{meteor}");
    lab.write("words.json", tokenizer("?"));
    lab.run(["run", "x.toml"]).expect(3).says(&["row `a` cannot be scored: cannot tokenize"]);
    lab.write("words.json", "{}");
    lab.run(["run", "x.toml"]).expect(3).says(&["cannot read the tokenizer", "words.json"]);
}

#[test]
fn what_cannot_be_computed_is_missing_with_its_reason() {
    let lab = molecules(
        "metrics = [\"maccs_fts\", \"validity\"]\n\n[table]\ncolumns = [\"maccs_fts\", \"validity\"]\n[table.rows.all]\nfrom = \"scores\"",
    );
    lab.write("outputs.tsv", "id\tmolecule\tcaption\tguess\na\tCC\tx\tC(\nb\tC\ty\tno\n");
    let reason = "none of 2 rows has two molecules to compare";
    lab.run(["run", "x.toml"]).expect(3).shows(&[reason]);
    let found: Value = serde_json::from_str(&lab.made("scores", "metrics.json")).unwrap();
    assert_eq!((&found["maccs_fts"]["missing"], &found["validity"]), (&json!(reason), &json!(0.0)));
}

#[test]
fn references_can_be_shuffled_as_a_control() {
    let lab = captions("metrics = [\"rouge1\"]\npairing = \"shuffled\"");
    let shuffled = |lab: &Lab| -> Vec<(String, String)> {
        lab.run(["run", "x.toml"]).expect(0);
        let text = |row: &Value, field: &str| row[field].as_str().unwrap().to_owned();
        rows(lab).iter().map(|row| (text(row, "id"), text(row, "reference_id"))).collect()
    };
    let first = shuffled(&lab);
    assert!(first.iter().all(|(own, other)| own != other), "{first:?}");
    let mut others: Vec<&String> = first.iter().map(|(_, other)| other).collect();
    others.sort();
    assert_eq!(others, ["a", "b", "c", "d"]);
    let seeded = |seed: u32| {
        let lab = captions(&format!("seed = {seed}\nmetrics = [\"rouge1\"]\npairing = \"shuffled\""));
        shuffled(&lab)
    };
    assert!((1..9).any(|seed| seeded(seed) != first));
    lab.write("outputs.tsv", "id\tmolecule\tcaption\toutput\na\tC\tx\ty\n");
    lab.run(["run", "x.toml"]).expect(3).says(&["fewer than two predictions"]);
}

#[test]
fn metrics_that_do_not_go_together_are_refused_before_anything_runs() {
    let refused = |lab: Lab, piece: &str| is_refused(&lab, &[piece]);
    let both = captions("metrics = [\"bleu2\", \"levenshtein\", \"validity\"]");
    refused(both, "`bleu2` measures captions (mol2cap) and `validity` molecules");
    refused(captions("metrics = [\"validity\"]"), "`metrics` measure molecules (cap2mol), and `direction`");
    refused(captions("metrics = [\"words\"]"), "`direction` is for outputs of a model");
    refused(captions("metrics = [\"rouge1\", \"rouge1\"]"), "`metrics` names `rouge1` twice");
    refused(
        captions("metrics = [\"rouge1\"]\ntokens.wordpiece = \"outputs.tsv\""),
        "`tokens` changes nothing",
    );
    refused(
        captions("metrics = [\"rouge1\"]\nempty_prediction = \"valid\""),
        "`empty_prediction` changes nothing",
    );
    refused(lab("metrics = [\"words\"]\npairing = \"shuffled\""), "`pairing` is for predictions");
    refused(lab("metrics = [\"rouge1\"]"), "stage `scores` needs an input `predictions`");
    refused(lab("metrics = [\"rouge1\"]\nfield = \"output\""), "`field` is for rows");
}

#[test]
fn predictions_of_the_other_direction_are_refused_by_name() {
    let lab = Lab::with(
        "[stages.made]\nkind = \"command\"\nfiles = [\"made.jsonl\"]\n\
         run = \"cp files/made.jsonl outputs/predictions/rows.jsonl\"\noutputs.predictions.type = \"predictions\"\n\n\
         [stages.scores]\nkind = \"evaluate\"\ninputs = { predictions = \"made\" }\nmetrics = [\"rouge1\"]\n",
    );
    let line = |id: &str, direction: &str| {
        json!({ "id": id, "direction": direction, "input": "x", "reference": "y", "prediction": "y" })
            .to_string()
    };
    lab.write("made.jsonl", format!("{}\n{}\n", line("1", "mol2cap"), line("2", "cap2mol")));
    let pieces = ["prediction `2` is of cap2mol, and `rouge1` is for mol2cap", "a stage of its own"];
    lab.run(["run", "x.toml"]).expect(3).says(&pieces);
    lab.edit("x.toml", "rouge1", "levenshtein");
    lab.run(["run", "x.toml"])
        .expect(3)
        .says(&["prediction `2` is of cap2mol, and the ones before it of mol2cap"]);
    lab.write("made.jsonl", "");
    lab.run(["run", "x.toml"]).expect(3).says(&["there are no predictions to measure"]);
}

#[test]
fn the_number_of_cores_changes_no_byte() {
    let made = |cores: u32| {
        let lab = molecules(&format!(
            "metrics = [\"bleu\", \"chrf\", \"maccs_fts\", \"morgan_fts\"]\nresources.cores = {cores}"
        ));
        let more: String = (0..300)
            .map(|row| format!("r{row}\tCC{}O\tx\ty\tC{}O\n", "C".repeat(row % 7), "N".repeat(row % 5)))
            .collect();
        lab.write("outputs.tsv", format!("{OUTPUTS}{more}"));
        lab.run(["run", "x.toml"]).expect(0);
        ["metrics.json", "rows.jsonl", "distributions.json"].map(|file| lab.made("scores", file))
    };
    assert_eq!(made(1), made(2));
}

#[test]
fn meteor_needs_wordnet_or_says_that_it_has_none() {
    is_refused(&captions("metrics = [\"meteor\"]"), &["`meteor` needs WordNet's files"]);
    let unused = captions("metrics = [\"meteor_no_wordnet\"]\nwordnet = \"outputs.tsv\"");
    is_refused(&unused, &["`wordnet` changes nothing"]);
    let lab = captions("metrics = [\"meteor\", \"meteor_no_wordnet\"]\nwordnet = \"wordnet\"");
    for part in ["noun", "verb", "adj", "adv"] {
        for file in [format!("index.{part}"), format!("data.{part}"), format!("{part}.exc")] {
            lab.write(&format!("wordnet/{file}"), "");
        }
    }
    lab.write("outputs.tsv", "id\tmolecule\tcaption\toutput\na\tC\ta salty sea\tan brine\n");
    lab.write("wordnet/index.noun", "sea n 1 0 1 0 00000009\nbrine n 1 0 1 0 00000009\n");
    lab.write("wordnet/data.noun", "00000009 00 n 02 sea 0 brine 0 000 | salt water\n");
    let found = metrics(&lab);
    // `brine` is `brine` to Porter, and WordNet knows it for `sea`; `an` is nothing.
    assert!(found["meteor"].as_f64() > found["meteor_no_wordnet"].as_f64(), "{found}");
    assert_eq!(found["meteor_no_wordnet"], 0.0);
    lab.write("wordnet/index.noun", "sea n\n");
    lab.run(["run", "x.toml"]).expect(3).says(&["line 1 of `index.noun`"]);
}

#[test]
fn molecules_are_counted_once_and_can_win() {
    let lab = molecules("metrics = [\"uniqueness\", \"win_rate\", \"character\"]");
    lab.write(
        "outputs.tsv",
        "id\tmolecule\tcaption\tguess\na\tCCO\tx\tOCC\nb\tCCCN\ty\tCCO\nc\tCCC\tz\tC(\nd\tCCCC\tw\tCCCN\n",
    );
    let found = metrics(&lab);
    assert_eq!((&found["uniqueness"], &found["win_rate"]), (&json!(2.0 / 3.0), &json!(0.75)));
    let rows = rows(&lab);
    assert_eq!((&rows[1]["uniqueness"], &rows[2]["uniqueness"]), (&json!(0.0), &Value::Null));
    assert!(rows[0]["character"].as_f64().unwrap() > 0.0);
}

#[test]
fn short_references_can_be_left_out() {
    let lab = captions("metrics = [\"rouge1\"]\nmin_reference_words = 3");
    lab.run(["run", "x.toml"]).expect(0).says(&["3 of 4 predictions are left out"]);
    assert_eq!(metrics(&lab)["rows"], 1);
}

/// Two models on the same 40 rows, the second of which is right more often.
fn two_models(more: &str) -> Lab {
    let stage = |name: &str, field: &str, more: &str| {
        format!(
            "[stages.{name}]\nkind = \"evaluate\"\ninputs.rows = \"outputs\"\ndirection = \"mol2cap\"\nfield = \"{field}\"\nmetrics = [\"bleu2\", \"rouge1\", \"length_deviation\"]\n{more}\n"
        )
    };
    let lab = Lab::with(&format!(
        "[stages.outputs]\nkind = \"source\"\npath = \"outputs.tsv\"\n\n{}{}",
        stage("first", "first", ""),
        stage("scores", "second", more),
    ));
    let row = |row: usize| {
        let [first, second] =
            [4, 2].map(|every| if usize::is_multiple_of(row, every) { "a b c d" } else { "a b x" });
        format!("r{row}\tC\ta b c d\t{first}\t{second}\n")
    };
    let rows: String = (0..40).map(row).collect();
    lab.write("outputs.tsv", format!("id\tmolecule\tcaption\tfirst\tsecond\n{rows}"));
    lab
}

#[test]
fn numbers_have_intervals() {
    let lab = two_models("bootstrap = { resamples = 200 }");
    let found = metrics(&lab);
    for metric in ["bleu2", "rouge1", "length_deviation"] {
        let [low, number, high] = [format!("{metric}_low"), metric.to_owned(), format!("{metric}_high")]
            .map(|column| found[column].as_f64().unwrap());
        assert!(low < number && number < high, "{metric}: {low} {number} {high}");
    }
    let again = two_models("bootstrap = { resamples = 200 }");
    assert_eq!(metrics(&again), found, "the seed is the same");
    lab.edit("x.toml", "resamples = 200", "resamples = 200, confidence = 0.5");
    assert!(metrics(&lab)["rouge1_low"].as_f64() > found["rouge1_low"].as_f64());
    lab.edit("x.toml", "confidence = 0.5", "confidence = 1.5");
    is_refused(&lab, &["`bootstrap.confidence` is between 0 and 1"]);
}

#[test]
fn two_models_are_compared_on_the_same_rows() {
    let lab = two_models("inputs.baseline = \"first\"\ncompare = { resamples = 500 }");
    let found = metrics(&lab);
    let number = |column: &str| found[column].as_f64().unwrap_or_else(|| panic!("{column} in {found}"));
    // Right on a quarter more rows, and never wrong where the other is right.
    assert!((number("rouge1_gain") - 0.25 * (1.0 - 4.0 / 7.0)).abs() < 1e-12);
    assert_eq!((number("rouge1_higher"), number("rouge1_lower")), (0.25, 0.0));
    assert_eq!(number("length_deviation_gain"), 0.25);
    assert_eq!(found.get("rouge1_permutation_p"), None);
    assert!(
        number("rouge1_gain_low") > 0.0 && number("rouge1_gain_p") < 0.05 && number("bleu2_gain_p") < 0.05
    );
    assert!(number("rouge1_relative_entropy") > 0.0 && number("rouge1_relative_entropy_reversed") > 0.0);
    let binned = number("rouge1_relative_entropy");
    lab.edit("x.toml", "compare =", "relative_entropy = \"kernel_density\"\ncompare =");
    let smooth = metrics(&lab);
    assert_eq!(smooth["rouge1_gain_p"], found["rouge1_gain_p"]);
    assert!(
        smooth["rouge1_relative_entropy"].as_f64().is_some_and(|smooth| smooth > 0.0 && smooth != binned)
    );
    lab.edit("x.toml", "inputs.baseline = \"first\"\n", "");
    is_refused(&lab, &["needs an input `baseline`"]);
    let lab = two_models("inputs.baseline = \"first\"\ncompare = {}");
    lab.edit("x.toml", "\"rouge1\", ", "");
    lab.run(["run", "x.toml"]).expect(3).says(&["the baseline has no `rouge1`"]);
}

#[test]
fn two_models_are_held_against_each_other_by_permutations() {
    let compare = |permutations: &str| {
        format!("inputs.baseline = \"first\"\ncompare = {{ resamples = 50, permutations = {permutations} }}")
    };
    let lab = two_models(&compare("2000"));
    let found = metrics(&lab);
    // The second is better in ten rows, worse in none and the same in the rest: all ten on one side
    // has a chance of 2 in 1024.
    for metric in ["rouge1", "bleu2", "length_deviation"] {
        let p = found[format!("{metric}_permutation_p")].as_f64().unwrap();
        assert!((0.0005..0.006).contains(&p), "{metric}: {p}");
    }
    assert_eq!(metrics(&two_models(&compare("2000"))), found, "the seed is the same");
    // Of five rows there are 32 permutations; the models differ in one, and that says nothing.
    let few = two_models(&compare("32"));
    let rows: Vec<String> = few.read("outputs.tsv").lines().take(6).map(str::to_owned).collect();
    few.write("outputs.tsv", rows.join("\n") + "\n");
    let found = metrics(&few);
    assert_eq!(found["rouge1_permutation_p"], 1.0);
    assert!(found["rouge1_gain"].as_f64() > Some(0.0), "{found}");
    is_refused(&two_models(&compare("0")), &["`compare.permutations` is at least 1"]);
    // It stands in a table like all others.
    let table = two_models(&format!(
        "{}\n[table]\ncolumns = [\"rouge1\", \"rouge1_gain\", \"rouge1_permutation_p\"]\nfrom = \"scores\"",
        compare("2000")
    ));
    table.run(["run", "x.toml"]).expect(0).shows(&["ROUGE-1 permutation p"]);
}

#[test]
fn tautomers_are_one_molecule_by_inchi() {
    let lab = molecules("metrics = [\"exact\", \"exact_inchi\", \"exact_string\"]");
    lab.write(
        "outputs.tsv",
        "id\tmolecule\tcaption\tguess\na\tOc1ccccn1\tx\tO=c1cccc[nH]1\nb\tCCO\ty\tOCC\nc\tCCN\tz\tCCO\nd\tCC\tw\tC(\n",
    );
    let found = metrics(&lab);
    assert_eq!(
        (&found["exact_string"], &found["exact"], &found["exact_inchi"]),
        (&json!(0.0), &json!(0.25), &json!(0.5))
    );
    assert_eq!(rows(&lab)[3]["exact_inchi"], 0.0, "what is no molecule is not the same");
    // A row whose InChI cannot be found is told, and does not count.
    let [long, other] = [format!("CCCC{}", "C".repeat(1_200)), format!("CC(C)C{}", "C".repeat(1_200))];
    lab.write(
        "outputs.tsv",
        format!("id\tmolecule\tcaption\tguess\na\t{long}\tx\t{other}\nb\tCCO\ty\tOCC\n"),
    );
    lab.run(["run", "x.toml"]).expect(0).says(&["1 rows lack a score that cannot be computed (no InChI: "]);
    assert_eq!((&rows(&lab)[0]["exact_inchi"], &metrics(&lab)["exact_inchi"]), (&Value::Null, &json!(1.0)));
}

#[test]
fn references_can_come_from_other_rows() {
    let lab = Lab::with(
        "[stages.outputs]\nkind = \"source\"\npath = \"outputs.tsv\"\n\n\
         [stages.test]\nkind = \"source\"\npath = \"test.tsv\"\n\n\
         [stages.scores]\nkind = \"evaluate\"\ninputs = { rows = \"outputs\", references = \"test\" }\n\
         direction = \"mol2cap\"\nmetrics = [\"rouge1\"]\n",
    );
    lab.write("outputs.tsv", "output\na gas\na salt\n");
    lab.write("test.tsv", "caption\na gas\na bitter salt\n");
    assert_eq!(metrics(&lab)["rouge1"], 0.9);
    lab.write("test.tsv", "caption\na gas\na bitter salt\nan acid\n");
    lab.run(["run", "x.toml"])
        .expect(3)
        .says(&["2 outputs are held against 3 references: `rows` has no row `3`", "by `id`"]);
    lab.write("test.tsv", "caption\na gas\n");
    lab.run(["run", "x.toml"])
        .expect(3)
        .says(&["2 outputs are held against 1 references: `references` has no row `2`"]);
    lab.write("test.tsv", "text\na gas\nb\n");
    lab.run(["run", "x.toml"]).expect(3).says(&["`caption`", "in `references`"]);
    lab.edit("x.toml", "direction = \"mol2cap\"\n", "");
    is_refused(&lab, &["`scores`"]);
}

#[test]
fn what_is_too_short_is_counted_and_not_0() {
    let all = "metrics = [\"bleu2\", \"bleu4\", \"rouge1\", \"rouge2\", \"rougeL\", \"meteor_no_wordnet\", \"chrf\"]";
    let write = |lab: &Lab, pairs: &[[&str; 2]]| {
        let rows = pairs.iter().enumerate();
        let rows = rows.map(|(row, [output, caption])| format!("{row}\tC\t{caption}\t{output}\n"));
        lab.write("outputs.tsv", format!("id\tmolecule\tcaption\toutput\n{}", rows.collect::<String>()));
    };
    // Captions of one word: there is a word to find, and no pair of words.
    let lab = captions(all);
    write(&lab, &[["salt", "salt"], ["gas", "acid"]]);
    lab.run(["run", "x.toml"]).expect(0).says(&[
        "2 rows lack a score that cannot be computed (a reference of one word has no pairs of words)",
        "2 of 2 predictions have fewer than 4 tokens; BLEU takes each for an n-gram that is not matched",
    ]);
    let found = metrics(&lab);
    for (metric, expected) in [("rouge1", 0.5), ("rougeL", 0.5), ("meteor_no_wordnet", 0.25)] {
        assert_eq!(found[metric], expected, "{metric}");
    }
    for (metric, reason) in [
        ("bleu2", "no reference has 2 tokens, so there is nothing that could be matched"),
        ("bleu4", "no reference has 4 tokens, so there is nothing that could be matched"),
        ("rouge2", "no row could be scored: a reference of one word has no pairs of words"),
    ] {
        assert_eq!(found[metric], json!({ "missing": reason }), "{metric}");
    }
    // A prediction of one word is as wrong as others, and scored as nltk scores it.
    write(&lab, &[["salt", "a salt"], ["a gas", "a gas"]]);
    let found = metrics(&lab);
    assert_eq!(found["rouge2"], 0.5);
    assert!(found["bleu2"].as_f64().is_some_and(|bleu| bleu > 0.5), "{found}");
    // An empty reference is nothing to be held against.
    write(&lab, &[["salt", ""], ["a gas", "a gas"], ["a gas", "\u{6c14}\u{4f53}"]]);
    lab.run(["run", "x.toml"]).expect(0).says(&[
        "1 of 3 references are empty",
        "2 rows lack a score that cannot be computed (a reference is empty)",
    ]);
    let found = rows(&lab);
    for metric in ["rouge1", "rouge2", "rougeL", "meteor_no_wordnet", "chrf"] {
        assert_eq!(found[0][metric], Value::Null, "{metric}");
    }
    assert_eq!((&found[2]["rouge1"], &found[2]["chrf"]), (&Value::Null, &json!(0.0)));
    assert_eq!(metrics(&lab)["rouge1"], 1.0);
}

#[test]
fn references_that_are_no_molecules_are_counted_and_not_scored() {
    let all = ["exact", "exact_inchi", "maccs_fts", "maccs_fts_invalid_zero", "rdk_fts", "morgan_fts"];
    let lab = molecules(&format!("metrics = {all:?}"));
    lab.write("outputs.tsv", "id\tmolecule\tcaption\tguess\na\tC(\tx\tCC\nb\tCCO\ty\tOCC\n");
    lab.run(["run", "x.toml"])
        .expect(0)
        .says(&["1 of 2 references are no molecules, and their rows do not count"]);
    let (found, rows) = (metrics(&lab), rows(&lab));
    for metric in all {
        assert_eq!((&rows[0][metric], &found[metric]), (&Value::Null, &json!(1.0)), "{metric}");
    }
    lab.write("outputs.tsv", "id\tmolecule\tcaption\tguess\na\tC(\tx\tCC\n");
    let found = metrics(&lab);
    for metric in all {
        assert_eq!(found[metric], json!({ "missing": "no reference is a molecule" }), "{metric}");
    }
}

#[test]
fn files_that_are_missing_or_no_text_are_named() {
    let lab = captions("metrics = [\"meteor\"]\nwordnet = \"words/wordnet.tar.xz\"");
    is_refused(&lab, &["words/wordnet.tar.xz"]);
    let lab = captions("metrics = [\"bleu2\"]\ntokens.wordpiece = \"pieces.txt\"");
    is_refused(&lab, &["pieces.txt"]);
    lab.write("pieces.txt", b"[UNK]\na\n\xff\xfe\n");
    lab.run(["run", "x.toml"]).expect(3).says(&["pieces.txt", "UTF-8"]);
    let lab = molecules("metrics = [\"fcd\"]\nchemnet = \"nets/chemnet.safetensors\"");
    is_refused(&lab, &["nets/chemnet.safetensors"]);
    // WordNet without one of its files.
    let lab = captions("metrics = [\"meteor\"]\nwordnet = \"wordnet\"");
    lab.write("wordnet/index.noun", "");
    lab.run(["run", "x.toml"]).expect(3).says(&["read WordNet from", "wordnet"]);
    // Outputs that are no text, in a file and out of a program.
    let lab = captions("metrics = [\"rouge1\"]");
    lab.write("outputs.tsv", b"id\tmolecule\tcaption\toutput\na\tC\tx\t\xff\xfe\n");
    lab.run(["run", "x.toml"]).expect(3).says(&["line 2 is not UTF-8", "iconv"]);
    let lab = Lab::with(
        "[stages.made]\nkind = \"command\"\nfiles = [\"made.jsonl\"]\n\
         run = \"cp files/made.jsonl outputs/predictions/rows.jsonl\"\noutputs.predictions.type = \"predictions\"\n\n\
         [stages.scores]\nkind = \"evaluate\"\ninputs = { predictions = \"made\" }\nmetrics = [\"rouge1\"]\n",
    );
    let line = b"{\"id\":\"a\",\"direction\":\"mol2cap\",\"input\":\"C\",\"reference\":\"x\",\"prediction\":\"\xff\"}\n";
    lab.write("made.jsonl", line);
    lab.run(["run", "x.toml"]).expect(3).says(&["rows.jsonl", "line 1"]);
}

#[test]
fn a_killed_scoring_goes_on_and_ends_with_the_same_bytes() {
    let (whole, killed) = (slow_scoring(), slow_scoring());
    whole.run(["run", "x.toml"]).expect(0);
    // What was being written when it ended is cut off.
    let path = kill_when_kept(&killed).with_file_name("rows.jsonl");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, [&bytes, &b"{\"id\":\"r20"[..]].concat()).unwrap();
    assert_eq!(killed.run(["run", "x.toml"]).expect(0).ran(), ["scores"]);
    killed.run(["log", "x.toml", "scores"]).expect(0).shows(&[" rows were scored before"]);
    assert_eq!(scored_files(&whole), scored_files(&killed));
}

/// Rows of the first batch take no time, and those of the second a while: CharacTER of long lines.
fn slow_scoring() -> Lab {
    let lab = molecules("metrics = [\"character\", \"uniqueness\", \"maccs_fts\", \"bleu\"]");
    let quick =
        (0..2_048).map(|row| format!("r{row}\tCC{}O\tx\tC{}O\n", "C".repeat(row % 7), "N".repeat(row % 5)));
    let slow = (0..40).map(|row| {
        let line = |first: &str, second: &str| format!("{}{}", first.repeat(30 + row % 5), second.repeat(40));
        format!("s{row}\t{}\tx\t{}\n", line("CCO", "N"), line("N", "OCC"))
    });
    let rows: String = quick.chain(slow).collect();
    lab.write("outputs.tsv", format!("id\tmolecule\tcaption\tguess\n{rows}"));
    lab
}

fn scored_files(lab: &Lab) -> [String; 3] {
    ["metrics.json", "rows.jsonl", "distributions.json"].map(|file| lab.made("scores", file))
}

/// Kills a scoring when it has kept a batch; returns the file with the batches' digests.
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
        crate::lab::signal(process, rustix::process::Signal::KILL);
    }
    assert!(!child.wait().unwrap().success());
    kept().expect("it outlives the kill")
}

/// A digit that is as good JSON as the one before would be another score under the same key.
#[test]
fn kept_scores_that_were_changed_are_made_anew() {
    let (whole, killed) = (slow_scoring(), slow_scoring());
    whole.run(["run", "x.toml"]).expect(0);
    let digests = kill_when_kept(&killed);
    let path = digests.with_file_name("rows.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    let place = text.find("\"scores\":[").expect("scores") + "\"scores\":[".len();
    let digit = text[place..].find(|letter: char| letter.is_ascii_digit()).expect("a digit") + place;
    let mut bytes = text.into_bytes();
    bytes[digit] = if bytes[digit] == b'7' { b'3' } else { b'7' };
    std::fs::write(&path, bytes).unwrap();
    let told = killed.run(["run", "x.toml"]).expect(0);
    assert_eq!(told.ran(), ["scores"]);
    let log = killed.run(["log", "x.toml", "scores"]).expect(0);
    log.shows(&["2048 rows that a killed attempt had kept are discarded and computed again"]);
    assert_eq!(scored_files(&whole), scored_files(&killed));
}
