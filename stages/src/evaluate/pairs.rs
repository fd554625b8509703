//! Predictions beside the references that they are held against.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use corpus::{Direction, Prediction};
use engine::{Context, StageFailure};
use metrics::random::Random;
use metrics::words;

use super::{Pairing, Params};
use crate::support::rows::{read_records, read_rows};

/// The field with a model's output if none is named.
const OUTPUT: &str = "output";

/// The port with the references, where they are not beside the outputs.
pub(super) const REFERENCES: &str = "references";

/// Keeps the numbers that shuffle apart from all others drawn from the same seed.
const SHUFFLE: u64 = 0x7368_7566_666c_6564;

/// A prediction and the reference that it is held against.
pub(super) struct Pair {
    /// The prediction's `id`.
    pub id: String,
    pub prediction: String,
    pub reference: String,
    /// The `id` of the reference's own row, where it is another one.
    pub reference_id: Option<String>,
}

impl Pair {
    /// Returns how many words the reference has.
    pub(super) fn reference_words(&self) -> usize {
        words::count(&self.reference)
    }
}

/// Where predictions are, and what is done with them.
pub(super) struct Pairs<'a> {
    params: &'a Params,
    folder: PathBuf,
    /// Where the references are, if not beside the outputs.
    reference_rows: Option<PathBuf>,
    /// The direction that every prediction must have, once it is known.
    direction: Option<Direction>,
    /// Where references are shuffled: those of other rows, with their ids, in the rows' order.
    references: Option<Vec<(String, String)>>,
}

impl<'a> Pairs<'a> {
    /// Finds the predictions, and shuffles the references if that is wanted.
    pub(super) fn open(params: &'a Params, context: &Context) -> Result<Self, StageFailure> {
        let port = if params.direction.is_some() { "rows" } else { "predictions" };
        let subject = params.subject()?;
        let direction = params.direction.or(subject.direction());
        let mut pairs = Self {
            params,
            folder: context.input(port)?.to_owned(),
            reference_rows: context.optional_input(REFERENCES).map(Path::to_owned),
            direction,
            references: None,
        };
        if params.pairing == Pairing::Shuffled {
            let mut references = Vec::new();
            for prediction in pairs.predictions()? {
                let Prediction { id, reference, .. } = prediction?;
                references.push((id, reference));
            }
            let mut random = Random::new(context.seed()? ^ SHUFFLE);
            let order = random.derangement(references.len()).ok_or_else(|| {
                StageFailure::new("fewer than two predictions cannot be held against references of others")
            })?;
            // Taken out one by one: the list may be most of the memory.
            let mut shuffled: Vec<(String, String)> = Vec::with_capacity(order.len());
            for from in order {
                shuffled.push(std::mem::take(&mut references[from]));
            }
            pairs.references = Some(shuffled);
        }
        Ok(pairs)
    }

    /// Reads the pairs, each with its direction.
    pub(super) fn read(
        self,
    ) -> Result<impl Iterator<Item = Result<(Direction, Pair), StageFailure>>, StageFailure> {
        let predictions = self.predictions()?;
        let wanted = self.direction;
        let metrics = self.params.metrics.first().map(|metric| metric.name).unwrap_or_default();
        let mut others = self.references.map(Vec::into_iter);
        let mut first = None;
        Ok(predictions.map(move |prediction| {
            let prediction = prediction?;
            let expected = wanted.or(first).unwrap_or(prediction.direction);
            if prediction.direction != expected {
                let Prediction { id, direction, .. } = &prediction;
                let message = match wanted {
                    Some(_) => {
                        format!("prediction `{id}` is of {direction}, and `{metrics}` is for {expected}")
                    }
                    None => {
                        format!("prediction `{id}` is of {direction}, and the ones before it of {expected}")
                    }
                };
                return Err(StageFailure::new(message).help("evaluate each direction in a stage of its own"));
            }
            first = Some(expected);
            let Prediction { id, reference, prediction, .. } = prediction;
            let pair = match others.as_mut().map(Iterator::next) {
                None => Pair { id, prediction, reference, reference_id: None },
                Some(Some((other, reference))) => {
                    Pair { id, prediction, reference, reference_id: Some(other) }
                }
                Some(None) => return Err(changed()),
            };
            Ok((expected, pair))
        }))
    }

    fn predictions(
        &self,
    ) -> Result<Box<dyn Iterator<Item = Result<Prediction, StageFailure>>>, StageFailure> {
        match self.params.direction {
            None => Ok(Box::new(read_records(&self.folder)?)),
            Some(direction) => {
                let field = self.params.field.as_deref().unwrap_or(OUTPUT);
                match &self.reference_rows {
                    None => foreign(&self.folder, direction, field),
                    Some(references) => beside(&self.folder, references, direction, field),
                }
            }
        }
    }
}

/// Reads rows with the outputs of somebody else's model, and the references of other rows of their
/// ids. There must be as many of one as of the other.
fn beside(
    folder: &Path,
    references: &Path,
    direction: Direction,
    field: &str,
) -> Result<Box<dyn Iterator<Item = Result<Prediction, StageFailure>>>, StageFailure> {
    let mut by_id: HashMap<String, String> = HashMap::new();
    for row in read_rows(references)? {
        let row = row?;
        let reference = direction.target(&row).map_err(|error| {
            StageFailure::new(format!("{error}, in `{REFERENCES}`"))
                .help("let its `source` name these `columns`")
        })?;
        by_id.insert(row.id().to_owned(), reference.to_owned());
    }
    let ids =
        read_rows(folder)?.map(|row| row.map(|row| row.id().to_owned())).collect::<Result<Vec<_>, _>>()?;
    if let Some(id) = ids.iter().find(|id| !by_id.contains_key(*id)) {
        return Err(unequal(ids.len(), by_id.len(), &format!("`{REFERENCES}` has no row `{id}`")));
    }
    if ids.len() < by_id.len() {
        let ids: HashSet<&String> = ids.iter().collect();
        let lacking = by_id.keys().filter(|id| !ids.contains(id)).min().expect("there are more references");
        return Err(unequal(ids.len(), by_id.len(), &format!("`rows` has no row `{lacking}`")));
    }
    let field = field.to_owned();
    Ok(Box::new(read_rows(folder)?.map(move |row| {
        let row = row?;
        let prediction = row
            .needed(&field)
            .map_err(|error| StageFailure::new(error.to_string()).help("name another `field`"))?
            .to_owned();
        let reference = by_id.get(row.id()).cloned().ok_or_else(changed)?;
        Ok(Prediction { id: row.id().to_owned(), direction, input: String::new(), reference, prediction })
    })))
}

fn unequal(outputs: usize, references: usize, which: &str) -> StageFailure {
    StageFailure::new(format!("{outputs} outputs are held against {references} references: {which}"))
        .help("both must hold the same rows, by `id`; without a column `id` that is the number of the row")
}

fn changed() -> StageFailure {
    StageFailure::new("the predictions changed while they were read")
}

/// Reads rows with the outputs of somebody else's model as predictions.
fn foreign(
    folder: &Path,
    direction: Direction,
    field: &str,
) -> Result<Box<dyn Iterator<Item = Result<Prediction, StageFailure>>>, StageFailure> {
    let field = field.to_owned();
    Ok(Box::new(read_rows(folder)?.map(move |row| {
        let row = row?;
        let read = || -> Result<Prediction, corpus::MissingField> {
            Ok(Prediction {
                id: row.id().to_owned(),
                direction,
                input: direction.input(&row)?.to_owned(),
                reference: direction.target(&row)?.to_owned(),
                prediction: row.needed(&field)?.to_owned(),
            })
        };
        read().map_err(|error| {
            StageFailure::new(error.to_string())
                .help("let the `source` name these `columns`, or name another `field`")
        })
    })))
}
