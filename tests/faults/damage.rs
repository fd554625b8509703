//! Damage to what is kept: blobs, the index, its log.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use super::graph::{
    STAGES, Undisturbed, graph, has_crashed, left_running, outcome, recovers, start_and_wait,
};
use super::part::{Part, Random};
use crate::lab::{Lab, Told, signal};

/// Returns the files below a folder, sorted.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).expect("a folder").flatten() {
            if entry.file_type().expect("a type").is_dir() {
                open.push(entry.path())
            } else {
                all.push(entry.path())
            }
        }
    }
    all.sort();
    all
}

/// Flips one bit of a file, wherever it is.
fn flip(path: &Path, random: &mut Random) {
    let mut bytes = fs::read(path).expect("it can be read");
    let at = random.below(bytes.len().max(1));
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1 << random.below(8);
    }
    overwrite(path, &bytes);
}

/// Writes other bytes into a file, also into one that is read-only.
fn overwrite(path: &Path, bytes: &[u8]) {
    let writable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::set_permissions(path, writable).expect("it is ours");
    fs::write(path, bytes).expect("it is ours");
}

/// How long a command may take that should take no time.
const LIMIT: Duration = Duration::from_secs(10);

/// What may happen to a blob.
const DAMAGES: &[&str] = &["flipped", "emptied", "cut", "removed", "a folder", "a link", "a pipe"];

fn damage(blob: &Path, how: &str, lab: &Lab, random: &mut Random) {
    let bytes = fs::read(blob).expect("it can be read");
    match how {
        "flipped" => flip(blob, random),
        "emptied" => overwrite(blob, b""),
        "cut" => overwrite(blob, &bytes[..random.below(bytes.len())]),
        _ => fs::remove_file(blob).expect("it is ours"),
    }
    match how {
        "a folder" => fs::create_dir(blob).expect("its folder is ours"),
        "a link" => {
            // With the right bytes, but not a file of the cache: it may change at any time.
            lab.write("elsewhere", &bytes);
            std::os::unix::fs::symlink(lab.path("elsewhere"), blob).expect("its folder is ours");
        }
        "a pipe" => {
            let made = std::process::Command::new("mkfifo").arg(blob).status().expect("there is `mkfifo`");
            assert!(made.success());
        }
        _ => {}
    }
}

/// Each blob in turn, in each way: `verify` names it, no number is wrong, and runs heal it.
#[test]
fn of_each_blob() {
    let mut part = Part::begin("damaged blobs", &["wrong", "crashed", "not noticed", "not mended"]);
    let undisturbed = Undisturbed::run();
    let mut lab = graph();
    lab.run(["run", "x.toml"]).expect(0);
    let mut left = Vec::new();
    while part.tries_again(2 * DAMAGES.len() as u32) {
        if left.is_empty() {
            left = files(&lab.cache().join("blobs"));
        }
        let blob = left.swap_remove(part.random.below(left.len()));
        if !blob.is_file() {
            // An earlier repair forgot it.
            continue;
        }
        let is_empty = fs::metadata(&blob).is_ok_and(|found| found.len() == 0);
        let how = DAMAGES[part.random.below(DAMAGES.len())];
        // The copy of an input is no result: where it is gone, it is taken again.
        let bytes = fs::read(&blob).expect("it can be read");
        let is_copy = ["rows.tsv", "templates.toml"].iter().any(|input| lab.read(input).as_bytes() == bytes);
        if is_empty && ["flipped", "emptied", "cut"].contains(&how) {
            continue;
        }
        damage(&blob, how, &lab, &mut part.random);
        let name = blob.file_name().unwrap().to_string_lossy().into_owned();
        let what = format!("{name} {how}");
        // What waits for ever is ended, and said to have failed.
        let within = |lab: &Lab, arguments: &[&str]| {
            lab.run_within(LIMIT, arguments).unwrap_or_else(|| Told {
                code: -1,
                stdout: String::new(),
                stderr: format!("{arguments:?} hangs"),
            })
        };
        let verified = within(&lab, &["cache", "verify"]);
        // A link to the right bytes is as good as they are, as long as nobody changes them.
        if how != "a link"
            && !(is_copy && how == "removed")
            && (verified.code != 4 || !verified.stdout.contains(&name))
        {
            part.problem("not noticed", format!("{what}: {verified:?}"));
        }
        // Whoever looks sees the right numbers, or none.
        let table = within(&lab, &["table", "x.toml", "--format", "json"]);
        let show = within(&lab, &["show", "x.toml", "everything"]);
        let run = within(&lab, &["run", "x.toml", "--force", "everything", "--force", "scores"]);
        for told in [&table, &show, &verified, &run] {
            if has_crashed(told) {
                part.problem("crashed", format!("{what}: {told:?}"));
            }
        }
        if table.code == 0 && !undisturbed.outcome.starts_with(&table.stdout) {
            part.problem("wrong", format!("{what}: {table:?}"));
        }
        // A run that needs it heals it; what no run needs, a repair forgets.
        if run.code != 0 {
            part.problem("wrong", format!("{what}: {run:?}"));
        }
        let repaired = within(&lab, &["cache", "verify", "--repair"]);
        let is_mended = repaired.code == 0;
        if !is_mended || recovers(&lab, undisturbed).is_err() {
            part.problem("not mended", format!("{what}: {repaired:?}"));
            // The next try begins with a sound cache.
            lab = graph();
            lab.run(["run", "x.toml"]).expect(0);
            left.clear();
        } else if !within(&lab, &["cache", "verify"]).stdout.contains(", 0 unreferenced") {
            // What a repair forgot and no run needs has left blobs that are nobody's, and damage to
            // those is nobody's either.
            lab = graph();
            lab.run(["run", "x.toml"]).expect(0);
            left.clear();
        }
    }
    part.finish();
}

/// Returns the files of the index, with what is in them.
fn index(lab: &Lab) -> Vec<(PathBuf, Vec<u8>)> {
    let all = ["index.sqlite", "index.sqlite-wal", "index.sqlite-shm"].map(|name| lab.cache().join(name));
    all.into_iter().filter_map(|path| fs::read(&path).ok().map(|bytes| (path, bytes))).collect()
}

/// SQLite's pages have no checksums: damage in them may go unseen, but nothing wrong comes of it.
#[test]
fn of_the_index() {
    const PAGE: usize = 4096;
    let mut part = Part::begin("damaged pages of the index", &["wrong", "crashed", "refused", "unnoticed"]);
    let undisturbed = Undisturbed::run();
    let lab = graph();
    lab.run(["run", "x.toml"]).expect(0);
    let sound = index(&lab);
    while part.tries_again(10) {
        let (path, bytes) = &sound[0];
        let mut damaged = bytes.clone();
        let page = PAGE * part.random.below(bytes.len() / PAGE);
        let how = match part.random.below(5) {
            0 => {
                let at = part.random.below(bytes.len());
                damaged[at] ^= 1 << part.random.below(8);
                format!("bit {at} flipped")
            }
            1 => {
                for _ in 0..20 {
                    let at = page + part.random.below(PAGE);
                    damaged[at] = part.random.number() as u8;
                }
                format!("20 bytes of page {page}")
            }
            2 => {
                damaged[page..page + PAGE].fill(0);
                format!("page {page} zeroed")
            }
            3 => {
                // Names in records: still a record that can be read, of something else.
                let names: Vec<usize> = (0..bytes.len() - 6)
                    .filter(|at| {
                        [b"\"out\"".as_slice(), b"\"scores".as_slice()]
                            .iter()
                            .any(|name| bytes[*at..].starts_with(name))
                    })
                    .collect();
                let at = 1 + *part.random.choose(&names);
                damaged[at] ^= 1;
                format!("name at {at}")
            }
            _ => {
                damaged.truncate(part.random.below(bytes.len()));
                format!("cut at {}", damaged.len())
            }
        };
        fs::write(path, &damaged).expect("it is ours");
        let mut was_refused = false;
        for arguments in [
            &["table", "x.toml", "--format", "json"][..],
            &["status", "x.toml"],
            &["why", "x.toml", "scores"],
            &["show", "x.toml", "everything"],
            &["cache", "ls"],
            &["cache", "verify"],
            &["run", "x.toml"],
        ] {
            let told = lab.run(arguments);
            was_refused |= told.code != 0;
            if has_crashed(&told) {
                part.problem("crashed", format!("{how}, {arguments:?}: {told:?}"));
            }
        }
        part.count(if was_refused { "refused" } else { "unnoticed" });
        if let Ok(made) = outcome(&lab) {
            part.equals("wrong", &made, &undisturbed.outcome, &how);
        }
        for (path, _) in index(&lab) {
            let _ = fs::remove_file(path);
        }
        for (path, bytes) in &sound {
            fs::write(path, bytes).expect("it is ours");
        }
    }
    // The index that was put back names records of work that a damaged one had forgotten.
    lab.run(["cache", "verify", "--repair"]);
    if let Err(problem) = recovers(&lab, undisturbed) {
        part.problem("wrong", problem);
    }
    part.finish();
}

/// Records that still make sense, but not of this work.
#[test]
fn of_records_on_purpose() {
    let mut part = Part::begin("records changed on purpose", &["wrong", "crashed"]);
    let undisturbed = Undisturbed::run();
    let lab = graph();
    lab.run(["run", "x.toml"]).expect(0);
    let sound = index(&lab);
    // Where a path that is absolute would lead.
    let outside = lab.path("outside.json");
    let absolute =
        format!("update artifacts set entries = replace(entries, 'metrics.json', '{}')", outside.display());
    for change in [
        "update outputs set name = 'oud' where name = 'out'",
        "update outputs set artifact = zeroblob(32) where name = 'scores'",
        "update outputs set artifact = x'00' where name = 'scores'",
        "delete from outputs where name = 'scores'",
        "delete from artifacts",
        "update artifacts set entries = '[]'",
        "update artifacts set entries = 'no json'",
        "update artifacts set entries = replace(entries, 'metrics.json', '../metrics.json')",
        &absolute,
        "update traces set manifest = 'no json'",
        "update traces set manifest = '{}'",
        "delete from traces",
        "update results set trace = zeroblob(32)",
        "update results set trace = x'01'",
        "update recipes set document = 'no json'",
        "update history set recipe = zeroblob(32)",
        "update executions set log = '../../../../etc/hostname'",
        "update sources set digest = zeroblob(32), mtime_ns = x'00'",
    ] {
        part.tries();
        let connection = rusqlite::Connection::open(lab.cache().join("index.sqlite")).expect("a database");
        // A format that has other tables keeps what it has.
        if let Err(error) = connection.execute(change, []) {
            part.count("not of this format");
            eprintln!("{change}: {error}");
        }
        drop(connection);
        for arguments in [
            &["run", "x.toml"][..],
            &["run", "x.toml", "--force", "leaf[number=11]"],
            &["table", "x.toml"],
            &["status", "x.toml"],
            &["why", "x.toml", "scores", "--set", "stages.half.take.fraction=0.4"],
            &["show", "x.toml", "scores"],
            &["log", "x.toml", "scores"],
            &["cache", "ls"],
            &["cache", "verify"],
            &["cache", "verify", "--repair"],
            &["run", "x.toml"],
        ] {
            let told = lab.run(arguments);
            if has_crashed(&told) {
                part.problem("crashed", format!("{change}, {arguments:?}: {told:?}"));
            }
        }
        if let Ok(made) = outcome(&lab) {
            part.equals("wrong", &made, &undisturbed.outcome, change);
        }
        if lab.path("metrics.json").exists() || outside.exists() {
            let _ = fs::remove_file(&outside);
            part.problem("wrong", format!("{change}: a file outside"));
        }
        for (path, _) in index(&lab) {
            let _ = fs::remove_file(path);
        }
        for (path, bytes) in &sound {
            fs::write(path, bytes).expect("it is ours");
        }
    }
    part.finish();
}

/// The log of a killed run's index, damaged: records may be lost, and are made again.
#[test]
fn of_the_write_ahead_log() {
    let mut part = Part::begin("damaged write-ahead logs", &["wrong", "crashed", "without a log"]);
    let undisturbed = Undisturbed::run();
    while part.tries_again(3) {
        let lab = graph();
        let mut run = start_and_wait(&lab, 2 + part.random.below(STAGES - 8));
        signal(run.id(), Signal::KILL);
        run.wait().expect("the run ends");
        left_running(&lab);
        let log = lab.cache().join("index.sqlite-wal");
        match fs::read(&log) {
            Ok(bytes) if !bytes.is_empty() => match part.random.below(4) {
                0 => flip(&log, &mut part.random),
                1 => overwrite(&log, &bytes[..part.random.below(bytes.len())]),
                2 => {
                    let mut bytes = bytes;
                    let at = part.random.below(bytes.len());
                    bytes[at..].fill(0);
                    overwrite(&log, &bytes);
                }
                _ => {
                    fs::remove_file(&log).expect("it is ours");
                    let _ = fs::remove_file(lab.cache().join("index.sqlite-shm"));
                }
            },
            _ => part.count("without a log"),
        }
        let status = lab.run(["status", "x.toml"]);
        if has_crashed(&status) {
            part.problem("crashed", format!("{status:?}"));
        }
        if let Err(problem) = recovers(&lab, undisturbed) {
            part.problem("wrong", problem);
        }
    }
    part.finish();
}
