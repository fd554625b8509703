//! SMILES as models write them when they fail: real ones, with a few characters wrong.

/// Molecules with rings, branches, charges, isotopes, stereo bonds and centres, and salts.
pub(crate) const MOLECULES: [&str; 16] = [
    "C1=CC2=C(C(=C1)[O-])NC(=CC2=O)C(=O)O",
    "C[C@H](CCCC(C)C)[C@H]1CCC2=C3CCC4[C@@]([C@H]3CC[C@]12C)(CC[C@@H](C4(C)C)O)C",
    "CCCCC/C=C\\C/C=C\\CCCCCCCC(=O)O[C@H]1CC[C@@]2([C@H]3CC[C@]4([C@H]([C@@H]3CC=C2C1)CC[C@@H]4C)C)C",
    "C1=CC(=C(C=C1CCN)O)O.Cl",
    "[Na+].[Na+].C1=CN(C(=O)N=C1N)[C@H]2[C@@H]([C@@H]([C@H](O2)COP(=O)([O-])[O-])O)O",
    "[2H]C([2H])([2H])S(=O)(=O)c1ccc2[nH]ccc2c1",
    "O=[N+]([O-])c1ccc(Cl)cc1Br",
    "C1CC1N2C=C(C(=O)C3=CC(=C(C=C32)N4CCNCC4)F)C(=O)O",
    "CC(C)(C)OC(=O)N[C@@H](CC1=CNC2=CC=CC=C21)C(=O)N",
    "c1cc2ccc3cccc4ccc(c1)c2c34",
    "[Fe+2].c1ccc(cc1)P(c1ccccc1)c1ccccc1",
    "B(c1ccccc1)(O)O",
    "C#CC%12CC%12CN=[N+]=[N-]",
    "N[C@@H](CCSC)C(=O)N[C@@H](Cc1ccccc1)C(=O)OC",
    "C1=CSC(=N1)C2=NC(=CS2)C(=O)NCCC[S+](C)C",
    "CC1=C2[C@H](C(=O)[C@@]3([C@H](C[C@@H]4[C@](C3[C@@H]([C@@](C2(C)C)(C1)O)O)(CO4)O)O)C)O",
];

const PIECES: [&str; 40] = [
    "C", "c", "N", "n", "O", "o", "S", "s", "P", "F", "Cl", "Br", "I", "(", ")", "[", "]", "=", "#", "-",
    "+", "/", "\\", ".", "1", "2", "3", "%10", "@", "@@", "H", "[nH]", "[C@H]", "[O-]", "[N+]", "()", "(=O)",
    "*", ":", " ",
];

/// A stream of mutated molecules: the same for one seed.
pub(crate) struct Mutations(u64);

impl Mutations {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next number below a bound: SplitMix64.
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }

    fn molecule(&mut self) -> &'static str {
        MOLECULES[self.below(MOLECULES.len())]
    }

    /// Returns a range of characters; all are ASCII.
    fn range(&mut self, line: &str) -> std::ops::Range<usize> {
        let start = self.below(line.len() + 1);
        start..(start + self.below(6)).min(line.len())
    }
}

impl Iterator for Mutations {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        let mut line = self.molecule().to_owned();
        for _ in 0..1 + self.below(3) {
            let range = self.range(&line);
            match self.below(7) {
                0 => line.replace_range(range, ""),
                1 => line.insert_str(range.start, PIECES[self.below(PIECES.len())]),
                2 => line.replace_range(range, PIECES[self.below(PIECES.len())]),
                3 => line.truncate(range.end),
                4 => {
                    let copy = line[range.clone()].repeat(1 + self.below(4));
                    line.insert_str(range.end, &copy);
                }
                5 => {
                    let other = self.molecule();
                    let from = self.range(other);
                    line.replace_range(range, &other[from.start..]);
                }
                _ => {
                    let turned: String = line[range.clone()].chars().rev().collect();
                    line.replace_range(range, &turned);
                }
            }
        }
        Some(line)
    }
}
