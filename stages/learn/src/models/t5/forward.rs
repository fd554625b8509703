//! T5 as it reads prompts and outputs, segment by segment.

use std::cell::Cell;

use burn_tensor::{Device, Int, Tensor, TensorData};

use super::{Direction, DropoutStreams, Stack, T5ForConditionalGeneration};
use crate::network::{MASK_VALUE, Segments};
use crate::tensor::indices::{places, token_ids};
use crate::tensor::layers::rms_norm;
use crate::text::batches::Packed;

/// Prompts in rows of one width.
pub(super) struct Prompts {
    /// `[rows * width]`.
    ids: Tensor<1, Int>,
    /// How many of each row's places are no filling.
    pub lengths: Vec<usize>,
    /// What hides the filling, `[rows, 1, 1, width]`, where there is any.
    pub hiding: Option<Tensor<4>>,
}

impl Prompts {
    fn new(rows: &[&[u32]], device: &Device) -> Self {
        let width = rows.iter().map(|row| row.len()).max().unwrap_or(0);
        let mut ids = Vec::with_capacity(rows.len() * width);
        for row in rows {
            ids.extend_from_slice(row);
            ids.resize(ids.len() + width - row.len(), 0);
        }
        let hiding = rows.iter().any(|row| row.len() < width).then(|| {
            let hide = |row: &&[u32]| {
                let length = row.len();
                (0..width).map(move |place| if place < length { 0.0 } else { MASK_VALUE })
            };
            let numbers: Vec<f32> = rows.iter().flat_map(hide).collect();
            Tensor::from_data(TensorData::new(numbers, [rows.len(), 1, 1, width]), device)
        });
        let lengths = rows.iter().map(|row| row.len()).collect();
        Self { ids: token_ids(&ids, device), lengths, hiding }
    }

    fn rows(&self) -> usize {
        self.lengths.len()
    }

    fn width(&self) -> usize {
        self.lengths.iter().copied().max().unwrap_or(0)
    }
}

/// The last states of the encoder, `[rows * width, d_model]`.
pub(super) struct Encoded {
    pub states: Tensor<2>,
    pub prompts: Prompts,
}

/// A model that reads prompts and outputs.
pub(super) struct ForwardPass<'a> {
    model: &'a T5ForConditionalGeneration,
    prompts: Prompts,
    /// Outputs in rows of one width, behind the token that begins them.
    ids: Tensor<1, Int>,
    /// The places of what predicts the tokens of outputs.
    picks: Tensor<1, Int>,
}

impl Segments for ForwardPass<'_> {
    fn count(&self) -> usize {
        self.model.encoder.blocks.len() + self.model.decoder.blocks.len() + 3
    }

    fn compute(&self, number: usize, mut taken: Vec<Tensor<2>>) -> Vec<Tensor<2>> {
        let (model, prompts) = (self.model, &self.prompts);
        let (encoder, decoder) = (model.encoder.blocks.len(), model.decoder.blocks.len());
        // The dropouts of a whole pass are numbered: one behind each embedding and each last norm,
        // two in an attention, two in an MLP.
        let before = match number.checked_sub(encoder + 1) {
            None if number == 0 => 0,
            None => 1 + 4 * (number - 1),
            Some(0) => 1 + 4 * encoder,
            Some(layer) => 3 + 4 * encoder + 6 * (layer - 1),
        };
        let dropout = DropoutStreams { dropout: model.dropout.as_ref(), number: Cell::new(before as u64) };
        let mut next = || taken.remove(0);
        match number.checked_sub(encoder + 1) {
            None if number == 0 => {
                let (x, bias) = model.begin_encoder(prompts, &dropout);
                vec![x, bias]
            }
            None => {
                let (x, bias) = (next(), model.of_heads(next()));
                vec![model.encoder_layer(number - 1, x, &bias, prompts, &dropout), flat(bias)]
            }
            Some(0) => {
                let states = model.finish(&model.encoder, next(), &dropout);
                let (x, bias) = model.begin_decoder(self.ids.clone(), prompts.rows(), &dropout);
                vec![x, bias, states]
            }
            Some(layer) if layer <= decoder => {
                let (x, bias, states) = (next(), model.of_heads(next()), next());
                let x = model.decoder_layer(layer - 1, x, &bias, (&states, prompts), &dropout);
                vec![x, flat(bias), states]
            }
            Some(_) => {
                let states = model.finish(&model.decoder, next(), &dropout);
                vec![model.scale(states.select(0, self.picks.clone()))]
            }
        }
    }

    fn first_requires_grad(&self) -> bool {
        self.model.shared.requires_grad || self.model.encoder.relative_attention_bias.requires_grad
    }
}

impl T5ForConditionalGeneration {
    /// Returns the segments that read sequences: the encoder's embedding, each of its layers, its last
    /// norm with the decoder's embedding, each of the decoder's layers, and its last norm.
    pub(super) fn forward_pass(&self, packed: &Packed<'_>, device: &Device) -> ForwardPass<'_> {
        let prompts = Prompts::new(&packed.prompts(), device);
        let (ids, picks) = packed.outputs(self.config.start);
        let ids = token_ids(&ids, device);
        ForwardPass { model: self, prompts, ids, picks: self.beside_tape(places(&picks, device)) }
    }

    /// Encodes rows of token ids.
    pub(super) fn encode(&self, rows: &[&[u32]], device: &Device) -> Encoded {
        let (prompts, dropout) = (Prompts::new(rows, device), DropoutStreams::none());
        let (mut x, bias) = self.begin_encoder(&prompts, &dropout);
        let bias = self.of_heads(bias);
        for number in 0..self.encoder.blocks.len() {
            x = self.encoder_layer(number, x, &bias, &prompts, &dropout);
        }
        Encoded { states: self.finish(&self.encoder, x, &dropout), prompts }
    }

    /// Returns the embeddings of prompts, and the bias of the encoder's attention to itself,
    /// `[rows or 1 * heads * width, width]`.
    fn begin_encoder(&self, prompts: &Prompts, dropout: &DropoutStreams<'_>) -> (Tensor<2>, Tensor<2>) {
        let (device, width) = (prompts.ids.device(), prompts.width());
        let position = self.encoder.position_bias(&self.config, Direction::Both, 0..width, &device);
        let bias = match self.hiding(prompts) {
            Some(hiding) => position + hiding,
            None => position,
        };
        (dropout.apply(self.embed(prompts.ids.clone())), flat(bias))
    }

    /// Returns what hides the filling of prompts.
    fn hiding(&self, prompts: &Prompts) -> Option<Tensor<4>> {
        let hiding = prompts.hiding.clone()?;
        Some(if self.is_recording() { hiding.autodiff() } else { hiding })
    }

    fn encoder_layer(
        &self,
        number: usize,
        x: Tensor<2>,
        bias: &Tensor<4>,
        prompts: &Prompts,
        dropout: &DropoutStreams<'_>,
    ) -> Tensor<2> {
        let block = &self.encoder.blocks[number];
        let x = self.attend_to_itself(&block.to_itself, x, prompts.rows(), bias.clone(), dropout);
        block.wide(x, &self.config, dropout)
    }

    /// Normalises what the last layer of a stack made.
    fn finish(&self, stack: &Stack, x: Tensor<2>, dropout: &DropoutStreams<'_>) -> Tensor<2> {
        dropout.apply(rms_norm(x, &stack.final_layer_norm, self.config.epsilon))
    }

    /// Returns the embeddings of outputs in rows that are filled up on the right, and the bias of
    /// the decoder's attention to itself, `[heads * width, width]`.
    fn begin_decoder(
        &self,
        ids: Tensor<1, Int>,
        rows: usize,
        dropout: &DropoutStreams<'_>,
    ) -> (Tensor<2>, Tensor<2>) {
        let (device, width) = (ids.device(), ids.dims()[0] / rows);
        let position = self.decoder.position_bias(&self.config, Direction::Before, 0..width, &device);
        let causal = (0..width)
            .flat_map(|query| (0..width).map(move |key| if key <= query { 0.0f32 } else { MASK_VALUE }));
        let causal = TensorData::new(causal.collect(), [1, 1, width, width]);
        let causal = Tensor::<4>::from_data(causal, &device);
        let causal = if self.is_recording() { causal.autodiff() } else { causal };
        (dropout.apply(self.embed(ids)), flat(position + causal))
    }

    fn decoder_layer(
        &self,
        number: usize,
        x: Tensor<2>,
        bias: &Tensor<4>,
        (states, prompts): (&Tensor<2>, &Prompts),
        dropout: &DropoutStreams<'_>,
    ) -> Tensor<2> {
        let (block, rows) = (&self.decoder.blocks[number], prompts.rows());
        let x = self.attend_to_itself(&block.to_itself, x, rows, bias.clone(), dropout);
        let attention = block.to_encoder();
        let (k, v) = self.keys_and_values(attention, states.clone(), rows);
        let x = self.attend_to_encoder(attention, x, rows, (k, v, self.hiding(prompts)), dropout);
        block.wide(x, &self.config, dropout)
    }

    /// Turns `[rows or 1 * heads * queries, keys]` into `[rows or 1, heads, queries, keys]`, of which
    /// there are as many queries as keys.
    ///
    /// A layer leaves what it made of the bias that it took, and not that bias: on a tape, its
    /// gradient is then that of the layer plus that of all later ones, added from the last layer to
    /// the first, as it is where each layer has a tape of its own. If all layers took the same one, a
    /// tape would add in an order of its own, with other last bits.
    fn of_heads(&self, bias: Tensor<2>) -> Tensor<4> {
        let ([all, width], heads) = (bias.dims(), self.config.heads);
        bias.reshape([all / (heads * width).max(1), heads, width, width])
    }

    /// Returns the encoder's states and the decoder's logits, for rows of one width.
    #[cfg(test)]
    pub(crate) fn states_and_logits(
        &self,
        prompts: &[&[u32]],
        outputs: &[Vec<u32>],
    ) -> (Tensor<2>, Tensor<2>) {
        use crate::network::LanguageModel as _;
        let (device, dropout) = (self.shared.value.device(), DropoutStreams::none());
        let encoded = self.encode(prompts, &device);
        let over = (&encoded.states, &encoded.prompts);
        let ids = token_ids(&outputs.concat(), &device);
        let (x, bias) = self.begin_decoder(ids, outputs.len(), &dropout);
        let bias = self.of_heads(bias);
        let layers = 0..self.decoder.blocks.len();
        let x = layers.fold(x, |x, number| self.decoder_layer(number, x, &bias, over, &dropout));
        let states = self.scale(self.finish(&self.decoder, x, &dropout));
        (encoded.states, states.matmul(self.head().get().transpose()))
    }
}

/// Lays `[rows, heads, queries, keys]` out as a matrix.
fn flat(bias: Tensor<4>) -> Tensor<2> {
    let [rows, heads, queries, keys] = bias.dims();
    bias.reshape([rows * heads * queries, keys])
}
