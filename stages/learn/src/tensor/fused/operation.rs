//! An operation of the CPU as burn sees it: computed on slices, one step on a tape.

use std::fmt::Debug;
use std::sync::Arc;

use burn_autodiff::Autodiff;
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::NoCheckpointing;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind};
use burn_flex::{Flex, FlexTensor};
use burn_tensor::{DType, Tensor, TensorData};

use crate::tensor::device::is_cpu;

/// An operation on matrices.
pub(super) trait Operation<const N: usize>: Clone + Debug + Send + 'static {
    /// Returns the result's shape.
    fn shape(&self, inputs: [[usize; 2]; N]) -> [usize; 2];

    /// Computes the result, and what the backward pass needs besides the inputs.
    fn forward(&self, inputs: [Matrix<'_>; N]) -> (Vec<f32>, Vec<f32>);

    /// Computes the derivatives by those inputs that are wanted; whatever by the others.
    fn backward(
        &self,
        inputs: [Matrix<'_>; N],
        kept: &[f32],
        gradient: &[f32],
        wanted: [bool; N],
    ) -> [Vec<f32>; N];
}

/// A matrix, row after row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub numbers: &'a [f32],
    pub rows: usize,
    pub columns: usize,
}

pub(super) fn all_here<const D: usize>(tensors: &[&Tensor<D>]) -> bool {
    tensors.iter().all(|tensor| is_cpu(&tensor.device()) && tensor.dtype() == DType::F32)
}

/// Applies an operation to f32 tensors on the CPU.
pub(super) fn apply<O: Operation<N>, const N: usize>(operation: O, inputs: [Tensor<2>; N]) -> Tensor<2> {
    let shape = operation.shape(inputs.each_ref().map(Tensor::dims));
    if !inputs.iter().any(Tensor::is_autodiff) {
        let inputs = inputs.map(numbers);
        let (output, _) = operation.forward(inputs.each_ref().map(matrix));
        return Tensor::from_primitive::<Flex>(tensor(output, shape));
    }
    let inputs = inputs.map(|input| {
        let input = if input.is_autodiff() { input } else { input.autodiff() };
        input.try_into_primitive::<Autodiff<Flex>>().expect("it is on the CPU, on a tape")
    });
    let nodes = inputs.each_ref().map(|input| input.node());
    let inputs = inputs.map(|input| input.into_primitive().to_contiguous());
    let (output, kept) = operation.forward(inputs.each_ref().map(matrix));
    let output = tensor(output, shape);
    let prepared = Recorded::<O, N>(std::marker::PhantomData);
    let output = match prepared.prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(tracked) => {
            tracked.finish(State { operation, inputs, kept: Arc::new(kept) }, output)
        }
        OpsKind::UnTracked(untracked) => untracked.finish(output),
    };
    Tensor::from_primitive::<Autodiff<Flex>>(output)
}

/// A step on a tape.
#[derive(Debug)]
struct Recorded<O, const N: usize>(std::marker::PhantomData<O>);

/// What it keeps.
#[derive(Debug, Clone)]
struct State<O, const N: usize> {
    operation: O,
    inputs: [FlexTensor; N],
    kept: Arc<Vec<f32>>,
}

impl<O: Operation<N>, const N: usize> Backward<Flex, N> for Recorded<O, N> {
    type State = State<O, N>;

    fn backward(self, ops: Ops<State<O, N>, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<Flex>(&ops.node).to_contiguous();
        let State { operation, inputs, kept } = &ops.state;
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let views = inputs.each_ref().map(matrix);
        let input_gradients = operation.backward(views, kept, matrix(&gradient).numbers, wanted);
        for ((parent, gradient), view) in ops.parents.iter().zip(input_gradients).zip(views) {
            if let Some(parent) = parent {
                gradients.register::<Flex>(parent.id, tensor(gradient, [view.rows, view.columns]));
            }
        }
    }
}

pub(super) fn numbers(tensor: Tensor<2>) -> FlexTensor {
    tensor.try_into_primitive::<Flex>().expect("it is on the CPU").to_contiguous()
}

pub(super) fn matrix(tensor: &FlexTensor) -> Matrix<'_> {
    let shape = tensor.layout().shape();
    let numbers = tensor.as_slice().expect("f32, one after the other");
    Matrix { numbers, rows: shape[0], columns: shape[1] }
}

pub(super) fn tensor(numbers: Vec<f32>, shape: [usize; 2]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(numbers, shape))
}

/// Compares an operation with what it replaces: results, and derivatives by every input.
#[cfg(test)]
pub(super) fn same<const N: usize>(
    shapes: [[usize; 2]; N],
    fused: impl Fn([Tensor<2>; N]) -> Tensor<2>,
    composed: impl Fn([Tensor<2>; N]) -> Tensor<2>,
) {
    use burn_tensor::{Device, Distribution};
    let device = Device::flex();
    let spread = Distribution::Normal(0.0, 1.0);
    let inputs = shapes.map(|shape| Tensor::<2>::random(shape, spread, &device));
    let gradient = Tensor::<2>::random(composed(inputs.clone()).dims(), spread, &device);
    let of = |operation: &dyn Fn([Tensor<2>; N]) -> Tensor<2>| -> Vec<Vec<f32>> {
        let leaves = inputs.clone().map(|input| input.autodiff().require_grad());
        let actual = operation(leaves.clone());
        let mut gradients = (actual.clone() * gradient.clone().autodiff()).sum().backward();
        let actual = std::iter::once(actual.inner());
        let grad_inputs = leaves.each_ref().map(|leaf| leaf.grad_remove(&mut gradients).expect("it is used"));
        actual.chain(grad_inputs).map(|numbers| numbers.into_data().try_into_vec().unwrap()).collect()
    };
    let (actual, expected) = (of(&fused), of(&composed));
    for (place, (actual, expected)) in actual.iter().zip(&expected).enumerate() {
        assert_eq!(actual.len(), expected.len());
        let scale = expected.iter().fold(1f32, |most, number| most.max(number.abs()));
        for (at, (actual, expected)) in actual.iter().zip(expected).enumerate() {
            assert!((actual - expected).abs() < 3e-6 * scale, "{place}[{at}]: {actual}, not {expected}");
        }
    }
    // Off the tape it computes the same bits.
    let off: Vec<f32> = fused(inputs.clone()).into_data().try_into_vec().unwrap();
    assert_eq!(off, actual[0]);
}
