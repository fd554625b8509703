//! A disk that is full at one moment or another, and has room again.

use std::fs;

use super::graph::{Undisturbed, graph, has_crashed};
use super::part::Part;
use crate::cases::cache::in_namespace;

/// More than the experiment takes, in KiB.
const ROOM: usize = 3000;

#[test]
fn at_many_levels() {
    let mut part = Part::begin("full disks", &["wrong", "crashed", "not named", "had room"]);
    let undisturbed = Undisturbed::run();
    while part.tries_again(3) {
        let lab = graph();
        fs::create_dir(lab.cache()).expect("it is not there yet");
        let size = 8 + part.random.below(ROOM);
        // What cannot be kept is made again when there is room, and everything is usable before.
        let script = format!(
            "mount -t tmpfs -o size={size}k tmpfs $CACHE || exit 90; \
             $PIPELINE run x.toml > /dev/null; code=$?; \
             $PIPELINE status x.toml > /dev/null; test $? -le 4 || exit 91; \
             mount -o remount,size=200m $CACHE || exit 92; \
             $PIPELINE run x.toml > /dev/null || exit 93; \
             $PIPELINE table x.toml --format json; $PIPELINE show x.toml everything --output out; \
             $PIPELINE cache verify >&2 || exit 94; exit $code"
        );
        let Some(told) = in_namespace("faults::full_disk::at_many_levels", &lab, &script) else {
            return;
        };
        let how = format!("{size} KiB");
        match told.code {
            0 => part.count("had room"),
            3 | 4 => {
                let names = ["disk is full", "No space left", "free space"];
                if !names.iter().any(|name| told.stderr.contains(name)) {
                    part.problem("not named", format!("{how}: {told:?}"));
                }
            }
            _ => part.problem("wrong", format!("{how}: {told:?}")),
        }
        if has_crashed(&told) {
            part.problem("crashed", format!("{how}: {told:?}"));
        }
        part.equals("wrong", &told.stdout, &undisturbed.outcome, &how);
    }
    part.finish();
}
