//! Inputs that are edited while a run goes on: a result under a key is of the bytes that the key
//! names, or there is none.

use super::part::Part;
use crate::lab::{Lab, ROWS, wait_until};

/// An experiment in which `s`, at the end, reads a file after the gate has opened.
struct Reader {
    what: &'static str,
    stage: &'static str,
    /// The file, its first bytes, and as many others.
    file: &'static str,
    contents: [&'static str; 2],
    made: &'static str,
}

const VOCABULARIES: [&str; 2] = [
    "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nan\nal\n##co\n##hol\n",
    "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nan\nal\n##hol\n##xx\n",
];

const READERS: &[Reader] = &[
    Reader {
        what: "data of a command",
        stage: "kind = \"command\"\ninputs.g = \"gate\"\nfiles = [\"n.txt\"]\nrun = \"cat files/n.txt > outputs/o/x\"\noutputs.o = {}\n",
        file: "n.txt",
        contents: ["1\n", "9\n"],
        made: "x",
    },
    Reader {
        what: "the script of a command",
        stage: "kind = \"command\"\ninputs.g = \"gate\"\nfiles = [\"run.sh\"]\nrun = \"sh files/run.sh\"\noutputs.o = {}\n",
        file: "run.sh",
        contents: ["echo 1 > outputs/o/x\n", "echo 9 > outputs/o/x\n"],
        made: "x",
    },
    Reader {
        what: "the templates of `compose`",
        stage: "kind = \"compose\"\ninputs.rows = \"gate\"\ntemplates = \"templates.toml\"\n",
        file: "templates.toml",
        contents: ["TEMPLATES is", "TEMPLATES IS"],
        made: "rows.jsonl",
    },
    Reader {
        what: "the prompt of a training",
        stage: "kind = \"train\"\ninputs = { tokenizer = \"tokenizer\", rows = \"gate\", validation = \"gate\" }\n\
                prompts.mol2cap = \"prompt.txt\"\nobjective.sft = {}\nbatch_size = 2\nlength.steps = 2\nlearning_rate = 0.01\n\
                model.llama = { hidden_size = 16, intermediate_size = 24, num_hidden_layers = 1, num_attention_heads = 2, max_position_embeddings = 64 }\n",
        file: "prompt.txt",
        contents: ["Molecule: {molecule} Caption: {caption}\n", "Caption? {molecule} Answer!: {caption}\n"],
        made: "model.safetensors",
    },
    Reader {
        what: "the vocabulary of an evaluation",
        stage: "kind = \"evaluate\"\ninputs.rows = \"gate\"\ndirection = \"mol2cap\"\nfield = \"prediction\"\nmetrics = [\"bleu2\"]\ntokens.wordpiece = \"vocabulary.txt\"\n",
        file: "vocabulary.txt",
        contents: VOCABULARIES,
        made: "metrics.json",
    },
    Reader {
        what: "a source",
        stage: "kind = \"source\"\npath = \"late.jsonl\"\n",
        file: "late.jsonl",
        contents: ["{\"id\":\"a\",\"n\":1}\n", "{\"id\":\"a\",\"n\":9}\n"],
        made: "rows.jsonl",
    },
];

fn write(lab: &Lab, reader: &Reader, content: usize) {
    let text = reader.contents[content];
    if text.starts_with("TEMPLATES") {
        // All templates, with another word in them.
        let all = crate::lab::project().join("experiments/templates/lpm24.toml");
        let all = std::fs::read_to_string(all).expect("the templates are there");
        return lab.write(reader.file, if content == 0 { all } else { all.replace(" is ", " IS ") });
    }
    lab.write(reader.file, text);
}

fn workspace(reader: &Reader) -> Lab {
    let lab = Lab::new();
    let rows =
        ROWS.replace("\"caption\"", "\"properties\":[\"sweet\"],\"prediction\":\"an alcohol\",\"caption\"");
    lab.write("rows.jsonl", &rows);
    lab.write("gate.sh", format!("{}\ncp files/rows.jsonl outputs/rows/\n", lab.gate("gate")));
    lab.write(
        "x.toml",
        format!(
            "[stages.s]\n{}\n[stages.gate]\nkind = \"command\"\nfiles = [\"gate.sh\", \"rows.jsonl\"]\nrun = \"sh files/gate.sh\"\n\
             outputs.rows.type = \"rows\"\n\n\
             [stages.tokenizer]\nkind = \"tokenizer\"\ninputs = {{ rows = \"gate\" }}\nmodel.bpe = {{ vocab_size = 280 }}\n",
            reader.stage
        ),
    );
    lab
}

/// Returns what an undisturbed run makes of each content.
fn references(reader: &Reader) -> [String; 2] {
    [0, 1].map(|content| {
        let lab = workspace(reader);
        write(&lab, reader, content);
        lab.write("gate", "");
        lab.run(["run", "x.toml"]).expect(0);
        lab.run(["show", "x.toml", "s", "--output", output(reader)]).expect(0).stdout
    })
}

fn output(reader: &Reader) -> &'static str {
    match reader.made {
        "x" => "o",
        "rows.jsonl" => "rows",
        "model.safetensors" => "model",
        _ => "scores",
    }
}

#[test]
fn of_what_a_later_stage_reads() {
    let mut part = Part::begin("edits while a run goes on", &["wrong", "refused", "read before"]);
    for reader in READERS {
        let references = references(reader);
        assert_ne!(references[0], references[1], "{}: the two are to differ", reader.what);
        // Edited for good; and, once, undone again before anybody looks.
        for undone in [false, true].into_iter().take(if reader.made == "x" { 2 } else { 1 }) {
            part.tries();
            let lab = workspace(reader);
            write(&lab, reader, 0);
            // One core, and the stage stands first in the file: then the plan has it behind the gate.
            let run = lab.spawn(["run", "x.toml", "--jobs", "1"]);
            wait_until("the gate is closed", || {
                lab.run(["status", "x.toml"]).stdout.contains("running  gate")
            });
            if !lab.run(["status", "x.toml"]).stdout.contains("missing  s") {
                part.count("read before");
            }
            write(&lab, reader, 1);
            lab.write("gate", "");
            let told = lab.told(run);
            if told.code == 3 {
                part.count("refused");
            }
            let first = usize::from(!undone);
            for content in [first, 1 - first] {
                write(&lab, reader, content);
                let run = lab.run(["run", "x.toml"]);
                let made = lab.run(["show", "x.toml", "s", "--output", output(reader)]).stdout;
                if run.code != 0 || made != references[content] {
                    let how = format!("{}, content {content}: {told:?}, then {run:?}: {made}", reader.what);
                    part.problem("wrong", how);
                }
            }
        }
    }
    part.finish();
}

/// The names and the modes of `files` are seen by the program, so they are part of the work.
#[test]
fn of_names_and_modes() {
    let mut part = Part::begin("names and modes of files", &["wrong"]);
    let reference = |change: &dyn Fn(&Lab)| {
        let lab = files();
        change(&lab);
        lab.run(["run", "x.toml"]).expect(0);
        lab.made("s", "x")
    };
    let swap = |lab: &Lab| {
        lab.write("train.txt", "100\n");
        lab.write("test.txt", "1\n");
        lab.edit("x.toml", "\"train.txt\", \"test.txt\"", "\"test.txt\", \"train.txt\"");
    };
    let executable = |lab: &Lab| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(lab.path("train.txt"), mode).expect("it is ours");
    };
    let rename = |lab: &Lab| {
        std::fs::rename(lab.path("test.txt"), lab.path("other.txt")).expect("it is ours");
        lab.edit("x.toml", "\"test.txt\"]", "\"other.txt\"]");
    };
    for (what, change) in
        [("swapped", &swap as &dyn Fn(&Lab)), ("made executable", &executable), ("renamed", &rename)]
    {
        part.tries();
        let expected = reference(change);
        let lab = files();
        lab.run(["run", "x.toml"]).expect(0);
        change(&lab);
        lab.run(["run", "x.toml"]).expect(0);
        part.equals("wrong", &lab.made("s", "x"), &expected, what);
    }
    part.finish();
}

fn files() -> Lab {
    let lab = Lab::with(
        "[stages.s]\nkind = \"command\"\nfiles = [\"train.txt\", \"test.txt\"]\n\
         run = \"cd files; for file in *; do echo $file $(cat $file) $(test -x $file && echo x); done > ../outputs/o/x\"\n\
         outputs.o = {}\n",
    );
    lab.write("train.txt", "1\n");
    lab.write("test.txt", "100\n");
    lab
}
