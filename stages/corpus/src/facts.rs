//! Texts in parts: sentences, and facts that say one thing each.
//!
//! Facts come from a model that was asked for a list, or from rules for captions in the style of
//! L+M-24, which are made of property lists by templates. The rules know no other texts: of a
//! caption from elsewhere they make its sentences, cut at commas and `and` where the sentence
//! begins as those of L+M-24 do.

/// What stands before a full stop that ends no sentence.
const ABBREVIATIONS: [&str; 9] = ["e.g", "i.e", "cf", "vs", "approx", "etc", "sp", "spp", "no"];

/// Splits a text into sentences, at full stops, question and exclamation marks before white space
/// and a letter that is not small, and at line ends. Abbreviations and initials end none.
pub fn sentences(text: &str) -> Vec<String> {
    let mut sentences = Vec::new();
    for line in text.lines() {
        let mut begin = 0;
        for (at, mark) in line.match_indices(['.', '!', '?']) {
            let behind = &line[at + mark.len()..];
            let next = behind.trim_start();
            let is_end = next.len() < behind.len()
                && next.chars().next().is_none_or(|letter| !letter.is_lowercase())
                && !(mark == "." && is_abbreviation(&line[begin..at]));
            if is_end {
                sentences.push(line[begin..at + mark.len()].trim().to_owned());
                begin = at + mark.len();
            }
        }
        sentences.push(line[begin..].trim().to_owned());
    }
    sentences.retain(|sentence| sentence.chars().any(char::is_alphanumeric));
    sentences
}

fn is_abbreviation(before: &str) -> bool {
    let word = before.rsplit(|letter: char| letter.is_whitespace() || letter == '(').next().unwrap_or(before);
    let is_initial = word.chars().count() == 1 && word.chars().all(char::is_uppercase);
    is_initial || ABBREVIATIONS.iter().any(|known| known.eq_ignore_ascii_case(word))
}

/// Reads the facts of a list that a model wrote: lines with dashes, bullets or numbers before them
/// or with nothing, or all in one line. What introduces the list (`Here are the facts:`), what
/// follows it (`### User:`), and what is said twice does not count.
pub fn listed(text: &str) -> Vec<String> {
    let text = text.trim();
    let end = text.match_indices("###").map(|(at, _)| at).find(|at| *at == 0 || text[..*at].ends_with('\n'));
    let lines: Vec<&str> = text[..end.unwrap_or(text.len())].lines().map(str::trim).collect();
    let lines: Vec<&str> = lines.into_iter().filter(|line| !line.is_empty()).collect();
    let items: Vec<String> = match &lines[..] {
        [line] => in_one_line(line),
        lines => lines.iter().map(|line| (*line).to_owned()).collect(),
    };
    let mut facts: Vec<String> = Vec::new();
    for item in items {
        let fact = without_bullet(&item).replace("**", "");
        let fact = fact.trim().trim_matches(['"', '*']).trim();
        let is_heading = fact.ends_with(':');
        if !is_heading && fact.chars().any(char::is_alphanumeric) && facts.iter().all(|known| known != fact) {
            facts.push(fact.to_owned());
        }
    }
    facts
}

/// Splits a list in one line: at its bullets or its numbers, else into sentences.
fn in_one_line(line: &str) -> Vec<String> {
    for bullet in ["\u{2022}", "\u{2023}", "\u{25e6}", " * ", " - ", " \u{2013} "] {
        let is_listed = line.starts_with(bullet.trim()) || line.contains(&format!(":{bullet}"));
        if is_listed || (bullet.chars().count() == 1 && line.contains(bullet)) {
            return line.split(bullet).map(|item| item.trim().to_owned()).collect();
        }
    }
    let numbers = numbered(line);
    if numbers.len() > 1 {
        let ends = numbers.iter().skip(1).copied().chain([line.len()]);
        let head = line[..numbers[0]].to_owned();
        let items = numbers.iter().zip(ends).map(|(begin, end)| line[*begin..end].trim().to_owned());
        return std::iter::once(head).chain(items).collect();
    }
    if line.contains("; ") { line.split("; ").map(str::to_owned).collect() } else { sentences(line) }
}

/// Returns where the numbers 1, 2, 3 and so on of a list in one line begin.
fn numbered(line: &str) -> Vec<usize> {
    let mut markers = Vec::new();
    let mut from = 0;
    while let Some(at) = [". ", ") ", ": "]
        .iter()
        .flat_map(|mark| {
            let number = format!("{}{mark}", markers.len() + 1);
            line[from..].match_indices(&number).map(|(at, _)| from + at).collect::<Vec<_>>()
        })
        .filter(|at| *at == 0 || line[..*at].ends_with([' ', '(']))
        .min()
    {
        markers.push(at);
        from = at + 1;
    }
    markers
}

/// Cuts off what stands before an item of a list.
fn without_bullet(item: &str) -> &str {
    const BULLETS: [char; 10] =
        ['-', '*', '+', '\u{2022}', '\u{2013}', '\u{2014}', '\u{b7}', '\u{2023}', '\u{25e6}', '\u{2212}'];
    let bare = item.trim_start();
    let bare = bare.strip_prefix("Fact ").unwrap_or(bare);
    // A dash without space behind it may begin a number or a name.
    let unbulleted = bare.trim_start_matches(BULLETS);
    let item = if unbulleted.len() < bare.len() && unbulleted.starts_with(char::is_whitespace) {
        unbulleted.trim_start()
    } else {
        bare.strip_prefix(['\u{2022}', '\u{2023}', '\u{25e6}']).unwrap_or(bare).trim_start()
    };
    let bare = item.strip_prefix('(').unwrap_or(item);
    let digits = bare.chars().take_while(char::is_ascii_digit).count();
    let is_letter =
        digits == 0 && bare.len() < item.len() && bare.starts_with(|l: char| l.is_ascii_lowercase());
    let number = if is_letter { 1 } else { digits };
    let behind = &bare[number..];
    match behind.strip_prefix(['.', ')', ':']) {
        Some(behind) if number > 0 && behind.starts_with(char::is_whitespace) => behind.trim_start(),
        _ => item,
    }
}

/// What sentences of L+M-24 begin with.
const SUBJECTS: [&str; 3] = ["The molecule ", "It ", "it "];

/// What leads from one clause to the next, and the verb that the next one begins with. Of two that
/// begin at one place the first listed counts.
const CONNECTIONS: [(&str, &str); 26] = [
    (", and it ", ""),
    (" and it ", ""),
    (", it ", ""),
    (" that impacts ", "impacts "),
    (" that affects ", "affects "),
    (" that is ", "is "),
    (", which impacts ", "impacts "),
    (", which is ", "is "),
    (", impacting ", "impacts "),
    (", affecting ", "affects "),
    (", and impacts ", "impacts "),
    (" and impacts ", "impacts "),
    (", and affects ", "affects "),
    (" and affects ", "affects "),
    (", belonging to ", "belongs to "),
    (", and belongs to ", "belongs to "),
    (" and belongs to ", "belongs to "),
    (", and is characterized as ", "is characterized as "),
    (" and is characterized as ", "is characterized as "),
    (", characterized as ", "is characterized as "),
    (", and is ", "is "),
    (" and is ", "is "),
    (", is ", "is "),
    (" and has an effect on ", "has an effect on "),
    (", and has ", "has "),
    (" and has ", "has "),
];

/// The verbs that a clause may begin with, the longest first.
const VERBS: [&str; 7] =
    ["is characterized as ", "has an effect on ", "belongs to ", "impacts ", "affects ", "has ", "is "];

/// Splits a caption in the style of L+M-24 into facts: one for each property that it names, as
/// `The molecule is a nutrient.` A sentence that does not begin as theirs is a fact as it is.
pub fn of_lpm24_caption(caption: &str) -> Vec<String> {
    let mut facts: Vec<String> = Vec::new();
    let mut add = |fact: String| {
        if !facts.contains(&fact) {
            facts.push(fact);
        }
    };
    for sentence in sentences(caption) {
        let Some(rest) = SUBJECTS.iter().find_map(|subject| sentence.strip_prefix(subject)) else {
            add(sentence);
            continue;
        };
        for clause in clauses(rest.trim_end_matches(['.', '!', ' '])) {
            match VERBS.iter().find_map(|verb| Some((*verb, clause.strip_prefix(verb)?))) {
                Some((verb, list)) => {
                    objects(list).for_each(|object| add(format!("The molecule {verb}{object}.")))
                }
                None => add(format!("The molecule {clause}.")),
            }
        }
    }
    facts
}

/// Cuts a sentence into clauses, each with its verb.
fn clauses(sentence: &str) -> Vec<String> {
    let mut facts = Vec::new();
    let (mut verb, mut rest) = ("", sentence);
    loop {
        let next = CONNECTIONS
            .iter()
            .filter_map(|(connection, verb)| Some((rest.find(connection)?, connection.len(), *verb)))
            .min_by_key(|(at, _, _)| *at);
        let Some((at, length, next_verb)) = next else {
            facts.push(format!("{verb}{rest}"));
            return facts;
        };
        facts.push(format!("{verb}{}", &rest[..at]));
        (verb, rest) = (next_verb, &rest[at + length..]);
    }
}

/// Returns the members of a list.
fn objects(list: &str) -> impl Iterator<Item = String> {
    // What belongs to each member: `both the A and B classes of molecules`, `A and B on record`.
    let endings = [" classes of molecules", " class of molecules", " class", " on record"];
    let (list, ending) = endings
        .iter()
        .find_map(|ending| Some((list.strip_suffix(ending)?, *ending)))
        .map_or((list, ""), |(list, ending)| (list, if ending == endings[0] { endings[1] } else { ending }));
    let list = list.strip_prefix("both ").unwrap_or(list);
    let begin =
        ["the ", "a member of the "].into_iter().find(|begin| list.starts_with(begin) && !ending.is_empty());
    let begin = begin.unwrap_or_default();
    let parts = list[begin.len()..].split(", ").flat_map(|part| part.split(" and "));
    let parts: Vec<String> = parts
        .map(|part| part.strip_prefix("and ").unwrap_or(part).trim())
        .filter(|part| !part.is_empty())
        .map(|part| format!("{begin}{part}{ending}"))
        .collect();
    parts.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sentences_end_where_they_end() {
        let text = "The molecule is from E. coli. It occurs, e.g. in plants. Is it 3.5 times as sweet? Yes!";
        let found = sentences(text);
        assert_eq!(
            found,
            [
                "The molecule is from E. coli.",
                "It occurs, e.g. in plants.",
                "Is it 3.5 times as sweet?",
                "Yes!"
            ]
        );
        assert_eq!(sentences("no end\nand another\n\n"), ["no end", "and another"]);
        assert!(sentences(" . \n!").is_empty());
    }

    #[test]
    fn lists_are_read_however_they_are_written() {
        let facts = ["It is a nutrient.", "It impacts 2-methyl loss.", "-1 is its charge."];
        let numbers = [1, 2, 3].map(|number| (number, facts[number - 1]));
        for text in [
            facts.join("\n"),
            facts.map(|fact| format!("- {fact}")).join("\n"),
            facts.map(|fact| format!(" *   {fact}  ")).join("\n\n"),
            facts.map(|fact| format!("\u{2022}{fact}")).join("\n"),
            facts.map(|fact| format!("\u{2022} {fact}")).join(" "),
            facts.map(|fact| format!("- {fact}")).join(" "),
            numbers.map(|(number, fact)| format!("{number}. {fact}")).join("\n"),
            numbers.map(|(number, fact)| format!("({number}) {fact}")).join("\n"),
            numbers.map(|(number, fact)| format!("{number}) {fact}")).join(" "),
            numbers.map(|(number, fact)| format!("Fact {number}: **{fact}**")).join("\n"),
            format!(
                "Here are the facts:\n\n{}\n\n### User:\nmore",
                facts.map(|f| format!("- {f}")).join("\n")
            ),
            format!(
                "Here are the facts: {}",
                numbers.map(|(number, fact)| format!("{number}. {fact}")).join(" ")
            ),
            facts.join("\n") + "\n" + facts[0],
        ] {
            assert_eq!(listed(&text), facts, "{text}");
        }
        assert_eq!(listed("It is a drug. It is sweet."), ["It is a drug.", "It is sweet."]);
        assert_eq!(listed("It is a drug; it is sweet"), ["It is a drug", "it is sweet"]);
        assert_eq!(listed(" \n- \n"), Vec::<String>::new());
        assert_eq!(listed("### Assistant: none"), Vec::<String>::new());
    }

    #[test]
    fn captions_of_lpm24_say_one_thing_per_property() {
        let cases: [(&str, &[&str]); 6] = [
            (
                "The molecule is a apoptosis and a cholesterol translocation that impacts diabetic heart disease, barth syndrome, and aging.",
                &[
                    "is a apoptosis",
                    "is a cholesterol translocation",
                    "impacts diabetic heart disease",
                    "impacts barth syndrome",
                    "impacts aging",
                ],
            ),
            (
                "The molecule is a energy storage, nutrient, membrane stabilizer, impacting both obesity and cancer.",
                &[
                    "is a energy storage",
                    "is nutrient",
                    "is membrane stabilizer",
                    "impacts obesity",
                    "impacts cancer",
                ],
            ),
            (
                "The molecule is a member of the thyroxine treatment class and affects both atherosclerosis and cancer.",
                &[
                    "is a member of the thyroxine treatment class",
                    "affects atherosclerosis",
                    "affects cancer",
                ],
            ),
            (
                "It belongs to both the cancer treatment and pain treatment classes of molecules.",
                &[
                    "belongs to the cancer treatment class of molecules",
                    "belongs to the pain treatment class of molecules",
                ],
            ),
            (
                "The molecule is a inflammatory, it impacts obesity and is sweet. It is characterized as sweet and sour.",
                &[
                    "is a inflammatory",
                    "impacts obesity",
                    "is sweet",
                    "is characterized as sweet",
                    "is characterized as sour",
                ],
            ),
            (
                "The molecule has a odor evaluation and a taste evaluation on record.",
                &["has a odor evaluation on record", "has a taste evaluation on record"],
            ),
        ];
        for (caption, expected) in cases {
            let expected: Vec<String> = expected.iter().map(|fact| format!("The molecule {fact}.")).collect();
            assert_eq!(of_lpm24_caption(caption), expected, "{caption}");
        }
        assert_eq!(of_lpm24_caption("Aspirin. It is a drug."), ["Aspirin.", "The molecule is a drug."]);
        assert!(of_lpm24_caption("  ").is_empty());
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text in "[a-cI \\n.,;:*#()1-3\u{2022}\u{e9}-]{0,60}") {
            for fact in listed(&text).iter().chain(&sentences(&text)).chain(&of_lpm24_caption(&text)) {
                prop_assert!(fact.chars().any(char::is_alphanumeric) && fact.trim() == fact, "{fact:?}");
            }
        }

        #[test]
        fn of_a_list_of_plain_sentences_nothing_is_lost(words in prop::collection::btree_set("[a-z]{3,8}", 1..8)) {
            let facts: Vec<String> = words.iter().map(|word| format!("It is {word}.")).collect();
            let text: Vec<String> = facts.iter().map(|fact| format!("- {fact}")).collect();
            prop_assert_eq!(listed(&text.join("\n")), facts);
        }
    }
}
