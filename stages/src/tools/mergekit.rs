//! Turns recipes of mergekit into stages, for commands.

use serde_json::{Map, Value, json};
use weights::mergekit;

/// Writes the stages of a recipe of mergekit as they stand in an experiment file.
///
/// # Errors
/// What is wrong with the recipe, or asked for and not supported.
pub fn import_mergekit(recipe: &str) -> Result<String, String> {
    let imported = mergekit::import(recipe)?;
    let mut stages = Map::new();
    let mut inputs = Map::new();
    let base = imported.base.map(|path| ("base".to_owned(), path));
    for (name, path) in imported.models.into_iter().chain(base) {
        let format = if imported.adapters.contains(&name) { "adapter" } else { "model" };
        stages.insert(name.clone(), json!({ "kind": "source", "path": path, "format": format }));
        inputs.insert(name.clone(), name.into());
    }
    let mut merge = json!({ "kind": "merge", "inputs": inputs, "method": imported.method });
    if !imported.adapters.is_empty() {
        merge["adapters"] = json!(imported.adapters);
    }
    let optional = [
        ("ratio", json!(imported.ratio)),
        ("weights", json!(imported.weights)),
        ("dtype", json!(imported.dtype)),
    ];
    for (field, value) in optional.into_iter().filter(|(_, value)| !value.is_null()) {
        merge[field] = value;
    }
    stages.insert("merged".to_owned(), merge);
    let mut text: String = imported.notes.iter().map(|note| format!("# {note}\n")).collect();
    for (name, stage) in stages {
        text.push_str(&format!("\n[stages.{name}]\n"));
        for (field, value) in stage.as_object().into_iter().flatten() {
            text.push_str(&format!("{field} = {}\n", inline(value)?));
        }
    }
    Ok(text.trim_start().to_owned())
}

fn inline(value: &Value) -> Result<String, String> {
    let value = toml::Value::try_from(value).map_err(|error| error.to_string())?;
    Ok(value.to_string())
}
