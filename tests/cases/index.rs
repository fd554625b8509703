//! An index that is damaged, gone, or has no room: results are found again, and nothing wrong is
//! shown.

use std::fs;
use std::os::unix::fs::symlink;

use super::cache::{CERTAIN, fan, in_namespace};
use crate::lab::Lab;

/// Changes an index behind the cache's back.
fn change(lab: &Lab, sql: &str) {
    let index = rusqlite::Connection::open(lab.cache().join("index.sqlite")).unwrap();
    assert!(index.execute(sql, []).unwrap() > 0, "{sql} changed nothing");
}

#[test]
fn a_damaged_row_is_named_and_its_work_is_made_again() {
    let lab = fan();
    let intact = lab.run(["run", "x.toml"]).expect(0).stdout;
    for sql in [
        "UPDATE outputs SET name = 'oud' WHERE name = 'out'",
        "UPDATE outputs SET artifact = randomblob(32)",
        "DELETE FROM outputs WHERE name = 'scores'",
        "UPDATE results SET trace = (SELECT max(trace) FROM results)",
        "UPDATE artifacts SET entries = replace(entries, 'txt', 'csv')",
        "DELETE FROM artifacts",
        "UPDATE traces SET manifest = 'x'",
    ] {
        change(&lab, sql);
        lab.run(["cache", "verify"]).expect(4).shows(&["index    "]);
        // As it is asked for, or after it was mended.
        let told = lab.run(["run", "x.toml"]);
        assert!([0, 3].contains(&told.code), "{sql}: {told:#?}");
        lab.run(["cache", "verify", "--repair"]);
        assert_eq!(lab.run(["run", "x.toml"]).expect(0).stdout, intact, "{sql}");
        lab.run(["run", "x.toml", "--until", "a"]).expect(0);
        lab.run(["cache", "verify"]).expect(0).shows(&["0 corrupt"]);
    }
}

#[test]
fn one_unreadable_manifest_is_named_and_the_rest_is_listed() {
    let lab = fan();
    lab.run(["run", "x.toml"]).expect(0);
    change(&lab, "UPDATE traces SET manifest = '{' WHERE key = (SELECT min(key) FROM traces)");
    let told = lab.run(["cache", "ls"]).expect(4).says(&["cache verify --repair"]);
    assert_eq!(told.stdout.lines().filter(|line| line.contains("command")).count(), 5);
    assert_eq!(told.stdout.lines().filter(|line| line.starts_with("unreadable")).count(), 1);
    lab.run(["cache", "verify", "--repair"]).expect(0);
    lab.run(["cache", "ls"]).expect(0);
}

#[test]
fn an_index_that_is_gone_or_unreadable_is_made_again() {
    let lab = fan();
    let intact = lab.run(["run", "x.toml"]).expect(0).stdout;
    let index = lab.cache().join("index.sqlite");
    fs::remove_file(&index).unwrap();
    for command in [&["run", "x.toml"][..], &["status", "x.toml"], &["table", "x.toml"], &["cache", "ls"]] {
        lab.run(command).expect(4).says(&["is gone", "pipeline cache rebuild"]);
    }
    lab.run(["cache", "rebuild"]).expect(0).shows(&["6 results recovered"]);
    assert!(lab.run(["run", "x.toml"]).expect(0).ran().is_empty());
    lab.run(["cache", "verify"]).expect(0).shows(&["0 corrupt"]);

    fs::write(&index, "this is no database, and never was one\n".repeat(99)).unwrap();
    lab.run(["run", "x.toml"]).expect(4).says(&["pipeline cache rebuild"]);
    let kept = lab.cache().join("index.sqlite.corrupt-1");
    lab.run(["cache", "rebuild"]).expect(0).shows(&["6 results recovered", kept.to_str().unwrap()]);
    assert!(fs::read(kept).unwrap().starts_with(b"this is no database"));
    let told = lab.run(["run", "x.toml"]).expect(0);
    assert!(told.ran().is_empty());
    assert_eq!(told.stdout, intact);
}

#[test]
fn an_output_that_looks_like_a_record_is_none() {
    let lab = fan();
    lab.run(["run", "x.toml"]).expect(0);
    let mut records = Vec::new();
    for shard in fs::read_dir(lab.cache().join("records")).unwrap() {
        records.extend(fs::read_dir(shard.unwrap().path()).unwrap().map(|entry| entry.unwrap().path()));
    }
    assert_eq!(records.len(), 6);
    // As a stage could have made it.
    let shard = lab.cache().join("blobs/00");
    fs::create_dir_all(&shard).unwrap();
    fs::copy(&records[0], shard.join("1".repeat(62))).unwrap();
    fs::remove_file(&records[0]).unwrap();
    lab.run(["cache", "rebuild"]).expect(0).shows(&["5 results recovered"]);
}

#[test]
fn verify_goes_on_past_what_it_cannot_read() {
    let lab = fan();
    lab.run(["run", "x.toml"]).expect(0);
    let twice = [CERTAIN, CERTAIN].concat();
    let (linked, folder) = (lab.blob(CERTAIN), lab.blob(&twice));
    fs::remove_file(&folder).unwrap();
    fs::create_dir_all(folder.join("deep")).unwrap();
    fs::rename(&linked, lab.path("elsewhere")).unwrap();
    symlink(lab.path("elsewhere"), &linked).unwrap();
    let told = lab.run(["cache", "verify"]).expect(4);
    let _ = told.shows(&["(a link is in its place)", "(a folder is in its place)", "2 corrupt"]);
    lab.run(["cache", "verify", "--repair"]).expect(0);
    assert_eq!(fs::read(lab.path("elsewhere")).unwrap(), CERTAIN);
    lab.run(["cache", "verify"]).expect(0);
    lab.run(["run", "x.toml", "--until", "b"]).expect(0);
    assert_eq!(fs::read(&linked).unwrap(), CERTAIN);
}

#[test]
fn a_complete_cache_on_a_full_disk_can_be_looked_at() {
    let lab = fan();
    fs::create_dir(lab.cache()).unwrap();
    let looks = ["status x.toml", "table x.toml", "show x.toml a", "log x.toml a", "plan x.toml"];
    let more = ["why x.toml a", "cache ls", "cache verify", "run x.toml"];
    let looks: Vec<String> =
        looks.iter().chain(&more).map(|look| format!("$PIPELINE {look} || exit 9$?")).collect();
    let script = format!(
        "mount -t tmpfs -o size=8M tmpfs $CACHE && $PIPELINE run x.toml && \
         {{ cat /dev/zero > $CACHE/full 2>/dev/null; true; }} && ! head -c 4096 /dev/zero > $CACHE/more && \
         {{ {}; }}",
        looks.join("; ")
    );
    let Some(told) = in_namespace("a_complete_cache_on_a_full_disk_can_be_looked_at", &lab, &script) else {
        return;
    };
    let _ = told.expect(0).shows(&["done     scores", "0 corrupt", "6 results"]);
}
