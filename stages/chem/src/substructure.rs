//! Whether a molecule has a piece of structure, for many pieces written as SMARTS.
//!
//! What the pieces ask of an atom or a bond is answered once for every atom and bond of a
//! molecule, for all pieces at a time; the search then compares bits. Of SMARTS there is what the
//! MACCS keys are written in: elements, hydrogens, charges, rings, aromaticity, bonds and
//! alternatives, `$(…)`, in a pattern of one atom. The rest, chirality and isotopes among it, is not.

use chematic::core::{AtomIdx, BondOrder, Molecule, implicit_hcount};
use chematic::perception;
use chematic::smarts::{AtomPrimitive, AtomQuery, BondPrimitive, BondQuery, QueryMolecule, parse_smarts};

/// What pieces ask of atoms and of bonds. The place of a question is the bit of its answer.
#[derive(Default)]
pub(crate) struct Questions {
    atoms: Vec<AtomQuery>,
    bonds: Vec<BondQuery>,
}

type AtomAnswers = u128;
type BondAnswers = u32;

/// Something to look for.
pub(crate) enum Pattern {
    /// A piece, anywhere.
    Piece(Piece),
    /// An atom with which one of these pieces begins.
    Atom(Vec<Piece>),
}

/// Atoms and bonds to look for.
pub(crate) struct Piece {
    /// A way to go through it from each of its atoms.
    ways: Vec<Vec<Step>>,
}

/// The next atom of a piece.
struct Step {
    /// What it is.
    question: usize,
    /// The step whose atom it is bound to, and how; the first one is bound to none.
    from: usize,
    bond: usize,
    /// More steps whose atoms it is bound to: these close rings.
    closing: Vec<(usize, usize)>,
}

impl Questions {
    /// Reads a pattern, and keeps what it asks for.
    ///
    /// # Panics
    /// If it is not SMARTS, or asks for more than is understood here.
    pub(crate) fn parse(&mut self, smarts: &str) -> Pattern {
        let query = parse_smarts(smarts).unwrap_or_else(|error| panic!("{smarts}: {error}"));
        let mut begun = Vec::new();
        match &query.atoms[..] {
            [only] if alternatives(&only.query, &mut begun) => {
                Pattern::Atom(begun.into_iter().map(|query| self.piece(query)).collect())
            }
            _ => Pattern::Piece(self.piece(&query)),
        }
    }

    fn piece(&mut self, query: &QueryMolecule) -> Piece {
        let atoms: Vec<usize> =
            query.atoms.iter().map(|atom| question(&mut self.atoms, &atom.query)).collect();
        let bonds: Vec<usize> =
            query.bonds.iter().map(|bond| question(&mut self.bonds, &bond.query)).collect();
        assert!(
            self.atoms.len() <= AtomAnswers::BITS as usize && self.bonds.len() <= BondAnswers::BITS as usize
        );
        let way = |start: usize| {
            let mut order = vec![start];
            let mut steps = vec![Step { question: atoms[start], from: 0, bond: 0, closing: Vec::new() }];
            // Breadth first: what is close to the start decides first.
            while steps.len() < atoms.len() {
                let bound = |atom: &usize| {
                    let neighbours = query.adj[*atom].iter();
                    let mut bonds = neighbours.filter_map(|(bond, other)| {
                        Some((order.iter().position(|placed| placed == other)?, bonds[*bond]))
                    });
                    let (from, bond) = bonds.next()?;
                    Some((*atom, from, bond, bonds.collect::<Vec<_>>()))
                };
                let open = (0..atoms.len()).filter(|atom| !order.contains(atom));
                let next = open.filter_map(|atom| bound(&atom)).min_by_key(|(_, from, ..)| *from);
                let (atom, from, bond, closing) = next.expect("a piece hangs together");
                order.push(atom);
                steps.push(Step { question: atoms[atom], from, bond, closing });
            }
            steps
        };
        Piece { ways: (0..atoms.len()).map(way).collect() }
    }

    /// Answers all questions for a molecule.
    pub(crate) fn ask(&self, molecule: &Molecule) -> Answers {
        let rings = perception::find_sssr_shared(molecule);
        let mut rings_of: Vec<Vec<usize>> = vec![Vec::new(); molecule.atom_count()];
        for (number, ring) in rings.rings().iter().enumerate() {
            ring.iter().for_each(|atom| rings_of[atom.0 as usize].push(number));
        }
        // Most atoms of a molecule are of a few sorts.
        let mut sorts: Vec<(Sort, AtomAnswers)> = Vec::new();
        let mut atoms = Vec::with_capacity(molecule.atom_count());
        let mut counts = vec![0; self.atoms.len()];
        for (at, rings) in rings_of.iter().enumerate() {
            let sort = Sort::of(molecule, AtomIdx(at as u32), !rings.is_empty());
            let known = sorts.iter().find(|(known, _)| *known == sort).map(|(_, answers)| *answers);
            let answers = known.unwrap_or_else(|| {
                let answers = answers(&self.atoms, |question| sort.answers(question));
                sorts.push((sort, answers));
                answers
            });
            let set = (0..counts.len()).filter(|question| answers >> question & 1 == 1);
            set.for_each(|question| counts[question] += 1);
            atoms.push(answers);
        }
        let mut neighbours: Vec<Vec<(u32, BondAnswers)>> = vec![Vec::new(); molecule.atom_count()];
        for (_, bond) in molecule.bonds() {
            let [one, other] = [bond.atom1, bond.atom2].map(|atom| atom.0 as usize);
            let is_in_ring = bond.order != BondOrder::Dative
                && rings_of[one].iter().any(|ring| rings_of[other].contains(ring));
            let bits = answers(&self.bonds, |question| answers_bond(question, bond.order, is_in_ring));
            let bits = bits as BondAnswers;
            neighbours[one].push((bond.atom2.0, bits));
            neighbours[other].push((bond.atom1.0, bits));
        }
        Answers { atoms, neighbours, counts }
    }
}

/// Collects what may begin at an atom, if that is all that is asked of it.
fn alternatives<'q>(query: &'q AtomQuery, begun: &mut Vec<&'q QueryMolecule>) -> bool {
    match query {
        AtomQuery::Primitive(AtomPrimitive::Recursive(piece)) => {
            begun.push(piece);
            true
        }
        AtomQuery::Or(one, other) => alternatives(one, begun) && alternatives(other, begun),
        _ => false,
    }
}

/// Returns the place of a question, which is added if it is new.
fn question<T: Clone + PartialEq>(questions: &mut Vec<T>, wanted: &T) -> usize {
    questions.iter().position(|known| known == wanted).unwrap_or_else(|| {
        questions.push(wanted.clone());
        questions.len() - 1
    })
}

fn answers<T>(questions: &[T], is_so: impl Fn(&T) -> bool) -> AtomAnswers {
    questions
        .iter()
        .enumerate()
        .fold(0, |bits, (at, question)| bits | AtomAnswers::from(is_so(question)) << at)
}

/// All that is asked of an atom by itself.
#[derive(Clone, Copy, PartialEq)]
struct Sort {
    /// 0 for `*`.
    number: u8,
    symbol: &'static str,
    is_aromatic: bool,
    charge: i8,
    hydrogens: u8,
    is_in_ring: bool,
}

impl Sort {
    fn of(molecule: &Molecule, at: AtomIdx, is_in_ring: bool) -> Self {
        let atom = molecule.atom(at);
        let is_hydrogen = |other: &AtomIdx| molecule.atom(*other).element.atomic_number() == 1;
        let bound = molecule.neighbors(at).filter(|(other, _)| is_hydrogen(other)).count() as u8;
        Self {
            number: if atom.wildcard { 0 } else { atom.element.atomic_number() },
            symbol: if atom.wildcard { "*" } else { atom.element.symbol() },
            is_aromatic: atom.aromatic,
            charge: atom.charge,
            hydrogens: bound + implicit_hcount(molecule, at),
            is_in_ring,
        }
    }

    fn answers(&self, query: &AtomQuery) -> bool {
        match query {
            AtomQuery::And(one, other) => self.answers(one) && self.answers(other),
            AtomQuery::Or(one, other) => self.answers(one) || self.answers(other),
            AtomQuery::Not(other) => !self.answers(other),
            AtomQuery::Primitive(primitive) => match primitive {
                AtomPrimitive::Wildcard => true,
                AtomPrimitive::AtomicNum(number) => self.number == *number,
                AtomPrimitive::Symbol(symbol) => self.symbol == symbol,
                AtomPrimitive::Aromatic(is_aromatic) => self.is_aromatic == *is_aromatic,
                AtomPrimitive::Charge(charge) => self.charge == *charge,
                AtomPrimitive::HCount(count) => self.hydrogens == *count,
                AtomPrimitive::RingMembership(is_in_ring) => self.is_in_ring == *is_in_ring,
                other => panic!("{other:?} is not asked of atoms here"),
            },
        }
    }
}

fn answers_bond(query: &BondQuery, order: BondOrder, is_in_ring: bool) -> bool {
    let answers = |query: &BondQuery| answers_bond(query, order, is_in_ring);
    let is_single = matches!(order, BondOrder::Single | BondOrder::Up | BondOrder::Down);
    let is_aromatic = order == BondOrder::Aromatic;
    match query {
        BondQuery::And(one, other) => answers(one) && answers(other),
        BondQuery::Or(one, other) => answers(one) || answers(other),
        BondQuery::Not(other) => !answers(other),
        // Where nothing is written between two atoms.
        BondQuery::Any => is_single || is_aromatic,
        BondQuery::Primitive(primitive) => match primitive {
            BondPrimitive::Any => true,
            BondPrimitive::Single => is_single,
            BondPrimitive::Double => order == BondOrder::Double,
            BondPrimitive::Triple => order == BondOrder::Triple,
            BondPrimitive::Aromatic => is_aromatic,
            BondPrimitive::Ring => is_in_ring,
            other => panic!("{other:?} is not asked of bonds here"),
        },
    }
}

/// A molecule, as far as it was asked about.
pub(crate) struct Answers {
    atoms: Vec<AtomAnswers>,
    neighbours: Vec<Vec<(u32, BondAnswers)>>,
    /// For each question how many atoms say yes.
    counts: Vec<u32>,
}

impl Answers {
    /// Says whether a pattern occurs more than so many times, each time with other atoms.
    pub(crate) fn has_more_than(&self, count: usize, pattern: &Pattern) -> bool {
        match pattern {
            Pattern::Atom(pieces) => {
                let begins = |atom: &u32| {
                    pieces.iter().any(|piece| {
                        self.has_all(piece) && self.walk_from(*atom, &piece.ways[0], &mut |_| true)
                    })
                };
                (0..self.atoms.len() as u32).filter(begins).nth(count).is_some()
            }
            Pattern::Piece(piece) => {
                if !self.has_all(piece) {
                    return false;
                }
                let rarest = piece.ways.iter().min_by_key(|way| self.counts[way[0].question]);
                let way = rarest.expect("a piece has an atom");
                let mut sets: Vec<Vec<u32>> = Vec::new();
                let mut see = |atoms: &[u32]| {
                    if count == 0 {
                        return true;
                    }
                    let mut set = atoms.to_vec();
                    set.sort_unstable();
                    if !sets.contains(&set) {
                        sets.push(set);
                    }
                    sets.len() > count
                };
                (0..self.atoms.len() as u32).any(|atom| self.walk_from(atom, way, &mut see))
            }
        }
    }

    /// Says whether there are atoms for every place.
    fn has_all(&self, piece: &Piece) -> bool {
        let way = &piece.ways[0];
        way.len() <= self.atoms.len() && way.iter().all(|step| self.counts[step.question] > 0)
    }

    /// Shows every way to lay a piece on the molecule from an atom on, until `see` has seen enough.
    fn walk_from(&self, atom: u32, way: &[Step], see: &mut impl FnMut(&[u32]) -> bool) -> bool {
        self.is(atom, &way[0]) && self.walk(way, &mut vec![atom], see)
    }

    fn walk(&self, way: &[Step], placed: &mut Vec<u32>, see: &mut impl FnMut(&[u32]) -> bool) -> bool {
        let Some(step) = way.get(placed.len()) else { return see(placed) };
        self.neighbours[placed[step.from] as usize].iter().any(|(atom, bond)| {
            if bond >> step.bond & 1 == 0 || !self.is(*atom, step) || placed.contains(atom) {
                return false;
            }
            let closes = |(to, bond): &(usize, usize)| {
                let mut bonds = self.neighbours[*atom as usize].iter();
                bonds.any(|(other, bits)| *other == placed[*to] && bits >> bond & 1 == 1)
            };
            if !step.closing.iter().all(closes) {
                return false;
            }
            placed.push(*atom);
            let is_enough = self.walk(way, placed, see);
            placed.pop();
            is_enough
        })
    }

    fn is(&self, atom: u32, step: &Step) -> bool {
        self.atoms[atom as usize] >> step.question & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chematic::smarts::find_matches;
    use chematic::smiles;

    /// What chematic finds, too.
    #[test]
    fn pieces_are_found_as_often_as_they_are_there() {
        for (smarts, molecule, count) in [
            ("[#6]", "CCO", 2),
            ("[#6]~[#8]", "CC(=O)O", 2),
            ("[#6]=[#8]", "CC(=O)O", 1),
            ("*1~*~*~1", "C1CC1C2CC2", 2),
            ("*1~*~*~*~*~*~1", "C1CCC2CCCCC2C1", 2),
            ("*@*!@*@*", "C1CC1C2CC2", 4),
            ("[$(*~[CH2]~[CH2]~*),$(*1~[CH2]~[CH2]1)]", "CCCC", 2),
            ("c:n", "c1ccncc1", 2),
            ("[!+0]", "[NH4+].[Cl-]", 2),
        ] {
            let molecule = smiles::parse(molecule).unwrap();
            let mut questions = Questions::default();
            let pattern = questions.parse(smarts);
            let answers = questions.ask(&molecule);
            assert!(answers.has_more_than(count - 1, &pattern), "{smarts}");
            assert!(!answers.has_more_than(count, &pattern), "{smarts}");
            assert_eq!(find_matches(&parse_smarts(smarts).unwrap(), &molecule).len(), count, "{smarts}");
        }
    }
}
