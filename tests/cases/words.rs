//! Words that were replaced by the field's own stay away. docs/glossary.md has the words to use.

use std::collections::BTreeSet;

use crate::cases::house::{files, text};

/// Identifiers that stand nowhere in the code, and what took their place.
const IDENTIFIERS: &[(&str, &str)] = &[
    // engine
    ("Foresight", "MemoryForecast"),
    ("Foreseen", "MemoryForecast"),
    ("FORESEES", "an estimate"),
    ("foresee", "estimate"),
    ("Arrival", "JoinedInput"),
    ("arrivals", "join"),
    ("Trouble", "AttemptError"),
    ("Performed", "AttemptResult"),
    ("Workshop", "RunEnv"),
    ("Papers", "JobFiles"),
    ("UNKEYED", "Tuning"),
    ("CutOff", "EarlyCutoff"),
    ("FormattedFaces", "FormattedTable"),
    ("Faces", "FormattedTable"),
    // cache
    ("lay_out", "materialize"),
    ("keep_folder", "ingest_dir"),
    ("move_in", "insert_moved"),
    ("copy_in", "insert_copy"),
    ("take_source", "insert_source"),
    ("makers", "producers"),
    ("complaints", "integrity_errors"),
    ("DamagedBlob", "CorruptBlob"),
    ("Unkeepable", "UnsupportedFile"),
    ("skeleton", "shape key"),
    // the command line
    ("Stop", "CliError"),
    ("House", "Session"),
    ("Unheard", "OutputClosed"),
    // weights
    ("Weighing", "Normalization"),
    ("larger_wins", "magnitude_consensus"),
    ("along_arc", "slerp_weights"),
    ("fifth", "default_density"),
    ("thousand", "default_resamples"),
    // learn
    ("News", "TrainEvent"),
    ("Against", "ReferenceSource"),
    ("Learner", "Replica"),
    ("Summing", "GradientReduction"),
    ("Likelihood", "SoftmaxCrossEntropy"),
    ("Turns", "RotaryTable"),
    ("turn_back", "apply_rope_inverse"),
    ("soften", "masked_softmax"),
    ("Spelling", "TensorNaming"),
    ("HIDDEN", "MASK_VALUE"),
    ("Drops", "DropoutStreams"),
    ("leave_out", "set_dropout"),
    ("Untrained", "RandomInit"),
    ("PackedThere", "DevicePacked"),
    ("Elsewhere", "Device"),
    ("halve", "to_bf16"),
    ("by_hidden", "grad_hidden"),
    ("by_head", "grad_head"),
    ("chosen_slope", "chosen_gradient"),
    ("rejected_slope", "rejected_gradient"),
    ("usual_ends", "default_eos_token_ids"),
];

/// Phrases that stand nowhere, in code or documentation, and what took their place.
const PHRASES: &[(&str, &str)] = &[
    ("computed anew", "recomputed"),
    ("made anew", "made again"),
    ("on the way back", "in the backward pass"),
    ("single floats", "f32"),
    ("sixteen bits", "bf16"),
    ("foretold", "estimated"),
    ("foresees", "estimates"),
    ("in the small", "at small scale"),
    ("left aside", "ignored"),
    ("laid over", "override, merged over"),
    ("asked for everything by one thread", "all GPU work is issued from one thread"),
    ("told by canonical", "compared by canonical"),
    ("temporary house", "temporary workspace"),
    ("the house", "the workspace"),
    ("begins anew", "starts again"),
    ("looks at validation rows", "evaluation"),
    ("Needed:", "Prerequisites"),
];

/// Fields, choices and columns of experiment files that have another name now. They stand only where
/// an old file is answered with the new name: in `RENAMED` of a kind, and in the tests of that.
const FIELDS: &[(&str, &str)] = &[
    ("most_bad_rows", "max_bad_rows"),
    ("least_reference_words", "min_reference_words"),
    ("name_has", "name_contains"),
    ("files_from", "tokenizer_from"),
    ("intermediates", "compute_dtype"),
    ("validations_per_epoch", "evals_per_epoch"),
    ("against_reference", "use_reference"),
    ("kept_step", "best_step"),
    ("robust-dpo", "robust_dpo"),
    ("apo-zero", "apo_zero"),
    ("apo-zero-unpaired", "apo_zero_unpaired"),
    ("task-arithmetic", "task_arithmetic"),
    ("longest-sentence", "max_properties"),
];

/// Returns the files that people write: code, documentation, experiments.
fn written() -> Vec<std::path::PathBuf> {
    let endings = ["rs", "md", "toml", "txt", "yml", "py"];
    let is_written = |path: &std::path::PathBuf| {
        let ending = path.extension().map(|ending| ending.to_string_lossy().into_owned());
        ending.is_some_and(|ending| endings.contains(&ending.as_str()))
            && !path.ends_with("tests/cases/words.rs")
    };
    files(".").into_iter().filter(is_written).collect()
}

#[test]
fn replaced_words_stay_away() {
    let mut wrong = Vec::new();
    for path in written() {
        let is_code = path.extension().is_some_and(|ending| ending == "rs");
        let text = text(&path);
        // A phrase may go on in the next line of a comment.
        let flowing = text
            .lines()
            .map(|line| line.trim_start_matches([' ', '/', '!', '#']))
            .collect::<Vec<_>>()
            .join(" ");
        for (old, new) in PHRASES {
            if flowing.contains(old) {
                wrong.push(format!("{}: \"{old}\" is \"{new}\" now", path.display()));
            }
        }
        if is_code {
            let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
            let words: BTreeSet<&str> =
                code.flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_')).collect();
            for (old, new) in IDENTIFIERS.iter().filter(|(old, _)| words.contains(old)) {
                wrong.push(format!("{}: `{old}` is `{new}` now", path.display()));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new(), "docs/glossary.md has the words to use");
}

#[test]
fn renamed_fields_stay_away() {
    let mut wrong = Vec::new();
    for path in written() {
        let name = path.display().to_string();
        if name.starts_with("tests/experiments/invalid/renamed") {
            continue;
        }
        let text = text(&path);
        let mut is_list = false;
        for (number, line) in text.lines().enumerate() {
            is_list |= line.contains("RENAMED");
            let words = line.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '-');
            for word in words.filter(|_| !is_list) {
                if let Some((_, new)) = FIELDS.iter().find(|(old, _)| *old == word) {
                    wrong.push(format!("{name}:{}: `{word}` is `{new}` now", number + 1));
                }
            }
            is_list &= !line.trim_end().ends_with("];");
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}
