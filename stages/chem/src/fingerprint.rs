//! Fingerprints as RDKit 2026.09 computes them, and how alike two of them are.
//!
//! - **MACCS**: 166 structural keys (`MACCSkeys.GenMACCSKeys`).
//! - **RDK**: hashed paths and branches of 1 to 7 bonds, 2,048 bits, 2 per path
//!   (`Chem.RDKFingerprint`).
//! - **Morgan**: circular environments up to radius 2, unfolded, each with the number of times
//!   it occurs (`AllChem.GetMorganFingerprint(molecule, 2)`).
//!
//! A fingerprint without features, such as RDK's of a molecule without bonds, is like no other
//! one, itself included: RDKit's Tanimoto gives 0 for two empty ones. Versions before 2026 gave
//! 1 for two empty bit vectors; [`Fingerprint::is_empty`] says so.

use crate::canonical::Molecule;
use crate::maccs::maccs;
use chematic::fp;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Which fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FingerprintKind {
    /// The 166 MACCS keys, as bits.
    Maccs,
    /// RDKit's path fingerprint, as bits.
    Rdk,
    /// Morgan's environments of radius 2, unfolded, as counts.
    Morgan,
}

impl FingerprintKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Maccs, Self::Rdk, Self::Morgan];
}

/// The features of a molecule and how often each occurs: once each, where they are bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// In order of the feature, each count above 0.
    counts: Vec<(u32, u32)>,
}

/// Says that no fingerprint could be computed of a molecule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no {kind:?} fingerprint: {reason}")]
pub struct NoFingerprint {
    /// Which one was asked for.
    pub kind: FingerprintKind,
    /// What went wrong.
    pub reason: String,
}

impl Fingerprint {
    /// Computes a molecule's fingerprint.
    pub fn of(molecule: &Molecule, kind: FingerprintKind) -> Result<Self, NoFingerprint> {
        let computed = catch_unwind(AssertUnwindSafe(|| match kind {
            FingerprintKind::Maccs => Ok(maccs(molecule.graph()).into_iter().map(|key| (key, 1)).collect()),
            FingerprintKind::Rdk => Ok(bits(&fp::rdkit_rdk_fp(molecule.graph()))),
            FingerprintKind::Morgan => {
                let config = fp::RdkitMorganConfig {
                    radius: fp::RdkitMorganRadius::R2,
                    ..fp::RdkitMorganConfig::default()
                };
                let fingerprint = fp::rdkit_morgan_fingerprint(molecule.graph(), &config)
                    .map_err(|error| error.to_string())?;
                let mut counts: Vec<(u32, u32)> = fingerprint.sparse_counts.into_iter().collect();
                counts.sort_unstable();
                Ok(counts)
            }
        }));
        match computed.unwrap_or_else(|_| Err("the library gave up on it".to_owned())) {
            Ok(counts) => Ok(Self { counts }),
            Err(reason) => Err(NoFingerprint { kind, reason }),
        }
    }

    /// Returns whether the molecule has none of the features.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Returns the Tanimoto similarity, in [0, 1]: what two fingerprints share, over what either
    /// has; the lesser and the greater count where features are counted. Two empty ones give 0.
    pub fn tanimoto(&self, other: &Self) -> f64 {
        let total = |counts: &[(u32, u32)]| counts.iter().map(|(_, count)| u64::from(*count)).sum::<u64>();
        let mut shared = 0;
        let mut others = other.counts.iter().peekable();
        for (feature, count) in &self.counts {
            while others.next_if(|(theirs, _)| theirs < feature).is_some() {}
            if let Some((_, theirs)) = others.next_if(|(theirs, _)| theirs == feature) {
                shared += u64::from(*count.min(theirs));
            }
        }
        match total(&self.counts) + total(&other.counts) - shared {
            0 => 0.0,
            either => shared as f64 / either as f64,
        }
    }
}

fn bits(vector: &fp::BitVec2048) -> Vec<(u32, u32)> {
    (0..2048u32).filter(|bit| vector.get(*bit as usize)).map(|bit| (bit, 1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use FingerprintKind::*;

    fn similarity(a: &str, b: &str, kind: FingerprintKind) -> f64 {
        let of = |smiles| Fingerprint::of(&Molecule::parse(smiles).unwrap(), kind).unwrap();
        of(a).tanimoto(&of(b))
    }

    /// From RDKit 2026.09.1: row 0 of MolT5-small's outputs for ChEBI-20's test set.
    #[test]
    fn similarities_are_rdkits() {
        let pair = ("C1=CC2=C(C(=C1)[O-])NC(=CC2=O)C(=O)O", "C1=CC=C2C(=C1)C(=O)C=C(N2)C(=O)[O-]");
        for (kind, expected) in [(Maccs, 0.875), (Rdk, 0.7832278481012658), (Morgan, 0.48148148148148145)] {
            assert_eq!(similarity(pair.0, pair.1, kind), expected, "{kind:?}");
            assert_eq!(similarity(pair.1, pair.0, kind), expected, "{kind:?}");
        }
    }

    #[test]
    fn a_molecule_is_like_itself_however_it_is_written() {
        for kind in FingerprintKind::ALL {
            assert_eq!(similarity("OC(=O)c1ccccc1", "C1=CC=CC=C1C(O)=O", kind), 1.0, "{kind:?}");
        }
    }

    /// RDKit 2026.09.1 gives 0.2001992… for RDK, where one ring is written with double bonds.
    #[test]
    fn rings_may_be_written_in_two_ways() {
        let written = "C1=CC(=C(C=C1CCN)O)O.C[C@@H](CCSC)C(=O)N[C@@H](Cc1ccccc1)C(=O)OCl";
        let found = similarity(written, "C1=CC2=C(C(=C1)[O-])NC(=CC2=O)C(=O)O", Rdk);
        assert_eq!(found, 0.20019920318725098);
    }

    #[test]
    fn without_features_there_is_no_likeness() {
        let ions = Molecule::parse("[Na+].[Cl-]").unwrap();
        assert!(Fingerprint::of(&ions, Rdk).unwrap().is_empty());
        assert_eq!(similarity("[Na+].[Cl-]", "C", Rdk), 0.0);
        assert_eq!(similarity("[Na+].[Cl-]", "[Na+].[Cl-]", Morgan), 1.0);
    }
}
