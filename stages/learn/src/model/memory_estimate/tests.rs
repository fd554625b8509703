use super::*;
use crate::model::random_model::shape;
use crate::tensor::nf4::Nf4;
use crate::testing::golden;
use weights::ModelFolder;

fn sizes(name: &str) -> Sizes {
    Sizes::read(&shape(name).unwrap()).unwrap()
}

fn training<'a>(adapter: Option<&'a AdapterMethod>) -> Training<'a> {
    Training {
        adapter,
        tokens: 256,
        outputs: 4,
        threads: 2,
        compared: Compared::Nothing,
        recomputes: false,
        precision: Precision::F32,
        is_on_cpu: true,
    }
}

#[test]
fn numbers_are_those_of_the_folders() {
    for name in ["llama", "llama3rope", "internlm2", "t5_v10", "t5_v11", "t5_other", "deberta_v3"] {
        let folder = ModelFolder::open(golden(name)).unwrap();
        let sizes = Sizes::read(folder.config()).unwrap();
        assert_eq!(sizes.parameters(), folder.parameters(), "{name}");
    }
    for name in ["own_projections", "content_to_position", "position_to_content", "absolute"] {
        let folder = ModelFolder::open(golden("deberta_v2").join(name)).unwrap();
        assert_eq!(Sizes::read(folder.config()).unwrap().parameters(), folder.parameters(), "{name}");
    }
}

#[test]
fn four_bits_take_what_they_take() {
    for double_quantization in [false, true] {
        for shape in [[1, 65], [64, 64], [300, 257]] {
            let count = shape[0] * shape[1];
            let packed = Nf4::quantise(&vec![0.5; count], shape, double_quantization);
            let kept = Kept::Nf4 { double_quantization };
            assert_eq!(kept.bytes(count as Count), packed.bytes() as Count, "{shape:?}");
        }
    }
}

#[test]
fn weights_of_7b_are_the_papers() {
    let sizes = sizes("7b");
    assert_eq!(sizes.weights(Kept::F32), 4 * 6_738_415_616);
    assert_eq!(sizes.weights(Kept::Bf16), 2 * 6_738_415_616);
    let projections = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11_008u64);
    let bits = |kept| 8 * (sizes.weights(kept) - 4 * (6_738_415_616 - projections));
    // Dettmers et al., 2023, section 3: 0.5 bits a number for scales, or 0.127.
    let double = bits(Kept::Nf4 { double_quantization: true }) as f64 / projections as f64;
    let single = bits(Kept::Nf4 { double_quantization: false }) as f64 / projections as f64;
    assert!((double - 4.127).abs() < 1e-3 && (single - 4.5).abs() < 1e-9, "{double} {single}");
}

#[test]
fn less_learns_with_adapters_and_takes_less() {
    let sizes = sizes("7b");
    let adapter = |text: &str| -> AdapterMethod { serde_json::from_str(text).unwrap() };
    let (lora, qlora) = (adapter(r#"{"lora": {}}"#), adapter(r#"{"qlora": {}}"#));
    let [all, beside, packed] =
        [None, Some(&lora), Some(&qlora)].map(|adapter| sizes.training(&training(adapter)));
    // 64 (in + out) numbers beside each of seven projections, in 32 layers; two moments of each.
    let adapters = 32 * 64 * (4 * 2 * 4096 + 3 * (4096 + 11_008u64));
    assert_eq!((all.moments, beside.moments), (8 * 6_738_415_616, 8 * adapters));
    assert_eq!(beside.weights - sizes.weights(Kept::F32), 4 * adapters);
    assert!(packed.least() < beside.least() && beside.least() < all.least());
    assert!(packed.all() < beside.all() && beside.all() < all.all());
    let some = adapter(r#"{"lora": {"r": 8, "target_modules": ["q_proj", "v_proj"]}}"#);
    let some = sizes.training(&training(Some(&some)));
    assert_eq!(some.moments, 8 * 32 * 8 * 2 * (4096 + 4096));
}

#[test]
fn a_gpu_keeps_frozen_weights_in_bf16() {
    let sizes = sizes("7b");
    let adapter = |text: &str| -> AdapterMethod { serde_json::from_str(text).unwrap() };
    let (lora, qlora) = (adapter(r#"{"lora": {}}"#), adapter(r#"{"qlora": {}}"#));
    let weights = |adapter: Option<&AdapterMethod>, precision: Precision, is_on_cpu: bool| {
        sizes.training(&Training { precision, is_on_cpu, ..training(adapter) }).weights
    };
    let adapters = 4 * 32 * 64 * (4 * 2 * 4096 + 3 * (4096 + 11_008u64));
    assert_eq!(weights(Some(&lora), Precision::Bf16, false), sizes.weights(Kept::Bf16) + adapters);
    assert_eq!(weights(Some(&lora), Precision::Bf16Weights, true), sizes.weights(Kept::F32) + adapters);
    assert_eq!(weights(None, Precision::Bf16, false), sizes.weights(Kept::F32));
    // Embedding, head and norms.
    let dense = 6_738_415_616 - 32 * (4 * 4096 * 4096 + 3 * 4096 * 11_008u64);
    let [half, single] =
        [Precision::Bf16, Precision::Tf32].map(|precision| weights(Some(&qlora), precision, false));
    assert_eq!(single - half, 2 * dense);
}

#[test]
fn a_gpu_keeps_one_cache_whatever_the_threads() {
    let sizes = sizes("7b");
    let needed = |threads: u64, is_on_cpu: bool| {
        let continuing = Continuing {
            prompts: 32,
            beams: 1,
            prompt_tokens: 512,
            new_tokens: 512,
            threads,
            kept: Kept::Bf16,
            is_on_cpu,
        };
        sizes.generation(&continuing)
    };
    let [one, sixteen] = [1, 16].map(|threads| needed(threads, false));
    assert_eq!(one, sixteen);
    assert_eq!(one.all() >> 30, 52);
    // Two numbers for each of 512 + 512 + 64 tokens, in 32 layers and one that is being replaced.
    assert_eq!(one.cache, 4 * 2 * 32 * 4096 * (512 + 512 + 64) * 33);
    let [cpu, both] = [1, 2].map(|threads| needed(threads, true));
    assert_eq!((cpu.cache, both.cache), (one.cache, 2 * one.cache));
}

#[test]
fn what_is_not_known_is_said() {
    let config = |text: &str| serde_json::from_str::<Map<String, Value>>(text).unwrap();
    let refused = |text: &str| Sizes::read(&config(text)).unwrap_err().to_string();
    assert_eq!(
        refused(r#"{"model_type": "mamba"}"#),
        "`config.json` says `model_type` `mamba`, which is not known"
    );
    assert_eq!(
        refused(r#"{"model_type": "t5", "num_layers": 0}"#),
        "`config.json`: `num_layers`: 0 is not a whole number above 0"
    );
    // Sizes that no machine has are only numbers here.
    let mut hostile = shape("7b").unwrap();
    for name in ["hidden_size", "num_hidden_layers", "vocab_size", "intermediate_size"] {
        hostile.insert(name.to_owned(), (1u64 << 31).into());
    }
    let need = Sizes::read(&hostile).unwrap().training(&training(None));
    assert_eq!((need.least(), need.all()), (u64::MAX, u64::MAX));
}
