//! The Fréchet ChemNet Distance: from a file of weights to a number in a table.

use serde_json::Value;

use crate::lab::{Lab, data, project};

fn lab(stage: &str) -> Lab {
    let lab = Lab::with(&format!(
        "[stages.outputs]\nkind = \"source\"\npath = \"outputs.tsv\"\n\n[stages.scores]\nkind = \"evaluate\"\n\
         inputs = {{ rows = \"outputs\" }}\ndirection = \"cap2mol\"\nmetrics = [\"fcd\", \"validity\"]\n{stage}\n"
    ));
    let weights = project().join("stages/learn/tests/golden/chemnet/chemnet.safetensors");
    lab.write("chemnet.safetensors", std::fs::read(weights).unwrap());
    lab
}

fn outputs(pairs: impl Iterator<Item = (String, String)>) -> String {
    let rows = pairs.enumerate().map(|(row, (output, molecule))| format!("{row}\t{molecule}\tx\t{output}\n"));
    std::iter::once("id\tmolecule\tcaption\toutput\n".to_owned()).chain(rows).collect()
}

fn pairs(count: usize) -> impl Iterator<Item = (String, String)> {
    (0..count).map(|row| {
        let reference = format!("C{}O{}", "C".repeat(row % 11), "N".repeat(row % 2));
        (format!("{}{}", "N".repeat(row % 3 + 1), "C".repeat(row % 7)), reference)
    })
}

fn metrics(lab: &Lab) -> Value {
    lab.run(["run", "x.toml"]).expect(0);
    serde_json::from_str(&lab.made("scores", "metrics.json")).unwrap()
}

#[test]
fn a_set_is_nearest_to_itself_however_its_molecules_are_written() {
    let distance = |pairs: Vec<(String, String)>| {
        let lab = lab("chemnet = \"chemnet.safetensors\"");
        lab.write("outputs.tsv", outputs(pairs.into_iter()));
        metrics(&lab)["fcd"].as_f64().unwrap()
    };
    let apart = distance(pairs(60).collect());
    assert!(apart > 1e-3, "{apart}");
    // The same molecules in another order and another spelling; what is no molecule does not count.
    let references: Vec<String> = pairs(60).map(|(_, reference)| reference).collect();
    let mut outputs: Vec<String> =
        references.iter().map(|reference| format!("C({})", &reference[1..])).collect();
    outputs.rotate_left(7);
    let together = distance(outputs.into_iter().zip(references).collect());
    assert!(together.abs() < 1e-6, "{together}");
}

#[test]
fn rows_have_none_and_cores_change_nothing() {
    let made = |cores: u32| {
        let lab = lab(&format!("chemnet = \"chemnet.safetensors\"\nresources.cores = {cores}"));
        lab.write("outputs.tsv", outputs(pairs(300)));
        lab.run(["run", "x.toml"]).expect(0);
        assert!(!lab.made("scores", "rows.jsonl").contains("fcd"));
        lab.made("scores", "metrics.json")
    };
    assert_eq!(made(1), made(2));
}

#[test]
fn it_needs_chemnet_and_molecules() {
    lab("").run(["plan", "x.toml"]).expect(2).says(&["`fcd` needs ChemNet's weights", "convert_chemnet.py"]);
    let unused = lab("chemnet = \"chemnet.safetensors\"");
    unused.edit("x.toml", "\"fcd\", ", "");
    unused.run(["plan", "x.toml"]).expect(2).says(&["`chemnet` changes nothing"]);
    let lab = lab("chemnet = \"chemnet.safetensors\"");
    lab.write("outputs.tsv", outputs([("C(".to_owned(), "CCO".to_owned())].into_iter()));
    let found = metrics(&lab);
    let why = "0 predictions and 1 references are molecules: a set of 0 has no covariance";
    assert!(found["fcd"]["missing"].as_str().unwrap().starts_with(why), "{found}");
    lab.write("chemnet.safetensors", "no tensors");
    let told = lab.run(["run", "x.toml"]).expect(3);
    told.says(&["chemnet.safetensors", "is not a file of safetensors", "convert_chemnet.py"]);
}

#[test]
fn it_is_the_reference_scripts_on_real_outputs() {
    let Some(data) = data() else { return };
    // fcd 1.1's encoding, with the weights of fcd 1.2.2, on the valid outputs and all references.
    let expected = 1.352004121470145;
    let data = data.display();
    let lab = Lab::with(&format!(
        "[stages.outputs]\nkind = \"source\"\npath = \"{data}/chebi20/molt5_small_cap2mol.tsv.gz\"\n\
         columns = {{ molecule = \"ground truth\", caption = \"description\", output = \"output\" }}\n\n\
         [stages.scores]\nkind = \"evaluate\"\ninputs = {{ rows = \"outputs\" }}\ndirection = \"cap2mol\"\n\
         metrics = [\"fcd\"]\nchemnet = \"{data}/chemnet.safetensors\"\n"
    ));
    let found = metrics(&lab)["fcd"].as_f64().unwrap();
    assert!((found - expected).abs() < 1e-3, "{found} {expected}");
}
