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
use crate::text::batches::{Packed, shard_size, shards};
use crate::text::sequence::{Example, Sequence};
use crate::train::adamw::{Moments, clip_coefficient, global_norm};
use crate::train::checkpoint::{self, Checkpoint, LeftAside};
use crate::train::config::{Examples, TrainingConfig};
use crate::train::curves::{Point, StepPoint, Throughput, ValidationPoint, rewards};
use crate::train::error::TrainError;
use crate::train::events::{TrainEvent, TrainHooks, TrainReport};
use crate::train::gradients::{self, Activations, Gradients};
use crate::train::reference::{Reference, ReferenceSource};
use crate::train::replica::{GradientReduction, Replica, copies};
use crate::train::steps::Steps;

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
        let mut ignored = |unfit: LeftAside| {
            (hooks.on_event)(TrainEvent::LeftAside(&unfit));
        };
        if let Some(checkpoint) = checkpoint::latest(folder, config, &trained, &device, &mut ignored)? {
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
            let reference =
                Reference::of(reference_source, first.network, config, examples, &first.device, &self.pool)?;
            self.reference = Some(reference);
        }
        Ok(())
    }

    /// Returns how far the model is from the reference, where the objective needs it.
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
            let gradients = gradients::gradients(
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
            (shares, self.reduction.home(gradients, &self.first().device))
        };
        let mut sums: Vec<Option<Gradients>> = self.replicas.iter().map(|_| None).collect();
        let (mut shares, mut added): (Vec<Share>, usize) = (Vec::new(), 0);
        in_order(
            jobs.len(),
            &self.pool,
            |number| compute(number, &jobs[number]),
            |(shard_shares, gradients)| {
                shares.extend(shard_shares);
                self.reduction.add(&mut sums, added, gradients);
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
                    .map(|outputs| self.config.objective.share(outputs, &known))
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
                .visit(&mut |_, parameter| weights.push(parameter.requires_grad().then(|| parameter.flat())));
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
        self.replicas[0].network.visit(&mut |_, mut parameter| {
            if let Some(best) = weights.next().flatten() {
                parameter.set_flat(best);
            }
        });
        (best.step, Some(best.loss))
    }

    /// Returns the names of the parameters that learn, and how many numbers each has.
    fn trained_parameters(&mut self) -> Vec<(String, usize)> {
        let mut trained = Vec::new();
        self.replicas[0].network.visit(&mut |name, parameter| {
            if parameter.requires_grad() {
                trained.push((name, parameter.shape().iter().product()));
            }
        });
        trained
    }

    /// Returns what a killed training needs to go on.
    fn checkpoint(&mut self) -> Checkpoint {
        let mut checkpoint = Checkpoint {
            step: self.step,
            points: self.points.clone(),
            throughput: self.throughput.clone(),
            ..Checkpoint::default()
        };
        let Replica { network, moments, .. } = &mut self.replicas[0];
        let mut place = 0;
        network.visit(&mut |name, parameter| {
            if let Some(moments) = &moments[place] {
                checkpoint.tensors.push((format!("weights.{name}"), parameter.flat()));
                checkpoint.tensors.push((format!("mean.{name}"), moments.first_moment.clone()));
                checkpoint.tensors.push((format!("square.{name}"), moments.second_moment.clone()));
                if let Some(best) = self.best.as_ref().and_then(|best| best.weights[place].clone()) {
                    checkpoint.tensors.push((format!("best.{name}"), best));
                }
            }
            place += 1;
        });
        checkpoint.best = self.best.as_ref().map(|best| (best.step, best.loss));
        checkpoint
    }

    /// Goes on where a killed training was.
    fn resume(&mut self, checkpoint: Checkpoint) {
        let take = |name: String| {
            let mut tensors = checkpoint.tensors.iter();
            tensors.find(|(known, _)| *known == name).map(|(_, numbers)| numbers.clone())
        };
        let mut best = Vec::new();
        let (first, others) = self.replicas.split_first_mut().expect("there is a model");
        let (moments, mut place) = (&mut first.moments, 0);
        first.network.visit(&mut |name, mut parameter| {
            best.push(take(format!("best.{name}")));
            if parameter.requires_grad() {
                let whole = "a checkpoint is read only if it holds all that is trained";
                parameter.set_flat(take(format!("weights.{name}")).expect(whole));
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
        self.best = checkpoint.best.map(|(step, loss)| Best { step, loss, weights: best });
        (self.step, self.evaluated_at) = (checkpoint.step, Some(checkpoint.step));
        (self.points, self.throughput) = (checkpoint.points, checkpoint.throughput);
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
        let logp = logps.next().expect("every sequence has a log-probability");
        Logp { reference, ..logp }
    };
    let outputs = |row: &Row<'_>| Outputs {
        chosen: next(row.reference.map(|[chosen, _]| chosen)),
        rejected: row.example.rejected.is_some().then(|| next(row.reference.map(|[_, rejected]| rejected))),
        desirable: row.example.desirable,
    };
    shard.iter().map(outputs).collect()
}

#[cfg(test)]
mod tests;
