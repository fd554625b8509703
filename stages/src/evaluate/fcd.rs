//! The Fréchet ChemNet Distance: of all molecules together, and not a mean over rows.

use std::sync::Mutex;

use engine::{Context, Failure};
use learn::ChemNet;
use metrics::frechet::{Moments, distance};
use serde_json::{Value, json};

use super::Params;
use super::scorer::Scored;

/// What the distance is made of, so far. Its size does not grow with the rows.
pub(super) struct Fcd {
    net: ChemNet,
    predictions: Moments,
    references: Moments,
}

impl Fcd {
    /// Reads ChemNet, if the distance is asked for.
    pub(super) fn open(params: &Params) -> Result<Option<Self>, Failure> {
        let Some(file) = &params.chemnet else { return Ok(None) };
        let net = ChemNet::open(file.path()).map_err(|error| {
            Failure::caused("read ChemNet's weights", error)
                .help("tests/reference/convert_chemnet.py makes the file from the package `fcd`")
        })?;
        let moments = Moments::new(net.width());
        Ok(Some(Self { predictions: moments.clone(), references: moments, net }))
    }

    /// Adds the molecules of some rows: those among the predictions, and those among the
    /// references, each for itself.
    pub(super) fn add(&mut self, rows: &[Scored], context: &mut Context) -> Result<(), Failure> {
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
        let activations = activations.ok_or_else(|| Failure::new("told to stop"))?;
        for (moments, of) in [(&mut self.predictions, predictions), (&mut self.references, references)] {
            for smiles in of {
                let at = molecules.binary_search(&smiles).expect("it is among them");
                moments.add(&activations[at]);
            }
        }
        Ok(())
    }

    /// Returns the distance, or why there is none.
    pub(super) fn value(&self) -> Value {
        match distance(&self.predictions, &self.references) {
            Ok(distance) => distance.into(),
            Err(error) => {
                let (predictions, references) = (self.predictions.count(), self.references.count());
                let sets = format!("{predictions} predictions and {references} references are molecules");
                json!({ "missing": format!("{sets}: {error}") })
            }
        }
    }
}
