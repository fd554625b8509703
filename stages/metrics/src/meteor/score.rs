//! How words are matched, and what the matches come to.

use std::borrow::Cow;
use std::collections::HashMap;

use super::porter::stem;
use super::wordnet::WordNet;

const ALPHA: f64 = 0.9;
const BETA: f64 = 3.0;
const GAMMA: f64 = 0.5;

/// Words that are not matched yet, with their positions, in order.
type Left<'a> = Vec<(usize, Cow<'a, str>)>;

/// Returns METEOR of one pair of token lists, in [0, 1]; without WordNet, of exact words and stems.
pub fn meteor(output: &[&str], reference: &[&str], wordnet: Option<&WordNet>) -> f64 {
    let mut ours: Left = output.iter().map(|word| lower(word)).enumerate().collect();
    let mut theirs: Left = reference.iter().map(|word| lower(word)).enumerate().collect();
    let mut matches = same(&mut ours, &mut theirs);
    let stems = |left: &mut Left| left.iter_mut().for_each(|(_, word)| *word = Cow::Owned(stem(word)));
    stems(&mut ours);
    stems(&mut theirs);
    matches.extend(same(&mut ours, &mut theirs));
    if let Some(wordnet) = wordnet {
        matches.extend(synonymous(&ours, &theirs, wordnet));
    }
    if matches.is_empty() {
        return 0.0;
    }
    matches.sort_unstable();
    let count = matches.len() as f64;
    let (precision, recall) = (count / output.len() as f64, count / reference.len() as f64);
    let f = precision * recall / (ALPHA * precision + (1.0 - ALPHA) * recall);
    (1.0 - GAMMA * (chunks(&matches) as f64 / count).powf(BETA)) * f
}

fn lower(word: &str) -> Cow<'_, str> {
    if word.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase()) {
        Cow::Borrowed(word)
    } else {
        Cow::Owned(word.to_lowercase())
    }
}

/// Matches equal words from the right, each to the rightmost that is left, and takes them out.
fn same(ours: &mut Left, theirs: &mut Left) -> Vec<(usize, usize)> {
    let mut matches = Vec::new();
    {
        let mut places = places(theirs);
        for (at, word) in ours.iter().rev() {
            if let Some(place) = places.get_mut(word.as_ref()).and_then(Vec::pop) {
                matches.push((*at, theirs[place].0));
            }
        }
    }
    let mut taken: Vec<(usize, usize)> = matches.clone();
    // Found from the right, so in falling order of our positions.
    let mut next = taken.iter().rev().map(|(at, _)| *at).peekable();
    ours.retain(|(at, _)| next.next_if_eq(at).is_none());
    taken.sort_unstable_by_key(|(_, at)| *at);
    let mut next = taken.iter().map(|(_, at)| *at).peekable();
    theirs.retain(|(at, _)| next.next_if_eq(at).is_none());
    matches
}

/// Matches words to synonyms from the right, each to the rightmost that is left.
fn synonymous(ours: &Left, theirs: &Left, wordnet: &WordNet) -> Vec<(usize, usize)> {
    let mut matches = Vec::new();
    let mut places = places(theirs);
    for (at, word) in ours.iter().rev() {
        if matches.len() == theirs.len() {
            break;
        }
        let mut best: Option<(usize, &str)> = None;
        let mut look = |synonym: &str| {
            if let Some((synonym, places)) = places.get_key_value(synonym)
                && let Some(last) = places.last()
                && best.is_none_or(|(place, _)| place < *last)
            {
                best = Some((*last, synonym));
            }
        };
        look(word);
        wordnet.each_synonym(word, &mut look);
        if let Some((place, synonym)) = best {
            places.get_mut(synonym).map(Vec::pop);
            matches.push((*at, theirs[place].0));
        }
    }
    matches
}

/// Returns where each word stands among those that are left, in rising order.
fn places<'a>(left: &'a Left) -> HashMap<&'a str, Vec<usize>> {
    let mut places: HashMap<&str, Vec<usize>> = HashMap::with_capacity(left.len());
    for (place, (_, word)) in left.iter().enumerate() {
        places.entry(word).or_default().push(place);
    }
    places
}

/// Returns how many runs of neighbours the matches are, in both texts at once.
fn chunks(matches: &[(usize, usize)]) -> usize {
    1 + matches.windows(2).filter(|pair| pair[1] != (pair[0].0 + 1, pair[0].1 + 1)).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(output: &str, reference: &str) -> f64 {
        let split = |text| crate::words::split(text).collect::<Vec<_>>();
        meteor(&split(output), &split(reference), None)
    }

    /// Worked out by nltk 3.10.4 with an empty WordNet.
    #[test]
    fn exact_words_and_stems_as_nltk_matches_them() {
        let output =
            "It is a guide to action which ensures that the military always obeys the commands of the party";
        let reference =
            "It is a guide to action that ensures that the military will forever heed Party commands";
        assert!((of(output, reference) - 0.6944444444444445).abs() < 1e-12);
        assert!((of("the cats were running", "running cat is the") - 0.375).abs() < 1e-12);
    }

    #[test]
    fn nothing_in_common_is_nothing() {
        assert_eq!((of("", "a"), of("a", ""), of("", ""), of("a", "b")), (0.0, 0.0, 0.0, 0.0));
    }

    proptest! {
        #[test]
        fn bounds_and_identity(a in prop::collection::vec("[ab]{1,2}", 1..12), b in prop::collection::vec("[ab]{1,2}", 1..12)) {
            let [ours, theirs] = [&a, &b].map(|words| words.iter().map(String::as_str).collect::<Vec<_>>());
            let score = meteor(&ours, &theirs, None);
            prop_assert!((0.0..=1.0).contains(&score));
            // A text is one chunk of itself.
            let own = 1.0 - 0.5 / (ours.len() as f64).powi(3);
            prop_assert!((meteor(&ours, &ours, None) - own).abs() < 1e-12);
        }
    }
}
