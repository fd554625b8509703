//! Axes of whole experiments: what multiplies, joins and is selected.

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
stages.captions = { kind = 'step', axes.model = { merged.inputs.a = 'merged', base.inputs.a = 'base' } }
";

#[test]
fn a_variant_brings_the_axes_of_its_input_for_itself_alone() {
    let captions = labels_of("captions", RAGGED);
    assert_eq!(
        captions,
        ["captions[merge=ties,model=merged]", "captions[merge=slerp,model=merged]", "captions[model=base]"]
    );
}

#[test]
fn a_selector_leaves_out_the_nodes_without_its_axis() {
    let with = |more: &str| format!("{RAGGED}\n{more}");
    let pinned = with("stages.s = { kind = 'step', inputs.a = 'captions[merge=ties]' }");
    assert_eq!(labels_of("s", &pinned), ["s[model=merged]"]);
    let gathered = with("stages.s = { kind = 'step', inputs.a = 'captions[merge=*]' }");
    assert_eq!(labels_of("s", &gathered), ["s[model=merged]"]);
    let only = with("stages.s = { kind = 'step', inputs.a = 'captions', only = [{ merge = 'slerp' }] }");
    assert_eq!(labels_of("s", &only), ["s[merge=slerp,model=merged]"]);
    let except = with("stages.s = { kind = 'step', inputs.a = 'captions', except = [{ merge = 'slerp' }] }");
    assert_eq!(labels_of("s", &except), ["s[merge=ties,model=merged]", "s[model=base]"]);
    let plan = plan(RAGGED).unwrap();
    let selected = plan.select("captions[merge=ties]").unwrap();
    assert_eq!(selected.iter().map(|node| plan.nodes()[*node].label()).collect::<Vec<_>>().len(), 1);
}

#[test]
fn a_selector_that_means_nothing_in_any_node_is_an_error() {
    let with = |more: &str| problem(&format!("{RAGGED}\n{more}"));
    let unknown = with("stages.s = { kind = 'step', inputs.a = 'captions[merg=ties]' }");
    assert!(unknown.ends_with("stage `captions` has no axis `merg`"), "{unknown}");
    let unknown = with("stages.s = { kind = 'step', inputs.a = 'captions', only = [{ merge = 'tis' }] }");
    assert!(unknown.ends_with("axis `merge` has no variant `tis`"), "{unknown}");
    let unknown = with("stages.s = { kind = 'step', inputs.a = 'captions', except = [{ mrge = 'ties' }] }");
    assert!(unknown.ends_with("stage `s` has no axis `mrge`"), "{unknown}");
    let twice = with("stages.s = { kind = 'step', inputs.a = 'captions[merge=ties,merged.merge=slerp]' }");
    assert!(twice.ends_with("stage `captions` has its axis `merged.merge` selected twice"), "{twice}");
}

#[test]
fn a_ragged_input_joins_on_the_axes_that_it_has_and_crosses_the_others() {
    let text =
        format!("{RAGGED}\nstages.s = {{ kind = 'step', inputs = {{ a = 'captions', b = 'merged' }} }}");
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
