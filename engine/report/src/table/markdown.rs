//! The table as GitHub renders it.

use crate::table::cells::Table;
use crate::table::formatted::{FormattedCell, FormattedDelta, FormattedTable, Verdict};
use crate::table::text::{columns, pad_left, pad_right};

/// Returns the table as GitHub-flavoured Markdown.
///
/// Footnotes are numbered lines below the table rather than linked ones, so that several tables
/// can share a page.
pub fn markdown(table: &Table) -> String {
    let formatted = FormattedTable::of(table);
    let mut blocks = Vec::new();
    if !formatted.title.is_empty() {
        blocks.push(format!("### {}", escaped(&formatted.title)));
    }
    blocks.push(rows_grid(&formatted));
    blocks.push(list(&formatted.legend));
    blocks.push(footnotes(&formatted));
    if !formatted.deltas.is_empty() {
        blocks.push(deltas_grid(&formatted));
        blocks.push(list(&formatted.delta_legend));
    }
    blocks.push(list(&formatted.notes));
    blocks.retain(|block| !block.is_empty());
    blocks.join("\n\n") + "\n"
}

/// Returns the text so that Markdown shows it as it is; it holds no line breaks any more.
fn escaped(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    for (at, &c) in chars.iter().enumerate() {
        let word = |at: Option<usize>| at.and_then(|at| chars.get(at)).is_some_and(|c| c.is_alphanumeric());
        let marks = match c {
            // Inside a word it marks nothing, and names of stages stay readable.
            '_' => !(word(at.checked_sub(1)) && word(Some(at + 1))),
            '\\' | '`' | '*' | '[' | ']' | '<' | '>' | '|' | '~' | '&' | '$' => true,
            '#' | '+' | '-' | '=' => at == 0,
            // `1.` and `1)` open a list.
            '.' | ')' => at > 0 && chars[..at].iter().all(char::is_ascii_digit),
            _ => false,
        };
        if marks {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn list(lines: &[String]) -> String {
    let lines: Vec<String> = lines.iter().map(|line| format!("- {}", escaped(line))).collect();
    lines.join("\n")
}

fn footnotes(formatted: &FormattedTable) -> String {
    let lines = formatted.footnotes.iter().enumerate().map(|(at, footnote)| {
        let reason = escaped(&footnote.reason);
        match &footnote.stage {
            Some(stage) => format!("- <sup>{}</sup> {}: {reason}", at + 1, escaped(stage)),
            None => format!("- <sup>{}</sup> {reason}", at + 1),
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn rows_grid(formatted: &FormattedTable) -> String {
    let mut lines = vec![heads(formatted, &[""])];
    lines.extend(formatted.rows.iter().map(|row| {
        let mut line = vec![escaped(&row.label)];
        line.extend(row.cells.iter().map(cell));
        line
    }));
    grid(&lines, 1)
}

fn deltas_grid(formatted: &FormattedTable) -> String {
    let mut lines = vec![heads(formatted, &["difference", ""])];
    lines.extend(formatted.deltas.iter().flat_map(delta));
    grid(&lines, 2)
}

fn heads(formatted: &FormattedTable, corner: &[&str]) -> Vec<String> {
    let corner = corner.iter().map(|text| (*text).to_owned());
    corner.chain(formatted.heads.iter().map(|head| escaped(head))).collect()
}

fn cell(cell: &FormattedCell) -> String {
    let ours = match cell.footnote {
        Some(number) => format!("{} <sup>{number}</sup>", cell.ours),
        None => cell.ours.clone(),
    };
    format!("{ours} {}", cell.published).trim().to_owned()
}

fn delta(delta: &FormattedDelta) -> impl Iterator<Item = Vec<String>> {
    delta.lines.iter().map(|source| {
        let mut line = vec![escaped(&delta.label), source.source.to_owned()];
        line.extend(source.cells.iter().map(|cell| match cell.verdict {
            Verdict::Agrees => cell.number.clone(),
            Verdict::Disagrees => format!("**{} !**", cell.number),
        }));
        line
    })
}

/// Returns lines of cells as a table, padded so that its source can be read too.
fn grid(lines: &[Vec<String>], labels: usize) -> String {
    let widths: Vec<usize> = (0..lines[0].len())
        .map(|at| lines.iter().map(|line| columns(&line[at])).max().unwrap_or(0).max(3))
        .collect();
    let row = |line: &Vec<String>| {
        let cells = line.iter().zip(&widths).enumerate().map(|(at, (cell, &width))| {
            if at < labels { pad_right(cell, width) } else { pad_left(cell, width) }
        });
        format!("| {} |", cells.collect::<Vec<_>>().join(" | "))
    };
    let rule = widths.iter().enumerate().map(|(at, &width)| {
        if at < labels {
            format!(":{}", "-".repeat(width - 1))
        } else {
            format!("{}:", "-".repeat(width - 1))
        }
    });
    let rule = format!("| {} |", rule.collect::<Vec<_>>().join(" | "));
    let body = lines[1..].iter().map(row);
    let all: Vec<String> = [row(&lines[0]), rule].into_iter().chain(body).collect();
    all.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::formatted::tests::{full, table};
    use insta::assert_snapshot;
    use proptest::prelude::*;

    #[test]
    fn everything_has_its_place() {
        assert_snapshot!(markdown(&full()), @r"
        ### A table

        |                        |         Accuracy ↑ |                     Error ↓ |                Items |
        | :--------------------- | -----------------: | --------------------------: | -------------------: |
        | left                   | 0.41 ± 0.02 (0.53) |              186.99 (42.40) |                 3300 |
        | right\|wing            | 0.50 ± 0.10 (0.45) | missing <sup>1</sup> (9.50) | missing <sup>1</sup> |
        | Älter (published only) |             (0.30) |                     (66.16) |                    – |

        - in brackets: published
        - published only: no stage of this experiment makes the row
        - ±: standard deviation, n = 3
        - ↑ higher is better, ↓ lower is better

        - <sup>1</sup> scores\[right\|wing\]: out of memory at step 3

        | difference   |           |  Accuracy ↑ | Error ↓ |   Items |
        | :----------- | :-------- | ----------: | ------: | ------: |
        | left - Älter | ours      |       +0.11 | missing | missing |
        | left - Älter | published |       +0.23 |  -23.76 |       – |
        | left - Älter | printed   | **+0.28 !** |  -23.76 |       – |

        - published: recomputed from the published rows
        - printed: as the paper prints it, in the unit of the rows
        - ! does not follow from the published rows, even allowing for rounding

        - Made with the profile \`mini\`; not the paper's numbers.
        ");
    }

    #[test]
    fn marks_are_shown_as_they_are() {
        assert_eq!(escaped("a|b *c* <d> $e$"), r"a\|b \*c\* \<d\> \$e\$");
        assert_eq!(escaped("left_right _x_"), r"left_right \_x\_");
        assert_eq!(escaped("1. # a"), r"1\. # a");
        assert_eq!(escaped("# a"), r"\# a");
    }

    proptest! {
        #[test]
        fn no_label_adds_a_cell(label in any::<String>()) {
            let mut full = full();
            for row in &mut full.rows {
                row.label.clone_from(&label);
            }
            let text = markdown(&full);
            for line in text.lines().filter(|line| line.starts_with('|')).take(5) {
                let bars = line.replace(r"\\", "").replace(r"\|", "").matches('|').count();
                prop_assert_eq!(bars, 5);
            }
        }

        #[test]
        fn no_title_adds_a_line(title in any::<String>()) {
            let mut table = table(Vec::new(), Vec::new());
            table.title = title;
            prop_assert!(markdown(&table).lines().count() <= 4);
        }
    }
}
