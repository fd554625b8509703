//! The ways to choose the tokens of an output.

use choice::choices;

use super::task::{CheckStrategy, GenerateError, Generated, Task};
use super::{beam, greedy, sampling};

choices! {
    /// How the tokens of an output are chosen.
    pub enum Strategy: CheckStrategy in "strategy" {
        /// The likeliest each time.
        greedy::Greedy,
        /// The likeliest together, as far as a search with several beams finds them.
        beam::Beam,
        /// At random, by how likely they are.
        sampling::Sample,
    }
}

impl Default for Strategy {
    fn default() -> Self {
        Self::Greedy(greedy::Greedy {})
    }
}

impl Strategy {
    /// Writes the outputs of a batch.
    pub(super) fn run(&self, task: Task<'_>) -> Result<Vec<Vec<Generated>>, GenerateError> {
        match self {
            Self::Greedy(_) => greedy::run(task),
            Self::Beam(beam) => beam.run(task),
            Self::Sample(sample) => sample.run(task),
        }
    }
}
