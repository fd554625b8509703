//! Properties to a caption.

use super::draw::Draw;
use super::templates::Templates;
use std::collections::BTreeMap;

/// Says why a list of properties cannot be said.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ComposeError {
    /// The list is empty.
    #[error("there are no properties to make a caption of")]
    NoProperties,
    /// A property has no name.
    #[error("property {position} is blank")]
    BlankProperty {
        /// Its position, from 1.
        position: usize,
    },
}

impl Templates {
    /// Makes a caption that names every property once.
    ///
    /// The properties are shuffled and cut into as few groups as the longest sentence allows,
    /// as even as they can be. A group becomes one sentence, any of those that fit it; if none
    /// does, the class that was written last in the templates gets a sentence of its own.
    ///
    /// All of this depends on `seed`, `identity` and the list, and on nothing else. Properties
    /// that differ only in their capitals are one.
    pub fn compose(&self, properties: &[&str], seed: u64, identity: &str) -> Result<String, ComposeError> {
        let mut said: Vec<(usize, String)> = Vec::with_capacity(properties.len());
        for (position, property) in properties.iter().enumerate() {
            let property = property.trim();
            if property.is_empty() {
                return Err(ComposeError::BlankProperty { position: position + 1 });
            }
            let phrase = self.said(property);
            if !said.iter().any(|(_, earlier)| *earlier == phrase) {
                said.push((self.class(property), phrase));
            }
        }
        if said.is_empty() {
            return Err(ComposeError::NoProperties);
        }
        let mut draw = Draw::new(seed, identity, properties);
        draw.shuffle(&mut said);
        let mut caption = String::new();
        for group in even_groups(said, self.max_properties) {
            self.write_sentence(group, &mut draw, &mut caption);
        }
        Ok(caption)
    }

    fn write_sentence(&self, group: Vec<(usize, String)>, draw: &mut Draw, out: &mut String) {
        let mut left: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for (class, phrase) in group {
            left.entry(class).or_default().push(phrase);
        }
        while !left.is_empty() {
            let mut now = std::mem::take(&mut left);
            let sentence = loop {
                let counts = now.iter().map(|(class, phrases)| (*class, phrases.len())).collect();
                let fitting: Vec<_> = self.sentences.iter().filter(|s| s.fits(&counts)).collect();
                if !fitting.is_empty() {
                    break fitting[draw.below(fitting.len())];
                }
                // A class alone always fits, so this ends before the group is empty.
                left.extend(now.pop_last());
            };
            if !out.is_empty() {
                out.push(' ');
            }
            sentence.fill(&now, out);
        }
    }
}

/// Cuts items into as few groups as can be, the larger ones first.
fn even_groups<T>(items: Vec<T>, longest: usize) -> Vec<Vec<T>> {
    let total = items.len();
    let groups = total.div_ceil(longest);
    let mut items = items.into_iter();
    (0..groups)
        .map(|group| {
            let size = total / groups + usize::from(group < total % groups);
            items.by_ref().take(size).collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn templates() -> Templates {
        Templates::parse(
            r#"
format = 2
max_properties = 4
rest = "role"
sentences = [
    "The molecule is {role:articled}.",
    "The molecule is {treatment:plain}.",
    "It belongs to the {treatment:one} class.",
    "It impacts {effect:plain}.",
    "The molecule is {role:articled} that impacts {effect:plain}.",
]
[[class]]
name = "role"
[[class]]
name = "treatment"
suffixes = [" treatment"]
[[class]]
name = "effect"
members = ["Aging"]
suffixes = [" syndrome"]
[lists.plain]
[lists.articled]
each = "a "
[lists.one]
max = 1
"#,
        )
        .unwrap()
    }

    #[test]
    fn groups_are_few_and_even() {
        let sizes =
            |total: usize| -> Vec<usize> { even_groups(vec![(); total], 5).iter().map(Vec::len).collect() };
        assert_eq!(sizes(1), [1]);
        assert_eq!(sizes(6), [3, 3]);
        assert_eq!(sizes(13), [5, 4, 4]);
        assert_eq!(sizes(18), [5, 5, 4, 4]);
    }

    #[test]
    fn classes_without_a_common_sentence_get_their_own() {
        let caption = templates().compose(&["Aging", "Pain treatment"], 2, "x").unwrap();
        assert!(caption.ends_with(" It impacts aging."), "{caption}");
        assert!(caption.contains("pain treatment"), "{caption}");
        let caption = templates().compose(&["Aging", "Nutrient"], 2, "x").unwrap();
        assert_eq!(caption, "The molecule is a nutrient that impacts aging.");
    }

    #[test]
    fn the_seed_and_the_identity_choose() {
        let properties = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let caption = |seed, identity| templates().compose(&properties, seed, identity).unwrap();
        assert_ne!(caption(1, "x"), caption(2, "x"));
        assert_ne!(caption(1, "x"), caption(1, "y"));
    }

    #[test]
    fn capitals_and_repeats_count_once() {
        let caption = templates().compose(&["HIV inhibitor", "hiv inhibitor "], 1, "x").unwrap();
        assert_eq!(caption.matches("hiv inhibitor").count(), 1);
        assert!(!caption.contains("HIV"));
    }

    #[test]
    fn nothing_to_say_is_an_error() {
        assert_eq!(templates().compose(&[], 1, "x"), Err(ComposeError::NoProperties));
        let blank = templates().compose(&["a", " "], 1, "x");
        assert_eq!(blank, Err(ComposeError::BlankProperty { position: 2 }));
    }

    fn property() -> impl Strategy<Value = String> {
        let kinds = ["Role", "x treatment", "x Syndrome"];
        let named = (10..99u32, prop::sample::select(kinds.to_vec()));
        named.prop_map(|(n, kind)| format!("P{n} {kind}"))
    }

    proptest! {
        #[test]
        fn every_property_is_said_once(
            properties in prop::collection::btree_set(property(), 1..30), seed: u64
        ) {
            let properties: Vec<&str> = properties.iter().map(String::as_str).collect();
            let caption = templates().compose(&properties, seed, "identity").unwrap();
            for property in &properties {
                let phrase = property.to_lowercase();
                prop_assert_eq!(caption.matches(&phrase).count(), 1, "{} in {}", phrase, caption);
            }
            let again = templates().compose(&properties, seed, "identity").unwrap();
            prop_assert_eq!(caption, again);
        }
    }
}
