//! What transformers generates, generated again.

use serde_json::Value;

use super::{golden, logits, network, numbers};
use crate::generate::generation::continue_with;
use crate::generate::strategy::Strategy;
use crate::generate::{Beam, EarlyStopping};

/// The strategy that the reference was made with.
fn strategy(one: &Value) -> Strategy {
    let params = &one["params"];
    match params["num_beams"].as_u64().unwrap() {
        1 => Strategy::default(),
        beams => Strategy::Beam(Beam {
            num_beams: beams as u32,
            length_penalty: params["length_penalty"].as_f64().unwrap(),
            early_stopping: serde_json::from_value(params["early_stopping"].clone()).unwrap(),
            num_return_sequences: params["num_return_sequences"].as_u64().unwrap() as u32,
        }),
    }
}

/// The tokens that end an output: one or none in the shared references, a list in our own.
fn ends(one: &Value) -> Vec<u32> {
    match one.get("ends") {
        Some(ends) => serde_json::from_value(ends.clone()).unwrap(),
        None => one["eos_token_id"].as_u64().map(|id| id as u32).into_iter().collect(),
    }
}

#[test]
fn greedy_and_beam_search() {
    let shared = ["llama", "llama3rope", "t5_v10", "t5_v11"].map(|name| (name, "expected.json"));
    let own = ["llama", "t5_v10", "t5_v11", "t5_other"].map(|name| (name, "generation.json"));
    for (name, file) in shared.into_iter().chain(own) {
        let expected: Value =
            serde_json::from_slice(&std::fs::read(golden(name).join(file)).unwrap()).unwrap();
        let network = network(name);
        let prompts: Vec<Vec<u32>> = serde_json::from_value(expected["prompts"].clone()).unwrap();
        let together: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
        let mut modes = std::collections::BTreeSet::new();
        for one in expected["generation"].as_array().unwrap() {
            let most = one["max_new_tokens"].as_u64().unwrap() as usize;
            let (ends, params) = (ends(one), &one["params"]);
            let strategy = strategy(one);
            let mode = one["mode"].as_str().unwrap();
            modes.insert(params.to_string());
            let batch = continue_with(&network, &strategy, &together, most, &ends);
            for (place, prompt) in prompts.iter().enumerate() {
                let wanted = &one["per_prompt"][place];
                let alone = continue_with(&network, &strategy, &[prompt], most, &ends).remove(0);
                let sequences = wanted["new_tokens"].as_array().unwrap();
                assert_eq!(alone.len(), sequences.len(), "{name} {mode} {params} {place}");
                for (rank, sequence) in sequences.iter().enumerate() {
                    let tokens: Vec<u32> = serde_json::from_value(sequence.clone()).unwrap();
                    let ended = tokens.iter().any(|id| ends.contains(id));
                    let tokens: Vec<u32> = tokens.into_iter().take_while(|id| !ends.contains(id)).collect();
                    for actual in [&alone[rank], &batch[place][rank]] {
                        assert_eq!(
                            (&actual.tokens, actual.ended),
                            (&tokens, ended),
                            "{name} {mode} {params} {place} {rank}"
                        );
                        if let Some(score) = wanted["sequences_scores"][rank].as_f64() {
                            // The sums of log-probabilities, which scores are made of. Each token
                            // adds what its logits are off by.
                            let length = (actual.tokens.len() + usize::from(ended)) as f64;
                            let by = length.powf(params["length_penalty"].as_f64().unwrap());
                            let off = (actual.score.unwrap() * by - score * by).abs();
                            let message = format!("{name} {mode} {params} {place} {rank}: off by {off}");
                            assert!(off < 2e-5 + 5e-6 * length, "{message}");
                        }
                    }
                }
            }
        }
        assert!(modes.len() >= 3, "{name}: {modes:?}");
    }
}

#[test]
fn early_stopping_is_written_as_in_transformers() {
    for (text, value) in
        [("false", EarlyStopping::No), ("true", EarlyStopping::Yes), ("\"never\"", EarlyStopping::Never)]
    {
        assert_eq!(serde_json::from_str::<EarlyStopping>(text).unwrap(), value);
        assert_eq!(serde_json::to_string(&value).unwrap(), text);
    }
    let error = serde_json::from_str::<EarlyStopping>("\"often\"").unwrap_err().to_string();
    assert!(error.contains("expected `true`, `false` or `\"never\"`"), "{error}");
}

/// The reference has no draws of ours. Where nearly all is left out, they are greedy; and what is
/// drawn follows from the seed and the row, whatever is beside it.
#[test]
fn sampling_follows_from_the_seed_and_the_row() {
    for name in ["llama", "t5_v11"] {
        let network = network(name);
        let expected: Value =
            serde_json::from_slice(&std::fs::read(golden(name).join("expected.json")).unwrap()).unwrap();
        let prompts: Vec<Vec<u32>> = serde_json::from_value(expected["prompts"].clone()).unwrap();
        let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
        let sample = |text: &str| serde_json::from_str::<Strategy>(text).unwrap();
        let run = |strategy: &Strategy| continue_with(&network, strategy, &prompts, 12, &[]);
        let narrow = sample(r#"{"sample": {"top_p": 1e-9}}"#);
        assert_eq!(run(&narrow), run(&Strategy::default()), "{name}");
        let hot = sample(r#"{"sample": {"temperature": 2.0, "seed": 1}}"#);
        let actual = run(&hot);
        assert_eq!(actual, run(&hot));
        assert_ne!(actual, run(&sample(r#"{"sample": {"temperature": 2.0, "seed": 2}}"#)));
        assert_ne!(actual, run(&Strategy::default()));
        let first = continue_with(&network, &hot, &prompts[..1], 12, &[]);
        assert_eq!(first[0], actual[0], "{name}");
        // The same prompt at another place draws other tokens.
        let twice = continue_with(&network, &hot, &[prompts[0], prompts[0]], 12, &[]);
        assert_eq!(twice[0], actual[0]);
        assert_ne!(twice[1], actual[0]);
    }
}

/// One token at a time, with what is remembered of those before, far beyond the room that is made
/// for them at first; and all at once.
#[test]
fn what_is_remembered_is_what_the_whole_text_gives() {
    let likeliest = |logits: &[f32]| {
        (0..logits.len()).max_by(|one, other| logits[*one].total_cmp(&logits[*other])).unwrap() as u32
    };
    for name in ["llama", "t5_other"] {
        let network = network(name);
        let prompt: Vec<u32> = (10..22).collect();
        let actual = continue_with(&network, &Strategy::default(), &[&prompt], 100, &[]).remove(0).remove(0);
        assert_eq!(actual.tokens.len(), 100);
        let (logits, before) = match name {
            "llama" => {
                let all = prompt.iter().chain(&actual.tokens).map(|id| i64::from(*id)).collect();
                (logits(&super::model(name), &[all]), prompt.len() - 1)
            }
            _ => {
                let model = super::t5::t5(name);
                let outputs = std::iter::once(model.config.start).chain(actual.tokens.iter().copied());
                let (_, logits) = model.states_and_logits(&[&prompt], &[outputs.collect()]);
                (numbers(logits), 0)
            }
        };
        let rows = logits.chunks_exact(network.vocabulary_size()).skip(before);
        for (place, (row, token)) in rows.zip(&actual.tokens).enumerate() {
            assert_eq!(likeliest(row), *token, "{name} {place}");
        }
    }
}
