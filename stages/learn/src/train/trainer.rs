//! The loop that fits a model to examples.
//!
//! A step is one move of the optimiser over one batch. Its shards are computed side by side, and
//! their gradients are added in the order of the shards, so that neither the number of threads
//! nor their speed changes a bit of the result.

use std::sync::Arc;
use std::time::Instant;

use burn_tensor::Tensor;
use rayon::ThreadPool;
use rayon::prelude::*;

use crate::model::Model;
use crate::objectives::{Feed, Logp, MicroBatch, Outputs, Share};
use crate::profiling::{pool_bytes, process_memory};
use crate::tensor::low_rank::Dropout;
use crate::tensor::parallel::{in_order, threads_for};
use crate::tensor::parameters::Parameters;
use crate::text::batches::{Packed, order, shard_size, shards};
use crate::text::sequence::{Example, Sequence};
use crate::train::adamw::{Moments, clip_coefficient, global_norm};
use crate::train::checkpoint::{self, Checkpoint, LeftAside};
use crate::train::config::{Examples, Length, TrainingConfig};
use crate::train::curves::{Point, StepPoint, Throughput, ValidationPoint, rewards};
use crate::train::error::TrainError;
use crate::train::events::{TrainEvent, TrainHooks, TrainReport};
use crate::train::gradients::{self, Activations, Gradients};
use crate::train::lr_schedule::LearningRate;
use crate::train::reference::{Reference, ReferenceSource};
use crate::train::replica::{GradientReduction, Replica, copies};

/// Fits a model to examples, and leaves it with the weights that did best on the validation rows.
///
/// Objectives that need no reference leave `reference_source` aside.
///
/// # Errors
/// [`TrainError`].
pub fn train(
    model: &mut Model,
    reference_source: ReferenceSource<'_>,
    examples: &Examples,
    config: &TrainingConfig,
    hooks: &mut TrainHooks<'_>,
) -> Result<TrainReport, TrainError> {
    if examples.train.is_empty() {
        return Err(TrainError::NoExamples);
    }
    if config.objective.feed() == Feed::Labelled {
        let desirable = examples.train.iter().filter(|example| example.desirable == Some(true)).count();
        let rows = examples.train.len();
        if desirable == 0 || desirable == rows {
            let label = if desirable == 0 { "undesirable" } else { "desirable" };
            return Err(TrainError::OneLabel { rows, label });
        }
    }
    let pool = threads_for(model.device(), hooks.threads);
    let steps = Steps::new(config, examples.train.len());
    let (device, dropout) = (model.device().clone(), model.dropout());
    model.compute_in(config.precision)?;
    let mut copies = copies(model.network(), hooks.others)?;
    let mut replicas = vec![Replica::new(model.network_mut(), device)];
    replicas.extend(copies.iter_mut().map(|(device, copy)| Replica::new(copy, device.clone())));
    let reduction = GradientReduction::new(&replicas, hooks.others);
    let mut training = Training { reduction, dropout, ..Training::of(replicas, config, examples, pool) };
    if hooks.recomputes {
        training.activations = Activations::Recomputed;
    }
    training.compare_with(reference_source)?;
    if let Some(folder) = hooks.checkpoints {
        let (trained, device) = (training.trained_parameters(), training.first().device.clone());
        let mut left_aside = |unfit: LeftAside| {
            (hooks.on_event)(TrainEvent::LeftAside(&unfit));
        };
        if let Some(checkpoint) = checkpoint::latest(folder, config, &trained, &device, &mut left_aside)? {
            training.resume(checkpoint);
        }
    }
    let resumed_at = (training.step > 0).then_some(training.step);
    // Written so that the first step is preceded by an evaluation, which says what training starts from.
    while training.step <= steps.all {
        let step = training.step;
        if steps.evaluates(step) && training.evaluated_at != Some(step) {
            training.evaluate(&steps);
            if let Some(point @ Point::Validation(_)) = training.points.last()
                && !(hooks.on_event)(TrainEvent::Point { point, throughput: None, steps: steps.all })
            {
                return Err(TrainError::Cancelled);
            }
            if let Some(folder) = hooks.checkpoints.filter(|_| step > 0 && step < steps.all) {
                checkpoint::write(folder, config, &training.checkpoint())?;
            }
        }
        if step == steps.all {
            break;
        }
        training.advance(&steps.rows(training.step), &steps)?;
        let point = training.points.last().expect("a step adds a point");
        let throughput = training.throughput.last();
        if !(hooks.on_event)(TrainEvent::Point { point, throughput, steps: steps.all }) {
            return Err(TrainError::Cancelled);
        }
    }
    let (best_step, validation_loss) = training.finish();
    let (points, throughput) = (training.points, training.throughput);
    Ok(TrainReport { steps: steps.all, best_step, validation_loss, resumed_at, points, throughput })
}

/// Which rows a step takes, and after which steps there is an evaluation.
struct Steps {
    examples: usize,
    batch_size: usize,
    per_epoch: usize,
    all: usize,
    validations_per_epoch: usize,
    rate: LearningRate,
    seed: u64,
}

impl Steps {
    fn new(config: &TrainingConfig, examples: usize) -> Self {
        let per_epoch = examples.div_ceil(config.batch_size);
        let all = match config.length {
            Length::Epochs(epochs) => ((epochs * per_epoch as f64).ceil() as usize).max(1),
            Length::Steps(steps) => steps as usize,
        };
        let rate = LearningRate {
            peak: config.learning_rate,
            warmup_steps: LearningRate::warmup(config.warmup_ratio, all),
            steps: all,
            schedule: config.schedule,
        };
        Self {
            examples,
            batch_size: config.batch_size,
            per_epoch,
            all,
            validations_per_epoch: config.validations_per_epoch,
            rate,
            seed: config.seed,
        }
    }

    fn evaluates(&self, step: usize) -> bool {
        let (pass, times) = (self.per_epoch, self.validations_per_epoch);
        // The k-th evaluation of an epoch is after the first step that completes k shares of it.
        let evaluations = |step: usize| step * times / pass;
        step == 0 || step == self.all || (times > 0 && evaluations(step) > evaluations(step - 1))
    }

    /// Returns the rows of a step.
    fn rows(&self, step: usize) -> Vec<usize> {
        let begin = step % self.per_epoch * self.batch_size;
        let end = (begin + self.batch_size).min(self.examples);
        order(self.seed, step / self.per_epoch, self.examples)[begin..end].to_vec()
    }

    fn epoch(&self, step: usize) -> f64 {
        step as f64 / self.per_epoch as f64
    }
}

/// The weights that did best, where there are several to choose from.
#[derive(Clone)]
struct Best {
    step: usize,
    loss: f64,
    weights: Vec<Option<Tensor<1>>>,
}

/// An example on its way through a step.
#[derive(Clone, Copy)]
struct Row<'a> {
    example: &'a Example,
    /// What the reference makes of its outputs, where there is one.
    reference: Option<[f64; 2]>,
}

struct Training<'a> {
    /// The model, and its copies on further devices.
    replicas: Vec<Replica<'a>>,
    reduction: GradientReduction,
    reference: Option<Reference>,
    config: &'a TrainingConfig,
    examples: &'a Examples,
    pool: Arc<ThreadPool>,
    /// Steps made.
    step: usize,
    best: Option<Best>,
    evaluated_at: Option<usize>,
    points: Vec<Point>,
    throughput: Vec<Throughput>,
    dropout: f64,
    activations: Activations,
}

impl<'a> Training<'a> {
    /// Computes what the reference makes of all rows, where the objective needs one.
    fn compare_with(&mut self, reference_source: ReferenceSource<'_>) -> Result<(), TrainError> {
        let objective = &self.config.objective;
        if objective.needs_reference() {
            let (config, examples, first) = (self.config, self.examples, self.first());
            let found =
                Reference::of(reference_source, first.network, config, examples, &first.device, &self.pool)?;
            self.reference = Some(found);
        }
        Ok(())
    }

    /// Returns how far the model is from the reference, where the objective asks for it.
    fn divergence(&self, rows: &[Row<'_>]) -> Option<f64> {
        let reference = self.reference.as_ref().filter(|_| self.config.objective.needs_divergence())?;
        let rows: Vec<&Example> = rows.iter().map(|row| row.example).collect();
        let Replica { network, device, .. } = self.first();
        Some(reference.divergence(network, &rows, self.examples.limit, device, &self.pool))
    }

    /// Begins a training of a model that is on several devices, or one.
    fn of(
        replicas: Vec<Replica<'a>>,
        config: &'a TrainingConfig,
        examples: &'a Examples,
        pool: Arc<ThreadPool>,
    ) -> Self {
        // Unpacked weights must not pile up on a tape.
        let recomputes = replicas[0].network.is_packed();
        Self {
            reduction: GradientReduction::InOrder,
            replicas,
            reference: None,
            config,
            examples,
            pool,
            step: 0,
            best: None,
            evaluated_at: None,
            points: Vec::new(),
            throughput: Vec::new(),
            dropout: 0.0,
            activations: if recomputes { Activations::Recomputed } else { Activations::Kept },
        }
    }

    /// Returns the model itself, on the first device.
    fn first(&self) -> &Replica<'a> {
        &self.replicas[0]
    }

    /// Returns who computes a shard.
    fn replica_of(&self, shard: usize) -> &Replica<'a> {
        &self.replicas[shard % self.replicas.len()]
    }

    /// Makes one step.
    fn advance(&mut self, rows: &[usize], steps: &Steps) -> Result<(), TrainError> {
        let began = Instant::now();
        let batch: Vec<Row<'_>> = rows
            .iter()
            .map(|row| Row {
                example: &self.examples.train[*row],
                reference: self.reference.as_ref().map(|reference| reference.logps.train[*row]),
            })
            .collect();
        let learning_rate = steps.rate.at(self.step);
        let divergence = self.divergence(&batch);
        let (shares, gradients) = self.gradients(&batch, divergence.unwrap_or(0.0));
        let loss: f64 = shares.iter().map(|share| share.loss).sum();
        // Every device has the same sum.
        let summed: Vec<Tensor<1>> = gradients[0].iter().flatten().cloned().collect();
        let norm = self.pool.install(|| global_norm(&summed));
        drop(summed);
        if !(loss.is_finite() && norm.is_finite()) {
            let mut names: Vec<&str> = batch.iter().take(8).map(|row| row.example.id.as_str()).collect();
            if batch.len() > names.len() {
                names.push("…");
            }
            return Err(TrainError::Diverged {
                loss: if loss.is_finite() { norm } else { loss },
                step: self.step + 1,
                steps: steps.all,
                learning_rate,
                rows: names.join(", "),
            });
        }
        let clip = clip_coefficient(norm, self.config.max_grad_norm);
        self.step += 1;
        let (optimizer, step) = (&self.config.optimizer, self.step);
        for (replica, gradients) in self.replicas.iter_mut().zip(gradients) {
            self.pool.install(|| replica.advance(optimizer, learning_rate, clip, step, gradients));
        }
        self.points.push(Point::Step(StepPoint {
            step: self.step,
            epoch: steps.epoch(self.step),
            loss,
            learning_rate,
            gradient_norm: norm,
            target_tokens: target_tokens(&batch),
            rewards: rewards(&shares, divergence),
        }));
        self.throughput.push(self.took(began, &batch));
        Ok(())
    }

    /// Returns what a step that has just been made took of the machine.
    fn took(&self, began: Instant, batch: &[Row<'_>]) -> Throughput {
        let seconds = began.elapsed().as_secs_f64();
        let tokens = batch.iter().flat_map(|row| row.example.outputs()).map(Sequence::width).sum();
        let memory = process_memory();
        let devices = self.replicas.iter().map(|replica| &replica.device);
        Throughput {
            step: self.step,
            seconds,
            tokens,
            tokens_per_second: tokens as f64 / seconds,
            memory_bytes: memory.map(|memory| memory.resident_bytes),
            peak_memory_bytes: memory.map(|memory| memory.peak_bytes),
            device_memory_bytes: devices.map(pool_bytes).sum(),
        }
    }

    /// Returns the shares of a batch's loss, and the gradients of their sum, on each device.
    fn gradients(&self, batch: &[Row<'_>], divergence: f64) -> (Vec<Share>, Vec<Gradients>) {
        let objective = &self.config.objective;
        let micro_batches: Vec<&[Row<'_>]> = batch.chunks(self.config.micro_batch_size).collect();
        let is_paired = objective.feed() == Feed::Pairs;
        let weight = if is_paired { 1.0 / micro_batches.len() as f64 } else { 1.0 };
        let jobs: Vec<(Vec<Row<'_>>, MicroBatch)> = micro_batches
            .iter()
            .flat_map(|micro_batch| {
                // The likelihood of targets is a mean over the tokens of all micro-batches, and
                // labelled outputs are a mean over all rows; preferences are a mean of the
                // micro-batches' means: so do Trainer and TRL.
                let whole = if is_paired { micro_batch } else { batch };
                let known =
                    MicroBatch { examples: whole.len(), target_tokens: target_tokens(whole), divergence };
                let examples: Vec<&Example> = micro_batch.iter().map(|row| row.example).collect();
                shards(&examples, shard_size(&self.first().device))
                    .into_iter()
                    .map(move |shard| (shard.iter().map(|place| micro_batch[*place]).collect(), known))
            })
            .collect();
        let compute = |number: usize, (shard, micro_batch): &(Vec<Row<'_>>, MicroBatch)| {
            let packed = pack(shard);
            let replica = self.replica_of(number);
            let mut shares = Vec::new();
            let dropout = Dropout {
                probability: self.dropout,
                seed: self.config.seed,
                // No other step, shard and adapter has it: below 2^20 of each.
                stream: (((self.step as u64) << 20) + number as u64) << 20,
            };
            let found = gradients::gradients(
                replica.network,
                &packed,
                Some(dropout),
                self.activations,
                &replica.device,
                |logps| {
                    let weighed = |outputs: &Outputs| {
                        let share = objective.share(outputs, micro_batch);
                        Share {
                            loss: share.loss * weight,
                            chosen_gradient: share.chosen_gradient * weight,
                            rejected_gradient: share.rejected_gradient * weight,
                            ..share
                        }
                    };
                    shares = outputs(shard, logps).iter().map(weighed).collect();
                    let logp_gradients = shard.iter().zip(&shares).flat_map(|(row, share)| {
                        let rejected = row.example.rejected.is_some().then_some(share.rejected_gradient);
                        std::iter::once(share.chosen_gradient).chain(rejected)
                    });
                    logp_gradients.collect()
                },
            );
            (shares, self.reduction.home(found, &self.first().device))
        };
        let mut sums: Vec<Option<Gradients>> = self.replicas.iter().map(|_| None).collect();
        let (mut shares, mut added): (Vec<Share>, usize) = (Vec::new(), 0);
        in_order(
            jobs.len(),
            &self.pool,
            |number| compute(number, &jobs[number]),
            |(found_shares, found)| {
                shares.extend(found_shares);
                self.reduction.add(&mut sums, added, found);
                added += 1;
            },
        );
        (shares, self.reduction.share(sums, &self.replicas))
    }

    /// Evaluates the validation rows, and keeps the weights if they do best.
    fn evaluate(&mut self, steps: &Steps) {
        self.evaluated_at = Some(self.step);
        let examples: Vec<&Example> = self.examples.validation.iter().collect();
        if examples.is_empty() {
            return;
        }
        let rows: Vec<Row<'_>> = examples
            .iter()
            .enumerate()
            .map(|(place, example)| Row {
                example,
                reference: self.reference.as_ref().map(|reference| reference.logps.validation[place]),
            })
            .collect();
        let divergence = self.divergence(&rows);
        let known = MicroBatch {
            examples: rows.len(),
            target_tokens: target_tokens(&rows),
            divergence: divergence.unwrap_or(0.0),
        };
        let jobs = shards(&examples, shard_size(&self.first().device));
        let shares: Vec<Vec<Share>> = self.pool.install(|| {
            let compute = |(number, shard): (usize, &Vec<usize>)| {
                let shard: Vec<Row<'_>> = shard.iter().map(|place| rows[*place]).collect();
                let replica = self.replica_of(number);
                let logps = gradients::logps(replica.network, &pack(&shard), &replica.device);
                outputs(&shard, &logps)
                    .iter()
                    .map(|found| self.config.objective.share(found, &known))
                    .collect()
            };
            jobs.par_iter().enumerate().map(compute).collect()
        });
        let shares = shares.concat();
        let loss: f64 = shares.iter().map(|share| share.loss).sum();
        let best = self.best.as_ref().is_none_or(|best| loss < best.loss);
        if best {
            let mut weights = Vec::new();
            self.replicas[0]
                .network
                .visit(&mut |_, slot| weights.push(slot.requires_grad().then(|| slot.flat())));
            self.best = Some(Best { step: self.step, loss, weights });
        }
        self.points.push(Point::Validation(ValidationPoint {
            step: self.step,
            epoch: steps.epoch(self.step),
            validation_loss: loss,
            best,
            validation_rewards: rewards(&shares, divergence),
        }));
    }

    /// Leaves the model with the weights that did best; returns their step and loss.
    fn finish(&mut self) -> (usize, Option<f64>) {
        let Some(best) = self.best.take() else { return (self.step, None) };
        let mut weights = best.weights.into_iter();
        self.replicas[0].network.visit(&mut |_, mut slot| {
            if let Some(found) = weights.next().flatten() {
                slot.set_flat(found);
            }
        });
        (best.step, Some(best.loss))
    }

    /// Returns the names of the parameters that learn, and how many numbers each has.
    fn trained_parameters(&mut self) -> Vec<(String, usize)> {
        let mut trained = Vec::new();
        self.replicas[0].network.visit(&mut |name, slot| {
            if slot.requires_grad() {
                trained.push((name, slot.shape().iter().product()));
            }
        });
        trained
    }

    /// Returns what a killed training needs to go on.
    fn checkpoint(&mut self) -> Checkpoint {
        let mut found = Checkpoint {
            step: self.step,
            points: self.points.clone(),
            throughput: self.throughput.clone(),
            ..Checkpoint::default()
        };
        let Replica { network, moments, .. } = &mut self.replicas[0];
        let mut place = 0;
        network.visit(&mut |name, slot| {
            if let Some(moments) = &moments[place] {
                found.tensors.push((format!("weights.{name}"), slot.flat()));
                found.tensors.push((format!("mean.{name}"), moments.first_moment.clone()));
                found.tensors.push((format!("square.{name}"), moments.second_moment.clone()));
                if let Some(best) = self.best.as_ref().and_then(|best| best.weights[place].clone()) {
                    found.tensors.push((format!("best.{name}"), best));
                }
            }
            place += 1;
        });
        found.best = self.best.as_ref().map(|best| (best.step, best.loss));
        found
    }

    /// Goes on where a killed training was.
    fn resume(&mut self, found: Checkpoint) {
        let take = |name: String| {
            let mut tensors = found.tensors.iter();
            tensors.find(|(known, _)| *known == name).map(|(_, numbers)| numbers.clone())
        };
        let mut best = Vec::new();
        let (first, others) = self.replicas.split_first_mut().expect("there is a model");
        let (moments, mut place) = (&mut first.moments, 0);
        first.network.visit(&mut |name, mut slot| {
            best.push(take(format!("best.{name}")));
            if slot.requires_grad() {
                let whole = "a checkpoint is read only if it holds all that is trained";
                slot.set_flat(take(format!("weights.{name}")).expect(whole));
                moments[place] = Some(Moments {
                    first_moment: take(format!("mean.{name}")).expect(whole),
                    second_moment: take(format!("square.{name}")).expect(whole),
                });
            }
            place += 1;
        });
        for other in others {
            other.follow(first);
        }
        self.best = found.best.map(|(step, loss)| Best { step, loss, weights: best });
        (self.step, self.evaluated_at) = (found.step, Some(found.step));
        (self.points, self.throughput) = (found.points, found.throughput);
    }
}

#[cfg(test)]
fn host(tensor: Tensor<1>) -> Vec<f32> {
    tensor.into_data().try_into_vec().expect("parameters are f32")
}

/// Packs the sequences of rows, each rejected one behind its chosen one.
fn pack<'a>(shard: &[Row<'a>]) -> Packed<'a> {
    let sequences: Vec<_> = shard.iter().flat_map(|row| row.example.outputs()).collect();
    Packed::new(&sequences)
}

/// Returns the tokens of the targets of rows.
fn target_tokens(rows: &[Row<'_>]) -> usize {
    rows.iter().map(|row| row.example.chosen.output_tokens()).sum()
}

/// Tells the log-probabilities of packed sequences apart again.
fn outputs(shard: &[Row<'_>], logps: &[Logp]) -> Vec<Outputs> {
    let mut logps = logps.iter().copied();
    let mut next = |reference: Option<f64>| {
        let found = logps.next().expect("every sequence has a log-probability");
        Logp { reference, ..found }
    };
    let outputs = |row: &Row<'_>| Outputs {
        chosen: next(row.reference.map(|[chosen, _]| chosen)),
        rejected: row.example.rejected.is_some().then(|| next(row.reference.map(|[_, rejected]| rejected))),
        desirable: row.example.desirable,
    };
    shard.iter().map(outputs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::open_network;
    use crate::network::Network;
    use crate::tensor::device::{is_cpu, tested_device};
    use crate::tensor::layers::Storage;
    use crate::tensor::precision::Precision;
    use crate::text::sequence::{Sequence, TokenLimit};
    use crate::train::adamw::AdamW;
    use crate::train::lr_schedule::Schedule;
    use safetensors::SafeTensors;
    use std::path::PathBuf;
    use weights::ModelFolder;

    fn golden(name: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
    }

    fn config(batch_size: usize) -> TrainingConfig {
        TrainingConfig {
            objective: serde_json::from_str(r#"{"sft": {}}"#).unwrap(),
            optimizer: AdamW::default(),
            learning_rate: 1e-3,
            schedule: Schedule::Constant,
            warmup_ratio: 0.0,
            length: Length::Steps(20),
            batch_size,
            micro_batch_size: batch_size,
            max_grad_norm: 0.3,
            validations_per_epoch: 0,
            precision: Precision::F32,
            seed: 0,
        }
    }

    /// The batches of the reference, row after row.
    fn examples() -> Vec<Example> {
        let bytes = std::fs::read(golden("sft/expected.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let rows = |name: &str| -> Vec<Vec<i64>> {
            let numbers = file.tensor(name).unwrap().data().chunks_exact(8);
            let numbers: Vec<i64> =
                numbers.map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap())).collect();
            numbers.chunks(24).map(<[i64]>::to_vec).collect()
        };
        let rows = rows("input_ids").into_iter().zip(rows("attention_mask")).zip(rows("labels"));
        let example = |((ids, mask), labels): ((Vec<i64>, Vec<i64>), Vec<i64>)| {
            let all = mask.iter().sum::<i64>() as usize;
            let prompt = labels.iter().take_while(|label| **label == -100).count();
            let ids: Vec<u32> = ids[..all].iter().map(|id| *id as u32).collect();
            let (chosen, _) =
                Sequence::new(&ids[..prompt], &ids[prompt..], TokenLimit::Together(100)).unwrap();
            Example { id: String::new(), chosen, rejected: None, desirable: None }
        };
        rows.map(example).collect()
    }

    /// Twenty steps, and the losses of each.
    fn trajectory(
        micro_batch_size: usize,
        threads: usize,
        precision: Precision,
    ) -> (Network, Vec<StepPoint>) {
        let device = tested_device();
        let mut model =
            open_network(&ModelFolder::open(golden("llama")).unwrap(), Storage::Dense, &device).unwrap();
        model.compute_in(precision);
        let config = TrainingConfig { micro_batch_size, precision, ..config(4) };
        let examples =
            Examples { train: examples(), validation: Vec::new(), limit: TokenLimit::Together(100) };
        let steps = Steps::new(&config, examples.train.len());
        let pool = threads_for(&device, threads);
        let mut training = Training::of(vec![Replica::new(&mut model, device)], &config, &examples, pool);
        for step in 0..20 {
            let first = step % 5 * 4;
            training.advance(&[first, first + 1, first + 2, first + 3], &steps).unwrap();
        }
        let points = training.points.iter().map(|point| match point {
            Point::Step(step) => step.clone(),
            Point::Validation(look) => unreachable!("{look:?}"),
        });
        let points = points.collect();
        (model, points)
    }

    #[test]
    fn twenty_steps_are_the_references() {
        let expected = std::fs::read(golden("sft/expected.json")).unwrap();
        let expected: serde_json::Value = serde_json::from_slice(&expected).unwrap();
        let bytes = std::fs::read(golden("sft/expected.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        // With the mean over the tokens of all micro-batches, how many there are changes nothing.
        for micro_batch_size in [4, 1] {
            let (mut model, points) = trajectory(micro_batch_size, 2, Precision::F32);
            for (point, expected) in points.iter().zip(expected["trajectory"].as_array().unwrap()) {
                let off = (point.loss - expected["loss"].as_f64().unwrap()).abs();
                assert!(off < 2e-5, "{point:?} {expected}");
                let off = (point.gradient_norm - expected["grad_norm_before_clip"].as_f64().unwrap()).abs();
                assert!(off < 5e-5, "{point:?} {expected}");
            }
            let mut compared = 0;
            model.visit(&mut |name, slot| {
                if let Ok(view) = file.tensor(&format!("final.{name}")) {
                    let expected = view.data().chunks_exact(4);
                    let expected = expected.map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
                    let off = host(slot.flat())
                        .iter()
                        .zip(expected)
                        .map(|(one, other)| (one - other).abs())
                        .fold(0.0, f32::max);
                    assert!(off < 2e-5, "{name}: {off}");
                    compared += 1;
                }
            });
            assert_eq!(compared, 2);
        }
    }

    /// Rounded factors and products: another path, to the same place.
    #[test]
    fn sixteen_bits_learn_what_single_floats_do() {
        let losses = |precision: Precision| -> Vec<f64> {
            let (_, points) = trajectory(4, 2, precision);
            points.iter().map(|point| point.loss).collect()
        };
        if !Precision::Bf16.is_known_to(&tested_device()) {
            return eprintln!("skipped: PIPELINE_TEST_DEVICE does not compute in bf16");
        }
        let (single, half) = (losses(Precision::F32), losses(Precision::Bf16));
        assert_ne!(single, half);
        for (step, (single, half)) in single.iter().zip(&half).enumerate() {
            assert!((single - half).abs() < 5e-3 * single, "step {step}: {half}, in f32 {single}");
        }
        assert!(half[19] < half[0] - 0.9 * (single[0] - single[19]), "{half:?}");
    }

    #[test]
    fn threads_change_no_bit() {
        if !is_cpu(&tested_device()) {
            return eprintln!("skipped: GPUs add in orders of their own");
        }
        let bits = |threads: usize| -> Vec<u64> {
            let (mut model, points) = trajectory(4, threads, Precision::F32);
            let mut bits: Vec<u64> = points.iter().map(|point| point.loss.to_bits()).collect();
            model.visit(&mut |_, slot| {
                bits.extend(host(slot.flat()).iter().map(|number| u64::from(number.to_bits())))
            });
            bits
        };
        let one = bits(1);
        assert!([2, 3].into_iter().all(|threads| bits(threads) == one));
    }

    #[test]
    fn validation_falls_on_shares_of_an_epoch() {
        let steps = |batch: usize, times: usize| {
            let config =
                TrainingConfig { validations_per_epoch: times, length: Length::Epochs(2.0), ..config(batch) };
            let steps = Steps::new(&config, 10);
            (0..=steps.all).filter(|step| steps.evaluates(*step)).collect::<Vec<_>>()
        };
        assert_eq!(steps(1, 2), [0, 5, 10, 15, 20]);
        assert_eq!(steps(4, 1), [0, 3, 6]);
        assert_eq!(steps(5, 4), [0, 1, 2, 3, 4]);
        assert_eq!(steps(1, 0), [0, 20]);
    }
}
