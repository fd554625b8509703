//! Reads mutated molecules, and counts what goes wrong: `fuzz [COUNT [SEED]]`; `fuzz COUNT SEED print`
//! writes each with its canonical SMILES and its InChI, or nothing, and how like the first molecule
//! its fingerprints are, for comparison with another program; `fuzz FILE` does so for the lines of
//! a file.

#![expect(clippy::print_stderr, clippy::print_stdout, reason = "its output is what it is for")]

#[path = "../tests/mutations/mod.rs"]
mod mutations;

use chem::{Fingerprint, FingerprintKind, Molecule, NotAMolecule};
use mutations::Mutations;
use std::time::{Duration, Instant};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(text) = arguments.first().and_then(|path| std::fs::read_to_string(path).ok()) {
        for line in text.lines() {
            let read = Molecule::of_line(line).ok();
            let canonical = read.as_ref().map_or("", Molecule::canonical);
            let inchi = read.as_ref().and_then(|molecule| molecule.inchi().ok()).unwrap_or_default();
            println!("{line}\t{canonical}\t{inchi}");
        }
        return;
    }
    let number = |at: usize, default: u64| {
        arguments.get(at).map_or(default, |text| text.parse().expect("COUNT and SEED are numbers"))
    };
    let is_printed = arguments.get(2).is_some_and(|text| text == "print");
    let count = number(0, 100_000) as usize;
    let (mut molecules, mut panics, mut troubles, mut nameless, mut unstable) = (0, 0, 0, 0, 0);
    let mut slowest = (Duration::ZERO, String::new());
    for line in Mutations::new(number(1, 1)).take(count) {
        let begun = Instant::now();
        let read = Molecule::of_line(&line);
        if is_printed {
            let canonical = read.as_ref().map_or("", Molecule::canonical);
            let likeness = |molecule: &Molecule, kind| {
                let other = Molecule::parse(mutations::MOLECULES[0]).expect("a molecule");
                let [ours, theirs] = [molecule, &other].map(|one| Fingerprint::of(one, kind).ok());
                ours.zip(theirs).map_or(-1.0, |(ours, theirs)| ours.tanimoto(&theirs))
            };
            let numbers =
                FingerprintKind::ALL.map(|kind| read.as_ref().map_or(-1.0, |one| likeness(one, kind)));
            let inchi = read.as_ref().ok().and_then(|molecule| molecule.inchi().ok()).unwrap_or_default();
            println!("{line}\t{canonical}\t{inchi}\t{numbers:?}");
            continue;
        }
        match read {
            Err(NotAMolecule::Panic) => {
                panics += 1;
                eprintln!("panics: {line}");
            }
            Err(_) => {}
            Ok(molecule) => {
                molecules += 1;
                let again = Molecule::parse(molecule.canonical());
                unstable += usize::from(!again.is_ok_and(|again| again.canonical() == molecule.canonical()));
                if let Err(error) = molecule.inchi() {
                    nameless += 1;
                    eprintln!("{error}: {line}");
                }
                let failed = |kind: &FingerprintKind| Fingerprint::of(&molecule, *kind).is_err();
                let failed = FingerprintKind::ALL.iter().filter(|kind| failed(kind)).count();
                if failed > 0 {
                    troubles += 1;
                    eprintln!("no fingerprint: {line}");
                }
            }
        }
        let taken = begun.elapsed();
        if taken > slowest.0 {
            slowest = (taken, line);
        }
    }
    if !is_printed {
        println!(
            "{count} lines: {molecules} molecules, {panics} panics, {troubles} without a fingerprint, \
             {nameless} without an InChI"
        );
        println!("{unstable} have canonical SMILES that are not their own canonical SMILES");
        println!("the slowest took {:?}: {}", slowest.0, slowest.1);
    }
}
