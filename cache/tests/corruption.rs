//! An index that was changed behind the cache's back: nothing wrong is served, and it is named,
//! made again, or both.

use std::fs;
use std::path::{Path, PathBuf};

use cache::{
    Artifact, Cache, CacheError, Digest, Entry, Execution, Fingerprint, Input, Key, Manifest, Output, Recipe,
    Sources, Value,
};
use rusqlite::Connection;

const WORKS: usize = 12;

fn key(text: &str) -> Key {
    Key::of("test", &Value::Text(text.to_owned())).unwrap()
}

fn content(number: usize, output: &str) -> String {
    format!("the {output} of {number}")
}

/// A piece of work with two outputs.
struct Work {
    number: usize,
    artifacts: Vec<Artifact>,
    manifest: Manifest,
    recipe: Recipe,
}

impl Work {
    fn new(number: usize) -> Self {
        let artifact = |output: &str| {
            let content = content(number, output);
            Artifact::new(vec![Entry {
                path: "deep/file".to_owned(),
                digest: Digest::of(content.as_bytes()),
                bytes: content.len() as u64,
                executable: false,
            }])
        };
        let artifacts = vec![artifact("out"), artifact("rest")];
        let output = |name: &str, artifact: &Artifact| Output {
            name: name.to_owned(),
            artifact_type: "files".to_owned(),
            artifact: artifact.digest(),
            bytes: artifact.bytes(),
            files: 1,
        };
        let recipe = Recipe {
            kind: "k".to_owned(),
            version: 1,
            components: vec![("p/q".to_owned(), 2)],
            params: serde_json::json!({ "number": number, "file": format!("blake3:{}", Digest::of(b"s")) }),
            seed: Some(7),
            inputs: vec![],
        };
        let manifest = Manifest {
            kind: "k".to_owned(),
            version: 1,
            components: recipe.components.clone(),
            params: recipe.params.clone(),
            seed: Some(7),
            inputs: vec![Input { port: "in".to_owned(), label: None, from: Digest::of(b"in"), output: None }],
            outputs: vec![output("out", &artifacts[0]), output("rest", &artifacts[1])],
            notes: vec![],
            stage: format!("stage {number}"),
            device: "cpu".to_owned(),
            instruction_set: "x".to_owned(),
            program: "0".to_owned(),
            started_ms: 1000 + number as u64,
            seconds: 0.5,
            log: String::new(),
        };
        Self { number, artifacts, manifest, recipe }
    }

    fn recipe_key(&self) -> Key {
        key(&format!("recipe {}", self.number))
    }

    fn trace_key(&self) -> Key {
        key(&format!("trace {}", self.number))
    }

    fn commit(&self, cache: &Cache) -> Result<(), CacheError> {
        for output in ["out", "rest"] {
            let file = cache.folder().join("made");
            fs::write(&file, content(self.number, output)).unwrap();
            cache.blobs().insert_moved(&file)?;
        }
        let recipe = (self.recipe_key(), &self.recipe);
        cache.commit(self.trace_key(), key("shape"), &self.manifest, &self.artifacts, recipe)
    }
}

fn works() -> Vec<Work> {
    (0..WORKS).map(Work::new).collect()
}

/// Makes a cache with something in every table, and returns its index's bytes.
fn filled(folder: &Path) -> Vec<u8> {
    let cache = Cache::open(folder).unwrap();
    let stages = || {
        works()
            .iter()
            .map(|work| (work.manifest.stage.clone(), work.recipe_key(), work.recipe.clone()))
            .collect()
    };
    let run = cache.index().begin_run("experiment", "profile", key("plan"), &stages).unwrap();
    for work in works() {
        work.commit(&cache).unwrap();
        let execution = Execution {
            run,
            stage: work.manifest.stage.clone(),
            recipe: work.recipe_key(),
            trace: work.trace_key(),
            at_ms: 5,
            seconds: 0.5,
            outcome: "done".to_owned(),
            message: String::new(),
            log: "logs/x".to_owned(),
        };
        cache.index().record(&execution).unwrap();
    }
    let source = folder.join("source");
    fs::write(&source, "source").unwrap();
    let fingerprint = Fingerprint::of(&fs::metadata(&source).unwrap());
    cache.index().remember(&source, &fingerprint, Digest::of(b"source")).unwrap();
    cache.index().end_run(run, "done").unwrap();
    drop(cache);
    fs::read(index(folder)).unwrap()
}

fn index(folder: &Path) -> PathBuf {
    folder.join("index.sqlite")
}

fn restore(folder: &Path, bytes: &[u8]) {
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(folder.join(format!("index.sqlite{suffix}")));
    }
    fs::write(index(folder), bytes).unwrap();
}

/// What came of asking for everything.
#[derive(Debug, Default)]
struct Served {
    right: usize,
    absent: usize,
    refused: usize,
}

/// Asks for everything as a run and the looking commands do, and fails if anything is wrong.
fn serve(cache: &Cache) -> Served {
    let mut served = Served::default();
    let index = cache.index();
    for work in works() {
        let trace = match index.recipes(&[work.recipe_key()]) {
            Ok(mut traces) => traces.pop().unwrap(),
            Err(_) => {
                served.refused += 1;
                continue;
            }
        };
        let Some(trace) = trace else {
            served.absent += 1;
            continue;
        };
        assert_eq!(trace.key, work.trace_key());
        let mut is_right = true;
        for (number, output) in ["out", "rest"].iter().enumerate() {
            assert_eq!(trace.output(output), Some(work.artifacts[number].digest()), "not all outputs");
            match cache.read(work.artifacts[number].digest(), "deep/file") {
                Ok(Some(bytes)) => assert_eq!(bytes, content(work.number, output).as_bytes()),
                Ok(None) | Err(_) => is_right = false,
            }
        }
        match index.manifest(work.trace_key()) {
            Ok(Some(manifest)) => assert_eq!(manifest, work.manifest),
            Ok(None) | Err(_) => is_right = false,
        }
        if let Ok(Some(execution)) = index.last_execution(work.recipe_key()) {
            assert_eq!((execution.stage, execution.trace), (work.manifest.stage.clone(), work.trace_key()));
        }
        if let Ok(Some(recipe)) = index.recipe(work.recipe_key()) {
            assert_eq!(recipe, work.recipe);
        }
        for seen in index.history("experiment", &work.manifest.stage).unwrap_or_default() {
            assert_eq!((seen.key, seen.recipe), (work.recipe_key(), work.recipe.clone()));
        }
        served.right += usize::from(is_right);
    }
    let source = cache.folder().join("source");
    if let Ok(digest) = Sources::remembered(index).digest(&source) {
        assert_eq!(digest, Digest::of(b"source"));
    }
    let _ = (index.list(), index.totals(), index.seconds_of(key("shape")));
    served
}

#[test]
fn an_intact_index_is_served_and_has_no_flaw() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path());
    let cache = Cache::open(folder.path()).unwrap();
    assert_eq!(serve(&cache).right, WORKS);
    let verification = cache.verify(&mut |_, _| {}).unwrap();
    assert!(verification.is_intact(), "{verification:?}");
    assert_eq!((verification.intact, verification.unreferenced), (3 * WORKS as u64, 0));
    assert!(cache.index().take_corruption_messages().is_empty());
}

#[test]
fn every_single_column_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    let intact = filled(folder.path());
    let connection = Connection::open(index(folder.path())).unwrap();
    let columns: Vec<(String, String)> = connection
        .prepare(
            "SELECT m.name, c.name FROM sqlite_schema m, pragma_table_info(m.name) c \
             WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite%' ORDER BY 1, 2",
        )
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    drop(connection);
    assert!(columns.len() > 40);
    let changes = [
        // Another value of the same type, and one of another type.
        "CASE typeof({c}) WHEN 'blob' THEN CAST(unhex(CASE substr(hex({c}), 1, 2) WHEN 'FF' THEN '00' ELSE 'FF' END) || substr({c}, 2) AS BLOB) \
         WHEN 'text' THEN 'x' || substr({c}, 2) WHEN 'null' THEN 1 ELSE {c} + 1 END",
        "CASE typeof({c}) WHEN 'text' THEN zeroblob(3) ELSE 'text' END",
    ];
    for (table, column) in &columns {
        for change in changes {
            restore(folder.path(), &intact);
            let connection = Connection::open(index(folder.path())).unwrap();
            let value = change.replace("{c}", column);
            let sql = format!(
                "UPDATE {table} SET {column} = {value} WHERE {column} = (SELECT max({column}) FROM {table})"
            );
            // A number that no two rows may share cannot be made text.
            let Ok(changed) = connection.execute(&sql, []) else { continue };
            assert!(changed > 0, "{table}.{column}");
            drop(connection);
            let cache = match Cache::open(folder.path()) {
                Ok(cache) => cache,
                Err(error) => {
                    assert_eq!(table, "meta", "{error}");
                    continue;
                }
            };
            let verification = cache.verify(&mut |_, _| {}).unwrap();
            let served = serve(&cache);
            let is_noticed = !verification.is_intact() || served.absent > 0;
            // Nothing is believed of what a run says of itself, and the number of an attempt says
            // only that it was after another.
            let is_harmless = table == "runs" || (table == "executions" && column == "id");
            assert!(is_noticed || is_harmless, "{table}.{column} by {change}: {served:?}");
            cache.repair(&verification).unwrap();
            for work in works() {
                if cache.index().recipes(&[work.recipe_key()]).unwrap() == [None] {
                    work.commit(&cache).unwrap();
                }
            }
            assert_eq!(serve(&cache).right, WORKS, "{table}.{column} after it was made again");
            let verification = cache.verify(&mut |_, _| {}).unwrap();
            assert!(verification.is_intact(), "{table}.{column}: {verification:?}");
        }
    }
}

#[test]
fn flipped_bytes_of_an_index_serve_nothing_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let intact = filled(folder.path());
    let mut random: u64 = 20_260_607;
    let mut next = move |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    let (mut unusable, mut named, mut made_again) = (0, 0, 0);
    for _ in 0..200 {
        let mut bytes = intact.clone();
        let at = next(bytes.len());
        bytes[at] ^= 1 << next(8);
        restore(folder.path(), &bytes);
        let Ok(cache) = Cache::open(folder.path()) else {
            unusable += 1;
            continue;
        };
        let before = cache.verify(&mut |_, _| {}).map(|verification| verification.is_intact());
        let served = serve(&cache);
        if served.right + served.absent == WORKS {
            made_again += usize::from(served.absent > 0);
        } else {
            // It is named, or the command ends with the name of the index.
            assert!(served.refused > 0 || !matches!(before, Ok(true)), "byte {at}: {served:?}");
        }
        named += usize::from(!matches!(before, Ok(true)));
        for work in works() {
            if matches!(cache.index().recipes(&[work.recipe_key()]), Ok(traces) if traces == [None]) {
                let _ = work.commit(&cache);
            }
        }
        serve(&cache);
    }
    assert!(unusable > 0 && named > 0 && made_again > 0, "{unusable} {named} {made_again}");
}

#[test]
fn an_index_is_made_again_from_the_records() {
    let folder = tempfile::tempdir().unwrap();
    let intact = filled(folder.path());
    // Of one result a file is gone, one record is corrupt, and one is cut short.
    let blobs = Cache::open(folder.path()).unwrap();
    fs::remove_file(blobs.blobs().path(Digest::of(content(3, "out").as_bytes()))).unwrap();
    drop(blobs);
    for damage in ["gone", "zeros", "text", "empty"] {
        match damage {
            "gone" => fs::remove_file(index(folder.path())).unwrap(),
            "zeros" => restore(folder.path(), &vec![0; intact.len()]),
            "text" => restore(folder.path(), &b"this is no database, and never was one\n".repeat(99)),
            _ => restore(folder.path(), b""),
        }
        assert!(Cache::exists(folder.path()).unwrap());
        for error in [Cache::open(folder.path()), Cache::open_for_reading(folder.path())] {
            let error = error.unwrap_err();
            assert!(error.is_lost_index(), "{damage}: {error:?}");
        }
        let rebuilt = Cache::rebuild_index(folder.path()).unwrap();
        assert_eq!((rebuilt.results, rebuilt.incomplete), (WORKS as u64 - 1, 1), "{rebuilt:?}");
        assert_eq!(rebuilt.backup.is_some(), damage != "gone");
        let cache = Cache::open(folder.path()).unwrap();
        let served = serve(&cache);
        assert_eq!((served.right, served.absent), (WORKS - 1, 1), "{damage}: {served:?}");
        let verification = cache.verify(&mut |_, _| {}).unwrap();
        assert!(verification.is_intact(), "{verification:?}");
    }
    // While another process may write to it, it stays as it is.
    let _cache = Cache::open(folder.path()).unwrap();
    assert!(matches!(Cache::rebuild_index(folder.path()), Err(CacheError::InUse { .. })));
}

#[test]
fn stored_sources_are_counted_and_read() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path());
    let cache = Cache::open(folder.path()).unwrap();
    // One that the recipes name, one that is remembered, and one that is neither.
    for (name, content) in [("named", "s"), ("remembered", "source"), ("neither", "x")] {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        let state = Sources::rehashed().state(&path).unwrap();
        cache.blobs().insert_source(&state.files[0]).unwrap();
    }
    let verification = cache.verify(&mut |_, _| {}).unwrap();
    assert!(verification.is_intact());
    assert_eq!((verification.intact, verification.unreferenced), (3 * WORKS as u64 + 2, 1));
    fs::remove_file(cache.blobs().path(Digest::of(b"s"))).unwrap();
    fs::write(cache.blobs().path(Digest::of(b"s")), "S").unwrap();
    let verification = cache.verify(&mut |_, _| {}).unwrap();
    assert_eq!(verification.corrupt.len(), 1);
    cache.repair(&verification).unwrap();
    assert!(cache.verify(&mut |_, _| {}).unwrap().is_intact());
    assert_eq!(serve(&cache).right, WORKS);
}

#[test]
fn a_corrupt_record_is_reported_and_written_again() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path());
    let cache = Cache::open(folder.path()).unwrap();
    let mut records = Vec::new();
    for shard in fs::read_dir(folder.path().join("records")).unwrap() {
        records.extend(fs::read_dir(shard.unwrap().path()).unwrap().map(|entry| entry.unwrap().path()));
    }
    assert_eq!(records.len(), WORKS);
    records.sort();
    fs::remove_file(&records[0]).unwrap();
    fs::remove_file(&records[1]).unwrap();
    fs::write(&records[1], "{\"pipeline\":\"result\",").unwrap();
    fs::remove_file(&records[2]).unwrap();
    fs::create_dir(&records[2]).unwrap();
    let verification = cache.verify(&mut |_, _| {}).unwrap();
    assert_eq!(verification.corrupt_records.len(), 3);
    assert_eq!(serve(&cache).right, WORKS);
    cache.repair(&verification).unwrap();
    assert!(cache.verify(&mut |_, _| {}).unwrap().is_intact());
    drop(cache);
    fs::remove_file(index(folder.path())).unwrap();
    assert_eq!(Cache::rebuild_index(folder.path()).unwrap().results, WORKS as u64);
}
