//! Products of f32 matrices on a GPU, with factors that are not rounded.
//!
//! burn takes the fastest kernels there are. On NVIDIA GPUs since Ampere these use tensor cores, which
//! round f32 factors to TF32, with ten bits in place of 23. The kernels here do not use them.

#![allow(missing_docs, reason = "what the macros of kernels expand to is theirs")]

use burn::backend::{Autodiff, Backend, Dispatch, backend_extension};
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::CheckpointStrategy;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind};
use burn_backend::cubecl::dtype_to_storage_type;
use burn_backend::tensor::FloatTensor;
use burn_backend::{TensorMetadata as _, calculate_matmul_output};
use burn_cubecl::CubeBackend;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use burn_tensor::{DType, Tensor};
use cubek::matmul::definition::{MatmulElems, MatmulGlobalElems};
use cubek::matmul::launch::launch_ref;
use cubek::matmul::multi_level::Strategy;
use cubek::matmul::multi_level::routines::TileSizeSelection;
use cubek::matmul::multi_level::routines::batch::double_unit::DoubleUnitSelectionArgs;
use cubek::matmul::multi_level::routines::batch::simple_unit::SimpleUnitSelectionArgs;
use cubek::matmul::routine::BlueprintStrategy;
use cubek::std::InputBinding;

/// From how many rows and columns on a product is large.
const LARGE: usize = 64;

/// Multiplies matrices, or stacks of them, in f32.
pub(super) fn product<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::product(a.into_dispatch(), b.into_dispatch()))
}

/// What a GPU does with f32 matrices.
#[backend_extension(Cube, Autodiff, Fusion: cfg(feature = "cuda"))]
pub(crate) trait Products: Backend {
    /// Multiplies two, or stacks of them.
    #[fusion(meta = |a, b| multiplied(a, b))]
    fn product(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self>;
}

#[cfg(feature = "cuda")]
fn multiplied(
    a: &burn::backend::fusion::custom::TensorSpec,
    b: &burn::backend::fusion::custom::TensorSpec,
) -> burn::backend::fusion::custom::TensorSpec {
    let shape = calculate_matmul_output(&a.shape, &b.shape).expect("shapes fit");
    burn::backend::fusion::custom::TensorSpec::new(shape, DType::F32)
}

impl Products for CubeBackend {
    fn product(a: CubeTensor, b: CubeTensor) -> CubeTensor {
        let shape = calculate_matmul_output(&a.shape(), &b.shape()).expect("shapes fit");
        let [rows, columns] = [shape[shape.num_dims() - 2], shape[shape.num_dims() - 1]];
        let client = a.client.clone();
        let product = empty_device_contiguous_dtype(client.clone(), a.device.clone(), shape, DType::F32);
        if rows == 0 || columns == 0 {
            return product;
        }
        let element = dtype_to_storage_type(DType::F32);
        let input = |tensor: &CubeTensor| InputBinding::new(tensor.clone().binding(), element);
        let elements =
            || MatmulElems::from_globals(&MatmulGlobalElems { lhs: element, rhs: element, out: element });
        let launched = strategies(rows, columns).into_iter().map(|strategy| {
            let output = product.clone().binding();
            launch_ref(&strategy.into(), &client, input(&a), input(&b), output, &mut elements())
        });
        let mut problems = Vec::new();
        for launched in launched {
            match launched {
                Ok(()) => return product,
                Err(problem) => problems.push(format!("{problem:?}")),
            }
        }
        panic!("no kernel multiplies [{rows}, {columns}]: {}", problems.join("; "))
    }
}

/// Returns the kernels that may multiply, the fastest first. The last takes whatever there is.
fn strategies(rows: usize, columns: usize) -> Vec<Strategy> {
    let simple =
        |tile_size| Strategy::SimpleUnit(BlueprintStrategy::Inferred(SimpleUnitSelectionArgs { tile_size }));
    let double =
        |tile_size| Strategy::DoubleUnit(BlueprintStrategy::Inferred(DoubleUnitSelectionArgs { tile_size }));
    if rows.min(columns) >= LARGE {
        let tile_size = TileSizeSelection::MaxTileSize;
        vec![double(tile_size), simple(tile_size), Strategy::Naive]
    } else {
        vec![simple(TileSizeSelection::MinTileSize), Strategy::Naive]
    }
}

impl<B: Products, C: CheckpointStrategy> Products for Autodiff<B, C> {
    fn product(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        // Each factor is kept for the derivative by the other.
        let kept_a = b.is_tracked().then(|| a.primitive().clone());
        let kept_b = a.is_tracked().then(|| b.primitive().clone());
        let prepared = Product.prepare::<C>([a.node(), b.node()]).compute_bound().stateful();
        let product = B::product(a.into_primitive(), b.into_primitive());
        match prepared {
            OpsKind::Tracked(tracked) => tracked.finish((kept_a, kept_b), product),
            OpsKind::UnTracked(untracked) => untracked.finish(product),
        }
    }
}

/// A product on a tape.
#[derive(Debug)]
struct Product;

impl<B: Products> Backward<B, 2> for Product {
    type State = (Option<FloatTensor<B>>, Option<FloatTensor<B>>);

    fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let ([parent_a, parent_b], (a, b)) = (ops.parents, ops.state);
        if let (Some(parent), Some(b)) = (parent_a, b) {
            let by_a = B::product(gradient.clone(), B::float_transpose(b));
            gradients.register::<B>(parent.id, by_a);
        }
        if let (Some(parent), Some(a)) = (parent_b, a) {
            let by_b = B::product(B::float_transpose(a), gradient);
            gradients.register::<B>(parent.id, by_b);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::device::{is_cpu, tested_device};
    use crate::tensor::random::{Purpose, Random};
    use burn_tensor::{Device, TensorData};

    fn random<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
        let count = shape.iter().product();
        let mut random = Random::new(1, Purpose::Adapter, count as u64);
        Tensor::from_data(TensorData::new(random.normal(count, 1.0), shape), device)
    }

    fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.into_data().try_into_vec().unwrap()
    }

    fn assert_near(actual: &[f32], expected: &[f32]) {
        let scale = expected.iter().fold(1f32, |most, number| most.max(number.abs()));
        assert_eq!(actual.len(), expected.len());
        for (actual, expected) in actual.iter().zip(expected) {
            assert!((actual - expected).abs() < 2e-6 * scale, "{actual}, not {expected}");
        }
    }

    #[test]
    fn products_and_their_derivatives_are_those_of_the_cpu() {
        let (cpu, device) = (Device::flex(), tested_device());
        if is_cpu(&device) {
            return eprintln!("skipped: PIPELINE_TEST_DEVICE names no GPU");
        }
        for [rows, inner, columns] in [[1, 40, 7], [3, 5, 2], [8, 64, 65], [70, 33, 90], [130, 256, 128]] {
            let on = |device: &Device, multiply: fn(Tensor<2>, Tensor<2>) -> Tensor<2>| {
                // One of them transposed, as weights are.
                let leaves = [random([rows, inner], device), random([columns, inner], device)];
                let leaves = leaves.map(|leaf| leaf.autodiff().require_grad());
                let product = multiply(leaves[0].clone(), leaves[1].clone().transpose());
                let weight = random([rows, columns], device).autodiff();
                let mut gradients = (product.clone() * weight).sum().backward();
                let grads = leaves.map(|leaf| numbers(leaf.grad_remove(&mut gradients).unwrap()));
                (numbers(product.inner()), grads)
            };
            let (actual, expected) = (on(&device, product), on(&cpu, |a, b| a.matmul(b)));
            assert_near(&actual.0, &expected.0);
            actual.1.iter().zip(&expected.1).for_each(|(actual, expected)| assert_near(actual, expected));
            // A factor that is not on the tape.
            let constant = random([columns, inner], &device).transpose();
            let leaf = random([rows, inner], &device).autodiff().require_grad();
            let mut gradients = product(leaf.clone(), constant.autodiff()).sum().backward();
            assert_eq!(leaf.grad_remove(&mut gradients).unwrap().dims(), [rows, inner]);
        }
        let stacks = |device: &Device| [random([2, 3, 9, 16], device), random([2, 3, 11, 16], device)];
        let [a, b] = stacks(&device);
        let [c, d] = stacks(&cpu);
        assert_near(&numbers(product(a, b.swap_dims(2, 3))), &numbers(c.matmul(d.swap_dims(2, 3))));
    }
}
