//! The documentation says what the code does: every statement that a machine can check is checked.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::lab::{Lab, project};

/// Returns the text of a file of the repository.
fn text(path: &str) -> String {
    fs::read_to_string(project().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Returns the paths of all pages, from the root of the repository.
fn pages() -> Vec<String> {
    let docs = fs::read_dir(project().join("docs")).expect("a folder").flatten();
    let mut pages: Vec<String> = docs
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.ends_with(".md"))
        .map(|name| format!("docs/{name}"))
        .collect();
    pages.extend(["README.md", ".github/CONTRIBUTING.md"].map(str::to_owned));
    pages.sort();
    pages
}

/// Returns the part of a page below a heading, up to the next heading of that level or above.
fn section(page: &str, heading: &str) -> String {
    let level = heading.chars().take_while(|c| *c == '#').count();
    let page = text(page);
    let mut lines = page.lines().skip_while(|line| *line != heading);
    assert_eq!(lines.next(), Some(heading), "there is no such heading");
    let ends = |line: &&str| {
        let hashes = line.chars().take_while(|c| *c == '#').count();
        !(hashes > 0 && hashes <= level && line[hashes..].starts_with(' '))
    };
    lines.take_while(ends).collect::<Vec<_>>().join("\n")
}

/// Returns the rows of all tables with this head, as cells.
fn rows(markdown: &str, head: &str) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    let mut lines = markdown.lines();
    while let Some(line) = lines.next() {
        if line.starts_with(head) {
            lines.next();
            for line in lines.by_ref().take_while(|line| line.starts_with('|')) {
                let cells = line.trim().trim_start_matches('|').trim_end_matches('|').split('|');
                rows.push(cells.map(|cell| cell.trim().to_owned()).collect());
            }
        }
    }
    rows
}

/// Returns everything between single backticks, outside blocks of code.
fn code_spans(markdown: &str) -> Vec<String> {
    let mut spans = Vec::new();
    let mut is_block = false;
    for line in markdown.lines() {
        if line.trim_start().starts_with("```") {
            is_block = !is_block;
        } else if !is_block {
            spans.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    spans
}

/// Returns the file below a folder whose names end in this way.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// Returns a file's code without its tests.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("a file of text");
    match text.find("#[cfg(test)]\nmod ") {
        Some(tests) => text[..tests].to_owned(),
        None => text,
    }
}

/// Returns the help of a command and, after it, that of all its subcommands, with their names.
fn helps(lab: &Lab, command: &[String], helps: &mut Vec<(Vec<String>, String)>) {
    let arguments = command.iter().map(String::as_str).chain(["--help"]);
    let help = lab.run(arguments).expect(0).stdout;
    let subcommands: Vec<String> = match help.split_once("Commands:\n") {
        Some((_, list)) => list
            .lines()
            .take_while(|line| line.starts_with("  "))
            .filter(|line| !line.starts_with("   "))
            .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
            .filter(|name| name != "help")
            .collect(),
        None => Vec::new(),
    };
    helps.push((command.to_vec(), help));
    for name in subcommands {
        self::helps(lab, &[command, &[name]].concat(), helps);
    }
}

fn all_helps() -> Vec<(Vec<String>, String)> {
    let mut all = Vec::new();
    helps(&Lab::new(), &[], &mut all);
    assert!(all.len() > 15, "{all:?}");
    all
}

/// A difference here means that the command line is another one: what scripts use may be gone.
#[test]
fn the_command_line_is_what_it_was() {
    let mut reference = String::new();
    for (command, help) in all_helps() {
        let name = ["pipeline".to_owned()].into_iter().chain(command).collect::<Vec<_>>().join(" ");
        reference.push_str(&format!("$ {name} --help\n{}\n", help.trim_end()));
        reference.push('\n');
    }
    let mut settings = insta::Settings::new();
    settings.set_snapshot_path(project().join("tests/golden"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!("command-line", reference));
}

/// Every option of every command is in docs/commands.md, with the same default.
#[test]
fn every_option_is_documented_with_its_default() {
    let common = section("docs/commands.md", "## What all commands on an experiment take");
    let mut missing = Vec::new();
    for (command, help) in all_helps() {
        let Some(name) = command.first() else { continue };
        let own = section("docs/commands.md", &format!("## `{name}`"));
        let page = format!("{own}\n{common}");
        let mut lines = help.lines().skip_while(|line| *line != "Options:").skip(1).peekable();
        while let Some(line) = lines.next() {
            let Some(option) = line.split_whitespace().find(|word| word.starts_with("--")) else { continue };
            let option = option.trim_end_matches(',');
            if !line.trim_start().starts_with('-') || option == "--help" {
                continue;
            }
            let mut description = line.to_owned();
            while let Some(more) = lines.next_if(|line| !line.trim_start().starts_with('-')) {
                description.push_str(&format!(" {}", more.trim()));
            }
            let documented: Vec<&str> = page
                .lines()
                .filter(|line| line.contains(&format!("`{option}")) || line.contains(&format!(" {option}")))
                .collect();
            if documented.is_empty() {
                missing.push(format!("{}: `{option}` is not in docs/commands.md", command.join(" ")));
                continue;
            }
            // A default that is one word stands beside the option, as code or as a number.
            let Some(default) =
                description.split("[default: ").nth(1).and_then(|text| text.split(']').next())
            else {
                continue;
            };
            if default.contains(' ') || default.contains('`') {
                continue;
            }
            let has_default = |line: &&str| {
                line.contains(&format!("`{default}`"))
                    || line.split(|c: char| !c.is_alphanumeric()).any(|word| word == default)
            };
            if !documented.iter().any(has_default) {
                missing.push(format!("{}: the default of `{option}` is `{default}`", command.join(" ")));
            }
        }
    }
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn exit_codes_are_documented_as_the_program_lists_them() {
    let help = Lab::new().run(["--help"]).expect(0).stdout;
    let listed = help.split("Exit codes:\n").nth(1).expect("the help lists exit codes");
    // The help breaks long lines; what follows a code is its meaning.
    let mut codes: Vec<(String, String)> = Vec::new();
    for line in listed.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match line.split_once("  ") {
            Some((code, meaning)) if code.parse::<u8>().is_ok() => {
                codes.push((code.to_owned(), meaning.trim().to_owned()));
            }
            _ => {
                let (_, meaning) = codes.last_mut().expect("a code begins a line");
                meaning.push_str(&format!(" {line}"));
            }
        }
    }
    assert!(codes.len() > 4, "{codes:?}");
    let as_rows: Vec<Vec<String>> = codes.into_iter().map(|(code, meaning)| vec![code, meaning]).collect();
    assert_eq!(rows(&section("docs/commands.md", "## Exit codes"), "| Code |"), as_rows);
    assert_eq!(rows(&text("README.md"), "| Exit code |"), as_rows);
}

/// Docs for everything that a link leads to: files and headings.
#[test]
fn every_link_leads_somewhere() {
    let mut broken = Vec::new();
    for page in pages() {
        let folder = Path::new(&page).parent().expect("a page is in a folder").to_owned();
        for link in text(&page).split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("http") || link.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { PathBuf::from(&page) } else { folder.join(file) };
            let target = project().join(target);
            if !target.exists() {
                broken.push(format!("{page}: {link}: no such file"));
            } else if !anchor.is_empty() && !anchors(&target).contains(anchor) {
                broken.push(format!("{page}: {link}: no such heading"));
            }
        }
    }
    assert_eq!(broken, Vec::<String>::new());
}

/// Returns the anchors of a page's headings, as GitHub makes them.
fn anchors(page: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(page).expect("a page");
    let mut is_block = false;
    let mut anchors = BTreeSet::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_block = !is_block;
        } else if let Some(heading) = line.strip_prefix('#').filter(|_| !is_block) {
            let heading = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            anchors.insert(kept.map(|c| if c == ' ' { '-' } else { c }).collect());
        }
    }
    anchors
}

/// Every path of a file of ours that a page names exists.
#[test]
fn every_file_that_the_docs_name_exists() {
    let tops = [
        "engine/",
        "cache/",
        "stages/",
        "src/",
        "tests/",
        "docs/",
        "experiments/",
        "benches/",
        ".github/",
        ".ci/",
        "learn/",
        "weights/",
        "corpus/",
        "chem/",
        "choice/",
        "metrics/",
    ];
    let mut missing = Vec::new();
    for page in pages() {
        for span in code_spans(&text(&page)) {
            let path = span.split([' ', ':', '#']).next().unwrap_or_default();
            // The names of the tutorial, whose files the reader makes.
            if path.ends_with("/first.rs") || path.ends_with("/first.toml") {
                continue;
            }
            let is_pattern = path.contains(['*', '<', '{', '$', '…', '(']) || path.contains("NAME");
            if is_pattern || !tops.iter().any(|top| path.starts_with(top)) {
                continue;
            }
            let is_there = [path.to_owned(), format!("stages/{path}")]
                .iter()
                .any(|path| project().join(path.trim_end_matches('/')).exists());
            if !is_there {
                missing.push(format!("{page}: {path}"));
            }
        }
    }
    assert_eq!(missing, Vec::<String>::new());
}

/// The kinds that run in a worker process are those that docs/architecture.md and docs/stages.md
/// name.
#[test]
fn the_kinds_of_worker_processes_are_documented() {
    let is_worker = |kind: &&engine::Kind| kind.isolation() == engine::Isolation::Subprocess;
    let workers: BTreeSet<String> =
        stages::KINDS.iter().filter(is_worker).map(|kind| kind.name().to_owned()).collect();
    let table = rows(&section("docs/architecture.md", "## What runs where"), "| Where |");
    let row = table.iter().find(|row| row[0].contains("pipeline worker")).expect("a row of worker processes");
    assert_eq!(code_spans(&row[1]).into_iter().collect::<BTreeSet<_>>(), workers, "docs/architecture.md");
    let kinds = rows(&text("docs/stages.md"), "| Kind |");
    let workers_there: BTreeSet<String> = kinds
        .iter()
        .filter(|row| row[3].contains("in a worker process"))
        .flat_map(|row| code_spans(&row[0]))
        .collect();
    assert_eq!(workers_there, workers, "docs/stages.md");
}

#[test]
fn the_list_of_kinds_says_what_is_seeded_and_at_which_version() {
    let page = text("docs/stages.md");
    let kinds = rows(&page, "| Kind |");
    let listed: Vec<(String, bool)> =
        kinds.iter().map(|row| (code_spans(&row[0])[0].clone(), row[2] == "yes")).collect();
    let actual: Vec<(String, bool)> =
        stages::KINDS.iter().map(|kind| (kind.name().to_owned(), kind.is_seeded())).collect();
    assert_eq!(listed, actual);
    let line =
        page.lines().find(|line| line.starts_with("All are at version 1")).expect("a line of versions");
    for kind in stages::KINDS {
        let said = line.split(&format!("`{}`, which is at ", kind.name())).nth(1);
        let digits: Option<String> = said.map(|rest| rest.chars().take_while(char::is_ascii_digit).collect());
        let version: u32 = digits.map_or(1, |digits| digits.parse().expect("a version"));
        assert_eq!(version, kind.version(), "docs/stages.md on the version of `{}`", kind.name());
    }
}

/// The tables of parameters in docs/stages.md have the fields of the schemas: the same names, the
/// same ones required, and the same defaults where they are written as literals.
#[test]
fn the_tables_of_parameters_agree_with_the_schemas() {
    let mut wrong = Vec::new();
    for kind in stages::KINDS {
        let name = kind.name();
        let schema = kind.schema();
        let fields = schema["properties"].as_object().cloned().unwrap_or_default();
        let required: BTreeSet<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let mut documented: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for row in rows(&section("docs/stages.md", &format!("## `{name}`")), "| Parameter |") {
            for span in code_spans(&row[0]) {
                let field = span.split('.').next().unwrap_or_default().to_owned();
                documented.entry(field).or_insert_with(|| row.clone());
            }
        }
        let names = |names: BTreeSet<&String>| names.into_iter().cloned().collect::<Vec<_>>();
        let (here, there) = (names(documented.keys().collect()), names(fields.keys().collect()));
        if here != there {
            wrong.push(format!("{name}: docs {here:?}, schema {there:?}"));
        }
        for (field, row) in &documented {
            let default = row.get(2).map_or("", String::as_str);
            let is_needed = ["needed", "one at least"].iter().any(|word| default.starts_with(word));
            if is_needed && !required.contains(field.as_str()) && default.starts_with("needed") {
                wrong.push(format!("{name}.{field}: the docs say that it is needed, the schema does not"));
            }
            if required.contains(field.as_str()) && !is_needed {
                wrong.push(format!("{name}.{field}: the schema requires it, the docs say {default:?}"));
            }
            if let Ok(literal) = serde_json::from_str::<Value>(default.trim_matches('`'))
                && !literal.is_array()
            {
                let actual = &fields.get(field).map_or(Value::Null, |field| field["default"].clone());
                // A schema leaves out a default that is not written, which keys leave out as well.
                let is_equal = actual.is_null()
                    || match (literal.as_f64(), actual.as_f64()) {
                        (Some(literal), Some(actual)) => literal == actual,
                        _ => literal == *actual,
                    };
                if !is_equal {
                    wrong.push(format!("{name}.{field}: the docs say {literal}, the schema {actual}"));
                }
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

/// docs/cache.md names the kinds that keep something in `keep/` for their next attempt.
#[test]
fn the_kinds_that_resume_are_documented() {
    let mut kinds: BTreeSet<String> = BTreeSet::new();
    for kind in stages::KINDS {
        let file = project().join(format!("stages/src/{}.rs", kind.name()));
        let mut sources = vec![file.clone()];
        if file.with_extension("").is_dir() {
            sources.extend(files(&file.with_extension(""), ".rs"));
        }
        if sources.iter().any(|path| code(path).contains("context.keep()")) {
            kinds.insert(kind.name().to_owned());
        }
    }
    let section = section("docs/cache.md", "## What survives");
    let line = section.lines().find(|line| line.contains("work/KEY/keep/")).expect("a line on `keep/`");
    let named: BTreeSet<String> = code_spans(line)
        .into_iter()
        .filter(|span| stages::KINDS.iter().any(|kind| kind.name() == span))
        .collect();
    assert_eq!(named, kinds);
}

/// Of the folders of `learn`, only `tensor/` names a backend of burn or tests for one, as
/// docs/architecture.md says.
#[test]
fn only_tensors_name_a_backend() {
    assert!(
        text("docs/architecture.md").contains("Of the folders of `learn`, only `tensor/` names a backend")
    );
    let backends = [
        "burn_cuda",
        "burn_wgpu",
        "burn_flex",
        "burn_cubecl",
        "burn::backend",
        "DispatchDevice",
        "feature = \"cuda\"",
        "feature = \"wgpu\"",
        "feature = \"cpu\"",
    ];
    let mut wrong = Vec::new();
    for path in files(&project().join("stages/learn/src"), ".rs") {
        let inside = path.strip_prefix(project().join("stages/learn/src")).expect("it is below");
        if inside.starts_with("tensor") || inside == Path::new("tensor.rs") {
            continue;
        }
        for (number, line) in code(&path).lines().enumerate() {
            if !line.trim_start().starts_with("//") && backends.iter().any(|backend| line.contains(backend)) {
                wrong.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

/// Environment variables that the program reads are in docs/commands.md.
#[test]
fn environment_variables_are_documented() {
    let listed: BTreeSet<String> = rows(&section("docs/commands.md", "## Environment"), "| Variable |")
        .iter()
        .flat_map(|row| code_spans(&row[0]))
        .collect();
    let mut read: BTreeSet<String> = BTreeSet::new();
    for folder in ["src", "engine", "cache", "stages"] {
        for path in files(&project().join(folder), ".rs") {
            let path_text = path.to_string_lossy().into_owned();
            if ["/tests/", "/benches/", "/examples/", "/target/"].iter().any(|part| path_text.contains(part))
            {
                continue;
            }
            let code = code(&path);
            for call in ["env::var(\"", "env::var_os(\"", "environment_path(\""] {
                read.extend(
                    code.split(call).skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_owned),
                );
            }
        }
    }
    // Only tests read these.
    read.retain(|name| !name.starts_with("PIPELINE_TEST_") && name != "PIPELINE_REQUIRE_DATA");
    assert!(read.contains("PIPELINE_CACHE"), "{read:?}");
    assert_eq!(listed, read);
}

/// The tables of the index in docs/cache.md have the columns of the schema.
#[test]
fn the_tables_of_the_index_are_documented() {
    let lab = Lab::with("[stages.s]\nkind = \"command\"\nrun = \"echo > outputs/out/f\"\noutputs.out = {}\n");
    lab.run(["run", "x.toml"]).expect(0);
    let index = rusqlite::Connection::open(lab.cache().join("index.sqlite")).expect("an index");
    let mut actual: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let sql = "SELECT m.name, c.name FROM sqlite_schema m, pragma_table_info(m.name) c \
               WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite%'";
    let mut statement = index.prepare(sql).expect("SQL");
    let columns = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("rows");
    for (table, column) in columns.map(|row| row.expect("a row")) {
        let _: &String = &column;
        actual.entry(table).or_default().push(column);
    }
    let mut documented: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in rows(&section("docs/cache.md", "## The index"), "| Table |") {
        let mut columns: Vec<String> = row[1].split(", ").map(str::to_owned).collect();
        let table = code_spans(&row[0])[0].clone();
        let has_checksum = !matches!(table.as_str(), "meta" | "runs");
        columns.extend(has_checksum.then(|| "checksum".to_owned()));
        // Numbered rows have their number first; the page leaves it out for `executions`.
        if table == "executions" {
            columns.insert(0, "id".to_owned());
        }
        documented.insert(table, columns);
    }
    assert_eq!(documented, actual);
}
