//! The 166 MACCS keys as RDKit 2026.09.1 finds them (`GetMACCSKeysFingerprint`).
//!
//! A key is a piece of structure written as SMARTS, and how often it must occur. The patterns are
//! RDKit's; hydrogens, aromaticity and rings are perceived by chematic as RDKit perceives them.
//! Only the search is ours: chematic's own `fp::maccs` searches for each pattern again in a molecule
//! that it knows nothing about, and takes several times as long. Tests hold the two together.

use crate::substructure::{Pattern, Questions};
use chematic::core::{BondOrder, Molecule};
use chematic::{perception, smiles};
use std::sync::LazyLock;

/// Returns the keys of a molecule, counted from 0: one less than their names.
pub(crate) fn maccs(molecule: &Molecule) -> Vec<u32> {
    if let Some(without_hydrogens) = smiles::rdkit_hydrogen_suppressed(molecule) {
        return maccs(&without_hydrogens);
    }
    perception::with_rdkit_parity_view(molecule, |view| keys(view.unwrap_or(molecule)))
}

struct Key {
    number: u32,
    /// It must occur more often than this.
    more_than: usize,
    pattern: Pattern,
}

static KEYS: LazyLock<(Questions, Vec<Key>)> = LazyLock::new(|| {
    let mut questions = Questions::default();
    let key = |(number, more_than, smarts)| Key { number, more_than, pattern: questions.parse(smarts) };
    let keys = PATTERNS.map(key).into();
    (questions, keys)
});

fn keys(molecule: &Molecule) -> Vec<u32> {
    let (questions, keys) = &*KEYS;
    let answers = questions.ask(molecule);
    let matched = keys.iter().filter(|key| answers.has_more_than(key.more_than, &key.pattern));
    let mut keys: Vec<u32> = matched.map(|key| key.number - 1).collect();
    // Those that no SMARTS can say. Key 1, an isotope, is never found by RDKit.
    if aromatic_rings(molecule) > 1 {
        keys.push(125 - 1);
    }
    if !molecule.is_connected() {
        keys.push(166 - 1);
    }
    keys.sort_unstable();
    keys
}

/// Counts the rings all of whose bonds are aromatic.
fn aromatic_rings(molecule: &Molecule) -> usize {
    perception::with_rdkit_parity_view(molecule, |view| {
        let view = view.unwrap_or(molecule);
        let is_aromatic = |ring: &&Vec<chematic::core::AtomIdx>| {
            let next = ring.iter().cycle().skip(1);
            ring.iter().zip(next).all(|(one, other)| {
                view.bond_between(*one, *other).is_some_and(|(_, bond)| bond.order == BondOrder::Aromatic)
            })
        };
        if !view.bonds().any(|(_, bond)| bond.order == BondOrder::Aromatic) {
            return 0;
        }
        perception::find_symmetrized_sssr(view).rings().iter().filter(is_aromatic).count()
    })
}

/// Each key's name, what it must occur more often than, and its SMARTS: from RDKit's MACCS.cpp.
const PATTERNS: [(u32, usize, &str); 163] = [
    (2, 0, "[#104]"),
    (3, 0, "[#32,#33,#34,#50,#51,#52,#82,#83,#84]"),
    (4, 0, "[Ac,Th,Pa,U,Np,Pu,Am,Cm,Bk,Cf,Es,Fm,Md,No,Lr]"),
    (5, 0, "[Sc,Ti,Y,Zr,Hf]"),
    (6, 0, "[La,Ce,Pr,Nd,Pm,Sm,Eu,Gd,Tb,Dy,Ho,Er,Tm,Yb,Lu]"),
    (7, 0, "[V,Cr,Mn,Nb,Mo,Tc,Ta,W,Re]"),
    (8, 0, "[!#6;!#1]1~*~*~*~1"),
    (9, 0, "[Fe,Co,Ni,Ru,Rh,Pd,Os,Ir,Pt]"),
    (10, 0, "[Be,Mg,Ca,Sr,Ba,Ra]"),
    (11, 0, "*1~*~*~*~1"),
    (12, 0, "[Cu,Zn,Ag,Cd,Au,Hg]"),
    (13, 0, "[#8]~[#7](~[#6])~[#6]"),
    (14, 0, "[#16]-[#16]"),
    (15, 0, "[#8]~[#6](~[#8])~[#8]"),
    (16, 0, "[!#6;!#1]1~*~*~1"),
    (17, 0, "[#6]#[#6]"),
    (18, 0, "[#5,#13,#31,#49,#81]"),
    (19, 0, "*1~*~*~*~*~*~*~1"),
    (20, 0, "[#14]"),
    (21, 0, "[#6]=[#6](~[!#6;!#1])~[!#6;!#1]"),
    (22, 0, "*1~*~*~1"),
    (23, 0, "[#7]~[#6](~[#8])~[#8]"),
    (24, 0, "[#7]-[#8]"),
    (25, 0, "[#7]~[#6](~[#7])~[#7]"),
    (26, 0, "[#6]=;@[#6](@*)@*"),
    (27, 0, "[I]"),
    (28, 0, "[!#6;!#1]~[CH2]~[!#6;!#1]"),
    (29, 0, "[#15]"),
    (30, 0, "[#6]~[!#6;!#1](~[#6])(~[#6])~*"),
    (31, 0, "[!#6;!#1]~[F,Cl,Br,I]"),
    (32, 0, "[#6]~[#16]~[#7]"),
    (33, 0, "[#7]~[#16]"),
    (34, 0, "[CH2]=*"),
    (35, 0, "[Li,Na,K,Rb,Cs,Fr]"),
    (36, 0, "[#16R]"),
    (37, 0, "[#7]~[#6](~[#8])~[#7]"),
    (38, 0, "[#7]~[#6](~[#6])~[#7]"),
    (39, 0, "[#8]~[#16](~[#8])~[#8]"),
    (40, 0, "[#16]-[#8]"),
    (41, 0, "[#6]#[#7]"),
    (42, 0, "F"),
    (43, 0, "[!#6;!#1;!H0]~*~[!#6;!#1;!H0]"),
    (44, 0, "[!#1;!#6;!#7;!#8;!#9;!#14;!#15;!#16;!#17;!#35;!#53]"),
    (45, 0, "[#6]=[#6]~[#7]"),
    (46, 0, "Br"),
    (47, 0, "[#16]~*~[#7]"),
    (48, 0, "[#8]~[!#6;!#1](~[#8])(~[#8])"),
    (49, 0, "[!+0]"),
    (50, 0, "[#6]=[#6](~[#6])~[#6]"),
    (51, 0, "[#6]~[#16]~[#8]"),
    (52, 0, "[#7]~[#7]"),
    (53, 0, "[!#6;!#1;!H0]~*~*~*~[!#6;!#1;!H0]"),
    (54, 0, "[!#6;!#1;!H0]~*~*~[!#6;!#1;!H0]"),
    (55, 0, "[#8]~[#16]~[#8]"),
    (56, 0, "[#8]~[#7](~[#8])~[#6]"),
    (57, 0, "[#8R]"),
    (58, 0, "[!#6;!#1]~[#16]~[!#6;!#1]"),
    (59, 0, "[#16]!:*:*"),
    (60, 0, "[#16]=[#8]"),
    (61, 0, "*~[#16](~*)~*"),
    (62, 0, "*@*!@*@*"),
    (63, 0, "[#7]=[#8]"),
    (64, 0, "*@*!@[#16]"),
    (65, 0, "c:n"),
    (66, 0, "[#6]~[#6](~[#6])(~[#6])~*"),
    (67, 0, "[!#6;!#1]~[#16]"),
    (68, 0, "[!#6;!#1;!H0]~[!#6;!#1;!H0]"),
    (69, 0, "[!#6;!#1]~[!#6;!#1;!H0]"),
    (70, 0, "[!#6;!#1]~[#7]~[!#6;!#1]"),
    (71, 0, "[#7]~[#8]"),
    (72, 0, "[#8]~*~*~[#8]"),
    (73, 0, "[#16]=*"),
    (74, 0, "[CH3]~*~[CH3]"),
    (75, 0, "*!@[#7]@*"),
    (76, 0, "[#6]=[#6](~*)~*"),
    (77, 0, "[#7]~*~[#7]"),
    (78, 0, "[#6]=[#7]"),
    (79, 0, "[#7]~*~*~[#7]"),
    (80, 0, "[#7]~*~*~*~[#7]"),
    (81, 0, "[#16]~*(~*)~*"),
    (82, 0, "*~[CH2]~[!#6;!#1;!H0]"),
    (83, 0, "[!#6;!#1]1~*~*~*~*~1"),
    (84, 0, "[NH2]"),
    (85, 0, "[#6]~[#7](~[#6])~[#6]"),
    (86, 0, "[C;H2,H3][!#6;!#1][C;H2,H3]"),
    (87, 0, "[F,Cl,Br,I]!@*@*"),
    (88, 0, "[#16]"),
    (89, 0, "[#8]~*~*~*~[#8]"),
    (
        90,
        0,
        "[$([!#6;!#1;!H0]~*~*~[CH2]~*),$([!#6;!#1;!H0;R]1@[R]@[R]@[CH2;R]1),$([!#6;!#1;!H0]~[R]1@[R]@[CH2;R]1)]",
    ),
    (
        91,
        0,
        "[$([!#6;!#1;!H0]~*~*~*~[CH2]~*),$([!#6;!#1;!H0;R]1@[R]@[R]@[R]@[CH2;R]1),$([!#6;!#1;!H0]~[R]1@[R]@[R]@[CH2;R]1),$([!#6;!#1;!H0]~*~[R]1@[R]@[CH2;R]1)]",
    ),
    (92, 0, "[#8]~[#6](~[#7])~[#6]"),
    (93, 0, "[!#6;!#1]~[CH3]"),
    (94, 0, "[!#6;!#1]~[#7]"),
    (95, 0, "[#7]~*~*~[#8]"),
    (96, 0, "*1~*~*~*~*~1"),
    (97, 0, "[#7]~*~*~*~[#8]"),
    (98, 0, "[!#6;!#1]1~*~*~*~*~*~1"),
    (99, 0, "[#6]=[#6]"),
    (100, 0, "*~[CH2]~[#7]"),
    (
        101,
        0,
        "[$([R]@1@[R]@[R]@[R]@[R]@[R]@[R]@[R]1),$([R]@1@[R]@[R]@[R]@[R]@[R]@[R]@[R]@[R]1),$([R]@1@[R]@[R]@[R]@[R]@[R]@[R]@[R]@[R]@[R]1),$([R]@1@[R]@[R]@[R]@[R]@[R]@[R]@[R]@[R]@[R]@[R]1),$([R]@1@[R]@[R]@[R]@[R]@[R]@[R]@[R]@[R]@[R]@[R]@[R]1),$([R]@1@[R]@[R]@[R]@[R]@[R]@[R]@[R]@[R]@[R]@[R]@[R]@[R]1),$([R]@1@[R]@[R]@[R]@[R]@[R]@[R]@[R]@[R]@[R]@[R]@[R]@[R]@[R]1)]",
    ),
    (102, 0, "[!#6;!#1]~[#8]"),
    (103, 0, "Cl"),
    (104, 0, "[!#6;!#1;!H0]~*~[CH2]~*"),
    (105, 0, "*@*(@*)@*"),
    (106, 0, "[!#6;!#1]~*(~[!#6;!#1])~[!#6;!#1]"),
    (107, 0, "[F,Cl,Br,I]~*(~*)~*"),
    (108, 0, "[CH3]~*~*~*~[CH2]~*"),
    (109, 0, "*~[CH2]~[#8]"),
    (110, 0, "[#7]~[#6]~[#8]"),
    (111, 0, "[#7]~*~[CH2]~*"),
    (112, 0, "*~*(~*)(~*)~*"),
    (113, 0, "[#8]!:*:*"),
    (114, 0, "[CH3]~[CH2]~*"),
    (115, 0, "[CH3]~*~[CH2]~*"),
    (116, 0, "[$([CH3]~*~*~[CH2]~*),$([CH3]~*1~*~[CH2]1)]"),
    (117, 0, "[#7]~*~[#8]"),
    (118, 1, "[$(*~[CH2]~[CH2]~*),$(*1~[CH2]~[CH2]1)]"),
    (119, 0, "[#7]=*"),
    (120, 1, "[!#6;R]"),
    (121, 0, "[#7;R]"),
    (122, 0, "*~[#7](~*)~*"),
    (123, 0, "[#8]~[#6]~[#8]"),
    (124, 0, "[!#6;!#1]~[!#6;!#1]"),
    (126, 0, "*!@[#8]!@*"),
    (127, 1, "*@*!@[#8]"),
    (
        128,
        0,
        "[$(*~[CH2]~*~*~*~[CH2]~*),$([R]1@[CH2;R]@[R]@[R]@[R]@[CH2;R]1),$(*~[CH2]~[R]1@[R]@[R]@[CH2;R]1),$(*~[CH2]~*~[R]1@[R]@[CH2;R]1)]",
    ),
    (
        129,
        0,
        "[$(*~[CH2]~*~*~[CH2]~*),$([R]1@[CH2;R]@[R]@[R]@[CH2;R]1),$(*~[CH2]~[R]1@[R]@[CH2;R]1),$(*~[CH2]~*1~*~[CH2]1)]",
    ),
    (130, 1, "[!#6;!#1]~[!#6;!#1]"),
    (131, 1, "[!#6;!#1;!H0]"),
    (132, 0, "[#8]~*~[CH2]~*"),
    (133, 0, "*@*!@[#7]"),
    (134, 0, "[F,Cl,Br,I]"),
    (135, 0, "[#7]!:*:*"),
    (136, 1, "[#8]=*"),
    (137, 0, "[!C;!c;R]"),
    (138, 1, "[!#6;!#1]~[CH2]~*"),
    (139, 0, "[O;!H0]"),
    (140, 3, "[#8]"),
    (141, 2, "[CH3]"),
    (142, 1, "[#7]"),
    (143, 0, "*@*!@[#8]"),
    (144, 0, "*!:*:*!:*"),
    (145, 1, "*1~*~*~*~*~*~1"),
    (146, 2, "[#8]"),
    (147, 0, "[$(*~[CH2]~[CH2]~*),$([R]1@[CH2;R]@[CH2;R]1)]"),
    (148, 0, "*~[!#6;!#1](~*)~*"),
    (149, 1, "[C;H3,H4]"),
    (150, 0, "*!@*@*!@*"),
    (151, 0, "[#7;!H0]"),
    (152, 0, "[#8]~[#6](~[#6])~[#6]"),
    (153, 0, "[!#6;!#1]~[CH2]~*"),
    (154, 0, "[#6]=[#8]"),
    (155, 0, "*!@[CH2]!@*"),
    (156, 0, "[#7]~*(~*)~*"),
    (157, 0, "[#6]-[#8]"),
    (158, 0, "[#6]-[#7]"),
    (159, 1, "[#8]"),
    (160, 0, "[C;H3,H4]"),
    (161, 0, "[#7]"),
    (162, 0, "[a]"),
    (163, 0, "*1~*~*~*~*~*~1"),
    (164, 0, "[#8]"),
    (165, 0, "[R]"),
];

#[cfg(test)]
#[path = "../tests/mutations/mod.rs"]
mod mutations;

#[cfg(test)]
#[path = "../../../tests/real_data.rs"]
mod real_data;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Molecule;
    use chematic::fp;
    use flate2::read::MultiGzDecoder;
    use std::io::Read;

    /// Compares the keys of a line, if it is SMILES, with chematic's.
    fn same_as_chematics(line: &str) -> bool {
        let Ok(molecule) = smiles::parse(line) else { return false };
        let theirs = fp::maccs(&molecule);
        let theirs: Vec<u32> = (0..166).filter(|key| theirs.get(*key as usize)).collect();
        assert_eq!(maccs(&molecule), theirs, "{line}");
        true
    }

    /// Returns a column of a table of the real data.
    fn column(name: &str, at: usize) -> Option<Vec<String>> {
        let bytes = std::fs::read(real_data::path(name)?).unwrap();
        let mut text = String::new();
        let read = if name.ends_with(".gz") {
            MultiGzDecoder::new(&bytes[..]).read_to_string(&mut text)
        } else {
            (&bytes[..]).read_to_string(&mut text)
        };
        read.unwrap();
        let cell = |line: &str| line.split('\t').nth(at).expect("the column").replace("\\\\", "\\");
        Some(text.lines().skip(1).map(cell).collect())
    }

    /// Returns the keys of a molecule as `tests/reference/maccs_keys.py` writes them.
    fn checksum(line: &str) -> String {
        let Ok(molecule) = Molecule::of_line(line) else { return "....".to_owned() };
        let add = |sum: u32, key: u32| (sum ^ key).wrapping_mul(0x0100_0193);
        let sum = maccs(molecule.graph()).into_iter().fold(0x811c_9dc5, add);
        format!("{:04x}", sum >> 16 ^ sum & 0xffff)
    }

    /// All real molecules: those of ChEBI-20's test and validation sets, MolT5-small's outputs, the
    /// triples of L+M-24 and a twentieth of its property lists. RDKit 2026.09.1 found the keys.
    #[test]
    fn keys_of_real_molecules_are_rdkits() {
        let columns = [
            ("chebi20/test.tsv.gz", 1, 1),
            ("chebi20/validation.tsv.gz", 1, 1),
            ("chebi20/molt5_small_cap2mol.tsv.gz", 2, 1),
            ("lpm24/molt5_small_triples.tsv", 0, 1),
            ("lpm24/molt5_small_triples.tsv", 3, 1),
            ("lpm24/props.tsv.gz", 0, 20),
        ];
        let mut lines = Vec::new();
        for (name, at, step) in columns {
            let Some(column) = column(name, at) else { return };
            lines.extend(column.into_iter().step_by(step));
        }
        let expected: Vec<&str> = include_str!("../tests/golden/maccs.txt").lines().collect();
        assert_eq!(lines.len(), expected.len());
        let pairs: Vec<(String, &str)> = lines.into_iter().zip(expected).collect();
        let differ = |pairs: &[(String, &str)]| -> Vec<String> {
            let found = pairs.iter().map(|(line, expected)| (line, checksum(line), expected));
            let differ = found.filter(|(_, found, expected)| found != *expected);
            differ.map(|(line, found, expected)| format!("{line}: {found}, {expected} by RDKit")).collect()
        };
        let wrong: Vec<String> = std::thread::scope(|scope| {
            let parts: Vec<_> = pairs.chunks(2_500).map(|part| scope.spawn(|| differ(part))).collect();
            parts.into_iter().flat_map(|part| part.join().unwrap()).collect()
        });
        let molecules = pairs.iter().filter(|(_, expected)| *expected != "....").count();
        assert!(molecules > 15_433, "{molecules}");
        assert!(wrong.is_empty(), "{} of {molecules} molecules: {wrong:#?}", wrong.len());
    }

    #[test]
    fn keys_of_mutated_molecules_are_chematics() {
        let lines = mutations::Mutations::new(2).take(3_000);
        assert!(lines.filter(|line| same_as_chematics(line)).count() > 500);
    }

    fn of(written: &str) -> Vec<u32> {
        maccs(&smiles::parse(written).unwrap())
    }

    /// Found by RDKit 2026.09.1.
    #[test]
    fn keys_are_found() {
        for (written, expected) in [
            ("C", &[159][..]),
            ("[Na+].[Cl-]", &[34, 43, 48, 102, 133, 165]),
            // Two aromatic rings, and the rim of two rings of six.
            ("c1ccc2ccccc2c1", &[100, 104, 124, 144, 161, 162, 164]),
            ("C1CCCCCCC1", &[100, 117, 127, 128, 146, 164]),
            ("C1CCC2CCCCC2C1", &[100, 104, 117, 127, 128, 144, 146, 162, 164]),
            ("C1CCCCC1C1CCCCC1", &[61, 117, 127, 128, 144, 146, 162, 164]),
        ] {
            assert_eq!(of(written), expected, "{written}");
        }
    }

    #[test]
    fn occurrences_are_of_other_atoms() {
        // Key 145 is more than one ring of six; a ring can be walked along in twelve ways.
        assert!(!of("C1CCCCC1").contains(&144) && of("C1CCCCC1C1CCCCC1").contains(&144));
        // Keys 164, 159, 146 and 140: more than 0, 1, 2 and 3 oxygens.
        let oxygens = |written| [163, 158, 145, 139].map(|key| of(written).contains(&key));
        assert_eq!(oxygens("OCO"), [true, true, false, false]);
        assert_eq!(oxygens("OC(O)(O)O"), [true; 4]);
    }
}
