//! The Fréchet ChemNet Distance: of all molecules together, and not a mean over rows.

use std::sync::Mutex;

use engine::{Context, StageFailure};
use learn::ChemNet;
use metrics::frechet::{Moments, distance};

use super::super::Params;
use super::super::metric::{
    Aggregate, Better, Metric, Need, Range, RowScore, SetScore, Subject, rows_say_why,
};
use super::super::scorer::Scored;

pub(super) const FCD: Metric = Metric {
    name: "fcd",
    description: "Fréchet ChemNet Distance of the molecules predicted and those of reference.",
    subject: Subject::Molecules,
    needs: &[Need::Molecules, Need::ChemNet],
    label: "FCD",
    digits: 2,
    better: Better::Lower,
    range: Range::NonNegative,
    score: RowScore::None,
    aggregate: Aggregate::Set(open),
    why_missing: rows_say_why,
};

/// What the distance is made of, so far.
struct Fcd {
    net: ChemNet,
    predictions: Moments,
    references: Moments,
}

/// Reads ChemNet.
fn open(params: &Params) -> Result<Box<dyn SetScore>, StageFailure> {
    let file = params.chemnet.as_ref().ok_or_else(|| StageFailure::new("`fcd` needs ChemNet's weights"))?;
    let net = ChemNet::open(file.path()).map_err(|error| {
        StageFailure::caused("read ChemNet's weights", error)
            .help("tests/reference/convert_chemnet.py makes the file from the package `fcd`")
    })?;
    let moments = Moments::new(net.width());
    Ok(Box::new(Fcd { predictions: moments.clone(), references: moments, net }))
}

impl SetScore for Fcd {
    /// Adds the molecules of some rows: those among the predictions, and those among the
    /// references, each for itself.
    fn add(&mut self, rows: &[Scored], context: &mut Context) -> Result<(), StageFailure> {
        let predictions: Vec<&str> = rows.iter().filter_map(|row| row.canonical.as_deref()).collect();
        let references: Vec<&str> =
            rows.iter().filter_map(|row| row.canonical_reference.as_deref()).collect();
        let mut molecules = [&predictions[..], &references].concat();
        molecules.sort_unstable();
        molecules.dedup();
        let (threads, all) = (context.cores() as usize, molecules.len());
        let listener = Mutex::new(context);
        let activations = self.net.activations(&molecules, threads, &|done| {
            let mut context = listener.lock().expect("listening does not panic");
            context.progress(done as u64, all as u64, "molecules through ChemNet");
            !context.is_cancelled()
        });
        let activations = activations.ok_or_else(|| StageFailure::new("cancelled"))?;
        for (moments, of) in [(&mut self.predictions, predictions), (&mut self.references, references)] {
            for smiles in of {
                let at = molecules.binary_search(&smiles).expect("it is among them");
                moments.add(&activations[at]);
            }
        }
        Ok(())
    }

    fn value(&self) -> Result<f64, String> {
        distance(&self.predictions, &self.references).map_err(|error| {
            let (predictions, references) = (self.predictions.count(), self.references.count());
            format!("{predictions} predictions and {references} references are molecules: {error}")
        })
    }
}
