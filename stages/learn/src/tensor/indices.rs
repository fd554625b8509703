//! Tensors of whole numbers: ids of tokens, places in other tensors.

use burn_tensor::{Device, Int, Tensor, TensorData};

/// Makes a tensor of token ids.
pub(crate) fn token_ids(ids: &[u32], device: &Device) -> Tensor<1, Int> {
    let ids: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
    let count = ids.len();
    Tensor::from_data(TensorData::new(ids, [count]), device)
}

/// Makes a tensor of places in another.
pub(crate) fn places(places: &[usize], device: &Device) -> Tensor<1, Int> {
    let places: Vec<i32> = places.iter().map(|place| *place as i32).collect();
    let count = places.len();
    Tensor::from_data(TensorData::new(places, [count]), device)
}
