//! A model that transformers wrote.

use std::path::{Path, PathBuf};
use weights::{Dtype, Durability, MOST_SHARD_BYTES, ModelFolder, ModelWriter, TensorSpec};

#[path = "../../../tests/real_data.rs"]
mod real_data;

fn reference(name: &str) -> Option<PathBuf> {
    let weights = real_data::path(&format!("../reference/{name}/model.safetensors"))?;
    weights.parent().map(Path::to_owned)
}

#[test]
fn a_llama_is_read_as_it_was_written() {
    let Some(path) = reference("llama") else { return };
    let model = ModelFolder::open(&path).expect("the folder is a model");
    assert_eq!(model.model_type(), Some("llama"));
    assert!(model.tensors().iter().all(|tensor| tensor.dtype == Dtype::F32));
    assert_eq!(model.bytes(), 4 * model.parameters());
    let size = |key: &str| model.config()[key].as_u64().expect("the size is a number");
    let embedding = model.tensor("model.embed_tokens.weight").expect("there is an embedding");
    assert_eq!(embedding.shape, [size("vocab_size"), size("hidden_size")]);

    let file = std::fs::read(path.join("model.safetensors")).expect("the file can be read");
    let theirs = safetensors::SafeTensors::deserialize(&file).expect("it is safetensors");
    assert_eq!(model.tensors().len(), theirs.len());
    for tensor in model.tensors() {
        let view = theirs.tensor(&tensor.name).expect("both know the tensor");
        let bytes = &file[tensor.bytes.start as usize..tensor.bytes.end as usize];
        assert!(bytes == view.data(), "{}", tensor.name);
    }
}

#[test]
fn a_llama_is_written_as_transformers_wrote_it() {
    let Some(path) = reference("llama") else { return };
    let model = ModelFolder::open(&path).expect("the folder is a model");
    let folder = tempfile::tempdir().expect("a folder");
    let specs = model.tensors().iter().map(TensorSpec::from).collect();
    let writer = ModelWriter::create(folder.path(), model.config(), specs, MOST_SHARD_BYTES);
    let writer = writer.expect("the model is begun");
    for tensor in model.tensors() {
        let values = model.read_f32(&tensor.name).expect("the tensor is read");
        writer.write_f32(&tensor.name, &values).expect("the tensor is written");
    }
    writer.finish(Durability::Buffered).expect("the model is ended");
    let [ours, theirs] = [folder.path(), &path].map(|folder| std::fs::read(folder.join("model.safetensors")));
    assert!(ours.expect("ours") == theirs.expect("theirs"));
    let again = ModelFolder::open(folder.path()).expect("what was written is a model");
    assert_eq!(again.config(), model.config());
}
