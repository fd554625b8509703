//! What a run makes: what tables read; without tables, what nothing reads.

use crate::experiment::experiment;
use crate::lab::Lab;

/// The table reads `scores`. `spare` takes a file that is not there, and `more` reads it.
fn spare() -> Lab {
    experiment()
        .scores("scores", ["words"], "echo '{\"words\": 3}' > outputs/scores/metrics.json")
        .command("other", "echo other > outputs/out/x.txt")
        .command("spare", "cat files/absent.txt > outputs/out/x.txt")
        .lines("files = [\"absent.txt\"]")
        .command("more", "cat inputs/spare/x.txt > outputs/out/x.txt")
        .input("spare", "spare")
        .lines("[table]\ncolumns = [\"words\"]\nfrom = \"scores\"")
        .lab()
}

#[test]
fn what_no_table_reads_is_not_made_and_its_files_need_not_exist() {
    let lab = spare();
    lab.run(["plan", "x.toml"]).expect(0).shows(&[
        "not needed spare   command     no table reads it",
        "4 stages: 0 hit, 1 run, 0 maybe, 3 not needed\nno table reads 3 of them; \
         `pipeline run FILE --until STAGE` makes one",
    ]);
    assert_eq!(lab.run(["run", "x.toml"]).expect(0).ran(), ["scores"]);
    let told = lab.run(["status", "x.toml"]).expect(0).shows(&["done       scores", "not needed more"]);
    assert_eq!(told.stdout.lines().filter(|line| line.starts_with("not needed")).count(), 3);
    lab.run(["graph", "x.toml"]).expect(0);
    let plan = lab.run(["plan", "x.toml", "--json"]).expect(0).stdout;
    let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
    let fields = |name: &str| {
        let stage = plan.as_array().unwrap().iter().find(|stage| stage["stage"] == name).unwrap();
        (stage["needed"] == true, stage["key"].is_null())
    };
    // Where its files are known, so is its key.
    assert_eq!(["scores", "other", "spare"].map(fields), [(true, false), (false, false), (false, true)]);
}

#[test]
fn a_stage_that_is_named_is_needed_with_its_files() {
    let lab = spare();
    assert_eq!(lab.run(["run", "x.toml", "--until", "other"]).expect(0).ran(), ["other"]);
    lab.run(["run", "x.toml", "--until", "more"]).expect(2).says(&["absent.txt", "x.toml:"]);
    lab.run(["why", "x.toml", "spare"]).expect(2).says(&["absent.txt"]);
    lab.run(["show", "x.toml", "spare"]).expect(2).says(&["absent.txt"]);
    lab.write("absent.txt", "there now\n");
    lab.run(["why", "x.toml", "spare"]).expect(0).shows(&["has no result, and nothing needs it"]);
    assert_eq!(lab.run(["run", "x.toml", "--until", "more"]).expect(0).ran(), ["more", "spare"]);
    assert_eq!(lab.made("more", "x.txt"), "there now\n");
    lab.edit("x.toml", "cat files/absent.txt", "cat  files/absent.txt");
    assert_eq!(lab.run(["run", "x.toml", "--force", "spare"]).expect(0).ran(), ["scores", "spare"]);
}

#[test]
fn a_variable_that_is_not_set_matters_only_where_it_is_needed() {
    let lab = spare();
    lab.edit("x.toml", "\"absent.txt\"", "\"${data}/absent.txt\"");
    lab.run(["run", "x.toml"]).expect(0);
    lab.run(["run", "x.toml", "--until", "spare"]).expect(2).says(&["`${data}` is not set"]);
}

#[test]
fn without_a_table_everything_is_needed() {
    let lab = spare();
    lab.edit("x.toml", "[table]\ncolumns = [\"words\"]\nfrom = \"scores\"", "");
    lab.run(["run", "x.toml"]).expect(2).says(&["absent.txt"]);
    lab.write("absent.txt", "there now\n");
    assert_eq!(lab.run(["run", "x.toml"]).expect(0).ran(), ["more", "other", "scores", "spare"]);
}
