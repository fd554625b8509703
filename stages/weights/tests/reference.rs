//! A model that transformers wrote.

use std::path::{Path, PathBuf};
use weights::{Dtype, ModelFolder};

fn reference(name: &str) -> Option<PathBuf> {
    let data = match std::env::var_os("PIPELINE_DATA") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"),
    };
    let path = data.join("../reference").join(name);
    if !path.join("model.safetensors").exists() {
        assert!(std::env::var_os("PIPELINE_REQUIRE_DATA").is_none(), "{} is not there", path.display());
        eprintln!("SKIPPED: {} is not there", path.display());
        return None;
    }
    Some(path)
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
