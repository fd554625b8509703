//! What a metric was computed by: the parameters that matter to it and are not as usual, in a few
//! words, so that a table can tell numbers of one name apart.

use std::path::Path;

use engine::{Definition, InputFile};

use super::metric::{Metric, Need, Subject};
use super::{EmptyFingerprints, EmptyPrediction, Pairing, Params, Tokens};

/// Returns what a metric is computed by.
pub(super) fn definition(params: &Params, metric: &Metric) -> Definition {
    let mut parts = Vec::new();
    let mut files = Vec::new();
    if metric.subject == Subject::Rows {
        parts.push("words between white space".to_owned());
    }
    if metric.needs(Need::Tokens) {
        match &params.tokens {
            Tokens::Words => parts.push("words between white space".to_owned()),
            Tokens::Wordpiece(file) => {
                parts.push(format!("word pieces of {}", name(file)));
                files.push("tokens.wordpiece".to_owned());
            }
            Tokens::Tokenizer(file) => {
                parts.push(format!("tokens of {}", name(file)));
                files.push("tokens.tokenizer".to_owned());
            }
        }
    }
    let mut read = |need: Need, what: &str, field: &str, file: &Option<InputFile>| {
        if let (true, Some(file)) = (metric.needs(need), file) {
            parts.push(format!("{what} of {}", name(file)));
            files.push(field.to_owned());
        }
    };
    read(Need::WordNet, "synonyms", "wordnet", &params.wordnet);
    read(Need::ChemNet, "activations", "chemnet", &params.chemnet);
    if metric.needs(Need::Molecules) && params.empty_prediction == EmptyPrediction::Valid {
        parts.push("an empty prediction is a molecule".to_owned());
    }
    if metric.needs(Need::Fingerprints) && params.empty_fingerprints == EmptyFingerprints::One {
        parts.push("two empty fingerprints are alike".to_owned());
    }
    if let Some(words) = params.min_reference_words {
        parts.push(format!("references of at least {words} words"));
    }
    // A number of all predictions as a set does not depend on who is held against whom.
    if params.pairing == Pairing::Shuffled && !metric.needs(Need::ChemNet) {
        parts.push("references of other rows".to_owned());
    }
    Definition { parts, files }
}

/// Returns the last name of a file's path.
fn name(file: &InputFile) -> String {
    let name = Path::new(file.origin()).file_name().unwrap_or(file.origin().as_os_str());
    name.to_string_lossy().into_owned()
}
