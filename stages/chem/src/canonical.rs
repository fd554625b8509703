//! Whether a line is a molecule, and the one way to write it.

use crate::dots;
use crate::grammar::{self, GrammarError};
use chematic::core::Molecule as Graph;
use chematic::smiles;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, OnceLock, PoisonError};

/// The longest SMILES that is read: far beyond any molecule of the data, far below a hang.
pub const LONGEST_SMILES_BYTES: usize = 5_000;

/// Says why a line is not a molecule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAMolecule {
    /// It is longer than [`LONGEST_SMILES_BYTES`].
    #[error("not a molecule: {bytes} bytes, more than the {LONGEST_SMILES_BYTES} that are read")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// It is not SMILES.
    #[error("not a molecule: {0}")]
    Grammar(#[from] GrammarError),
    /// It is SMILES and cannot be parsed, such as a ring that is not closed.
    #[error("not a molecule: {0}")]
    Syntax(String),
    /// It can be parsed and breaks a rule of chemistry, such as a valence.
    #[error("not a molecule: {0}")]
    Chemistry(String),
    /// It carries extensions behind its SMILES, `CC |…|`, which are not read.
    #[error("not a molecule: extensions (CXSMILES) are not read")]
    Extensions,
    /// The parser broke down over it.
    #[error("not a molecule: the parser gave up on it")]
    Panic,
}

/// Says that a molecule has no InChI.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no InChI: {0}")]
pub struct NoInchi(String);

/// A molecule: RDKit would take its SMILES for one.
#[derive(Clone)]
pub struct Molecule {
    graph: Graph,
    canonical: String,
    /// Whether atoms were written as aromatic. Others may be so too, and written with bonds.
    has_aromatic_letters: bool,
    /// The graph of the canonical SMILES, once it was needed. It keeps what is computed from it.
    of_canonical: OnceLock<Graph>,
}

impl Molecule {
    /// Reads a molecule.
    pub fn parse(smiles: &str) -> Result<Self, NotAMolecule> {
        if smiles.len() > LONGEST_SMILES_BYTES {
            return Err(NotAMolecule::TooLong { bytes: smiles.len() });
        }
        grammar::check(smiles)?;
        catch_unwind(AssertUnwindSafe(|| {
            let graph = smiles::parse(&dots::out_of_branches(smiles))
                .map_err(|error| NotAMolecule::Syntax(error.to_string()))?;
            let canonical = smiles::rdkit_canonical_smiles(&graph)
                .map_err(|error| NotAMolecule::Chemistry(error.to_string()))?;
            let has_aromatic_letters = graph.atoms().any(|(_, atom)| atom.aromatic);
            Ok(Self { graph, canonical, has_aromatic_letters, of_canonical: OnceLock::new() })
        }))
        .unwrap_or(Err(NotAMolecule::Panic))
    }

    /// Reads a line as RDKit's `MolFromSmiles` reads it: white space may stand before the SMILES,
    /// and what follows white space behind it is the molecule's name.
    ///
    /// RDKit also takes the empty line for a molecule, without atoms; here it is
    /// [`GrammarError::Empty`].
    pub fn of_line(line: &str) -> Result<Self, NotAMolecule> {
        let (smiles, name) = match line.find([' ', '\t']) {
            Some(at) if at > 0 => line.split_at(at),
            _ => (line, ""),
        };
        if name.trim_start().starts_with('|') {
            return Err(NotAMolecule::Extensions);
        }
        Self::parse(smiles.trim_start().split(['\n', '\r']).next().unwrap_or_default())
    }

    /// Returns its canonical SMILES, the same for every way to write it.
    pub fn canonical(&self) -> &str {
        &self.canonical
    }

    /// Returns its standard InChI, which takes some tautomers for one molecule.
    ///
    /// As `MolToInchi` of RDKit 2026.09.1, but for a proton by itself, `[H+]`.
    pub fn inchi(&self) -> Result<String, NoInchi> {
        // The library is not said to be safe in several threads, and RDKit locks it, too.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let inchi = catch_unwind(AssertUnwindSafe(|| chematic_inchi::standard_inchi(&self.graph)));
        match inchi {
            Ok(inchi) => inchi.map_err(|error| NoInchi(error.to_string())),
            Err(_) => Err(NoInchi("the library gave up on it".to_owned())),
        }
    }

    /// Returns the atomic numbers of its atoms but for hydrogen, sorted. Molecules of one InChI have
    /// the same ones: it only moves hydrogens, charges, and bonds to metals.
    pub fn heavy_atoms(&self) -> Vec<u8> {
        let numbers = self.graph.atoms().map(|(_, atom)| atom.element.atomic_number());
        let mut heavy: Vec<u8> = numbers.filter(|number| *number != 1).collect();
        heavy.sort_unstable();
        heavy
    }

    /// Returns the graph to find fingerprints of.
    ///
    /// Where some rings are written with aromatic letters and others with double bonds, chematic's
    /// path fingerprint does not see that the others are aromatic; in canonical SMILES all are
    /// written alike.
    pub(crate) fn graph(&self) -> &Graph {
        if !self.has_aromatic_letters {
            return &self.graph;
        }
        self.of_canonical
            .get_or_init(|| smiles::parse(&self.canonical).unwrap_or_else(|_| self.graph.clone()))
    }
}

impl fmt::Debug for Molecule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Molecule({})", self.canonical)
    }
}

/// Returns the canonical SMILES of a molecule, the same for every way to write it.
pub fn canonical(smiles: &str) -> Result<String, NotAMolecule> {
    Molecule::parse(smiles).map(|molecule| molecule.canonical)
}

/// Says whether a line is a molecule.
pub fn is_valid(smiles: &str) -> bool {
    canonical(smiles).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Written by RDKit 2026.09.1, on lines of ChEBI-20 and of MolT5-small's outputs for it.
    const RDKIT: [(&str, &str); 4] = [
        ("C1=CC2=C(C(=C1)[O-])NC(=CC2=O)C(=O)O", "O=C(O)c1cc(=O)c2cccc([O-])c2[nH]1"),
        ("C1=CC=C2C(=C1)C(=O)C=C(N2)C(=O)[O-]", "O=C([O-])c1cc(=O)c2ccccc2[nH]1"),
        (
            "C[C@H](CCCC(C)C)[C@H]1CCC2=C3CCC4[C@@]([C@H]3CC[C@]12C)(CC[C@@H](C4(C)C)O)C",
            "CC(C)CCC[C@@H](C)[C@H]1CCC2=C3CCC4C(C)(C)[C@@H](O)CC[C@]4(C)[C@H]3CC[C@@]21C",
        ),
        (
            "C[C@H](CCC(=C)C)[C@H]1CC[C@@H]2[C@@]1(CC[C@H]3[C@H]2CCC4=CC(=O)CC[C@]34C)C",
            "C=C(C)CC[C@@H](C)[C@H]1CC[C@H]2[C@@H]3CCC4=CC(=O)CC[C@]4(C)[C@H]3CC[C@]12C",
        ),
    ];

    #[test]
    fn canonical_smiles_are_rdkits() {
        for (smiles, expected) in RDKIT {
            assert_eq!(canonical(smiles).as_deref(), Ok(expected));
            assert_eq!(canonical(expected).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn what_breaks_chemistry_or_syntax_is_told_apart() {
        assert!(matches!(canonical("C(C)(C)(C)(C)C"), Err(NotAMolecule::Chemistry(_))));
        assert!(matches!(canonical("C1CC"), Err(NotAMolecule::Syntax(_))));
        assert!(matches!(canonical("C C"), Err(NotAMolecule::Grammar(_))));
        assert!(!is_valid("") && !is_valid("c1cccc1") && is_valid("[H+]"));
    }

    /// Found out by asking RDKit 2026.09.1.
    #[test]
    fn a_line_may_have_a_name() {
        let read = |line| Molecule::of_line(line).ok().map(|molecule| molecule.canonical);
        for line in ["CC", " CC", "CC ", "CC foo", "CC\tfoo", "CC\n", "CC\r", "\nCC O", "CC x |a|"] {
            assert_eq!(read(line).as_deref(), Some("CC"), "{line:?}");
        }
        for line in [" ", "  CC O", "CC |foo|", "CC\u{b}C", "CC\u{a0}x", "C[C@ sector[C@H]1CC1"] {
            assert_eq!(read(line), None, "{line:?}");
        }
        // RDKit reads these two: the empty line, and extensions that it knows.
        assert_eq!((read(""), read("CC |$_AP1;$|")), (None, None));
    }

    #[test]
    fn tautomers_have_one_inchi() {
        let inchi = |smiles| Molecule::parse(smiles).unwrap().inchi().unwrap();
        assert_eq!(inchi("OCC"), "InChI=1S/C2H6O/c1-2-3/h3H,2H2,1H3");
        assert_eq!(inchi("Oc1ccccn1"), inchi("O=c1cccc[nH]1"));
        assert_ne!(canonical("Oc1ccccn1"), canonical("O=c1cccc[nH]1"));
        assert_ne!(inchi("N[C@@H](C)C(=O)O"), inchi("N[C@H](C)C(=O)O"));
    }

    #[test]
    fn depth_and_length_do_not_break_the_parser() {
        let depth = LONGEST_SMILES_BYTES / 3 - 1;
        let nested = format!("C{}C{}", "(C".repeat(depth), ")".repeat(depth));
        assert!(matches!(canonical(&nested), Err(NotAMolecule::Syntax(_))));
        let chain = "C".repeat(LONGEST_SMILES_BYTES);
        assert_eq!(canonical(&chain).as_ref(), Ok(&chain));
    }

    proptest! {
        #[test]
        fn any_line_gets_an_answer(line in "[CNOcno\\[\\]()=#%.@+/1-3H -]{0,24}") {
            if let Ok(smiles) = canonical(&line) {
                prop_assert_eq!(canonical(&smiles), Ok(smiles));
            }
        }
    }

    #[test]
    fn length_is_bounded() {
        let long = "C".repeat(LONGEST_SMILES_BYTES + 1);
        assert_eq!(canonical(&long), Err(NotAMolecule::TooLong { bytes: long.len() }));
    }
}
