//! What no molecule may do, however broken: panic, or take long.

mod mutations;

use chem::{Fingerprint, FingerprintKind, Molecule};
use mutations::Mutations;
use std::time::{Duration, Instant};

/// `cargo run --release --example fuzz -p chem -- 100000` tries as many as one likes.
const TRIED: usize = 3_000;

#[test]
fn mutated_molecules_are_read_or_refused() {
    let (mut molecules, mut without, mut nameless) = (0, 0, 0);
    for line in Mutations::new(1).take(TRIED) {
        let begun = Instant::now();
        match Molecule::of_line(&line) {
            Err(error) => assert!(error != chem::NotAMolecule::Panic, "{line}: the parser panics"),
            Ok(molecule) => {
                molecules += 1;
                // Canonical SMILES are a molecule's, and most stay as they are.
                assert!(Molecule::parse(molecule.canonical()).is_ok(), "{line} -> {}", molecule.canonical());
                // It may have no InChI, and never brings the process down.
                nameless += usize::from(molecule.inchi().is_err());
                for kind in FingerprintKind::ALL {
                    match Fingerprint::of(&molecule, kind) {
                        Ok(found) => assert!(found.is_empty() || found.tanimoto(&found) == 1.0, "{line}"),
                        Err(_) => without += 1,
                    }
                }
            }
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{line} takes {:?}", begun.elapsed());
    }
    // An aromatic bond outside of rings, `B(O):O`, is read and has no Morgan fingerprint.
    assert!(without <= TRIED / 1_000, "{without} fingerprints of {molecules} molecules cannot be computed");
    assert!(nameless <= TRIED / 100, "{nameless} of {molecules} molecules have no InChI");
    // Both happen often enough for this to mean something.
    assert!((TRIED / 10..TRIED * 9 / 10).contains(&molecules), "{molecules} of {TRIED}");
}
