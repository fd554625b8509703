//! What is known of models before they are made, and what computing with them takes.
//!
//! A stage that makes a model hands on the `config.json` that it will have; one that makes a
//! tokenizer, how many tokens there will be at most.

use engine::{Amount, EstimateContext, Memory, Need, OutputHint};
use learn::Sizes;
use serde_json::{Map, Value, json};

/// How many tokens texts are taken to have where nothing says how many they have at most.
const USUAL_TOKENS: u64 = 512;

/// Returns what is known of a model.
pub(crate) fn model_hint(config: &Map<String, Value>) -> OutputHint {
    json!({ "config": config })
}

/// Returns what is known of a tokenizer.
pub(crate) fn tokenizer_hint(most_tokens: usize) -> OutputHint {
    json!({ "most_tokens": most_tokens })
}

/// Returns how many tokens a tokenizer will have at most, if that is known.
pub(crate) fn most_tokens(hint: &OutputHint) -> Option<usize> {
    usize::try_from(hint.get("most_tokens")?.as_u64()?).ok()
}

/// Returns the sizes of a model of which something is known.
pub(crate) fn sizes_of(hint: &OutputHint) -> Result<Sizes, String> {
    let config = hint.get("config").and_then(Value::as_object);
    let config = config.ok_or_else(|| "no `config.json` is known".to_owned())?;
    Sizes::read(config).map_err(|error| error.to_string())
}

/// Returns the sizes of the model that enters by a port, or why nobody knows them.
pub(crate) fn sizes(context: &EstimateContext<'_>, port: &str) -> Result<Sizes, Memory> {
    let unknown = |because: String| Memory::Unknown(format!("{because} of `{port}` before it is made"));
    let hint = context.input(port).ok_or_else(|| unknown("nothing is known".to_owned()))?;
    sizes_of(hint).map_err(Memory::Unknown)
}

/// Returns how many tokens a text of a model is taken to have: as many as it may have at most, if
/// that is said or is little.
pub(crate) fn text_tokens(sizes: &Sizes, most: Option<u32>) -> u64 {
    most.map_or(USUAL_TOKENS, u64::from).min(sizes.longest())
}

/// Says whether a stage is to compute on the CPU.
pub(crate) fn is_on_cpu(context: &EstimateContext<'_>) -> bool {
    context.device().split(',').all(|device| device.trim() == "cpu")
}

/// Returns how many threads compute side by side: on a GPU, one.
pub(crate) fn threads(context: &EstimateContext<'_>) -> u64 {
    if is_on_cpu(context) { u64::from(context.cores()) } else { 1 }
}

/// Says what a stage needs: of the machine, or of a device with memory of its own.
pub(crate) fn memory(need: &learn::Need, context: &EstimateContext<'_>, tokens: u64) -> Memory {
    let amount = Amount { least: need.least(), likely: need.all() };
    let assuming = format!("for texts of {tokens} tokens");
    if is_on_cpu(context) {
        // Each of several has a model of its own.
        let devices = context.device().split(',').count() as u64;
        let amount = Amount {
            least: amount.least.saturating_mul(devices),
            likely: amount.likely.saturating_mul(devices),
        };
        return Memory::Known(Need { machine: amount, device: Amount::default(), assuming });
    }
    // The program itself is here, and tensors pass through on their way.
    let here = Amount { least: need.program, likely: need.program + need.passing };
    let device = Amount { least: amount.least - need.program, likely: amount.likely - need.program };
    Memory::Known(Need { machine: here, device, assuming })
}
