//! Molecules as the papers need them: read from SMILES, distinguished by a canonical form, compared
//! by fingerprints.
//!
//! A line of text is a molecule if RDKit would take it for one, and its canonical SMILES is
//! RDKit's. The crate refuses to know what a molecule is for. It wraps `chematic`, pinned
//! exactly, and is the only one to name it: a strict check of the grammar comes first, since
//! chematic also reads some mutilated strings, and a panic inside it is an error here.
//!
//! Known to differ from RDKit 2026.09.1, of 6,600 real lines and 70,000 mutated ones: RDKit takes
//! the empty line for a molecule, and a space for the beginning of a name ([`Molecule::of_line`]
//! does the latter too); it reads CXSMILES; one thiazole in a macrocycle is aromatic to it; charges
//! and isotopes of five digits wrap in it; and fingerprints differ where a molecule has an aromatic
//! bond outside of rings (`CC:S`), a triple bond in an aromatic ring, or cumulated bonds in a ring.
//! InChI differ where a proton stands by itself (`[H+].[Cl-]`), which RDKit adds to the rest: in 4 of
//! 2,993 pairs of real molecules. MACCS keys do not differ on 17,143.
//! Tests hold the ones that occur in real data.
//!
//! ```
//! assert_eq!(chem::canonical("C(O)C").as_deref(), Ok("CCO"));
//! assert_eq!(chem::canonical("[CH3]CO").as_deref(), Ok("CCO"));
//! assert!(!chem::is_valid("CC("));
//!
//! use chem::{Fingerprint, FingerprintKind, Molecule};
//! let acid = Fingerprint::of(&Molecule::parse("CC(=O)O")?, FingerprintKind::Maccs)?;
//! let ester = Fingerprint::of(&Molecule::parse("CC(=O)OC")?, FingerprintKind::Maccs)?;
//! assert!(acid.tanimoto(&ester) > 0.4);
//!
//! let error = chem::canonical("CC(=)O").unwrap_err();
//! assert_eq!(error.to_string(), "not a molecule: no atom follows the bond at byte 3");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod canonical;
mod dots;
mod fingerprint;
mod grammar;
mod maccs;
mod substructure;

pub use canonical::{LONGEST_SMILES_BYTES, Molecule, NoInchi, NotAMolecule, canonical, is_valid};
pub use fingerprint::{Fingerprint, FingerprintKind, NoFingerprint};
pub use grammar::GrammarError;
