//! A training that finds damaged checkpoints ends with the bytes of one that was never killed.

use super::*;
use crate::model::Model;
use crate::models::Architecture;
use crate::models::llama::Llama;
use crate::tensor::device::DeviceName;
use crate::text::TokenizerModel;
use crate::text::sequence::{Example, Sequence, TokenLimit};
use crate::train::config::{Examples, Length};
use crate::train::events::{TrainEvent, TrainHooks, TrainReport};
use crate::train::reference::ReferenceSource;
use crate::train::trainer::train;
use tempfile::TempDir;

const STEPS: usize = 6;

fn config() -> TrainingConfig {
    TrainingConfig {
        objective: serde_json::from_str(r#"{"sft": {}}"#).unwrap(),
        optimizer: Default::default(),
        learning_rate: 0.01,
        schedule: crate::train::lr_schedule::Schedule::Cosine,
        warmup_ratio: 0.1,
        length: Length::Steps(STEPS as u32),
        batch_size: 2,
        micro_batch_size: 2,
        max_grad_norm: 0.3,
        evals_per_epoch: 1,
        precision: Default::default(),
        seed: 3,
    }
}

/// A tokenizer in a folder, for models from scratch.
fn tokenizer() -> TempDir {
    let folder = TempDir::new().unwrap();
    let bpe: TokenizerModel = serde_json::from_str(r#"{"bpe": {"vocab_size": 280}}"#).unwrap();
    let texts = vec!["CC(=O)Oc1ccccc1C(=O)O is a drug".to_owned(); 4];
    bpe.train(&texts).unwrap().save(folder.path()).unwrap();
    folder
}

fn examples() -> Examples {
    let example = |number: u32| {
        let (prompt, output) = ([1, 5 + number, 9], [20 + number, 30, 40 + 2 * number, 2]);
        let chosen = Sequence::new(&prompt, &output, TokenLimit::Together(32)).unwrap().0;
        Example { id: number.to_string(), chosen, rejected: None, desirable: None }
    };
    let train = (0..4).map(example).collect();
    Examples { train, validation: vec![example(7)], limit: TokenLimit::Together(32) }
}

/// What a training ended with: the bits of its weights and of its curves.
#[derive(Debug, PartialEq)]
struct Outcome {
    weights: Vec<u32>,
    points: String,
    best_step: usize,
}

/// Trains a model, up to a step; returns what it came to, where it went on and what it ignored.
fn training(
    tokenizer: &TempDir,
    checkpoints: Option<&Path>,
    until: usize,
) -> Option<(Outcome, Option<usize>, Vec<String>)> {
    let llama = Llama {
        hidden_size: 8,
        intermediate_size: 12,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        num_key_value_heads: None,
        max_position_embeddings: 32,
        tie_word_embeddings: false,
        rope_theta: 10_000.0,
    };
    let mut model =
        Model::from_scratch(&Architecture::Llama(llama), tokenizer.path(), 5, &DeviceName::Cpu).unwrap();
    let mut ignored = Vec::new();
    let mut on_event = |news: TrainEvent<'_>| match news {
        TrainEvent::LeftAside(unfit) => {
            ignored.push(unfit.to_string());
            true
        }
        TrainEvent::Point { point: Point::Step(step), .. } => step.step < until,
        TrainEvent::Point { .. } => true,
    };
    let mut hooks =
        TrainHooks { threads: 1, others: &[], recomputes: false, checkpoints, on_event: &mut on_event };
    let trained = train(&mut model, ReferenceSource::Itself, &examples(), &config(), &mut hooks);
    let TrainReport { points, best_step, resumed_at, .. } = match trained {
        Ok(trained) => trained,
        Err(crate::train::error::TrainError::Cancelled) => return None,
        Err(error) => panic!("{error}"),
    };
    let mut weights = Vec::new();
    let mut bits = |numbers: Tensor<1>| {
        let numbers = numbers.into_data().try_into_vec::<f32>().unwrap();
        weights.extend(numbers.iter().map(|number| number.to_bits()));
    };
    crate::tensor::parameters::Parameters::visit(model.network_mut(), &mut |_, parameter| {
        bits(parameter.flat())
    });
    let points = serde_json::to_string(&points).unwrap();
    Some((Outcome { weights, points, best_step }, resumed_at, ignored))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target)
        } else {
            assert!(fs::copy(entry.path(), target).is_ok())
        }
    }
}

/// A killed training: its tokenizer, its two checkpoints, and what it would have come to.
fn killed() -> (TempDir, TempDir, Outcome) {
    let tokenizer = tokenizer();
    let (undisturbed, resumed_at, _) = training(&tokenizer, None, usize::MAX).unwrap();
    assert_eq!(resumed_at, None);
    let keep = TempDir::new().unwrap();
    assert!(training(&tokenizer, Some(keep.path()), 5).is_none());
    assert_eq!(all(keep.path()).unwrap(), BTreeSet::from([2, 4]));
    (tokenizer, keep, undisturbed)
}

/// Returns some places of a file: its ends, and others between.
fn places(length: usize, count: usize) -> Vec<usize> {
    (0..count).map(|place| place * (length - 1) / (count - 1)).collect()
}

#[test]
fn whatever_is_damaged_the_training_ends_with_the_same_bytes() {
    let (tokenizer, keep, undisturbed) = killed();
    type Damage = Box<dyn Fn(&Path)>;
    let mut damages: Vec<(String, Damage)> = Vec::new();
    for (name, count) in [(TENSORS, 14), (STATE, 12), (DIGESTS, 12)] {
        let length = fs::read(keep.path().join("step-4").join(name)).unwrap().len();
        for place in places(length, count) {
            let flip = move |folder: &Path| {
                let path = folder.join(name);
                let mut content = fs::read(&path).unwrap();
                content[place] ^= 1 << (place % 7);
                fs::write(&path, content).unwrap();
            };
            damages.push((format!("{name}: byte {place} flipped"), Box::new(flip)));
        }
        for rest in [0, 1, length / 2, length - 1] {
            let cut = move |folder: &Path| {
                let file = fs::OpenOptions::new().write(true).open(folder.join(name)).unwrap();
                file.set_len(rest as u64).unwrap();
            };
            damages.push((format!("{name}: cut to {rest} bytes"), Box::new(cut)));
        }
        let longer = move |folder: &Path| {
            let file = fs::OpenOptions::new().write(true).open(folder.join(name)).unwrap();
            file.set_len(1 << 40).unwrap();
        };
        damages.push((format!("{name}: a terabyte"), Box::new(longer)));
        damages.push((
            format!("{name}: missing"),
            Box::new(move |folder| fs::remove_file(folder.join(name)).unwrap()),
        ));
        let folder_instead = move |folder: &Path| {
            fs::remove_file(folder.join(name)).unwrap();
            fs::create_dir(folder.join(name)).unwrap();
        };
        damages.push((format!("{name}: a folder"), Box::new(folder_instead)));
    }
    // A digit that is as good JSON as the one before.
    let digit = |folder: &Path| {
        let path = folder.join(STATE);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(r#""seed":3"#) && text.contains(r#""step":4"#), "{text}");
        fs::write(&path, text.replacen(r#""step":4"#, r#""step":3"#, 1)).unwrap();
    };
    damages.push(("a changed digit".to_owned(), Box::new(digit)));
    damages.push((
        "the state of the other checkpoint".to_owned(),
        Box::new(|folder| {
            fs::copy(folder.with_file_name("step-2").join(STATE), folder.join(STATE)).unwrap();
        }),
    ));
    damages.push((
        "a file in its place".to_owned(),
        Box::new(|folder| {
            fs::remove_dir_all(folder).unwrap();
            fs::write(folder, "").unwrap();
        }),
    ));
    assert!(damages.len() >= 60);
    for (what, damage) in &damages {
        let copied = TempDir::new().unwrap();
        copy(keep.path(), copied.path());
        damage(&copied.path().join("step-4"));
        let (result, resumed_at, ignored) =
            training(&tokenizer, Some(copied.path()), usize::MAX).expect("it ends");
        assert_eq!(resumed_at, Some(2), "{what}: the one before is whole");
        assert!(result == undisturbed, "{what}: other bytes");
        assert_eq!(ignored.len(), 1, "{what}");
        assert!(ignored[0].starts_with("the checkpoint `step-4` of a killed training is ignored: "));
    }
    // With none that is whole the training starts again.
    for (what, damage) in &damages {
        let copied = TempDir::new().unwrap();
        copy(&keep.path().join("step-4"), &copied.path().join("step-4"));
        copy(&keep.path().join("step-2"), &copied.path().join("step-2"));
        damage(&copied.path().join("step-4"));
        fs::write(copied.path().join("step-2").join(TENSORS), "").unwrap();
        let (result, resumed_at, ignored) =
            training(&tokenizer, Some(copied.path()), usize::MAX).expect("it ends");
        assert_eq!((resumed_at, ignored.len()), (None, 2), "{what}: {ignored:?}");
        assert!(result == undisturbed, "{what}: other bytes");
    }
}

/// Every byte of it, and not only some.
#[test]
fn no_flipped_bit_goes_unseen() {
    let (_tokenizer, keep, _) = killed();
    let folder = keep.path().join("step-4");
    let learns = Vec::new();
    let device = crate::tensor::device::open(&DeviceName::Cpu).unwrap();
    let is_whole = || read(&folder, 4, &config(), &learns, &device).is_ok();
    assert!(is_whole());
    for name in [STATE, DIGESTS] {
        let path = folder.join(name);
        let content = fs::read(&path).unwrap();
        for place in 0..content.len() {
            let mut flipped = content.clone();
            flipped[place] ^= 1 << (place % 8);
            fs::write(&path, flipped).unwrap();
            assert!(!is_whole(), "{name}: byte {place}");
        }
        fs::write(&path, content).unwrap();
    }
    assert!(is_whole());
}

#[test]
fn an_intact_checkpoint_is_gone_on_from() {
    let (tokenizer, keep, undisturbed) = killed();
    let (result, resumed_at, ignored) = training(&tokenizer, Some(keep.path()), usize::MAX).unwrap();
    assert_eq!((resumed_at, ignored), (Some(4), Vec::new()));
    assert!(result == undisturbed);
}

/// A checkpoint of what another configuration, or another model, trains is whole, and of no use here.
#[test]
fn what_belongs_to_something_else_is_left_aside() {
    let (_tokenizer, keep, _) = killed();
    let folder = keep.path().join("step-4");
    let device = crate::tensor::device::open(&DeviceName::Cpu).unwrap();
    let why = |config: &TrainingConfig, step: usize, learns: &[(String, usize)]| match read(
        &folder, step, config, learns, &device,
    ) {
        Err(Unfit::Damaged(why) | Unfit::Unreadable(why)) => why,
        Ok(_) => panic!("it fits"),
    };
    let other = TrainingConfig { seed: 4, ..config() };
    assert_eq!(why(&other, 4, &[]), "state.json: it belongs to another training configuration");
    assert_eq!(why(&config(), 3, &[]), "state.json: it is of step 4");
    let expected = "tensors.safetensors: `weights.model.norm.weight` is not there with 9 numbers";
    assert_eq!(why(&config(), 4, &[("model.norm.weight".to_owned(), 9)]), expected);
    assert_eq!(
        why(&config(), 4, &[("head".to_owned(), 1)]),
        "tensors.safetensors: `weights.head` is not there with 1 numbers"
    );
}

/// One that is ignored and stays does not count as the newest ever after.
#[test]
fn checkpoints_of_later_steps_give_way_to_the_one_that_is_written() {
    let (tokenizer, keep, undisturbed) = killed();
    copy(&keep.path().join("step-2"), &keep.path().join("step-5"));
    copy(&keep.path().join("step-2"), &keep.path().join("step-007"));
    fs::remove_dir_all(keep.path().join("step-4")).unwrap();
    let (result, resumed_at, ignored) = training(&tokenizer, Some(keep.path()), usize::MAX).unwrap();
    assert_eq!((resumed_at, ignored.len()), (Some(2), 1));
    assert!(result == undisturbed);
    assert_eq!(all(keep.path()).unwrap(), BTreeSet::from([2, 4]));
}
