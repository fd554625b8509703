//! Fingerprint similarity: Tanimoto of MACCS, RDK or Morgan fingerprints (see `chem`).
//!
//! What a row without similarity counts is a choice: the published script of MolT5 leaves out
//! rows whose output is no molecule, that of L+M-24 counts them as 0. And what two fingerprints
//! without features have in common is one too: nothing in RDKit since 2026, everything before.

use chem::{Fingerprint, FingerprintKind, Molecule, NoFingerprint};

/// How alike two fingerprints without features are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EmptyFingerprints {
    /// Not at all: 0, as RDKit 2026.09 has it.
    #[default]
    Zero,
    /// The same: 1, as older versions of RDKit have it for bits (MACCS and RDK).
    One,
}

/// Returns the Tanimoto similarity of two molecules, in [0, 1].
pub fn similarity(
    output: &Molecule,
    reference: &Molecule,
    kind: FingerprintKind,
    empty: EmptyFingerprints,
) -> Result<f64, NoFingerprint> {
    let (output, reference) = (Fingerprint::of(output, kind)?, Fingerprint::of(reference, kind)?);
    let is_alike = empty == EmptyFingerprints::One && kind != FingerprintKind::Morgan;
    if is_alike && output.is_empty() && reference.is_empty() {
        return Ok(1.0);
    }
    Ok(output.tanimoto(&reference))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_without_features() {
        let [ions, methane] = ["[Na+].[Cl-]", "C"].map(|smiles| Molecule::parse(smiles).unwrap());
        let of = |kind, empty| similarity(&ions, &methane, kind, empty).unwrap();
        assert_eq!(of(FingerprintKind::Rdk, EmptyFingerprints::Zero), 0.0);
        assert_eq!(of(FingerprintKind::Rdk, EmptyFingerprints::One), 1.0);
        assert_eq!(of(FingerprintKind::Morgan, EmptyFingerprints::One), 0.0);
    }
}
