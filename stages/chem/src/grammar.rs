//! The SMILES grammar as RDKit's parser has it, outside of brackets.
//!
//! It is stricter than what chematic reads: every bond, `.` and `(` is followed by what it
//! needs, brackets and branches are closed, no ring joins an atom to itself, and nothing but
//! SMILES stands in the line. What is in a bracket, and whether rings are closed, is left to the
//! parser.

/// Says where a line leaves the grammar of SMILES. Positions are bytes, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    /// There is nothing.
    #[error("it is empty")]
    Empty,
    /// A character that SMILES does not have, such as a space.
    #[error("{character:?} at byte {at} is not part of SMILES")]
    Character {
        /// The character.
        character: char,
        /// Where it is.
        at: usize,
    },
    /// Something stands before the first atom.
    #[error("{character:?} at byte {at} needs an atom before it")]
    NoAtomBefore {
        /// What stands there.
        character: char,
        /// Where it is.
        at: usize,
    },
    /// A bond leads nowhere.
    #[error("no atom follows the bond at byte {at}")]
    DanglingBond {
        /// Where it is.
        at: usize,
    },
    /// A separator is not followed by an atom.
    #[error("no atom follows the `.` at byte {at}")]
    DanglingDot {
        /// Where it is.
        at: usize,
    },
    /// A branch does not begin with an atom.
    #[error("no atom follows the `(` at byte {at}")]
    EmptyBranch {
        /// Where it opens.
        at: usize,
    },
    /// A branch is not closed.
    #[error("the branch opened at byte {at} is not closed")]
    OpenBranch {
        /// Where it opens.
        at: usize,
    },
    /// A branch is closed that was not opened.
    #[error("the `)` at byte {at} closes nothing")]
    StrayClose {
        /// Where it is.
        at: usize,
    },
    /// A bracket is not closed, or has nothing in it.
    #[error("the bracket opened at byte {at} is empty or not closed")]
    Bracket {
        /// Where it opens.
        at: usize,
    },
    /// A ring number opens and closes on one atom.
    #[error("the ring number at byte {at} joins an atom to itself")]
    RingOnOneAtom {
        /// Where it closes.
        at: usize,
    },
    /// A `%` is not followed by a ring number.
    #[error("no ring number follows the `%` at byte {at}")]
    RingNumber {
        /// Where it is.
        at: usize,
    },
}

/// What the last thing read asks of the next.
#[derive(Clone, Copy, PartialEq)]
enum After {
    Start,
    /// An atom, ring number or closed branch: anything may follow.
    Atom,
    Open(usize),
    /// A bond, and whether it stands where an atom must follow, or also a ring number may.
    Bond(usize, Allows),
    Dot(usize),
}

#[derive(Clone, Copy, PartialEq)]
enum Allows {
    AtomOrRing,
    AtomOnly,
}

/// Checks a line against the grammar.
pub(crate) fn check(smiles: &str) -> Result<(), GrammarError> {
    let bytes = smiles.as_bytes();
    let mut after = After::Start;
    let mut branches = Vec::new();
    let mut rings = Rings::default();
    // Where the atom stands that a ring number or a branch would belong to.
    let mut atom = 0;
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let length = match rest[0] {
            b'[' => bracket(rest).ok_or(GrammarError::Bracket { at })?,
            b'B' if rest.starts_with(b"Br") => 2,
            b'C' if rest.starts_with(b"Cl") => 2,
            b'B' | b'C' | b'N' | b'O' | b'P' | b'S' | b'F' | b'I' => 1,
            b'b' | b'c' | b'n' | b'o' | b'p' | b's' | b'*' => 1,
            b'-' | b'=' | b'#' | b'$' | b':' | b'/' | b'\\' | b'~' => {
                after = bond(after, at, rest[0])?;
                at += 1;
                continue;
            }
            b'.' => {
                need_atom(after, at, '.')?;
                after = After::Dot(at);
                at += 1;
                continue;
            }
            b'(' => {
                need_atom(after, at, '(')?;
                branches.push((at, atom));
                after = After::Open(at);
                at += 1;
                continue;
            }
            b')' => {
                need_atom(after, at, ')')?;
                (_, atom) = branches.pop().ok_or(GrammarError::StrayClose { at })?;
                after = After::Atom;
                at += 1;
                continue;
            }
            b'0'..=b'9' | b'%' => {
                if !matches!(after, After::Bond(_, Allows::AtomOrRing)) {
                    need_atom(after, at, char::from(rest[0]))?;
                }
                let length = ring_number(rest).ok_or(GrammarError::RingNumber { at })?;
                if !rings.meet(&rest[..length], atom) {
                    return Err(GrammarError::RingOnOneAtom { at });
                }
                after = After::Atom;
                at += length;
                continue;
            }
            _ => {
                let character = smiles[at..].chars().next().unwrap_or(char::REPLACEMENT_CHARACTER);
                return Err(GrammarError::Character { character, at });
            }
        };
        after = After::Atom;
        atom = at;
        at += length;
    }
    match after {
        After::Start => return Err(GrammarError::Empty),
        After::Atom => {}
        unfinished => need_atom(unfinished, at, ' ')?,
    }
    branches.last().map_or(Ok(()), |(at, _)| Err(GrammarError::OpenBranch { at: *at }))
}

fn bond(after: After, at: usize, symbol: u8) -> Result<After, GrammarError> {
    match after {
        After::Atom => Ok(After::Bond(at, Allows::AtomOrRing)),
        After::Open(_) => Ok(After::Bond(at, Allows::AtomOnly)),
        _ => need_atom(after, at, char::from(symbol)).map(|()| after),
    }
}

fn need_atom(after: After, at: usize, character: char) -> Result<(), GrammarError> {
    Err(match after {
        After::Atom => return Ok(()),
        After::Start => GrammarError::NoAtomBefore { character, at },
        After::Open(at) => GrammarError::EmptyBranch { at },
        After::Bond(at, _) => GrammarError::DanglingBond { at },
        After::Dot(at) => GrammarError::DanglingDot { at },
    })
}

/// Returns the length of a bracket atom, if it is closed and has something in it.
fn bracket(rest: &[u8]) -> Option<usize> {
    let inside = rest[1..].iter().position(|byte| matches!(byte, b']' | b'['))?;
    let closed = rest[1 + inside] == b']' && inside > 0;
    let printable = rest[1..=inside].iter().all(u8::is_ascii_graphic);
    // A `:` announces the number of an atom.
    let numbered = rest[inside] != b':';
    (closed && printable && numbered).then_some(inside + 2)
}

/// Returns the length of a ring number: a digit, `%` and two digits, or `%(…)` of up to five.
fn ring_number(rest: &[u8]) -> Option<usize> {
    let digits = |from: &[u8]| from.iter().take_while(|byte| byte.is_ascii_digit()).count();
    match rest {
        [b'%', b'(', inside @ ..] => {
            let count = digits(inside);
            let closed = inside.get(count) == Some(&b')') && (1..=5).contains(&count);
            closed.then_some(count + 3)
        }
        [b'%', after @ ..] => (digits(after) >= 2).then_some(3),
        _ => Some(1),
    }
}

/// The rings that are open: the digits of each and the atom it was opened on.
#[derive(Default)]
struct Rings(Vec<(u32, usize)>);

impl Rings {
    /// Opens or closes a ring, and says whether that joins two atoms.
    fn meet(&mut self, written: &[u8], atom: usize) -> bool {
        let digits = written.iter().filter(|byte| byte.is_ascii_digit());
        let number = digits.fold(0, |number, digit| number * 10 + u32::from(digit - b'0'));
        let Some(position) = self.0.iter().position(|(open, _)| *open == number) else {
            self.0.push((number, atom));
            return true;
        };
        self.0.swap_remove(position).1 != atom
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use GrammarError::*;

    #[test]
    fn what_smiles_allows_passes() {
        for smiles in [
            "C",
            "CC(=O)O",
            "c1ccccc1",
            "C=1CCC=1",
            "C%12CC%12",
            "C%(123)CC%(123)",
            "[Na+].[Cl-]",
            "C(C)(C)1CC1",
            "N[C@@H](C)C(=O)O",
            "C/C=C\\C",
            "C(C.C)C",
            "*CC*",
            "C$C",
            "BrCCl",
            "C1CC11CC1",
            "C~C",
        ] {
            assert_eq!(check(smiles), Ok(()), "{smiles}");
        }
    }

    #[test]
    fn what_it_does_not_is_named() {
        for (smiles, error) in [
            ("", Empty),
            ("C C", Character { character: ' ', at: 1 }),
            ("Cé", Character { character: 'é', at: 1 }),
            ("CX", Character { character: 'X', at: 1 }),
            ("C()C", EmptyBranch { at: 1 }),
            ("C(=)C", DanglingBond { at: 2 }),
            ("C==C", DanglingBond { at: 1 }),
            ("CC=", DanglingBond { at: 2 }),
            ("=C", NoAtomBefore { character: '=', at: 0 }),
            ("(C)C", NoAtomBefore { character: '(', at: 0 }),
            ("1CC1", NoAtomBefore { character: '1', at: 0 }),
            ("C(.C)C", EmptyBranch { at: 1 }),
            ("C(C.)C", DanglingDot { at: 3 }),
            ("C.", DanglingDot { at: 1 }),
            ("C..C", DanglingDot { at: 1 }),
            ("C=.C", DanglingBond { at: 1 }),
            ("C((C))C", EmptyBranch { at: 1 }),
            ("C(1CC1)C", EmptyBranch { at: 1 }),
            ("C(=1CC1)C", DanglingBond { at: 2 }),
            ("C(C", OpenBranch { at: 1 }),
            ("C)C", StrayClose { at: 1 }),
            ("C[NH", Bracket { at: 1 }),
            ("C[]", Bracket { at: 1 }),
            ("C[N H]", Bracket { at: 1 }),
            ("C[NH2:]", Bracket { at: 1 }),
            ("C%1C", RingNumber { at: 1 }),
            ("N33", RingOnOneAtom { at: 2 }),
            ("C1(C)%01CC", RingOnOneAtom { at: 5 }),
        ] {
            assert_eq!(check(smiles), Err(error), "{smiles}");
        }
    }
}
