//! What computing with a model takes of memory, for commands.

use learn::{AdapterMethod, Compared, Continuing, Kept, Precision, Sizes, Training};

use crate::support::memory::text_tokens;

/// What computing with a model takes, for commands.
#[derive(Debug, Clone)]
pub struct ModelNeeds {
    /// Its `model_type`.
    pub model_type: String,
    /// How many numbers it has.
    pub parameters: u64,
    /// The tokens of the texts.
    pub tokens: u64,
    /// What is done, and what that takes.
    pub work: Vec<(&'static str, learn::Need)>,
}

/// Returns what computing with a model takes on a device: one in a folder, or one of a known shape
/// such as `7b`. Texts have so many tokens, or the usual number.
///
/// # Errors
/// What is wrong, and what to do.
pub fn model_needs(
    model: &str,
    tokens: Option<u32>,
    prompts: u32,
    (device, threads): (&str, u32),
) -> Result<ModelNeeds, String> {
    let folder = std::path::Path::new(model);
    let config = if folder.is_dir() {
        let file = folder.join("config.json");
        if file.exists() && !file.is_file() {
            return Err(format!("{} is no file", file.display()));
        }
        let text = std::fs::read_to_string(&file)
            .map_err(|error| format!("failed to read {}: {error}", file.display()))?;
        serde_json::from_str(&text)
            .map_err(|error| format!("{} is no configuration: {error}", file.display()))?
    } else {
        super::bench::shape_named(model)
            .map_err(|problem| format!("`{model}` is no folder, and {problem}"))?
    };
    let sizes = Sizes::read(&config).map_err(|error| format!("{model}: {error}"))?;
    let (tokens, is_on_cpu) = (text_tokens(&sizes, tokens), device == "cpu");
    // A GPU computes one batch after the other.
    let threads = if is_on_cpu { u64::from(threads) } else { 1 };
    if sizes.model_type() == "deberta-v2" {
        let work = vec![("judging", sizes.judging(tokens, threads))];
        return Ok(ModelNeeds {
            model_type: "deberta-v2".to_owned(),
            parameters: sizes.parameters(),
            tokens,
            work,
        });
    }
    let generation = sizes.generation(&Continuing {
        prompts: u64::from(prompts),
        beams: 1,
        prompt_tokens: tokens,
        new_tokens: tokens,
        threads,
        kept: Kept::F32,
        is_on_cpu,
    });
    let default = "everything has a default";
    let lora = AdapterMethod::Lora(serde_json::from_str("{}").expect(default));
    let qlora = AdapterMethod::Qlora(serde_json::from_str("{}").expect(default));
    let training = |adapter: Option<&AdapterMethod>| {
        sizes.training(&Training {
            adapter,
            tokens,
            // As many as keep all threads busy.
            outputs: 64,
            threads,
            compared: Compared::Nothing,
            recomputes: false,
            precision: Precision::F32,
            is_on_cpu,
        })
    };
    let work = vec![
        ("generation", generation),
        ("training", training(None)),
        ("LoRA", training(Some(&lora))),
        ("QLoRA", training(Some(&qlora))),
    ];
    Ok(ModelNeeds { model_type: sizes.model_type().to_owned(), parameters: sizes.parameters(), tokens, work })
}
