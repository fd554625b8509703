//! Axes of whole experiments: what multiplies, joins and is selected.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::experiment::spec::{Experiment, Request};
use crate::kind::context::Context;
use crate::kind::failure::StageFailure;
use crate::kind::output_column::OutputColumn;
use crate::kind::ports::{Accepts, ArtifactType, Ports};
use crate::kind::stage::{Kind, NoTuning, Stage};
use crate::plan::graph::Plan;

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Method {
    Ties { density: f64 },
    Dare { density: f64 },
    Slerp {},
    Count(u64),
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    x: Option<i64>,
    method: Option<Method>,
}

/// Takes whatever is given.
struct Step;

impl Stage for Step {
    const KIND: &'static str = "step";
    const VERSION: u32 = 1;
    type Params = Params;
    type Tuning = NoTuning;

    fn ports(_: &Params) -> Ports {
        let columns = vec![OutputColumn::new("score")];
        Ports::new().any_other_inputs(Accepts::Any).scored_output("out", ArtifactType::new("thing"), columns)
    }

    fn run(_: &Params, _: &NoTuning, _: &mut Context) -> Result<(), StageFailure> {
        Ok(())
    }
}

/// The same with a seed.
struct Draw;

impl Stage for Draw {
    const KIND: &'static str = "draw";
    const VERSION: u32 = 1;
    const SEEDED: bool = true;
    type Params = Params;
    type Tuning = NoTuning;

    fn ports(params: &Params) -> Ports {
        Step::ports(params)
    }

    fn run(_: &Params, _: &NoTuning, _: &mut Context) -> Result<(), StageFailure> {
        Ok(())
    }
}

const KINDS: &[Kind] = &[Kind::of::<Step>(), Kind::of::<Draw>()];

/// Plans an experiment of steps: a stage without a kind is one.
fn plan(text: &str) -> Result<Plan, String> {
    let experiment = Experiment::load(&Request::new("x.toml"), KINDS, &|_| Ok(text.to_owned()));
    Plan::new(experiment).map_err(|report| report.to_string())
}

fn labels(text: &str) -> Vec<String> {
    let plan = plan(text).unwrap_or_else(|report| panic!("{report}\n{text}"));
    plan.nodes().iter().map(|node| node.label().to_owned()).collect()
}

fn labels_of(stage: &str, text: &str) -> Vec<String> {
    let is_of = |label: &String| label.split('[').next() == Some(stage);
    labels(text).into_iter().filter(is_of).collect()
}

fn problem(text: &str) -> String {
    plan(text).err().unwrap_or_else(|| panic!("nothing is wrong with\n{text}"))
}

/// Two models, of which the first has an axis, read by one stage.
const RAGGED: &str = "
stages.base = { kind = 'step' }
stages.merged = { kind = 'step', inputs.a = 'base', axes.merge = { ties.x = 1, slerp.x = 2 } }
stages.read = { kind = 'step', axes.model = { merged.inputs.a = 'merged', base.inputs.a = 'base' } }
";

#[test]
fn a_variant_brings_the_axes_of_its_input_for_itself_alone() {
    let read = labels_of("read", RAGGED);
    assert_eq!(read, ["read[merge=ties,model=merged]", "read[merge=slerp,model=merged]", "read[model=base]"]);
}

#[test]
fn a_selector_leaves_out_the_nodes_without_its_axis() {
    let with = |more: &str| format!("{RAGGED}\n{more}");
    let pinned = with("stages.s = { kind = 'step', inputs.a = 'read[merge=ties]' }");
    assert_eq!(labels_of("s", &pinned), ["s[model=merged]"]);
    let gathered = with("stages.s = { kind = 'step', inputs.a = 'read[merge=*]' }");
    assert_eq!(labels_of("s", &gathered), ["s[model=merged]"]);
    let only = with("stages.s = { kind = 'step', inputs.a = 'read', only = [{ merge = 'slerp' }] }");
    assert_eq!(labels_of("s", &only), ["s[merge=slerp,model=merged]"]);
    let except = with("stages.s = { kind = 'step', inputs.a = 'read', except = [{ merge = 'slerp' }] }");
    assert_eq!(labels_of("s", &except), ["s[merge=ties,model=merged]", "s[model=base]"]);
    let plan = plan(RAGGED).unwrap();
    let selected = plan.select("read[merge=ties]").unwrap();
    assert_eq!(selected.iter().map(|node| plan.nodes()[*node].label()).collect::<Vec<_>>().len(), 1);
}

#[test]
fn a_selector_that_means_nothing_in_any_node_is_an_error() {
    let with = |more: &str| problem(&format!("{RAGGED}\n{more}"));
    let unknown = with("stages.s = { kind = 'step', inputs.a = 'read[merg=ties]' }");
    assert!(unknown.ends_with("stage `read` has no axis `merg`"), "{unknown}");
    let unknown = with("stages.s = { kind = 'step', inputs.a = 'read', only = [{ merge = 'tis' }] }");
    assert!(unknown.ends_with("axis `merge` has no variant `tis`"), "{unknown}");
    let unknown = with("stages.s = { kind = 'step', inputs.a = 'read', except = [{ mrge = 'ties' }] }");
    assert!(unknown.ends_with("stage `s` has no axis `mrge`"), "{unknown}");
    let twice = with("stages.s = { kind = 'step', inputs.a = 'read[merge=ties,merged.merge=slerp]' }");
    assert!(twice.ends_with("stage `read` has its axis `merged.merge` selected twice"), "{twice}");
}

#[test]
fn a_ragged_input_joins_on_the_axes_that_it_has_and_crosses_the_others() {
    let text = format!("{RAGGED}\nstages.s = {{ kind = 'step', inputs = {{ a = 'read', b = 'merged' }} }}");
    let expected = [
        "s[merge=ties,model=merged]",
        "s[merge=slerp,model=merged]",
        "s[model=base,merge=ties]",
        "s[model=base,merge=slerp]",
    ];
    assert_eq!(labels_of("s", &text), expected);
}

#[test]
fn axes_of_one_name_from_different_stages_are_told_apart_within_a_node_only() {
    let text = "
stages.a = { kind = 'step', axes.size = { s.x = 1, l.x = 2 } }
stages.b = { kind = 'step', axes.size = { s.x = 3, xl.x = 4 } }
stages.c = { kind = 'step', axes.of = { a.inputs.i = 'a', b.inputs.i = 'b' } }
";
    let of = |selector: &str| {
        labels_of("d", &format!("{text}\nstages.d = {{ kind = 'step', inputs.i = 'c[{selector}]' }}"))
    };
    assert_eq!(of("size=s"), ["d[of=a]", "d[of=b]"]);
    assert_eq!(of("size=xl"), ["d[of=b]"]);
    assert_eq!(of("a.size=*"), ["d[of=a]"]);
}

const MERGED: &str = "
[stages.merged]
kind = 'step'
axes.density = { field = 'method.ties.density', values = [0.1, 0.2] }
axes.merge = { ties.method.ties = { density = 0.5 }, slerp.method.slerp = {} }
";

#[test]
fn a_scalar_axis_changes_what_another_axis_chose_whatever_their_order() {
    let text = MERGED.replace("slerp.method.slerp = {}", "more = { method.ties.density = 0.6, x = 2 }");
    let plan = plan(&text).unwrap();
    let densities: Vec<String> = plan.nodes().iter().map(|node| format!("{:?}", node.params)).collect();
    assert!(densities[0].contains("0.1") && densities[3].contains("0.2"), "{densities:?}");
}

#[test]
fn an_axis_that_reaches_into_another_choice_is_an_error_unless_that_is_left_out() {
    let message = problem(MERGED);
    let expected = "x.toml:4:26: axis `density` of stage `merged` sets `method.ties.density`, but its axis \
                    `merge` chooses `method.slerp` for `slerp`";
    assert_eq!(message, expected);
    let without = MERGED.to_owned() + "except = [{ merge = 'slerp' }]";
    assert_eq!(labels(&without), ["merged[density=0.1,merge=ties]", "merged[density=0.2,merge=ties]"]);
    let other = "stages.o = { kind = 'step', axes.o.a = {} }\nstages.m = { kind = 'step', inputs.o = 'o', ";
    let axes =
        "axes = { d = { field = 'method.ties.density', values = [0.1] }, m.slerp.method.slerp = {} }, ";
    let wanted = problem(&format!("{other}{axes}except = [{{ m = 'slerp', o = 'b' }}] }}"));
    assert!(wanted.contains("but its axis `m` chooses `method.slerp`"), "{wanted}");
    let left_out = problem(&format!("{other}{axes}except = [{{ m = 'slerp', o = 'a' }}] }}"));
    assert!(left_out.contains("leave nothing of stage `m`"), "{left_out}");
}

#[test]
fn an_axis_exists_for_the_variants_that_it_names() {
    let text = MERGED.replace("[0.1, 0.2] }", "[0.1, 0.2], only = { merge = 'ties' } }");
    assert_eq!(
        labels(&text),
        ["merged[merge=slerp]", "merged[density=0.1,merge=ties]", "merged[density=0.2,merge=ties]"]
    );
    let unknown = text.replace("merge = 'ties' }", "merge = 'tis' }");
    assert!(problem(&unknown).contains("axis `merge` has no variant `tis`"));
    let circle = text.replace("axes.merge = { ", "axes.merge = { only = { density = 0.1 }, ");
    assert!(problem(&circle).contains("depends on itself"));
    let absent = text.replace("only = { merge", "only = { mrge");
    assert!(problem(&absent).contains("stage `merged` has no axis `mrge`"));
}

#[test]
fn an_axis_exists_for_variants_of_the_axes_of_inputs() {
    let text = "
stages.merged = { kind = 'step', axes.merge = { ties.x = 1, slerp.x = 2 } }
stages.s = { kind = 'step', inputs.a = 'merged', axes.b = { field = 'x', values = [1, 2], only = { merge = 'ties' } } }
";
    assert_eq!(labels_of("s", text), ["s[merge=slerp]", "s[merge=ties,b=1]", "s[merge=ties,b=2]"]);
}

#[test]
fn two_axes_that_set_the_same_are_an_error() {
    for (axes, path) in [
        ("a = { field = 'x', values = [1] }, b.one.x = 2", "sets `x`, which its axis `a` sets too"),
        ("a.one.x = 1, b = { two = {}, one.x = 2 }", "sets `x`, which its axis `a` sets too"),
        ("a.one.inputs.i = 'base', b.one.inputs.i = 'base'", "sets `inputs.i`, which its axis `a` sets too"),
        (
            "a.one.method.count = 3, b = { field = 'method.count', values = [1] }",
            "sets `method.count`, which its axis `a` sets too",
        ),
        (
            "a.one.method.slerp = {}, b = { field = 'method.count', values = [1] }",
            "sets `method.count`, which replaces or is replaced by `method.slerp` of its axis `a`",
        ),
        (
            "a.one.method.slerp = {}, b.one.method.count = 1",
            "sets `method.count`, which replaces or is replaced by `method.slerp` of its axis `a`",
        ),
        (
            "a = { field = 'method.ties.density', values = [1] }, b = { field = 'method.ties.density', values = [1] }",
            "sets `method.ties.density`, which its axis `a` sets too",
        ),
    ] {
        let text =
            format!("stages.base = {{ kind = 'step' }}\nstages.s = {{ kind = 'step', axes = {{ {axes} }} }}");
        let message = problem(&text);
        assert!(message.contains("axis `b` of stage `s`") && message.ends_with(path), "{axes}: {message}");
    }
    let seeds =
        "stages.s = { kind = 'draw', axes = { a.one.seed = 1, b = { field = 'seed', values = [1, 2] } } }";
    assert!(problem(seeds).ends_with("sets `seed`, which its axis `a` sets too"));
    let apart = "stages.s = { kind = 'step', axes = { a = { one.x = 1, two = {} }, b = { field = 'x', values = [1, 2], only = { a = 'two' } } } }";
    assert_eq!(labels(apart), ["s[a=one]", "s[a=two,b=1]", "s[a=two,b=2]"]);
}

#[test]
fn two_scalar_axes_inside_different_methods_contradict_each_other() {
    let text = "stages.s = { kind = 'step', axes = { \
                a = { field = 'method.ties.density', values = [0.1] }, \
                b = { field = 'method.dare.density', values = [0.1] } } }";
    let message = problem(text);
    assert!(message.ends_with("but its axis `a` chooses `method.ties` for `0.1`"), "{message}");
}

const SEEDED: &str = "
experiment.seeds = [42, 43]
stages.base = { kind = 'step' }
stages.a = { kind = 'draw', inputs.i = 'base' }
stages.b = { kind = 'draw', inputs.i = 'a' }
stages.c = { kind = 'draw', inputs.i = 'base', seed = 7 }
stages.d = { kind = 'step', inputs = { a = 'a', b = 'b', c = 'c' } }
stages.e = { kind = 'draw', inputs.i = 'a', seed = 7 }
stages.f = { kind = 'step', inputs.i = 'a[seed=43]' }
";

#[test]
fn seeds_are_one_axis_over_all_that_is_seeded() {
    let expected = [
        "base",
        "a[seed=42]",
        "a[seed=43]",
        "b[seed=42]",
        "b[seed=43]",
        "c",
        "d[seed=42]",
        "d[seed=43]",
        "e[seed=42]",
        "e[seed=43]",
        "f",
    ];
    let mut labels = labels(SEEDED);
    labels.sort();
    let mut expected = expected.map(str::to_owned);
    expected.sort();
    assert_eq!(labels, expected);
    let plan = plan(SEEDED).unwrap();
    let seed = |label: &str| plan.nodes().iter().find(|node| node.label() == label).unwrap().seed;
    assert_eq!(["b[seed=43]", "c", "e[seed=42]", "f"].map(seed), [Some(43), Some(7), Some(7), None]);
}

#[test]
fn one_seed_is_no_axis_and_the_nearest_layer_says_which() {
    let one = plan(&SEEDED.replace("[42, 43]", "[42]").replace("[seed=43]", "")).unwrap();
    assert_eq!(one.nodes().iter().find(|node| node.label() == "b").unwrap().seed, Some(42));
    let with = |request: &Request| {
        let text = SEEDED.replace("[seed=43]", "");
        let experiment = Experiment::load(request, KINDS, &|_| Ok(text.clone()));
        let plan = Plan::new(experiment).unwrap();
        let of_a = |label: &&str| label.starts_with("a");
        plan.nodes().iter().map(|node| node.label()).filter(of_a).map(str::to_owned).collect::<Vec<_>>()
    };
    let request = Request { set: vec!["experiment.seed=3".to_owned()], ..Request::new("x.toml") };
    assert_eq!(with(&request), ["a"]);
    let request = Request { seeds: Some(3), ..request };
    assert_eq!(with(&request), ["a[seed=3]", "a[seed=4]", "a[seed=5]"]);
    let request = Request { seeds: Some(3), ..Request::new("x.toml") };
    assert_eq!(with(&request), ["a[seed=42]", "a[seed=43]", "a[seed=44]"]);
}

#[test]
fn seeds_beside_an_axis_over_the_seed_are_an_error() {
    let axis = "stages.s = { kind = 'draw', axes.seed = { field = 'seed', values = [1, 2] } }";
    assert!(problem(&format!("{SEEDED}{axis}")).contains("axis `seed` of stage `s` sets `seed`"));
    let both = problem(&format!("experiment.seed = 1\n{SEEDED}"));
    assert!(both.contains("has `seed` and `seeds`"), "{both}");
}

#[test]
fn seeds_of_a_namespace_are_its_own_unless_the_experiment_has_some() {
    let with = |head: &str, more: Option<u32>| {
        let inside = "experiment.seeds = [1, 2]\nstages.a = { kind = 'draw' }".to_owned();
        let text = format!(
            "experiment = {{ {head} include = {{ t = 't.toml' }} }}\n\
                            stages.b = {{ kind = 'draw', inputs.i = 't/a' }}"
        );
        let read = |path: &Path| Ok(if path.ends_with("t.toml") { inside.clone() } else { text.clone() });
        let request = Request { seeds: more, ..Request::new("x.toml") };
        let plan = Plan::new(Experiment::load(&request, KINDS, &read)).unwrap();
        plan.nodes().iter().map(|node| node.label().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(with("", None), ["t/a[seed=1]", "t/a[seed=2]", "b[seed=1]", "b[seed=2]"]);
    assert_eq!(with("seeds = [5, 6],", None), ["t/a[seed=5]", "t/a[seed=6]", "b[seed=5]", "b[seed=6]"]);
    assert_eq!(with("", Some(1)), ["t/a", "b"]);
    assert_eq!(with("", Some(2)), ["t/a[seed=1]", "t/a[seed=2]", "b[seed=1]", "b[seed=2]"]);
}

#[test]
fn targets_are_what_the_table_reads_and_else_what_nothing_reads() {
    let stages = "
stages.base = { kind = 'step' }
stages.a = { kind = 'step', inputs.i = 'base' }
stages.b = { kind = 'step', inputs.i = 'a' }
stages.c = { kind = 'step', inputs.i = 'base' }
";
    let names = |plan: &Plan, nodes: &[usize]| -> Vec<String> {
        nodes.iter().map(|node| plan.nodes()[*node].label().to_owned()).collect()
    };
    let needed = |plan: &Plan| -> Vec<String> {
        let nodes: Vec<usize> = (0..plan.nodes().len()).filter(|node| plan.is_needed(*node)).collect();
        let mut names = names(plan, &nodes);
        names.sort();
        names
    };
    let without = plan(stages).unwrap();
    assert_eq!(needed(&without).len(), 4);
    let mut with = plan(&format!("{stages}\n[table]\ncolumns = ['score']\nfrom = 'a'")).unwrap();
    assert_eq!(
        (names(&with, with.targets()), needed(&with)),
        (vec!["a".to_owned()], vec!["a".to_owned(), "base".to_owned()])
    );
    let c = with.select("c").unwrap();
    with.require(&c).unwrap();
    assert_eq!(needed(&with), ["a", "base", "c"]);
    assert_eq!(names(&with, with.targets()), ["a"]);
}
