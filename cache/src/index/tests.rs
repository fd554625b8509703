use rusqlite::Connection;

use crate::{Artifact, Cache, CacheError, Input, Key, Manifest, Output, Recipe, Value};

fn manifest(artifact: &Artifact) -> Manifest {
    Manifest {
        kind: "k".to_owned(),
        version: 1,
        components: vec![],
        params: serde_json::json!({}),
        seed: None,
        inputs: vec![],
        outputs: vec![Output {
            name: "out".to_owned(),
            artifact_type: "rows".to_owned(),
            artifact: artifact.digest(),
            bytes: artifact.bytes(),
            files: 1,
        }],
        notes: vec![],
        stage: "s".to_owned(),
        device: "cpu".to_owned(),
        instruction_set: "x".to_owned(),
        program: "0".to_owned(),
        started_ms: 1,
        seconds: 0.5,
        log: String::new(),
    }
}

fn recipe() -> Recipe {
    Recipe {
        kind: "k".to_owned(),
        version: 1,
        components: vec![("p/q".to_owned(), 2)],
        params: serde_json::json!({ "a": 1 }),
        seed: Some(7),
        inputs: vec![Input {
            port: "rows".to_owned(),
            label: None,
            from: key("up"),
            output: Some("out".to_owned()),
        }],
    }
}

fn key(text: &str) -> Key {
    Key::of("test", &Value::Text(text.to_owned())).unwrap()
}

#[test]
fn work_is_found_by_trace_and_by_every_recipe_until_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path()).unwrap();
    let index = cache.index();
    let artifact = Artifact::new(vec![]);
    cache
        .commit(
            key("t"),
            key("s"),
            &manifest(&artifact),
            std::slice::from_ref(&artifact),
            (key("r"), &recipe()),
        )
        .unwrap();
    index.alias((key("r2"), &recipe()), key("t")).unwrap();

    let traces = index.recipes(&[key("r"), key("none"), key("r2")]).unwrap();
    assert_eq!(traces[0], traces[2]);
    assert_eq!(traces[1], None);
    assert_eq!(traces[0].as_ref().unwrap().output("out"), Some(artifact.digest()));
    assert_eq!(index.manifest(key("t")).unwrap().unwrap(), manifest(&artifact));
    assert!(index.has_shape(key("s")).unwrap());
    assert_eq!(index.producers(artifact.digest()).unwrap(), [key("t")]);

    index.forget(key("t")).unwrap();
    assert_eq!(index.recipes(&[key("r")]).unwrap(), [None]);
    assert_eq!(index.trace(key("t")).unwrap(), None);
    assert_eq!(index.recipe(key("r")).unwrap(), Some(recipe()));
}

#[test]
fn history_grows_only_where_a_stage_changed() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path()).unwrap();
    let index = cache.index();
    let stages = |b: &str| vec![("a".to_owned(), key("a1"), recipe()), ("b".to_owned(), key(b), recipe())];
    assert!(!index.has_history("e").unwrap());
    index.begin_run("e", "mini", key("plan 1"), &|| stages("b1")).unwrap();
    assert!(index.has_history("e").unwrap() && !index.has_history("f").unwrap());
    let run = index.begin_run("e", "mini", key("plan 2"), &|| stages("b2")).unwrap();
    index.end_run(run, "done").unwrap();
    assert_eq!(index.history("e", "a").unwrap().len(), 1);
    let b = index.history("e", "b").unwrap();
    assert_eq!(b.iter().map(|seen| seen.key).collect::<Vec<_>>(), [key("b2"), key("b1")]);
}

#[test]
fn another_format_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(Cache::open(folder.path()).unwrap());
    let connection = Connection::open(folder.path().join("index.sqlite")).unwrap();
    connection.execute("UPDATE meta SET value = 99 WHERE name = 'format'", []).unwrap();
    drop(connection);
    assert!(matches!(Cache::open(folder.path()), Err(CacheError::Format { format: 99, .. })));
}

#[test]
fn a_file_that_is_no_index_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("index.sqlite"), "not a database, but long enough to look like one")
        .unwrap();
    assert!(matches!(Cache::open(folder.path()), Err(CacheError::Index { .. })));
}
