//! Porter's stemmer, 1980, with the extensions that are nltk 3.10.4's default.
//!
//! Not Porter2. Where nltk departs from the paper: `ies` and `ied` of four letters become `ie`;
//! `y` becomes `i` after a consonant that is not the first letter; `alli` is followed up; `fulli`
//! and `logi` are suffixes; two letters, vowel and consonant, end as `cvc` does; and a few words
//! have stems of their own. A letter is any character, so a `#` is a consonant.

/// Words with stems of their own.
const IRREGULAR: [(&str, &str); 16] = [
    ("sky", "sky"),
    ("skies", "sky"),
    ("dying", "die"),
    ("lying", "lie"),
    ("tying", "tie"),
    ("news", "news"),
    ("innings", "inning"),
    ("inning", "inning"),
    ("outings", "outing"),
    ("outing", "outing"),
    ("cannings", "canning"),
    ("canning", "canning"),
    ("howe", "howe"),
    ("proceed", "proceed"),
    ("exceed", "exceed"),
    ("succeed", "succeed"),
];

/// What must hold of what is left of a word without the suffix.
#[derive(Clone, Copy, PartialEq)]
enum If {
    Always,
    /// Its measure is above 0.
    Some,
    /// Its measure is above 1.
    More,
    /// Its measure is above 1, and it ends in `s` or `t`.
    MoreAndSOrT,
    /// The measure of it and `log` without the `g`'s follower is above 0: nltk looks at one letter more.
    SomeWithL,
}

type Rule = (&'static str, &'static str, If);

const STEP_1A: [Rule; 4] =
    [("sses", "ss", If::Always), ("ies", "i", If::Always), ("ss", "ss", If::Always), ("s", "", If::Always)];

const STEP_2: [Rule; 22] = [
    ("ational", "ate", If::Some),
    ("tional", "tion", If::Some),
    ("enci", "ence", If::Some),
    ("anci", "ance", If::Some),
    ("izer", "ize", If::Some),
    ("bli", "ble", If::Some),
    ("alli", "al", If::Some),
    ("entli", "ent", If::Some),
    ("eli", "e", If::Some),
    ("ousli", "ous", If::Some),
    ("ization", "ize", If::Some),
    ("ation", "ate", If::Some),
    ("ator", "ate", If::Some),
    ("alism", "al", If::Some),
    ("iveness", "ive", If::Some),
    ("fulness", "ful", If::Some),
    ("ousness", "ous", If::Some),
    ("aliti", "al", If::Some),
    ("iviti", "ive", If::Some),
    ("biliti", "ble", If::Some),
    ("fulli", "ful", If::Some),
    ("logi", "log", If::SomeWithL),
];

const STEP_3: [Rule; 7] = [
    ("icate", "ic", If::Some),
    ("ative", "", If::Some),
    ("alize", "al", If::Some),
    ("iciti", "ic", If::Some),
    ("ical", "ic", If::Some),
    ("ful", "", If::Some),
    ("ness", "", If::Some),
];

const STEP_4: [Rule; 19] = [
    ("al", "", If::More),
    ("ance", "", If::More),
    ("ence", "", If::More),
    ("er", "", If::More),
    ("ic", "", If::More),
    ("able", "", If::More),
    ("ible", "", If::More),
    ("ant", "", If::More),
    ("ement", "", If::More),
    ("ment", "", If::More),
    ("ent", "", If::More),
    ("ion", "", If::MoreAndSOrT),
    ("ou", "", If::More),
    ("ism", "", If::More),
    ("ate", "", If::More),
    ("iti", "", If::More),
    ("ous", "", If::More),
    ("ive", "", If::More),
    ("ize", "", If::More),
];

/// Returns the stem of a word.
pub fn stem(word: &str) -> String {
    let lower = word.to_lowercase();
    if let Some((_, stem)) = IRREGULAR.iter().find(|(irregular, _)| *irregular == lower) {
        return (*stem).to_owned();
    }
    if word.chars().take(3).count() <= 2 {
        return lower;
    }
    let mut word = Word(lower.chars().collect());
    word.step_1a();
    word.step_1b();
    word.step_1c();
    word.step_2();
    word.apply(&STEP_3);
    word.apply(&STEP_4);
    word.step_5();
    word.0.into_iter().collect()
}

/// A word, letter by letter.
struct Word(Vec<char>);

impl Word {
    fn ends_with(&self, suffix: &str) -> bool {
        let mut letters = self.0.iter().rev();
        suffix.chars().rev().all(|letter| letters.next() == Some(&letter))
    }

    /// Returns how long the word is without a suffix, if it ends with it. Suffixes are ASCII.
    fn without(&self, suffix: &str) -> Option<usize> {
        self.ends_with(suffix).then(|| self.0.len() - suffix.len())
    }

    fn replace(&mut self, kept: usize, end: &str) {
        self.0.truncate(kept);
        self.0.extend(end.chars());
    }

    /// Applies the first rule whose suffix the word has, if its condition holds.
    fn apply(&mut self, rules: &[Rule]) {
        let Some((kept, (_, end, condition))) =
            rules.iter().find_map(|rule| Some((self.without(rule.0)?, rule)))
        else {
            return;
        };
        let stem = &self.0[..kept];
        let holds = match condition {
            If::Always => true,
            If::Some => measure(stem) > 0,
            If::More => measure(stem) > 1,
            If::MoreAndSOrT => measure(stem) > 1 && matches!(stem.last(), Some('s' | 't')),
            If::SomeWithL => measure(&self.0[..kept + 1]) > 0,
        };
        if holds {
            self.replace(kept, end);
        }
    }

    fn step_1a(&mut self) {
        if self.0.len() == 4 && self.ends_with("ies") {
            return self.replace(1, "ie");
        }
        self.apply(&STEP_1A);
    }

    fn step_1b(&mut self) {
        if let Some(kept) = self.without("ied") {
            return self.replace(kept, if kept == 1 { "ie" } else { "i" });
        }
        if let Some(kept) = self.without("eed") {
            if measure(&self.0[..kept]) > 0 {
                self.replace(kept, "ee");
            }
            return;
        }
        let mut suffixes = ["ed", "ing"].iter();
        let Some(kept) =
            suffixes.find_map(|suffix| self.without(suffix).filter(|kept| has_vowel(&self.0[..*kept])))
        else {
            return;
        };
        self.0.truncate(kept);
        let last = self.0[kept - 1];
        match () {
            () if self.ends_with("at") || self.ends_with("bl") || self.ends_with("iz") => self.0.push('e'),
            () if ends_double_consonant(&self.0) => {
                if !matches!(last, 'l' | 's' | 'z') {
                    self.0.pop();
                }
            }
            () if measure(&self.0) == 1 && ends_cvc(&self.0) => self.0.push('e'),
            () => {}
        }
    }

    fn step_1c(&mut self) {
        if let Some(kept) = self.without("y") {
            let stem = &self.0[..kept];
            if kept > 1 && consonants(stem)[kept - 1] {
                self.replace(kept, "i");
            }
        }
    }

    fn step_2(&mut self) {
        while let Some(kept) = self.without("alli").filter(|kept| measure(&self.0[..*kept]) > 0) {
            self.replace(kept, "al");
        }
        self.apply(&STEP_2);
    }

    fn step_5(&mut self) {
        if let Some(kept) = self.without("e") {
            let stem = &self.0[..kept];
            let measure = measure(stem);
            if measure > 1 || measure == 1 && !ends_cvc(stem) {
                self.0.truncate(kept);
            }
        }
        if self.ends_with("ll") && measure(&self.0[..self.0.len() - 1]) > 1 {
            self.0.pop();
        }
    }
}

/// Says of each letter whether it is a consonant; a `y` is one unless it follows one.
fn consonants(letters: &[char]) -> Vec<bool> {
    let mut flags: Vec<bool> = Vec::with_capacity(letters.len());
    for letter in letters {
        let flag = match letter {
            'a' | 'e' | 'i' | 'o' | 'u' => false,
            'y' => flags.last().is_none_or(|before| !before),
            _ => true,
        };
        flags.push(flag);
    }
    flags
}

/// Returns how many times a vowel is followed by a consonant.
fn measure(letters: &[char]) -> usize {
    consonants(letters).windows(2).filter(|pair| !pair[0] && pair[1]).count()
}

fn has_vowel(letters: &[char]) -> bool {
    consonants(letters).contains(&false)
}

fn ends_double_consonant(letters: &[char]) -> bool {
    let [.., before, last] = letters else { return false };
    before == last && consonants(letters).last() == Some(&true)
}

fn ends_cvc(letters: &[char]) -> bool {
    match &consonants(letters)[..] {
        [false, true] => true,
        [.., true, false, true] => !matches!(letters.last(), Some('w' | 'x' | 'y')),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Stems that nltk 3.10.4 gives.
    #[test]
    fn stems_are_nltks() {
        for pair in include_str!("../../tests/golden/stems.txt").lines() {
            let (word, expected) = pair.split_once(' ').expect("a word and its stem");
            assert_eq!(stem(word), expected, "{word}");
        }
    }

    proptest! {
        #[test]
        fn any_word_has_a_stem(word in "\\PC{0,12}", suffix in "(ed|ing|ies|ied|alli|logi|ion|y|e|ll)?") {
            stem(&format!("{word}{suffix}"));
        }
    }
}
