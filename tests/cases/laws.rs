//! What holds for the keys of every experiment, and for every text.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use cache::{Digest, Key, SourceState};
use engine::{Experiment, Keys, Plan, Report, Request, SourceFiles};
use miette::{Diagnostic as _, SourceSpan};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::lab::project;

/// The files that generated experiments name.
const FILES: [&str; 3] = ["one.txt", "two.txt", "data/three.txt"];

/// A stage of a generated experiment, and what can change about it.
#[derive(Debug, Clone)]
struct Stage {
    is_seeded: bool,
    /// Earlier stages.
    inputs: Vec<usize>,
    parameter: i64,
    seed: Option<u64>,
    file: Option<usize>,
    /// The values of an axis over the parameter.
    axis: Vec<i64>,
}

#[derive(Debug, Clone)]
struct Graph {
    seed: u64,
    contents: Vec<u8>,
    stages: Vec<Stage>,
}

/// How a graph is written down: none of it may matter.
#[derive(Debug, Clone, Default)]
struct Look {
    order: Vec<usize>,
    are_fields_reversed: bool,
    is_inline: bool,
    prefix: &'static str,
}

fn graphs() -> impl Strategy<Value = Graph> {
    let stage = (
        any::<bool>(),
        prop::collection::vec(any::<Index>(), 0..3),
        0..1000i64,
        prop::option::of(0..1000u64),
        prop::option::of(0..FILES.len()),
        prop_oneof![3 => Just(0usize), 1 => 2..4usize],
    );
    let stages = prop::collection::vec(stage, 2..9).prop_map(|drawn| {
        let stages = drawn.into_iter().enumerate();
        let made = stages.map(|(at, (is_seeded, inputs, parameter, seed, file, variants))| {
            let mut inputs: Vec<usize> =
                if at == 0 { Vec::new() } else { inputs.iter().map(|input| input.index(at)).collect() };
            inputs.sort_unstable();
            inputs.dedup();
            let is_seeded = is_seeded && !inputs.is_empty();
            let axis = (0..variants as i64).map(|variant| 2000 + variant).collect();
            Stage { is_seeded, inputs, parameter, seed: seed.filter(|_| is_seeded), file, axis }
        });
        let mut stages: Vec<Stage> = made.collect();
        // Axes cross, and more of them would only make the same graphs larger.
        for stage in stages.iter_mut().filter(|stage| !stage.axis.is_empty()).skip(2) {
            stage.axis.clear();
        }
        stages
    });
    (0..1000u64, prop::collection::vec(any::<u8>(), FILES.len()), stages)
        .prop_map(|(seed, contents, stages)| Graph { seed, contents, stages })
}

fn graphs_and_looks() -> impl Strategy<Value = (Graph, Look)> {
    graphs().prop_flat_map(|graph| {
        let order: Vec<usize> = (0..graph.stages.len()).collect();
        let look = (Just(order).prop_shuffle(), any::<bool>(), any::<bool>()).prop_map(
            |(order, are_fields_reversed, is_inline)| Look {
                order,
                are_fields_reversed,
                is_inline,
                prefix: "s",
            },
        );
        (Just(graph), look)
    })
}

impl Graph {
    fn plain(&self) -> Look {
        Look { order: (0..self.stages.len()).collect(), prefix: "s", ..Look::default() }
    }

    fn write(&self, look: &Look) -> String {
        let mut text = format!("[experiment]\nseed = {}\n", self.seed);
        if look.is_inline {
            text.push_str("\n[stages]\n");
        }
        for at in &look.order {
            let mut fields = self.fields(*at, look.prefix);
            if look.are_fields_reversed {
                fields.reverse();
            }
            let name = format!("{}{at}", look.prefix);
            if look.is_inline {
                text.push_str(&format!("{name} = {{ {} }}\n", fields.join(", ")));
            } else {
                text.push_str(&format!("\n[stages.{name}]\n{}\n", fields.join("\n")));
            }
        }
        text
    }

    fn fields(&self, at: usize, prefix: &str) -> Vec<String> {
        let stage = &self.stages[at];
        let mut fields = Vec::new();
        let names: Vec<String> = stage.inputs.iter().map(|input| format!("\"{prefix}{input}\"")).collect();
        if stage.is_seeded {
            fields.push("kind = \"subset\"".to_owned());
            fields.push(format!("inputs = {{ exclude = [{}], rows = {} }}", names[1..].join(", "), names[0]));
            fields.push(format!("take.count = {}", stage.parameter + 1));
            fields.extend(stage.seed.map(|seed| format!("seed = {seed}")));
        } else {
            fields.push("kind = \"command\"".to_owned());
            let ports = names.iter().enumerate().map(|(port, name)| format!("p{port} = {name}"));
            fields.push(format!("inputs = {{ {} }}", ports.collect::<Vec<_>>().join(", ")));
            fields.push("run = \"true\"".to_owned());
            fields.push("outputs = { rows = { type = \"rows\" } }".to_owned());
            fields.push(format!("parameters = {{ x = {}, y = 1.5 }}", stage.parameter));
            fields.extend(stage.file.map(|file| format!("files = [\"{}\"]", FILES[file])));
        }
        if !stage.axis.is_empty() {
            let field = if stage.is_seeded { "take.count" } else { "parameters.x" };
            fields.push(format!("axes.a{at} = {{ field = \"{field}\", values = {:?} }}", stage.axis));
        }
        fields
    }

    fn plan(&self, look: &Look) -> (Plan, Keys) {
        planned(&self.write(look), &Request::new("workspace/x.toml"), &self.contents)
    }

    /// Returns the key of every node by its label.
    fn keys(&self, look: &Look) -> BTreeMap<String, Key> {
        let (plan, keys) = self.plan(look);
        plan.nodes().iter().map(|node| node.label().to_owned()).zip(recipes(&keys)).collect()
    }
}

/// Returns all recipe keys, which are known where there is no table.
fn recipes(keys: &Keys) -> Vec<Key> {
    keys.recipes().map(|key| key.expect("everything is needed")).collect()
}

fn planned(text: &str, request: &Request, contents: &[u8]) -> (Plan, Keys) {
    let plan = plan(text, request).unwrap_or_else(|report| panic!("{report}\n{text}"));
    let folder = request.file.parent().expect("a folder");
    let state =
        |content: &u8| SourceState { digest: Digest::of(&[*content]), is_folder: false, files: vec![] };
    let states = FILES.iter().zip(contents);
    let states = states.map(|(file, content)| (folder.join(file), state(content))).collect();
    let keys = Keys::new(&plan, SourceFiles(states));
    (plan, keys)
}

fn plan(text: &str, request: &Request) -> Result<Plan, Report> {
    let read = |path: &Path| {
        if path == request.file { Ok(text.to_owned()) } else { Err(io::Error::from(io::ErrorKind::NotFound)) }
    };
    Plan::new(Experiment::load(request, stages::KINDS, &read))
}

/// Returns the labels of the nodes that a predicate names and of all that is downstream of them.
fn downstream(plan: &Plan, is_root: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let mut reached: Vec<bool> = Vec::new();
    for node in plan.nodes() {
        reached.push(is_root(node.label()) || node.inputs().iter().any(|edge| reached[edge.from]));
    }
    let labels = plan.nodes().iter().map(|node| node.label().to_owned());
    labels.zip(reached).filter(|(_, reached)| *reached).map(|(label, _)| label).collect()
}

/// Returns the labels whose keys differ; both must have the same labels.
fn changed(before: &BTreeMap<String, Key>, after: &BTreeMap<String, Key>) -> BTreeSet<String> {
    assert!(before.keys().eq(after.keys()), "{before:?}\n{after:?}");
    before.iter().filter(|(label, key)| after[*label] != **key).map(|(label, _)| label.clone()).collect()
}

fn stage_of(label: &str) -> &str {
    label.split('[').next().unwrap_or_default()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(96) })]

    #[test]
    fn the_look_of_the_text_keeps_keys((graph, look) in graphs_and_looks()) {
        prop_assert_eq!(graph.keys(&graph.plain()), graph.keys(&look), "{}", graph.write(&look));
    }

    #[test]
    fn names_of_stages_keep_keys(graph in graphs()) {
        let before = graph.keys(&graph.plain());
        let after = graph.keys(&Look { prefix: "renamed-", ..graph.plain() });
        let renamed: BTreeMap<String, Key> =
            after.into_iter().map(|(label, key)| (label.replacen("renamed-", "s", 1), key)).collect();
        prop_assert_eq!(before, renamed);
    }

    #[test]
    fn places_keep_keys(graph in graphs()) {
        let text = graph.write(&graph.plain());
        let here = planned(&text, &Request::new("workspace/x.toml"), &graph.contents).1;
        let there = planned(&text, &Request::new("/somewhere/else/y.toml"), &graph.contents).1;
        prop_assert_eq!(recipes(&here), recipes(&there));
    }

    #[test]
    fn a_parameter_changes_its_stage_and_what_is_downstream((graph, at) in (graphs(), any::<Index>())) {
        let at = at.index(graph.stages.len());
        let mut other = graph.clone();
        let name = format!("s{at}");
        let (plan, _) = graph.plan(&graph.plain());
        let expected = if let Some(value) = other.stages[at].axis.last_mut() {
            // Only the instances of this variant are another work.
            *value += 1000;
            let (old, new) = (format!("a{at}={}", *value - 1000), format!("a{at}={value}"));
            let before = graph.keys(&graph.plain());
            let after = other.keys(&other.plain()).into_iter();
            let after: BTreeMap<String, Key> = after.map(|(label, key)| (label.replace(&new, &old), key)).collect();
            let expected = downstream(&plan, |label| stage_of(label) == name && label.contains(&old));
            prop_assert_eq!(changed(&before, &after), expected);
            return Ok(());
        } else {
            other.stages[at].parameter += 1000;
            downstream(&plan, |label| stage_of(label) == name)
        };
        let (before, after) = (graph.keys(&graph.plain()), other.keys(&other.plain()));
        prop_assert_eq!(changed(&before, &after), expected);
    }

    #[test]
    fn a_seed_changes_who_uses_it_and_what_is_downstream((graph, at) in (graphs(), any::<Index>())) {
        let at = at.index(graph.stages.len());
        let mut other = graph.clone();
        let (plan, _) = graph.plan(&graph.plain());
        let uses = |label: &str, stage: &dyn Fn(usize, &Stage) -> bool| {
            let at: usize = stage_of(label)[1..].parse().expect("stages are numbered");
            stage(at, &graph.stages[at])
        };
        let expected = match &mut other.stages[at] {
            Stage { seed: Some(seed), .. } => {
                *seed += 1000;
                downstream(&plan, |label| uses(label, &|stage, _| stage == at))
            }
            _ => {
                other.seed += 1000;
                downstream(&plan, |label| uses(label, &|_, stage| stage.is_seeded && stage.seed.is_none()))
            }
        };
        let (before, after) = (graph.keys(&graph.plain()), other.keys(&other.plain()));
        prop_assert_eq!(changed(&before, &after), expected);
    }

    #[test]
    fn a_file_changes_who_reads_it_and_what_is_downstream((graph, file) in (graphs(), 0..FILES.len())) {
        let mut other = graph.clone();
        other.contents[file] ^= 1;
        let (plan, _) = graph.plan(&graph.plain());
        let expected = downstream(&plan, |label| {
            let stage = &graph.stages[stage_of(label)[1..].parse::<usize>().expect("stages are numbered")];
            // Two files of equal bytes are one content, but each is what it is.
            !stage.is_seeded && stage.file == Some(file)
        });
        let (before, after) = (graph.keys(&graph.plain()), other.keys(&other.plain()));
        prop_assert_eq!(changed(&before, &after), expected);
    }

    #[test]
    fn saying_a_value_again_changes_nothing((graph, at) in (graphs(), any::<Index>())) {
        let at = at.index(graph.stages.len());
        let stage = &graph.stages[at];
        let (field, value) = if stage.is_seeded { ("take.count", stage.parameter + 1) } else { ("parameters.x", stage.parameter) };
        let text = graph.write(&graph.plain());
        let before = graph.plan(&graph.plain()).1;
        if stage.axis.is_empty() {
            let request = Request { set: vec![format!("stages.s{at}.{field}={value}")], ..Request::new("workspace/x.toml") };
            let after = planned(&text, &request, &graph.contents).1;
            prop_assert_eq!(recipes(&before), recipes(&after));
            let profile = format!("{text}\n[profile.mini]\nstages.s{at}.{field} = {value}\n");
            let after = planned(&profile, &Request::new("workspace/x.toml"), &graph.contents).1;
            prop_assert_eq!(recipes(&before), recipes(&after));
        }
        let request = Request { set: vec![format!("experiment.seed={}", graph.seed)], ..Request::new("workspace/x.toml") };
        let after = planned(&text, &request, &graph.contents).1;
        prop_assert_eq!(recipes(&before), recipes(&after));
    }
}

/// Returns the label and key of every node of a text without files.
fn keys_of(text: &str) -> BTreeMap<String, Key> {
    let (plan, keys) = planned(text, &Request::new("workspace/x.toml"), &[0; FILES.len()]);
    plan.nodes().iter().map(|node| node.label().to_owned()).zip(recipes(&keys)).collect()
}

const ROWS: &str = "[stages.rows]\nkind = 'command'\nrun = 'true'\noutputs.rows.type = 'rows'\n";

#[test]
fn variants_that_are_equal_in_effect_share_keys() {
    let text = format!(
        "{ROWS}[stages.a]\nkind = 'subset'\ninputs.rows = 'rows'\ntake.count = 3\n\
         [stages.a.axes.how]\nplain = {{}}\nsaid = {{ distinct = false }}\nother = {{ distinct = true }}\n\
         [stages.b]\nkind = 'evaluate'\ninputs.rows = 'a'\nmetrics = ['words']\n"
    );
    let keys = keys_of(&text);
    for stage in ["a", "b"] {
        let key = |variant: &str| keys[&format!("{stage}[how={variant}]")];
        assert_eq!(key("plain"), key("said"));
        assert_ne!(key("plain"), key("other"));
    }
}

#[test]
fn what_a_stage_gathers_is_keyed_by_label_and_by_the_order_of_variants_alone() {
    let graph = |x: &str, y: &str, inputs: &str, gathered: &str| {
        let leaf = |name: &str, axis: &str| {
            format!("[stages.{name}]\nkind = 'command'\nrun = 'true'\noutputs.o = {{}}\naxes.{axis}\n")
        };
        let text = format!(
            "{}{}[stages.c]\nkind = 'command'\nrun = 'true'\noutputs.o = {{}}\ninputs = {{ {inputs} }}\n\
             [stages.d]\nkind = 'command'\nrun = 'true'\noutputs.o = {{}}\ninputs.all = 'c[{gathered}]'\n",
            leaf("a", x),
            leaf("b", y)
        );
        keys_of(&text)["d"]
    };
    let x = "x = { field = 'parameters.x', values = [1, 2] }";
    let y = "y = { field = 'parameters.y', values = [1, 2, 3] }";
    let plain = graph(x, y, "p = 'a', q = 'b'", "x=*,y=*");
    assert_eq!(plain, graph(x, y, "q = 'b', p = 'a'", "x=*,y=*"));
    assert_ne!(plain, graph(x, y, "p = 'a', q = 'b'", "y=*,x=*"), "other labels");
    let reversed = "y = { field = 'parameters.y', values = [3, 2, 1] }";
    assert_ne!(plain, graph(x, reversed, "p = 'a', q = 'b'", "x=*,y=*"), "another order");
}

#[test]
fn an_input_that_a_variant_has_no_port_for_is_dropped_from_its_key() {
    let text = |without: &str| {
        format!(
            "{ROWS}[stages.more]\nkind = 'command'\nrun = 'true'\noutputs.rows.type = 'rows'\nparameters.x = 1\n\
             [stages.a]\nkind = 'subset'\ninputs = {{ rows = 'rows'{without} }}\ntake.count = 3\n"
        )
    };
    assert_ne!(keys_of(&text(""))["a"], keys_of(&text(", exclude = 'more'"))["a"]);
    let request = Request::new("workspace/x.toml");
    let report = plan(&text(", whitout = 'more'"), &request).expect_err("no variant has the port");
    assert_eq!(report.diagnostics()[0].message(), "stage `a` has no input `whitout`");
}

/// Returns the texts of experiments that are sound.
fn sound_texts() -> Vec<String> {
    let folders = ["experiments", "tests/experiments/valid"].map(|folder| project().join(folder));
    let entries = folders.iter().flat_map(|folder| fs::read_dir(folder).expect("the folder is there"));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "toml"));
    paths.sort();
    paths.iter().map(|path| fs::read_to_string(path).expect("a text")).collect()
}

/// One way to spoil a text.
#[derive(Debug, Clone)]
enum Spoil {
    Insert(Index, String),
    Remove(Index, usize),
    Repeat(Index, Index),
    Cut(Index),
}

fn spoils() -> impl Strategy<Value = Spoil> {
    let pieces = [
        "é",
        "\"",
        "'",
        "[",
        "]",
        "[[",
        "{",
        "}",
        "=",
        ".",
        ",",
        "\n",
        "#",
        "\"\"\"",
        "\u{0}",
        "🧪",
        " = ",
        "-1",
        "1e999",
        "nan",
        "[stages.",
        "axes",
        "inputs",
        "[table]\n",
        "kind = 3\n",
        "\r\n",
        "\\",
        "[profile.mini]\n",
        "true",
    ];
    prop_oneof![
        (any::<Index>(), prop::sample::select(pieces.to_vec()))
            .prop_map(|(at, piece)| Spoil::Insert(at, piece.to_owned())),
        (any::<Index>(), ".{1,3}").prop_map(|(at, piece)| Spoil::Insert(at, piece)),
        (any::<Index>(), 1..12usize).prop_map(|(at, length)| Spoil::Remove(at, length)),
        (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Spoil::Repeat(from, to)),
        any::<Index>().prop_map(Spoil::Cut),
    ]
}

impl Spoil {
    fn spoil(&self, text: &str) -> String {
        let at = |index: &Index| text.floor_char_boundary(index.index(text.len() + 1));
        let (before, after) = match self {
            Self::Insert(index, _) | Self::Remove(index, _) | Self::Cut(index) => text.split_at(at(index)),
            Self::Repeat(_, to) => text.split_at(at(to)),
        };
        match self {
            Self::Insert(_, piece) => format!("{before}{piece}{after}"),
            Self::Remove(_, length) => format!("{before}{}", after.chars().skip(*length).collect::<String>()),
            Self::Cut(_) => before.to_owned(),
            Self::Repeat(from, _) => {
                let line = text[at(from)..].lines().next().unwrap_or_default();
                format!("{before}{line}\n{after}")
            }
        }
    }
}

/// Plans a text that includes nothing; what is wrong must be said of its characters.
fn plan_anything(text: &str, base: &Path) -> Result<(), TestCaseError> {
    let Err(report) = plan(text, &Request::new(base)) else {
        return Ok(());
    };
    prop_assert!(!report.diagnostics().is_empty());
    for diagnostic in report.diagnostics() {
        let label =
            diagnostic.labels().and_then(|mut labels| labels.next()).expect("every problem has a place");
        let (start, end) = (label.offset(), label.offset() + label.len());
        let code = diagnostic.source_code().expect("every problem has a text");
        let all = code.read_span(&SourceSpan::new(0.into(), text.len()), 0, 0);
        let all = all.map_err(|error| TestCaseError::fail(format!("{diagnostic}: {error}")))?;
        prop_assert_eq!(all.data(), text.as_bytes(), "{} is not of this text", diagnostic);
        prop_assert!(text.get(start..end).is_some(), "{diagnostic} at {start}..{end}");
        let (line, column) = diagnostic.position();
        prop_assert!(line >= 1 && line <= text.matches('\n').count() + 1 && column >= 1);
        prop_assert!(!diagnostic.message().is_empty());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(384) })]

    #[test]
    fn no_spoiled_text_makes_the_planner_panic((text, spoils) in (any::<Index>(), prop::collection::vec(spoils(), 1..6))) {
        let texts = sound_texts();
        let text = texts[text.index(texts.len())].clone();
        let spoiled = spoils.iter().fold(text, |text, spoil| spoil.spoil(&text));
        plan_anything(&spoiled, Path::new("x.toml"))?;
    }

    #[test]
    fn no_text_at_all_makes_the_planner_panic(text in "\\PC{0,60}") {
        plan_anything(&text, Path::new("x.toml"))?;
    }
}
