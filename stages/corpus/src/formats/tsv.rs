//! Tab-separated values: tabs separate, and nothing quotes or escapes.
//!
//! A quotation mark is data, and so is a backslash. Lines may end in CR LF.

use super::error::ReadError;
use super::lines::{Lines, part_ending};
use super::table::Record;

pub(super) fn next(lines: &mut Lines<'_>, record: &mut Record) -> Result<bool, ReadError> {
    loop {
        let Some(line) = lines.next(0)? else { return Ok(false) };
        let (body, _) = part_ending(line);
        if body.is_empty() {
            lines.blank += 1;
            continue;
        }
        record.cells = body.split('\t').map(str::to_owned).collect();
        record.line = lines.number;
        record.lines = 1;
        return Ok(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(text: &str) -> Vec<Vec<String>> {
        let mut lines = Lines::open(text.as_bytes()).unwrap();
        let mut record = Record::default();
        let mut found = Vec::new();
        while next(&mut lines, &mut record).unwrap() {
            found.push(record.cells.clone());
        }
        found
    }

    #[test]
    fn nothing_quotes() {
        let text = "a\t\"b\tc\"\r\n\r\n\t\\\\\t";
        assert_eq!(all(text), [vec!["a", "\"b", "c\""], vec!["", "\\\\", ""]]);
    }

    proptest! {
        #[test]
        fn what_tabs_join_is_parted_again(
            rows in prop::collection::vec(prop::collection::vec("[^\t\r\n]{0,6}", 2..5), 0..6)
        ) {
            let text: String = rows.iter().map(|cells| cells.join("\t") + "\n").collect();
            prop_assume!(!text.starts_with('\u{feff}'));
            prop_assert_eq!(all(&text), rows);
        }
    }
}
