//! A model that is trained on a device, and how copies of it on several are trained alike.
//!
//! Each device has the model and what AdamW remembers of it. It computes the gradients of its own
//! shards of a batch, is given the sum of all, and moves its weights by that. CUDA's devices find
//! the sum by burn's `all_reduce`, which is NCCL's: each adds up its own shards, and no gradient
//! passes through one of them alone. burn has no collectives elsewhere; there gradients are added
//! on the first device in the order of the shards, which gives the bits that one device gives.

use burn_tensor::distributed::{CollectiveTensor, ReduceOperation, all_reduce};
use burn_tensor::{Device, Tensor};

use crate::network::Network;
use crate::tensor::device::{self, DeviceError, DeviceName};
use crate::tensor::parameters::{ParameterRef, Parameters};
use crate::train::adamw::{AdamW, Moments, Update, step as adam_step};
use crate::train::gradients::{Gradients, add_to};

/// A model that is trained on one device.
pub(crate) struct Replica<'a> {
    pub device: Device,
    pub network: &'a mut Network,
    /// What AdamW remembers of each parameter that is trained.
    pub moments: Vec<Option<Moments>>,
    /// Which parameters decay.
    decays: Vec<bool>,
}

impl<'a> Replica<'a> {
    /// Begins to learn.
    pub(super) fn new(network: &'a mut Network, device: Device) -> Self {
        let (mut moments, mut decays) = (Vec::new(), Vec::new());
        network.visit(&mut |name, parameter| {
            let zeros = || Tensor::zeros([parameter.shape().iter().product::<usize>()], &device);
            moments.push(
                parameter.requires_grad().then(|| Moments { first_moment: zeros(), second_moment: zeros() }),
            );
            // By its name, as transformers' Trainer tells: T5's relative bias is a matrix too.
            decays.push(matches!(parameter, ParameterRef::Matrix(_)) && !name.contains("bias"));
        });
        Self { device, network, moments, decays }
    }

    /// Moves the weights by the step numbered `step` from 1, with all gradients times `clip`.
    pub(super) fn advance(
        &mut self,
        optimizer: &AdamW,
        learning_rate: f64,
        clip: f64,
        step: usize,
        gradients: Gradients,
    ) {
        let (mut updates, mut shapes) = (Vec::new(), Vec::new());
        let mut gradients = gradients.into_iter();
        let (moments, decays, mut place) = (&mut self.moments, &self.decays, 0);
        self.network.visit(&mut |_, mut parameter| {
            let gradient = gradients.next().expect("there is a gradient or none for each parameter");
            if let Some(gradient) = gradient {
                let moments = moments[place].take().expect("what has a gradient is trained");
                let (weights, shape) = parameter.take_out();
                shapes.push(shape);
                updates.push(Update { weights, gradient, moments, decays: decays[place] });
            }
            place += 1;
        });
        let mut moved = adam_step(optimizer, learning_rate, clip, step, updates).into_iter().zip(shapes);
        let mut place = 0;
        self.network.visit(&mut |_, mut parameter| {
            if parameter.requires_grad() && moments[place].is_none() {
                let ((weights, moved), shape) = moved.next().expect("every update was made");
                parameter.put_back(weights, &shape);
                moments[place] = Some(moved);
            }
            place += 1;
        });
    }

    /// Takes over what another has learned and remembers.
    pub(super) fn follow(&mut self, other: &mut Self) {
        let mut trained = Vec::new();
        other
            .network
            .visit(&mut |_, parameter| trained.push(parameter.requires_grad().then(|| parameter.flat())));
        let (device, mut trained) = (&self.device, trained.into_iter());
        self.network.visit(&mut |_, mut parameter| {
            if let Some(numbers) = trained.next().expect("a copy has the same parameters") {
                parameter.set_flat(numbers.to_device(device));
            }
        });
        let copy = |moments: &Moments| Moments {
            first_moment: moments.first_moment.clone().to_device(device),
            second_moment: moments.second_moment.clone().to_device(device),
        };
        self.moments = other.moments.iter().map(|moments| moments.as_ref().map(copy)).collect();
    }

    /// Returns no gradient at all, for a device that had no shard.
    fn zeros(&self) -> Gradients {
        let zeros = |moments: &Moments| moments.first_moment.zeros_like();
        self.moments.iter().map(|moments| moments.as_ref().map(zeros)).collect()
    }
}

/// Puts copies of a model on further devices.
pub(crate) fn copies(
    network: &Network,
    others: &[DeviceName],
) -> Result<Vec<(Device, Network)>, DeviceError> {
    let copy = |name| {
        let device = device::open(name)?;
        let copy = network.on(&device);
        Ok((device, copy))
    };
    others.iter().map(copy).collect()
}

/// How the gradients of several devices become one sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GradientReduction {
    /// On the first device, in the order of the shards.
    InOrder,
    /// On each its own, and these by burn's `all_reduce`.
    AllReduce,
}

impl GradientReduction {
    /// Returns how a device and others of its kind sum.
    pub(super) fn new(replicas: &[Replica<'_>], others: &[DeviceName]) -> Self {
        let are_different = (1..replicas.len())
            .all(|place| replicas[..place].iter().all(|earlier| earlier.device != replicas[place].device));
        if !others.is_empty() && others.iter().all(DeviceName::has_collectives) && are_different {
            Self::AllReduce
        } else {
            Self::InOrder
        }
    }

    /// Brings the gradients of a shard to where they are added, if that is another device.
    pub(super) fn home(self, gradients: Gradients, first: &Device) -> Gradients {
        let home = |gradient: Tensor<1>| {
            if gradient.device() == *first { gradient } else { gradient.to_device(first) }
        };
        match self {
            Self::InOrder => gradients.into_iter().map(|gradient| gradient.map(home)).collect(),
            Self::AllReduce => gradients,
        }
    }

    /// Adds the gradients of a shard to the sums of the devices, which take shards in turn.
    pub(super) fn add(self, sums: &mut [Option<Gradients>], shard: usize, gradients: Gradients) {
        let place = match self {
            Self::InOrder => 0,
            Self::AllReduce => shard % sums.len(),
        };
        match &mut sums[place] {
            None => sums[place] = Some(gradients),
            Some(sum) => add(sum, gradients),
        }
    }

    /// Gives each replica the sum of all.
    pub(super) fn share(self, mut sums: Vec<Option<Gradients>>, replicas: &[Replica<'_>]) -> Vec<Gradients> {
        match self {
            Self::InOrder => {
                let sum = sums[0].take().expect("a batch has examples");
                let there = |replica: &Replica<'_>| -> Gradients {
                    let there = |gradient: &Tensor<1>| gradient.clone().to_device(&replica.device);
                    sum.iter().map(|gradient| gradient.as_ref().map(there)).collect()
                };
                let others: Vec<Gradients> = replicas[1..].iter().map(there).collect();
                std::iter::once(sum).chain(others).collect()
            }
            Self::AllReduce => {
                let own = sums.into_iter().zip(replicas);
                all_reduced(own.map(|(sum, replica)| sum.unwrap_or_else(|| replica.zeros())).collect())
            }
        }
    }
}

/// Returns, on each device, the sum of the gradients of all.
fn all_reduced(of_each: Vec<Gradients>) -> Vec<Gradients> {
    let device = |gradients: &Gradients| gradients.iter().flatten().next().map(Tensor::device);
    let devices: Vec<Device> = of_each.iter().filter_map(device).collect();
    let mut begun: Vec<Vec<Option<CollectiveTensor<1>>>> = of_each.iter().map(|_| Vec::new()).collect();
    let mut of_each: Vec<_> = of_each.into_iter().map(Vec::into_iter).collect();
    // Parameter by parameter on all devices: each waits for the others with it.
    'all: loop {
        for (gradients, begun) in of_each.iter_mut().zip(&mut begun) {
            let Some(gradient) = gradients.next() else { break 'all };
            let reduce = |gradient| all_reduce(gradient, ReduceOperation::Sum, devices.clone());
            begun.push(gradient.map(reduce));
        }
    }
    let end = |begun: Vec<Option<CollectiveTensor<1>>>| -> Gradients {
        begun.into_iter().map(|sum| sum.map(CollectiveTensor::resolve)).collect()
    };
    begun.into_iter().map(end).collect()
}

/// Adds gradients up.
fn add(sum: &mut Gradients, more: Gradients) {
    for (sum, more) in sum.iter_mut().zip(more) {
        if let Some(more) = more {
            add_to(sum, more);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::open_network;
    use crate::parity::numbers;
    use crate::tensor::device::{is_cpu, tested_device};
    use crate::tensor::layers::Storage;
    use crate::testing::golden;
    use weights::ModelFolder;

    fn network() -> Network {
        open_network(&ModelFolder::open(golden("llama")).unwrap(), Storage::Dense, &tested_device()).unwrap()
    }

    #[test]
    fn shards_are_added_in_order_and_shared() {
        let (mut one, mut two) = (network(), network());
        let replicas = [Replica::new(&mut one, tested_device()), Replica::new(&mut two, tested_device())];
        let again: Vec<DeviceName> = vec!["cpu".parse().unwrap()];
        let reduction = GradientReduction::new(&replicas, &again);
        assert_eq!(reduction, GradientReduction::InOrder);
        // One device twice is no group, whatever kind it is.
        assert_eq!(GradientReduction::new(&replicas, &[DeviceName::Cuda(0)]), GradientReduction::InOrder);
        let shard = |number: f32| -> Gradients {
            vec![Some(Tensor::from_data([number, 2.0 * number], &tested_device())), None]
        };
        let mut sums = vec![None, None];
        // (1e8 + 1) - 1e8 is 0 in f32, and (1e8 - 1e8) + 1 is 1.
        for (place, number) in [1e8, 1.0, -1e8, 3.0].into_iter().enumerate() {
            reduction.add(&mut sums, place, shard(number));
        }
        for sum in reduction.share(sums, &replicas) {
            assert_eq!(numbers(sum[0].clone().unwrap()), [3.0, 6.0]);
            assert!(sum[1].is_none());
        }
    }

    /// With one GPU this is a group of one; with several, of all.
    #[test]
    fn gpus_have_the_sum_of_all() {
        let devices: Vec<Device> = device::available()
            .iter()
            .filter(|name| name.has_collectives())
            .map(|name| device::open(name).unwrap())
            .collect();
        if devices.is_empty() || is_cpu(&tested_device()) {
            return eprintln!("skipped: PIPELINE_TEST_DEVICE has no collectives");
        }
        let of = |(place, device): (usize, &Device)| -> Gradients {
            vec![None, Some(Tensor::from_data([1.0 + place as f32, 0.5], device))]
        };
        let count = devices.len() as f32;
        for sum in all_reduced(devices.iter().enumerate().map(of).collect()) {
            assert!(sum[0].is_none());
            assert_eq!(numbers(sum[1].clone().unwrap()), [count * (count + 1.0) / 2.0, 0.5 * count]);
        }
    }
}
