use super::*;
use crate::generate::generation::{Generation, generate};
use crate::generate::strategy::Strategy;
use crate::tensor::nf4::Nf4;
use tempfile::TempDir;
use weights::Dtype;

/// A model of random numbers in several shards.
fn sharded(dtype: Dtype) -> TempDir {
    let folder = TempDir::new().unwrap();
    write_random(&shape("tiny").unwrap(), dtype, 800_000, folder.path()).unwrap();
    folder
}

fn opened(folder: &TempDir) -> Result<Model, String> {
    Model::open(folder.path(), &DeviceName::Cpu).map_err(|error| {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(found) = cause {
            text.push_str(&format!(": {found}"));
            cause = found.source();
        }
        text.replace(&folder.path().display().to_string(), "F")
    })
}

/// The tokens that end an output, or why there are none.
fn ends_of(folder: &TempDir) -> Result<Vec<u32>, String> {
    opened(folder).map(|model| model.eos_token_ids().to_vec())
}

#[test]
fn a_generation_config_that_is_none_is_an_error() {
    let folder = sharded(Dtype::F32);
    let path = folder.path().join("generation_config.json");
    let usual = ends_of(&folder).unwrap();
    fs::write(&path, r#"{"eos_token_id": [3, 5]}"#).unwrap();
    assert_eq!(ends_of(&folder), Ok(vec![3, 5]));
    fs::write(&path, r#"{"eos_token_id": null}"#).unwrap();
    assert_eq!(ends_of(&folder), Ok(usual));
    for text in ["{\"eos_token_id\": 3", "", "[3]", "\u{feff}{}"] {
        fs::write(&path, text).unwrap();
        let error = ends_of(&folder).unwrap_err();
        assert!(error.starts_with("F/generation_config.json: it is no JSON object: "), "{error}");
    }
    for ids in ["-1", "\"</s>\"", "[3, null]", "4294967296", "2.5"] {
        fs::write(&path, format!("{{\"eos_token_id\": {ids}}}")).unwrap();
        let error = ends_of(&folder).unwrap_err();
        assert!(error.starts_with("F/generation_config.json: `eos_token_id` is "), "{error}");
    }
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert_eq!(ends_of(&folder).unwrap_err(), "F/generation_config.json: it is no file");
}

/// What is computed with such numbers is a model's output like any other.
#[test]
fn weights_that_are_no_numbers_are_named() {
    let folder = sharded(Dtype::F32);
    let path = shard(&folder);
    let whole = fs::read(&path).unwrap();
    for (number, told) in [(f32::NAN, "1 NaN and 0 infinite"), (f32::INFINITY, "0 NaN and 1 infinite")] {
        let mut damaged = whole.clone();
        let end = damaged.len();
        damaged[end - 4..].copy_from_slice(&number.to_le_bytes());
        fs::write(&path, damaged).unwrap();
        let error = refused(&folder);
        assert!(
            error.contains(&format!("holds {told} numbers")) && error.contains("tensor `model."),
            "{error}"
        );
    }
}

#[test]
fn frequencies_that_are_no_numbers_are_named() {
    let folder = sharded(Dtype::F32);
    let path = folder.path().join("config.json");
    let config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for (field, number) in [("rope_theta", json!(0)), ("rope_theta", json!(-1.0)), ("rms_norm_eps", json!(0))]
    {
        let mut config = config.clone();
        config["rope_parameters"] = Value::Null;
        config[field] = number;
        fs::write(&path, config.to_string()).unwrap();
        let error = refused(&folder);
        assert!(error.contains(&format!("`{field}`")) && error.contains("not a number above 0"), "{error}");
    }
}

fn refused(folder: &TempDir) -> String {
    opened(folder).err().expect("it cannot be opened")
}

/// The second of its shards.
fn shard(folder: &TempDir) -> PathBuf {
    let read = ModelFolder::open(folder.path()).unwrap();
    folder.path().join(&read.files()[1])
}

#[test]
fn shards_that_are_missing_or_damaged_are_named() {
    let folder = sharded(Dtype::BF16);
    let (path, whole) = (shard(&folder), fs::read(shard(&folder)).unwrap());
    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
    fs::remove_file(&path).unwrap();
    assert_eq!(
        refused(&folder),
        format!("F: there is no `{name}`, which the index names: fetch the missing shards")
    );
    // Cut off in the middle, as by a download that broke.
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let cut = refused(&folder);
    assert!(cut.starts_with(&format!("F: `{name}`")) && cut.contains("tensor `model."), "{cut}");
    fs::write(&path, &whole[..5]).unwrap();
    let short = refused(&folder);
    assert!(short.contains(&name) && short.contains("has 5 bytes and needs 8"), "{short}");
    // A header that says that it is larger than any file.
    fs::write(&path, [u64::MAX.to_le_bytes().as_slice(), &whole[8..]].concat()).unwrap();
    let hostile = refused(&folder);
    assert!(hostile.contains(&name) && hostile.contains("the file is damaged"), "{hostile}");
    // A tensor that says that it lies behind the end.
    let header = br#"{"model.norm.weight":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}"#;
    let lying = [(header.len() as u64).to_le_bytes().as_slice(), header].concat();
    fs::write(&path, lying).unwrap();
    let lying = refused(&folder);
    assert!(lying.contains(&name) && lying.contains("tensor `model.norm.weight` is at bytes"), "{lying}");
    fs::write(&path, &whole).unwrap();
    assert!(opened(&folder).is_ok());
}

#[test]
fn tensors_that_are_no_floats_are_named_with_their_file() {
    let folder = sharded(Dtype::BF16);
    let path = shard(&folder);
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(6).position(|found| found == b"\"BF16\"").unwrap();
    bytes[at..at + 6].copy_from_slice(b"\"I16\" ");
    fs::write(&path, bytes).unwrap();
    let (found, name) = (refused(&folder), path.file_name().unwrap().to_str().unwrap());
    assert!(found.starts_with(&format!("F/{name}: tensor `")) && found.contains("I16"), "{found}");
}

#[test]
fn more_tokens_than_embeddings_are_counted() {
    let folder = sharded(Dtype::BF16);
    let words: serde_json::Map<String, Value> = (0..1001).map(|id| (format!("w{id}"), id.into())).collect();
    let file = folder.path().join(tokenizer::TOKENIZER_FILE);
    let mut tokenizer: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    tokenizer["model"]["vocab"] = words.into();
    fs::write(&file, tokenizer.to_string()).unwrap();
    assert_eq!(refused(&folder), "F: the tokenizer has 1001 tokens, and the model embeds 1000");
}

#[test]
fn prompts_that_no_output_can_follow_are_numbered() {
    let model = opened(&sharded(Dtype::F32)).unwrap();
    let refused = |prompts: &[usize]| {
        let prompts: Vec<Vec<u32>> = prompts.iter().map(|tokens| vec![3; *tokens]).collect();
        let generation = Generation { strategy: Strategy::default(), max_new_tokens: 1, batch_size: 2 };
        generate(&model, &prompts, &generation, 1, &|_| true).unwrap_err().to_string()
    };
    assert_eq!(refused(&[]), "there are no prompts");
    assert_eq!(refused(&[4, 0]), "prompt 2 has no tokens");
    assert_eq!(
        refused(&[4, 3, 512]),
        "prompt 3 has 512 tokens, and the model takes no prompts of 512 tokens or more"
    );
}

#[test]
fn what_is_packed_as_it_is_read_is_what_is_packed_afterwards() {
    for dtype in [Dtype::BF16, Dtype::F16] {
        let folder = sharded(dtype);
        let qlora = AdapterMethod::Qlora(serde_json::from_str(r#"{"r": 4}"#).unwrap());
        let mut read = Model::open_to_adapt(folder.path(), &qlora, &DeviceName::Cpu).unwrap();
        let mut afterwards = opened(&folder).unwrap();
        let packed = |model: &mut Model| -> Vec<Nf4> {
            let linears = model.network.linears().into_iter();
            let packed = linears.filter_map(|(_, linear)| match &linear.weight {
                Weight::Packed(packed) => Some(packed.host.clone()),
                Weight::Dense(_) => None,
            });
            packed.collect()
        };
        assert_eq!((packed(&mut read).len(), packed(&mut afterwards).len()), (28, 0));
        read.adapt(&qlora, 1).unwrap();
        afterwards.adapt(&qlora, 1).unwrap();
        assert!(packed(&mut read) == packed(&mut afterwards));
        assert_eq!(read.parameters(), afterwards.parameters());
    }
}

/// Beside packed weights and dense ones: `W + (alpha / r) B A`.
#[test]
fn adapters_are_added_to_the_weights_that_are_written() {
    let folder = sharded(Dtype::BF16);
    for text in [r#"{"lora": {"r": 4, "target_modules": ["q_proj"]}}"#, r#"{"qlora": {"r": 4}}"#] {
        let adapter: AdapterMethod = serde_json::from_str(text).unwrap();
        let mut model = Model::open_to_adapt(folder.path(), &adapter, &DeviceName::Cpu).unwrap();
        model.adapt(&adapter, 1).unwrap();
        for (_, linear) in model.network.linears() {
            if let Some(adapter) = &mut linear.adapter {
                adapter.b.value = adapter.b.value.clone().add_scalar(0.01);
            }
        }
        let written = TempDir::new().unwrap();
        model.save(written.path()).unwrap();
        let written = ModelFolder::open(written.path()).unwrap();
        let before = ModelFolder::open(folder.path()).unwrap();
        let mut changed = 0;
        for (path, linear) in model.network.linears() {
            let name = format!("{path}.weight");
            let expected = linear.weight.get(&model.device);
            let expected = match &linear.adapter {
                Some(adapter) => expected + adapter.delta(),
                None => expected,
            };
            let expected: Vec<f32> = expected.into_data().try_into_vec().unwrap();
            assert_eq!(written.read_f32(&name).unwrap(), expected, "{name}");
            changed += usize::from(before.read_f32(&name).unwrap() != expected);
        }
        assert_eq!(changed, if text.contains("qlora") { 28 } else { 4 });
        let names = |folder: &ModelFolder| -> Vec<String> {
            folder.tensors().iter().map(|tensor| tensor.name.clone()).collect()
        };
        assert_eq!(names(&written), names(&before));
    }
}
