//! A key names the bytes that a stage reads: whatever happens to them while a run goes on.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, SystemTime};

use super::failures::one;
use crate::lab::{Lab, ROWS, wait_until};

/// `first` waits at the gate, and `stage` is made after it.
fn gated(stage: &str) -> Lab {
    let lab = Lab::new();
    lab.write(
        "x.toml",
        format!(
            "[stages.first]\nkind = \"command\"\nrun = \"{}; cp files/rows.jsonl outputs/rows/\"\n\
             files = [\"rows.jsonl\"]\noutputs.rows = {{ type = \"rows\" }}\n{stage}",
            lab.gate("gate")
        ),
    );
    lab.write("rows.jsonl", ROWS);
    lab
}

/// Runs an experiment, changes files while its first stage waits, lets it go on, changes them back,
/// and asserts that the cache then holds nothing that a fresh one would not.
#[track_caller]
fn an_edit_in_mid_run_changes_nothing(lab: &Lab, stage: &str, file: &str, edited: &str, made: (&str, &str)) {
    let original = lab.read(file);
    let child = lab.spawn(["run", "x.toml"]);
    wait_until("the first stage runs", || lab.run(["status", "x.toml"]).stdout.contains("running  first"));
    lab.write(file, edited);
    lab.write("gate", "");
    assert!(lab.told(child).expect(0).ran().contains(&stage.to_owned()));
    lab.write(file, &original);
    assert_eq!(lab.run(["run", "x.toml"]).expect(0).ran(), Vec::<String>::new());
    let (output, inside) = made;
    let show = ["show", "x.toml", stage, "--output", output, "--file", inside];
    let kept = lab.run(show).expect(0).stdout;
    let fresh = |arguments: &[&str]| {
        let mut command = lab.command(arguments);
        command.env("PIPELINE_CACHE", lab.path("fresh"));
        crate::lab::Told::of(command.output().unwrap()).expect(0)
    };
    fresh(&["run", "x.toml"]);
    assert_eq!(kept, fresh(&show).stdout, "the key of the old {file} has the result of the new one");
    lab.run(["cache", "verify"]).expect(0);
}

#[test]
fn a_script_edited_in_mid_run_reaches_the_next_run_only() {
    let stage = "[stages.s]\nkind = \"command\"\ninputs = { rows = \"first\" }\nfiles = [\"s.sh\"]\n\
                 run = \"sh files/s.sh > outputs/out/x\"\noutputs.out = {}\n";
    let lab = gated(stage);
    lab.write("s.sh", "echo 1\n");
    an_edit_in_mid_run_changes_nothing(&lab, "s", "s.sh", "echo 999\n", ("out", "x"));
}

#[test]
fn a_source_edited_in_mid_run_reaches_the_next_run_only() {
    // It waits for a core until the gate opens.
    let stage = "[stages.s]\nkind = \"source\"\npath = \"data.csv\"\n[stages.first.resources]\ncores = 64\n";
    let lab = gated(stage);
    lab.write("data.csv", "id,n\na,1\n");
    an_edit_in_mid_run_changes_nothing(&lab, "s", "data.csv", "id,n\na,999\n", ("rows", "rows.jsonl"));
}

#[test]
fn templates_edited_in_mid_run_reach_the_next_run_only() {
    let stage = "[stages.props]\nkind = \"source\"\npath = \"props.tsv\"\nsplit = { properties = \"|\" }\n\
                 [stages.s]\nkind = \"compose\"\ninputs = { rows = \"props\" }\ntemplates = \"t.toml\"\n\
                 [stages.first.resources]\ncores = 64\n";
    let lab = gated(stage);
    lab.write("props.tsv", "id\tproperties\na\tacid|base\n");
    let templates =
        fs::read_to_string(crate::lab::project().join("experiments/templates/lpm24.toml")).unwrap();
    lab.write("t.toml", &templates);
    let edited = templates.replace("molecule", "thing");
    assert_ne!(templates, edited);
    an_edit_in_mid_run_changes_nothing(&lab, "s", "t.toml", &edited, ("rows", "rows.jsonl"));
}

#[test]
fn a_vocabulary_edited_in_mid_run_reaches_the_next_run_only() {
    let stage = "[stages.predictions]\nkind = \"command\"\ninputs = { rows = \"first\" }\n\
                 run = '''printf '{\"id\":\"a\",\"direction\":\"mol2cap\",\"input\":\"CCO\",\"reference\":\"acid base\",\"prediction\":\"acid salt\"}\\n' \
                 > outputs/p/rows.jsonl'''\noutputs.p = { type = \"predictions\" }\n\
                 [stages.s]\nkind = \"evaluate\"\ninputs = { predictions = \"predictions\" }\n\
                 metrics = [\"bleu2\"]\ntokens.wordpiece = \"vocab.txt\"\n";
    let lab = gated(stage);
    lab.write("vocab.txt", "[UNK]\nacid\nbase\nsalt\n");
    an_edit_in_mid_run_changes_nothing(&lab, "s", "vocab.txt", "[UNK]\n##a\n", ("scores", "metrics.json"));
}

#[test]
fn a_file_that_changes_before_the_run_begins_or_is_gone_stops_it_with_words() {
    // Edited by the stage's own neighbour: nothing can be taken in of a file that is not there.
    let lab = gated(
        "[stages.s]\nkind = \"command\"\ninputs = { rows = \"first\" }\nfiles = [\"big\"]\n\
         run = \"cksum < files/big > outputs/out/x\"\noutputs.out = {}\n",
    );
    // Too large to be copied: read where it lies, and compared.
    let big = lab.path("big");
    fs::File::create(&big).unwrap().set_len(80 << 20).unwrap();
    let child = lab.spawn(["run", "x.toml"]);
    wait_until("the first stage runs", || lab.run(["status", "x.toml"]).stdout.contains("running  first"));
    let file = fs::File::options().write(true).open(&big).unwrap();
    std::os::unix::fs::FileExt::write_at(&file, b"x", 40 << 20).unwrap();
    lab.write("gate", "");
    let told = lab.told(child).expect(3);
    let told = told.says(&["FAILED    s of x.toml: big changed while the run went on", "run again"]);
    assert_eq!(told.ran(), ["first"]);
    assert_eq!(lab.run(["run", "x.toml"]).expect(0).ran(), ["s"]);
    fs::remove_file(&big).unwrap();
    lab.run(["run", "x.toml"]).expect(2).says(&["failed to read big"]);
}

#[test]
fn a_large_file_that_changes_while_its_stage_reads_it_gives_no_result() {
    let lab = Lab::new();
    lab.write(
        "x.toml",
        format!(
            "[stages.s]\nkind = \"command\"\nfiles = [\"big\"]\n\
             run = \"touch tmp/begun; {}; cksum < files/big > outputs/out/x\"\noutputs.out = {{}}\n",
            lab.gate("gate")
        ),
    );
    let big = lab.path("big");
    fs::File::create(&big).unwrap().set_len(80 << 20).unwrap();
    let child = lab.spawn(["run", "x.toml"]);
    let begun = || {
        let work = fs::read_dir(lab.cache().join("work")).into_iter().flatten().flatten();
        work.into_iter().any(|folder| folder.path().join("run/tmp/begun").exists())
    };
    wait_until("the stage has begun", begun);
    // Changed and changed back, with its time as before: the time of the last change tells.
    let time = fs::metadata(&big).unwrap().modified().unwrap();
    let file = fs::File::options().write(true).open(&big).unwrap();
    std::os::unix::fs::FileExt::write_at(&file, b"x", 40 << 20).unwrap();
    std::os::unix::fs::FileExt::write_at(&file, b"\0", 40 << 20).unwrap();
    file.set_modified(time).unwrap();
    lab.write("gate", "");
    let _ = lab.told(child).expect(3).says(&["FAILED    s of x.toml: big changed while the run went on"]);
    lab.run(["show", "x.toml", "s"]).expect(2);
    assert_eq!(lab.run(["run", "x.toml"]).expect(0).ran(), ["s"]);
}

#[test]
fn names_order_and_executable_bits_of_files_are_keyed() {
    let lab =
        one("cat files/train.txt files/test.txt > outputs/out/x", "files = [\"train.txt\", \"test.txt\"]");
    lab.write("train.txt", "1\n");
    lab.write("test.txt", "100\n");
    lab.run(["run", "x.toml"]).expect(0);
    assert_eq!(lab.made("s", "x"), "1\n100\n");
    // The contents swapped, and the list with them: the digests in their order are as before.
    lab.write("train.txt", "100\n");
    lab.write("test.txt", "1\n");
    lab.edit("x.toml", "[\"train.txt\", \"test.txt\"]", "[\"test.txt\", \"train.txt\"]");
    assert_eq!(lab.run(["run", "x.toml"]).expect(0).ran(), ["s"]);
    assert_eq!(lab.made("s", "x"), "100\n1\n");

    let lab =
        one("ls files > outputs/out/x; test -x files/a || echo plain >> outputs/out/x", "files = [\"a\"]");
    lab.write("a", "1\n");
    lab.run(["run", "x.toml"]).expect(0);
    assert_eq!(lab.made("s", "x"), "a\nplain\n");
    fs::set_permissions(lab.path("a"), fs::Permissions::from_mode(0o755)).unwrap();
    lab.run(["why", "x.toml", "s"]).expect(0).shows(&["files.a blake3:", ", executable (x.toml:5)"]);
    assert_eq!(lab.run(["run", "x.toml"]).expect(0).ran(), ["s"]);
    assert_eq!(lab.made("s", "x"), "a\n");
    fs::rename(lab.path("a"), lab.path("b")).unwrap();
    lab.edit("x.toml", "\"a\"", "\"b\"");
    lab.run(["why", "x.toml", "s"]).expect(0).shows(&["files in order a -> b (x.toml:5)", "files.b"]);
    assert_eq!(lab.run(["run", "x.toml"]).expect(0).ran(), ["s"]);
    // Nothing else of a file is seen: not its times, not who else may read it, not where it lies.
    fs::set_permissions(lab.path("b"), fs::Permissions::from_mode(0o700)).unwrap();
    let long_ago = SystemTime::now() - Duration::from_secs(100_000);
    fs::File::options().write(true).open(lab.path("b")).unwrap().set_modified(long_ago).unwrap();
    lab.write("deep/b", "1\n");
    fs::set_permissions(lab.path("deep/b"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(lab.run(["run", "x.toml"]).expect(0).ran(), Vec::<String>::new());
    lab.edit("x.toml", "\"b\"", "\"deep/b\"");
    assert_eq!(lab.run(["run", "x.toml"]).expect(0).ran(), Vec::<String>::new());
}

#[test]
fn a_folder_can_be_among_files_with_all_that_is_in_it() {
    let lab = one("sh files/src/main.sh > outputs/out/x", "files = [\"src\"]");
    lab.write("src/main.sh", "cat files/src/deep/words\n");
    lab.write("src/deep/words", "a\n");
    lab.run(["run", "x.toml"]).expect(0);
    assert_eq!(lab.made("s", "x"), "a\n");
    lab.write("src/deep/words", "b\n");
    assert_eq!(lab.run(["run", "x.toml"]).expect(0).ran(), ["s"]);
    fs::rename(lab.path("src/deep/words"), lab.path("src/deep/more")).unwrap();
    lab.run(["run", "x.toml"]).expect(3);
}

#[test]
fn a_stage_sees_files_with_modes_and_names_that_its_key_holds() {
    let lab = one("stat -c '%a %n' files/* > outputs/out/x", "files = [\"a\", \"b.sh\"]");
    lab.write("a", "1");
    lab.write("b.sh", "2");
    fs::set_permissions(lab.path("a"), fs::Permissions::from_mode(0o400)).unwrap();
    fs::set_permissions(lab.path("b.sh"), fs::Permissions::from_mode(0o711)).unwrap();
    lab.run(["run", "x.toml"]).expect(0);
    assert_eq!(lab.made("s", "x"), "644 files/a\n755 files/b.sh\n");
}

#[test]
fn a_part_that_fails_fails_the_stage() {
    for line in [
        "false | cat > outputs/out/x",
        "false; echo x > outputs/out/x",
        "echo $unset_variable > outputs/out/x",
        "seq 100000 | { head -c 10; kill -9 $BASHPID; } | cat > outputs/out/x",
    ] {
        let _ = one(line, "").run(["run", "x.toml"]).expect(3).says(&["FAILED    s of x.toml: the program"]);
    }
    // Whoever calls cannot take it back.
    let lab = one("false; echo x > outputs/out/x", "");
    lab.write("env.sh", "set +e");
    let mut command = lab.command(["run", "x.toml"]);
    command.env("BASH_ENV", lab.path("env.sh")).env("ENV", lab.path("env.sh"));
    crate::lab::Told::of(command.output().unwrap()).expect(3);
    // A list is a program without a shell.
    Lab::with("[stages.s]\nkind = \"command\"\nrun = [\"sh\", \"-c\", \"false | true; echo x > outputs/out/x\"]\noutputs.out = {}\n")
        .run(["run", "x.toml"])
        .expect(0);
}

#[test]
fn without_bash_a_line_is_run_by_sh_and_that_is_said() {
    let lab = one("echo x > outputs/out/x", "");
    let folder = lab.path("bin");
    fs::create_dir(&folder).unwrap();
    std::os::unix::fs::symlink("/bin/sh", folder.join("sh")).unwrap();
    let mut command = lab.command(["run", "x.toml"]);
    command.env("PATH", &folder);
    let told = crate::lab::Told::of(command.output().unwrap()).expect(0);
    let _ = told.says(&["note: run by `sh -e`, for there is no bash"]);
}

#[test]
fn names_that_lead_elsewhere_are_refused_when_planned() {
    let lab = Lab::new();
    let victim = lab.path("victim");
    fs::create_dir(&victim).unwrap();
    let absolute = victim.display().to_string();
    for port in ["../../x", &absolute, "..", ".", "a/b", "a\\u0000b", ""] {
        lab.write(
            "x.toml",
            format!(
                "[stages.a]\nkind = \"command\"\nrun = \"echo 1 > outputs/o/evil.sh\"\noutputs.o = {{}}\n\
                 [stages.b]\nkind = \"command\"\nrun = \"echo 1 > outputs/o/x\"\noutputs.o = {{}}\n\
                 inputs.\"{port}\" = \"a\"\n"
            ),
        );
        for command in ["plan", "run"] {
            lab.run([command, "x.toml"]).expect(2).says(&["cannot name a port or an output", "x.toml:9"]);
        }
    }
    for output in ["../o", &absolute, "a b", ""] {
        lab.write(
            "x.toml",
            format!("[stages.a]\nkind = \"command\"\nrun = \"true\"\noutputs.\"{output}\" = {{}}\n"),
        );
        lab.run(["plan", "x.toml"]).expect(2).says(&["cannot name"]);
    }
    lab.write(
        "x.toml",
        "[stages.a]\nkind = \"command\"\nrun = \"true\"\noutputs.o = { type = \"weights\" }\n\
         [stages.m]\nkind = \"merge\"\nmethod.soup = {}\nratio = { \"../x\" = 1, y = 1 }\ninputs = { \"../x\" = \"a\", y = \"a\" }\n",
    );
    lab.run(["plan", "x.toml"]).expect(2).says(&["cannot name"]);
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 0);
}

#[test]
fn numbers_that_are_no_file_are_refused_at_once() {
    let scores = |line: &str| {
        let run = serde_json::Value::from(line);
        Lab::with(&format!(
            "[stages.s]\nkind = \"command\"\nrun = {run}\noutputs.scores = {{ type = \"scores\", columns = [\"n\"] }}\n"
        ))
    };
    for (line, what) in [
        ("mkfifo outputs/scores/metrics.json", "it is a named pipe, not a file"),
        ("ln -s /dev/zero outputs/scores/metrics.json", "it is a link, not a file"),
        ("mkdir -p outputs/scores/metrics.json/x; touch outputs/scores/x", "it is a folder, not a file"),
        ("truncate -s 3G outputs/scores/metrics.json", "it is larger than 64 MiB"),
    ] {
        let told = scores(line).run(["run", "x.toml"]).expect(3);
        let _ = told.says(&["outputs/scores/metrics.json`: ", what]);
    }
}

#[test]
fn work_done_again_is_compared_with_what_it_made_before() {
    let lab = one("date +%s%N > outputs/out/x; echo same > outputs/out/y", "");
    lab.run(["run", "x.toml"]).expect(0);
    let told = lab.run(["run", "x.toml", "--force", "s"]).expect(0);
    let _ = told.says(&["warning   `s` made other bytes than before", "output `out`: `x` differs"]);
    let events = lab.run(["run", "x.toml", "--force", "s", "--json"]).expect(0).events();
    let finished = events.iter().find(|event| event["event"] == "finished").unwrap();
    assert_eq!(finished["compared"]["identical"], false, "{finished}");

    let lab = one("echo same > outputs/out/y", "");
    lab.run(["run", "x.toml"]).expect(0);
    let _ = lab.run(["run", "x.toml", "--force", "s"]).expect(0).says(&["the same bytes as before"]);
}

#[test]
fn what_the_caller_has_set_and_opened_reaches_no_stage() {
    // Sorting, the day's hour, a set of Python's, a shell's habits, an open file.
    let line = "{ printf 'b\\nA\\na\\n' | sort; date -d @0 +%H; python3 -c 'print(hash(\"a\"))' || true; \
                echo ${BASHOPTS:+$SHELLOPTS} | tr ':' '\\n' | grep -c noglob || true; \
                ls /proc/self/fd | tr '\\n' ' '; cat <&7 || echo closed; } > outputs/out/x 2>/dev/null";
    let lab = one(line, "");
    lab.write("secret", "from outside\n");
    let plain = lab.command(["run", "x.toml"]);
    let run = |settings: &[(&str, &str)], cache: &str| {
        let mut command = std::process::Command::new("sh");
        let line = format!("exec 7<{}; exec \"$0\" \"$@\"", lab.path("secret").display());
        command.args(["-c", &line]).arg(plain.get_program()).args(plain.get_args());
        command.args(["--cache", cache]).current_dir(lab.path("")).envs(settings.iter().copied());
        crate::lab::Told::of(command.output().unwrap()).expect(0);
        lab.run(["show", "x.toml", "s", "--file", "x", "--cache", cache]).expect(0).stdout
    };
    let first = run(&[], "a");
    let settings = [
        ("LC_ALL", "en_US.UTF-8"),
        ("LANG", "de_DE.UTF-8"),
        ("TZ", "Asia/Tokyo"),
        ("PYTHONHASHSEED", "7"),
        ("SHELLOPTS", "noglob"),
    ];
    assert_eq!(run(&settings, "b"), first);
    assert!(first.starts_with("A\na\nb\n00\n") && first.ends_with("closed\n"), "{first}");
}

#[test]
fn ports_labels_order_names_and_bits_of_inputs_are_keyed() {
    let upstream = |name: &str, line: &str| {
        format!("[stages.{name}]\nkind = \"command\"\nrun = '{line}'\noutputs.out = {{}}\n")
    };
    let experiment = |inputs: &str, a: &str| {
        format!(
            "{}{}{}inputs = {{ {inputs} }}\n",
            upstream("a", a),
            upstream("b", "echo b > outputs/out/b"),
            upstream("s", "cd inputs; find . -name \"*\" | sort > ../outputs/out/x"),
        )
    };
    let make = "echo a > outputs/out/a";
    let lab = Lab::with(&experiment("p = [\"a\", \"b\"]", make));
    lab.run(["run", "x.toml"]).expect(0);
    let first = lab.made("s", "x");
    assert!(first.contains("./p/0/a\n") && first.contains("./p/1/b\n"), "{first}");
    // What the program sees is another, and so is the key: no old result is served.
    for (inputs, a, sees) in [
        ("p = [\"b\", \"a\"]", make, "./p/0/b\n"),
        ("q = [\"a\", \"b\"]", make, "./q/0/a\n"),
        ("p = \"a\", r = \"b\"", make, "./r/b\n"),
        ("p = [\"a\", \"b\"]", "echo a > outputs/out/other", "./p/0/other\n"),
    ] {
        lab.write("x.toml", experiment(inputs, a));
        assert!(lab.run(["run", "x.toml"]).expect(0).ran().contains(&"s".to_owned()), "{inputs}");
        assert!(lab.made("s", "x").contains(sees), "{inputs}: {}", lab.made("s", "x"));
    }
    lab.write("x.toml", experiment("p = \"a\"", "echo a > outputs/out/a; chmod +x outputs/out/a"));
    lab.edit("x.toml", "find . -name \"*\" | sort >", "test -x p/a && echo executable >");
    lab.run(["run", "x.toml"]).expect(0);
    assert_eq!(lab.made("s", "x"), "executable\n");
    lab.edit("x.toml", "; chmod +x outputs/out/a", "");
    let _ = lab.run(["run", "x.toml"]).expect(3).says(&["FAILED    s"]);
}

#[test]
fn damaged_numbers_that_are_found_by_early_cutoff_are_made_again() {
    let lab = Lab::with(
        "[stages.a]\nkind = \"command\"\nrun = \"echo same > outputs/out/x # one\"\noutputs.out = {}\n\
         [stages.s]\nkind = \"command\"\ninputs = { a = \"a\" }\n\
         run = '''echo '{\"n\": 12345}' > outputs/scores/metrics.json'''\n\
         outputs.scores = { type = \"scores\", columns = [\"n\"] }\n[table]\ncolumns = [\"n\"]\n",
    );
    let table = lab.run(["run", "x.toml"]).expect(0).stdout;
    lab.damage(b"{\"n\": 12345}\n");
    // Another way to the same bytes: `s` misses by its recipe and is found by its inputs.
    lab.edit("x.toml", "# one", "# two");
    let told = lab.run(["run", "x.toml"]).expect(0).says(&["is corrupt", "`s` is made again"]);
    assert_eq!(told.ran(), ["a", "s"]);
    assert_eq!(told.stdout, table);
}

#[test]
fn a_folder_of_many_files_is_read_where_it_lies_and_compared() {
    let lab = Lab::new();
    lab.write(
        "x.toml",
        format!(
            "[stages.s]\nkind = \"command\"\nfiles = [\"many\"]\n\
             run = \"{}; ls files/many | wc -l > outputs/out/x\"\noutputs.out = {{}}\n",
            lab.gate("gate")
        ),
    );
    for number in 0..1001 {
        lab.write(&format!("many/{number}"), "x");
    }
    let child = lab.spawn(["run", "x.toml"]);
    wait_until("the stage runs", || lab.run(["status", "x.toml"]).stdout.contains("running  s"));
    // One file more: none of those that were there has changed.
    lab.write("many/more", "x");
    lab.write("gate", "");
    let _ = lab.told(child).expect(3).says(&["FAILED    s of x.toml: many changed while the run went on"]);
    assert_eq!(lab.run(["run", "x.toml"]).expect(0).ran(), ["s"]);
    assert_eq!(lab.made("s", "x"), "1002\n");
}
