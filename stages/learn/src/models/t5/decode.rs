//! T5 as it writes outputs, token by token.

use burn_tensor::{Device, Tensor};

use super::{Direction, DropoutStreams, T5ForConditionalGeneration};
use crate::network::{Continuation, KeyValueCache, LanguageModel as _};
use crate::tensor::device::is_cpu;
use crate::tensor::fused::SingleQuery;
use crate::tensor::indices::{places, token_ids};
use crate::tensor::layers::rms_norm;

/// Outputs on their way: the encoder's keys and values, computed once, and the decoder's so far.
pub(super) struct DecodeState<'a> {
    model: &'a T5ForConditionalGeneration,
    device: &'a Device,
    encoder: Vec<(Tensor<4>, Tensor<4>)>,
    /// How many places of them each row looks at.
    lengths: Vec<usize>,
    /// What hides the others, where there are any.
    bias: Option<Tensor<4>>,
    /// The prompt of each row.
    prompts: Vec<usize>,
    cache: KeyValueCache,
}

impl Continuation for DecodeState<'_> {
    fn step(&mut self, tokens: &[u32]) -> Vec<f32> {
        let (model, rows, place) = (self.model, tokens.len(), self.cache.length);
        let config = &model.config;
        let queries = place..place + 1;
        let bias = model.decoder.position_bias(config, Direction::Before, queries, self.device);
        // Attention of a single query, which the CPU has a way of its own for.
        let steps = is_cpu(self.device).then(|| {
            let bias = bias.clone().into_data().try_into_vec().expect("biases are f32");
            let own = SingleQuery { seen: vec![0..place + 1; rows], scale: 1.0, bias: Some(bias) };
            let seen = self.lengths.iter().map(|length| 0..*length).collect();
            [own, SingleQuery { seen, scale: 1.0, bias: None }]
        });
        let mut x = model.embed(token_ids(tokens, self.device));
        for ((block, cached), (k, v)) in
            model.decoder.blocks.iter().zip(&mut self.cache.layers).zip(&self.encoder)
        {
            let attention = &block.to_itself;
            let h = rms_norm(x.clone(), &attention.layer_norm, config.epsilon);
            let (new_k, new_v) = model.keys_and_values(attention, h.clone(), rows);
            cached.extend(new_k, new_v, place);
            match &steps {
                Some([own, over]) => {
                    x = x + attention.step(h, cached.whole(), own);
                    let attention = block.to_encoder();
                    let h = rms_norm(x.clone(), &attention.layer_norm, config.epsilon);
                    x = x + attention.step(h, (k.clone(), v.clone()), over);
                }
                None => {
                    let (own_k, own_v) = cached.first(place + 1);
                    let own = (own_k, own_v, Some(bias.clone()));
                    x = x + model.seen(attention, h, rows, own, &DropoutStreams::none());
                    let over = (k.clone(), v.clone(), self.bias.clone());
                    x = model.attend_to_encoder(block.to_encoder(), x, rows, over, &DropoutStreams::none());
                }
            }
            x = block.wide(x, config, &DropoutStreams::none());
        }
        self.cache.length += 1;
        let states = rms_norm(x, &model.decoder.final_layer_norm, config.epsilon);
        let logits = model.precision.linear(model.scale(states), model.head().get());
        logits.into_data().try_into_vec().expect("logits are f32")
    }

    fn reorder(&mut self, rows: &[usize]) {
        self.cache.reorder(rows, self.device);
        let prompts: Vec<usize> = rows.iter().map(|row| self.prompts[*row]).collect();
        // Rows of one prompt look at the same states, whatever order they come in.
        if prompts != self.prompts {
            let kept = || places(rows, self.device);
            for (k, v) in &mut self.encoder {
                (*k, *v) = (k.clone().select(0, kept()), v.clone().select(0, kept()));
            }
            self.lengths = rows.iter().map(|row| self.lengths[*row]).collect();
            self.bias = self.bias.take().map(|bias| bias.select(0, kept()));
            self.prompts = prompts;
        }
    }
}

impl T5ForConditionalGeneration {
    /// Begins outputs for prompts, and returns the logits of their first tokens.
    pub(super) fn decode_state<'a>(
        &'a self,
        prompts: &[&[u32]],
        device: &'a Device,
    ) -> (DecodeState<'a>, Vec<f32>) {
        let encoded = self.encode(prompts, device);
        let rows = prompts.len();
        // Laid out once as they are read in every step.
        let laid_out = |x: Tensor<4>| Tensor::from_data(x.into_data(), device);
        let over = self.decoder.blocks.iter().map(|block| {
            let (k, v) = self.keys_and_values(block.to_encoder(), encoded.states.clone(), rows);
            if is_cpu(device) { (laid_out(k), laid_out(v)) } else { (k, v) }
        });
        let heads = [self.config.heads, self.config.d_kv];
        let mut state = DecodeState {
            model: self,
            device,
            encoder: over.collect(),
            lengths: encoded.prompts.lengths,
            bias: encoded.prompts.hiding,
            prompts: (0..rows).collect(),
            cache: KeyValueCache::new(self.decoder.blocks.len(), rows, heads, 0, device),
        };
        let logits = state.step(&vec![self.config.start; rows]);
        (state, logits)
    }
}
