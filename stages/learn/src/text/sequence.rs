//! Prompts with their outputs as token ids, and how many tokens of them a model takes.

/// How many tokens a model takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenLimit {
    /// A prompt and its output have at most so many together: models that are decoders.
    Together(usize),
    /// A prompt has at most so many, and so has an output: models with an encoder.
    Each(usize),
}

impl TokenLimit {
    /// Returns the number.
    pub fn tokens(self) -> usize {
        match self {
            Self::Together(tokens) | Self::Each(tokens) => tokens,
        }
    }

    /// Returns the limit lowered to a number.
    pub fn at_most(self, tokens: usize) -> Self {
        match self {
            Self::Together(own) => Self::Together(own.min(tokens)),
            Self::Each(own) => Self::Each(own.min(tokens)),
        }
    }

    /// Returns how many tokens an output can have behind a prompt of so many: none if the prompt
    /// is too long.
    pub fn room(self, prompt: usize) -> usize {
        match self {
            Self::Together(tokens) => tokens.saturating_sub(prompt),
            Self::Each(tokens) if prompt <= tokens => tokens,
            Self::Each(_) => 0,
        }
    }

    /// Says how many tokens are too many for a prompt, as in "prompts of 512 tokens or more".
    pub fn too_many(self) -> String {
        match self {
            Self::Together(tokens) => format!("{tokens} tokens or more"),
            Self::Each(tokens) => format!("more than {tokens} tokens"),
        }
    }
}

/// One output after its prompt, as token ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    tokens: Vec<u32>,
    /// How many of them are the prompt's.
    prompt: usize,
}

/// What came of putting a prompt and an output together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// Both are whole.
    Whole,
    /// The output was cut to the context.
    Cut,
}

impl Sequence {
    /// Puts an output behind a prompt. What is beyond the limit is cut off the output, never
    /// off the prompt, as TRL does; `None` if the prompt leaves no room for a token of it.
    pub fn new(prompt: &[u32], output: &[u32], limit: TokenLimit) -> Option<(Self, Fit)> {
        let room = limit.room(prompt.len());
        if prompt.is_empty() || output.is_empty() || room == 0 {
            return None;
        }
        let fit = if output.len() > room { Fit::Cut } else { Fit::Whole };
        let tokens = prompt.iter().chain(output.iter().take(room)).copied().collect();
        Some((Self { tokens, prompt: prompt.len() }, fit))
    }

    /// Returns all tokens.
    pub(super) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Returns how many tokens of prompt there are.
    pub(super) fn prompt_tokens(&self) -> usize {
        self.prompt
    }

    /// Returns how many tokens of output there are.
    pub fn output_tokens(&self) -> usize {
        self.tokens.len() - self.prompt
    }

    /// Puts the output of another behind this one's prompt, as [`Sequence::new`] does.
    pub(crate) fn with_output_of(&self, other: &Self, limit: TokenLimit) -> Option<Self> {
        let (prompt, output) = (&self.tokens[..self.prompt], &other.tokens[other.prompt..]);
        Self::new(prompt, output, limit).map(|(sequence, _)| sequence)
    }

    pub(crate) fn width(&self) -> usize {
        // The last token predicts nothing that is asked for.
        self.tokens.len() - 1
    }
}

/// One row to learn from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// The row's name, for errors.
    pub id: String,
    /// The target.
    pub chosen: Sequence,
    /// What is dispreferred, where an objective wants it.
    pub rejected: Option<Sequence>,
    /// Whether the target is a good output, where an objective learns from good and bad ones.
    pub desirable: Option<bool>,
}

impl Example {
    pub(super) fn width(&self) -> usize {
        self.rejected.as_ref().map_or(0, Sequence::width).max(self.chosen.width())
    }

    /// Returns its outputs, the chosen one first.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = &Sequence> {
        std::iter::once(&self.chosen).chain(&self.rejected)
    }

    /// Returns a number that other tokens would hardly have (FNV-1a, 64 bits, of ids and lengths).
    pub fn fingerprint(&self) -> u64 {
        let of = |sequence: &Sequence| -> Vec<u64> {
            let lengths = [sequence.tokens.len(), sequence.prompt].map(|length| length as u64);
            lengths.into_iter().chain(sequence.tokens.iter().map(|id| u64::from(*id))).collect()
        };
        let bytes = self.outputs().flat_map(of).flat_map(u64::to_le_bytes);
        bytes
            .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    }

    pub(super) fn sequences(&self) -> usize {
        1 + usize::from(self.rejected.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_is_cut_and_a_prompt_is_not() {
        let new = |output: &[u32], limit| Sequence::new(&[1, 2, 3], output, limit);
        let (cut, fit) = new(&[4, 5, 6], TokenLimit::Together(5)).unwrap();
        assert_eq!((cut.tokens, fit), (vec![1, 2, 3, 4, 5], Fit::Cut));
        assert_eq!(new(&[4], TokenLimit::Together(4)).unwrap().1, Fit::Whole);
        assert_eq!(new(&[4], TokenLimit::Together(3)), None);
        assert_eq!(new(&[], TokenLimit::Together(9)), None);
        let (cut, fit) = new(&[4, 5, 6, 7], TokenLimit::Each(3)).unwrap();
        assert_eq!((cut.tokens, fit), (vec![1, 2, 3, 4, 5, 6], Fit::Cut));
        assert_eq!(new(&[4], TokenLimit::Each(2)), None);
    }
}
