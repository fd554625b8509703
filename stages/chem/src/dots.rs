//! SMILES that RDKit reads and chematic does not, written in another way.
//!
//! RDKit reads `C(C.O)N` as `C(C)N.O`: what follows the `.` is not bound, and the branch ends with
//! it. Such parts are moved to the end, and ring numbers are rewritten, since what is between
//! two of one number changes. Ring numbers in brackets, `%(100)`, are rewritten too.

use std::borrow::Cow;

/// The greatest ring number that needs no brackets.
const MOST_RINGS: u32 = 99;

/// Moves what follows a `.` inside a branch to the end. The line must be in the grammar; one with
/// more than 99 rings stays as it is.
pub(crate) fn out_of_branches(smiles: &str) -> Cow<'_, str> {
    if !has_dot_in_branch(smiles) && !smiles.contains("%(") {
        return Cow::Borrowed(smiles);
    }
    // By depth, where what is read is written to; parts that are done are fragments of their own.
    let mut open: Vec<Vec<String>> = vec![vec![String::new()]];
    let mut done: Vec<String> = Vec::new();
    let mut rings = Rings::default();
    let mut rest = smiles;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '[' => rest.find(']').map_or(rest.len(), |at| at + 1),
            '%' if rest.starts_with("%(") => rest.find(')').map_or(rest.len(), |at| at + 1),
            '%' => rest.len().min(3),
            _ => first.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        rest = after;
        match first {
            '(' => open.push(vec![String::new()]),
            ')' => {
                let mut parts = open.pop().unwrap_or_default().into_iter();
                let branch = parts.next().unwrap_or_default();
                done.extend(parts);
                write(&mut open, &format!("({branch})"));
            }
            '.' if open.len() > 1 => {
                if let Some(parts) = open.last_mut() {
                    parts.push(String::new());
                }
            }
            '0'..='9' | '%' => {
                let number = rings.renumbered(token);
                if number > MOST_RINGS {
                    return Cow::Borrowed(smiles);
                }
                let number = if number < 10 { number.to_string() } else { format!("%{number}") };
                write(&mut open, &number);
            }
            _ => write(&mut open, token),
        }
    }
    let whole = open.into_iter().flatten().next().unwrap_or_default();
    let parts: Vec<String> = std::iter::once(whole).chain(done).collect();
    Cow::Owned(parts.join("."))
}

fn write(open: &mut [Vec<String>], token: &str) {
    if let Some(part) = open.last_mut().and_then(|parts| parts.last_mut()) {
        part.push_str(token);
    }
}

fn has_dot_in_branch(smiles: &str) -> bool {
    let (mut depth, mut is_in_bracket) = (0usize, false);
    for byte in smiles.bytes() {
        match byte {
            b'[' => is_in_bracket = true,
            b']' => is_in_bracket = false,
            _ if is_in_bracket => {}
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            b'.' if depth > 0 => return true,
            _ => {}
        }
    }
    false
}

/// Rings that are open, and how many there were.
#[derive(Default)]
struct Rings {
    open: Vec<(u32, u32)>,
    count: u32,
}

impl Rings {
    /// Returns a number that no other ring of the molecule has.
    fn renumbered(&mut self, written: &str) -> u32 {
        let digits = written.bytes().filter(u8::is_ascii_digit);
        let number = digits.fold(0, |number, digit| number * 10 + u32::from(digit - b'0'));
        if let Some(at) = self.open.iter().position(|(open, _)| *open == number) {
            return self.open.swap_remove(at).1;
        }
        self.count += 1;
        self.open.push((number, self.count));
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canonical;

    #[test]
    fn parts_are_moved_to_the_end() {
        for (smiles, expected) in [
            ("CC.O", "CC.O"),
            ("C(C.O)N", "C(C)N.O"),
            ("C(C.O.S)N.F", "C(C)N.F.O.S"),
            ("C(C(N.O)S.P)F", "C(C(N)S)F.O.P"),
            ("C(C.O(N.S)P)F", "C(C)F.S.O(N)P"),
            ("C1(C.O1)CC1C1", "C1(C)CC2C2.O1"),
            ("C%(120)CC%(120)", "C1CC1"),
            ("C(C.[NH4+])[O-]", "C(C)[O-].[NH4+]"),
        ] {
            assert_eq!(out_of_branches(smiles), expected, "{smiles}");
        }
    }

    /// Written by RDKit 2026.09.1.
    #[test]
    fn molecules_are_rdkits() {
        for (smiles, expected) in [
            ("C(C.C)C", "C.CCC"),
            ("C1=CC(=C(C=C1CCN.O)O)Cl", "NCCc1ccc(Cl)c(O)c1.O"),
            ("C\\1=CC(=C(C=C1CCN)O.O)Cl", "NCCc1ccc(Cl)c(O)c1.O"),
            ("C1=CC(=C(C=C1.N)O)O.Cl", "Cl.N.Oc1ccccc1O"),
            ("C1=CC(=C(CCC(=C(C=C1CCN)O)O.ClCCN)O)", "NCCC1=CC(O)=C(O)CCC(O)=CC=C1.NCCCl"),
        ] {
            assert_eq!(canonical(smiles).as_deref(), Ok(expected), "{smiles}");
        }
    }
}
