//! The types of artifacts that stages hand to each other.

use engine::ArtifactType;

/// Rows: `rows.jsonl`, one JSON object per line, each with a unique `id`.
pub const ROWS: ArtifactType = ArtifactType::new("rows");
/// What a model made of rows: `rows.jsonl`, one prediction per line.
pub const PREDICTIONS: ArtifactType = ArtifactType::new("predictions");
/// Pairs of answers, one preferred to the other: `rows.jsonl`, one pair per line.
pub const PREFERENCES: ArtifactType = ArtifactType::new("preferences");
/// Answers, wanted or not: `rows.jsonl`, one answer per line.
pub const UNPAIRED: ArtifactType = ArtifactType::new("unpaired");
/// A model folder in the layout of Hugging Face: `config.json`, safetensors, `tokenizer.json`.
pub const WEIGHTS: ArtifactType = ArtifactType::new("weights");
/// What was learnt beside frozen weights, as PEFT writes it.
pub const ADAPTER: ArtifactType = ArtifactType::new("adapter");
/// How likely a model finds the outputs of preferences: `rows.jsonl`, one example per line.
pub const LOGPS: ArtifactType = ArtifactType::new("logps");
/// A tokenizer: `tokenizer.json`.
pub const TOKENIZER: ArtifactType = ArtifactType::new("tokenizer");
/// The curves of a training: `rows.jsonl`, one step or one look at the validation rows per line.
pub const CURVES: ArtifactType = ArtifactType::new("curves");
/// What the steps of a training took of the machine: `rows.jsonl`, one step per line. It differs from
/// run to run, and so is apart from what a training makes.
pub const THROUGHPUT: ArtifactType = ArtifactType::new("throughput");
/// What a judge said of rows: `rows.jsonl`, matrices of probabilities of one row per line.
pub const JUDGEMENTS: ArtifactType = ArtifactType::new("judgements");
/// Scores: `metrics.json` with the numbers for tables, `rows.jsonl` with those per row.
pub const SCORES: ArtifactType = ArtifactType::new("scores");
/// What a stage did to its data, as `report.json`.
pub const REPORT: ArtifactType = ArtifactType::new("report");
/// Files that only their maker and their readers understand.
pub const FILES: ArtifactType = ArtifactType::new("files");

/// All types, in the order in which the manual shows them.
pub const ALL: &[ArtifactType] = &[
    ROWS,
    PREDICTIONS,
    PREFERENCES,
    UNPAIRED,
    LOGPS,
    TOKENIZER,
    WEIGHTS,
    ADAPTER,
    CURVES,
    THROUGHPUT,
    JUDGEMENTS,
    SCORES,
    REPORT,
    FILES,
];
