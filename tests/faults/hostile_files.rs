//! Files that are none, as sources and as what parameters name, and files that change meanwhile.

use std::fs::File;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::graph::has_crashed;
use super::part::Part;
use crate::lab::Lab;

const LIMIT: Duration = Duration::from_secs(10);

/// Stages that each read a file which is named `FILE`.
const READERS: &[(&str, &str)] = &[
    ("a source", "[stages.a]\nkind = \"source\"\npath = \"FILE\"\nformat = \"jsonl\"\n"),
    (
        "a script",
        "[stages.a]\nkind = \"command\"\nfiles = [\"FILE\"]\nrun = \"cp files/* outputs/o/\"\noutputs.o = {}\n",
    ),
    (
        "templates",
        "[stages.rows]\nkind = \"source\"\npath = \"rows.tsv\"\n\
         [stages.a]\nkind = \"compose\"\ninputs = { rows = \"rows\" }\ntemplates = \"FILE\"\n",
    ),
    (
        "a vocabulary",
        "[stages.rows]\nkind = \"source\"\npath = \"rows.tsv\"\n\
         [stages.a]\nkind = \"evaluate\"\ninputs = { rows = \"rows\" }\ndirection = \"mol2cap\"\nfield = \"text\"\nmetrics = [\"bleu2\"]\ntokens.wordpiece = \"FILE\"\n",
    ),
    ("a folder's file", "[stages.a]\nkind = \"source\"\npath = \"folder\"\nformat = \"model\"\n"),
];

#[test]
fn that_are_no_files() {
    let mut part = Part::begin("special files", &["hangs", "crashed", "taken", "without a word"]);
    for (what, reader) in READERS {
        // Not /dev/zero: where it is read, it takes all memory. /dev/urandom is read as slowly as
        // it is made, and is ended in time.
        for special in
            ["pipe", "/dev/stdin", "/dev/urandom", "/dev/tty", "loop", "dangling", "folder", "socket"]
        {
            part.tries();
            let lab = Lab::with(&reader.replace("FILE", special));
            lab.write("rows.tsv", "id\tmolecule\tcaption\ttext\na\tC\tb\tb\n");
            lab.write("folder/config.json", "{}");
            assert!(Command::new("mkfifo").arg(lab.path("pipe")).status().is_ok_and(|made| made.success()));
            let _socket = std::os::unix::net::UnixListener::bind(lab.path("socket")).expect("a socket");
            let link = |from: &str, to: &str| {
                std::os::unix::fs::symlink(from, lab.path(to)).expect("a link");
            };
            link("loop", "loop");
            link("absent", "dangling");
            let inside = if special.starts_with('/') { special.to_owned() } else { format!("../{special}") };
            if *what == "a folder's file" {
                match special {
                    // A folder in a folder is one more folder, and one that leads back is a loop.
                    "folder" => link(".", "folder/again"),
                    _ => link(&inside, "folder/model.safetensors"),
                }
            } else if special == "folder" && *what == "a source" {
                continue;
            }
            for command in ["plan", "run"] {
                let how = format!("{special} as {what}, {command}");
                let Some(told) = lab.run_within(LIMIT, [command, "x.toml"]) else {
                    part.problem("hangs", how);
                    continue;
                };
                if has_crashed(&told) {
                    part.problem("crashed", format!("{how}: {told:?}"));
                } else if told.code == 0 && command == "run" {
                    part.problem("taken", format!("{how}: {told:?}"));
                } else if told.code != 0 && ![special, "folder"].iter().any(|name| told.stderr.contains(name))
                {
                    part.problem("without a word", format!("{how}: {told:?}"));
                }
            }
        }
    }
    part.finish();
}

/// A file of 64 MiB that is cut off and grows again, as long as it is hashed.
#[test]
fn that_are_cut_while_they_are_read() {
    let mut part = Part::begin("files cut while they are read", &["crashed", "refused"]);
    let lab = Lab::with("[stages.a]\nkind = \"source\"\npath = \"rows.jsonl\"\n");
    lab.write("rows.jsonl", "");
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let file = File::options().write(true).open(lab.path("rows.jsonl")).expect("it is there");
            while !is_done.load(Ordering::Relaxed) {
                // Holes take no room, and reading them takes milliseconds.
                file.set_len(64 << 20).expect("it can grow");
                std::thread::sleep(Duration::from_millis(3));
                file.set_len(0).expect("it can be cut");
            }
        });
        while part.tries_again(10) {
            let told = lab.run(["plan", "x.toml", "--rehash"]);
            match told.code {
                0 => {}
                2 => part.count("refused"),
                _ => part.problem("crashed", format!("{told:?}")),
            }
        }
        is_done.store(true, Ordering::Relaxed);
    });
    part.finish();
}
