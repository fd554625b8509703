//! Stories: the real binary, on small experiments in temporary workspaces.

#![expect(clippy::print_stderr, reason = "a test that is skipped says so")]

mod cases {
    mod ablations;
    pub(crate) mod cache;
    mod commands;
    mod data;
    mod docs;
    mod entries;
    mod evaluation;
    mod exits;
    mod failures;
    mod fcd;
    mod gpu;
    mod house;
    mod index;
    mod inputs;
    mod interruptions;
    mod invalid;
    mod judging;
    mod keys;
    mod laws;
    mod memory;
    mod models;
    mod own_kinds;
    mod preferences;
    mod reasons;
    mod running;
    mod sharing;
    mod supervision;
    mod tables;
    mod targets;
    mod terminal;
    mod training;
    mod valid;
    mod words;
}
/// Faults on purpose. A long run of them is `PIPELINE_FAULTS=MINUTES cargo test-faults`.
mod faults {
    mod damage;
    mod edits;
    mod escapes;
    mod full_disk;
    mod graph;
    mod hostile_files;
    mod kept;
    mod kills;
    mod part;
    mod system_calls;
    mod together;
}
mod experiment;
mod imports;
mod lab;
mod real_data;
