//! Names with axes in them: `{merge}/{objective}`.

use crate::toml::diagnostic::Diagnostic;
use crate::toml::value::Spanned;

/// A name with axes in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Axis(String),
}

impl Template {
    /// Reads a name.
    pub(crate) fn parse(name: &Spanned) -> Result<Self, Diagnostic> {
        let error = |what: &str| {
            Diagnostic::new(name.span.clone(), format!("`{}` {what}", name.text))
                .help("an axis stands in braces, as in `{merge}/{objective}`")
        };
        let (mut pieces, mut rest) = (Vec::new(), name.text.as_str());
        while let Some((before, behind)) = rest.split_once('{') {
            let Some((axis, after)) = behind.split_once('}') else {
                return Err(error("has a `{` without `}`"));
            };
            if axis.trim().is_empty() {
                return Err(error("has braces with no axis in them"));
            }
            pieces.push(Piece::Text(before.to_owned()));
            pieces.push(Piece::Axis(axis.trim().to_owned()));
            rest = after;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        Ok(Self { pieces })
    }

    /// Returns the names of its axes, in their order.
    pub(crate) fn axes(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Axis(axis) => Some(axis.as_str()),
            Piece::Text(_) => None,
        })
    }

    /// Returns the name with a variant in the place of each axis, in their order.
    pub(crate) fn fill(&self, variants: &[&str]) -> String {
        let mut variants = variants.iter();
        let text = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Axis(_) => variants.next().map(ToString::to_string).unwrap_or_default(),
        };
        self.pieces.iter().map(text).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_stand_in_braces() {
        let parse = |text: &str| Template::parse(&Spanned::new(text, &(0..0)));
        let template = parse("{merge}/{ train.objective }, aligned").unwrap();
        assert_eq!(template.axes().collect::<Vec<_>>(), ["merge", "train.objective"]);
        assert_eq!(template.fill(&["ties", "dpo"]), "ties/dpo, aligned");
        assert_eq!(parse("cpo, shuffled").unwrap().fill(&[]), "cpo, shuffled");
        assert!(parse("{merge").is_err() && parse("{}").is_err());
    }
}
