//! `[kinds.NAME]`: a kind of stage that an experiment makes of a program.
//!
//! A stage of such a kind is a stage of the kind that runs programs. The kind's text gives what to
//! run, on what files, and what comes out; the stage gives inputs and values for the parameters,
//! which have types, defaults and explanations. So nothing is keyed but what the program sees, and
//! a stage that is written out as a program has the same key.

use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::json;

use crate::kind::name::is_name;
use crate::kind::ports::{Accepts, Arity, ArtifactType, InputPort, Ports};
use crate::toml::diagnostic::{Diagnostic, nearest_or_all};
use crate::toml::source_map::Span;
use crate::toml::value::{Content, Entry, TomlTable, Value};

/// The kind that runs programs.
pub(crate) const PROGRAM_KIND: &str = "command";

/// The fields of a kind that the kind that runs programs has too.
const OF_PROGRAM: [&str; 4] = ["run", "files", "outputs", "environment"];

/// The fields of a kind that a stage may override.
const OF_STAGES: [&str; 4] = ["resources", "timeout_seconds", "retries", "retry_on"];

/// The fields that a kind has and no program.
const OWN: [&str; 3] = ["about", "parameters", "inputs"];

/// Names that a parameter cannot have, since every stage has them.
const TAKEN: [&str; 13] = [
    "kind",
    "about",
    "inputs",
    "axes",
    "only",
    "except",
    "seed",
    "resources",
    "timeout_seconds",
    "retries",
    "retry_on",
    "replace",
    "remove",
];

/// A kind that an experiment defines.
#[derive(Debug, Clone)]
pub(crate) struct OwnKind {
    pub name: String,
    /// Where its name is written.
    pub key: Span,
    about: Option<String>,
    /// `run`, `files`, `outputs`, `environment`: as a stage that runs a program has them.
    program: TomlTable,
    /// What stages have unless they say otherwise: `resources` and the like.
    settings: TomlTable,
    parameters: IndexMap<String, Parameter>,
    inputs: Vec<InputPort>,
}

/// A parameter of a kind.
#[derive(Debug, Clone)]
struct Parameter {
    parameter_type: ParameterType,
    default: Option<Value>,
    help: Option<String>,
}

/// What values a parameter takes.
#[derive(Debug, Clone, PartialEq)]
enum ParameterType {
    Text,
    Integer,
    Number,
    Bool,
    List,
    /// A path, keyed by what is there.
    File,
    Choice(Vec<String>),
}

impl ParameterType {
    const NAMES: [&str; 6] = ["string", "integer", "number", "boolean", "list", "file"];

    fn named(name: &str) -> Option<Self> {
        let types = [Self::Text, Self::Integer, Self::Number, Self::Bool, Self::List, Self::File];
        Self::NAMES.iter().position(|known| *known == name).map(|position| types[position].clone())
    }

    fn describe(&self) -> String {
        match self {
            Self::Text => "a string".to_owned(),
            Self::Integer => "an integer".to_owned(),
            Self::Number => "a number".to_owned(),
            Self::Bool => "`true` or `false`".to_owned(),
            Self::List => "a list".to_owned(),
            Self::File => "a path".to_owned(),
            Self::Choice(choices) => {
                let choices: Vec<String> = choices.iter().map(|choice| format!("`{choice}`")).collect();
                format!("one of {}", choices.join(", "))
            }
        }
    }

    fn takes(&self, value: &Value) -> bool {
        match (self, &value.content) {
            (Self::Text | Self::File, Content::Text(_))
            | (Self::Integer | Self::Number, Content::Integer(_))
            | (Self::Number, Content::Float(_))
            | (Self::Bool, Content::Bool(_))
            | (Self::List, Content::List(_)) => true,
            (Self::Choice(choices), Content::Text(text)) => choices.contains(text),
            _ => false,
        }
    }

    fn check(&self, name: &str, value: &Value) -> Result<(), Diagnostic> {
        if self.takes(value) {
            return Ok(());
        }
        let actual = value.as_text().map_or_else(|| value.describe().to_owned(), |text| format!("`{text}`"));
        let message = format!("`{name}` is {}, not {actual}", self.describe());
        let help = match (self, value.as_text()) {
            (Self::Choice(choices), Some(text)) => {
                nearest_or_all(text, "choices", choices.iter().map(String::as_str))
            }
            _ => None,
        };
        Err(Diagnostic::new(value.span.clone(), message).label(self.describe()).maybe_help(help))
    }

    fn schema(&self) -> serde_json::Value {
        match self {
            Self::Text | Self::File => json!({ "type": "string" }),
            Self::Integer => json!({ "type": "integer" }),
            Self::Number => json!({ "type": "number" }),
            Self::Bool => json!({ "type": "boolean" }),
            Self::List => json!({ "type": "array" }),
            Self::Choice(choices) => json!({ "enum": choices }),
        }
    }
}

impl OwnKind {
    /// Reads `[kinds.NAME]`, of which all layers are merged.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub(crate) fn read(name: &str, entry: &Entry) -> Result<Arc<Self>, Vec<Diagnostic>> {
        let fail = |span: &Span, message: String| Diagnostic::new(span.clone(), message);
        if !is_name(name) {
            let message = format!("`{name}` cannot name a kind");
            return Err(vec![fail(&entry.key, message).help("use letters, digits, `_` and `-`")]);
        }
        let Some(table) = entry.value.as_table() else {
            let message = format!("kind `{name}` is a table, not {}", entry.value.describe());
            return Err(vec![fail(&entry.value.span, message).help("write `[kinds.NAME]` with a `run`")]);
        };
        let mut diagnostics = Vec::new();
        let mut kind = Self {
            name: name.to_owned(),
            key: entry.key.clone(),
            about: None,
            program: TomlTable::new(),
            settings: TomlTable::new(),
            parameters: IndexMap::new(),
            inputs: Vec::new(),
        };
        for (field, below) in table {
            match field.as_str() {
                "about" => match below.value.as_text() {
                    Some(about) => kind.about = Some(about.to_owned()),
                    None => {
                        let message = format!("`about` is a string, not {}", below.value.describe());
                        diagnostics.push(fail(&below.value.span, message));
                    }
                },
                "parameters" => each(field, &below.value, &mut diagnostics, |name, entry| {
                    kind.parameters.insert(name.to_owned(), read_parameter(name, entry)?);
                    Ok(())
                }),
                "inputs" => each(field, &below.value, &mut diagnostics, |name, entry| {
                    kind.inputs.push(read_input(name, entry)?);
                    Ok(())
                }),
                field if OF_PROGRAM.contains(&field) => {
                    kind.program.insert(field.to_owned(), below.clone());
                }
                field if OF_STAGES.contains(&field) => {
                    kind.settings.insert(field.to_owned(), below.clone());
                }
                _ => {
                    let known = OWN.into_iter().chain(OF_PROGRAM).chain(OF_STAGES);
                    diagnostics.push(
                        fail(&below.key, format!("unknown field `{field}` of kind `{name}`"))
                            .label("not a field here")
                            .maybe_help(nearest_or_all(field, "fields", known)),
                    );
                }
            }
        }
        for (needed, help) in [
            ("run", "write `run = [\"PROGRAM\", \"ARGUMENT\"]`, or a line for the shell"),
            ("outputs", "write `outputs.NAME = { type = \"scores\", columns = [\"METRIC\"] }`"),
        ] {
            if !table.contains_key(needed) {
                let message = format!("kind `{name}` has no `{needed}`");
                diagnostics.push(fail(&entry.key, message).label(format!("needs `{needed}`")).help(help));
            }
        }
        if diagnostics.is_empty() { Ok(Arc::new(kind)) } else { Err(diagnostics) }
    }

    /// Returns whether it hands the program a field.
    pub(crate) fn has(&self, field: &str) -> bool {
        self.program.contains_key(field)
    }

    /// Returns the fields that it hands to the program as they are.
    pub(crate) fn program_mut(&mut self) -> &mut TomlTable {
        &mut self.program
    }

    /// Returns what stages of the kind have unless they say otherwise.
    pub(crate) fn settings(&self) -> &TomlTable {
        &self.settings
    }

    /// Writes the table of a stage out as that of a program: inputs and the engine's own fields stay
    /// as they are.
    ///
    /// # Errors
    /// The first of its fields that is no parameter of the kind, or has a value of another type.
    pub(crate) fn program_of(&self, stage: &TomlTable, span: &Span) -> Result<TomlTable, Diagnostic> {
        let mut table = self.program.clone();
        let (mut values, mut files) = (TomlTable::new(), Vec::new());
        for (name, parameter) in &self.parameters {
            let Some(entry) = stage.get(name).cloned().or_else(|| {
                let value = parameter.default.clone()?;
                Some(Entry { key: value.span.clone(), value })
            }) else {
                let message = format!("missing field `{name}`");
                return Err(Diagnostic::new(span.clone(), message)
                    .label(format!("needs `{name}`"))
                    .maybe_help(parameter.help.clone()));
            };
            parameter.parameter_type.check(name, &entry.value)?;
            match (&parameter.parameter_type, entry.value.as_text()) {
                (ParameterType::File, Some(path)) => {
                    let file_name = path.rsplit('/').next().unwrap_or(path).to_owned();
                    let within = Content::Text(format!("files/{file_name}"));
                    let value = Value { span: entry.value.span.clone(), content: within };
                    values.insert(name.clone(), Entry { key: entry.key.clone(), value });
                    files.push(entry.value);
                }
                _ => {
                    values.insert(name.clone(), entry);
                }
            }
        }
        for (name, entry) in stage {
            if self.parameters.contains_key(name) {
                continue;
            }
            if name != "inputs" && name != "seed" {
                let known = self.parameters.keys().map(String::as_str);
                return Err(Diagnostic::new(entry.key.clone(), format!("unknown field `{name}`"))
                    .label("not a field here")
                    .help(
                        nearest_or_all(name, "parameters", known)
                            .unwrap_or_else(|| format!("kind `{}` has no parameters", self.name)),
                    ));
            }
            table.insert(name.clone(), entry.clone());
        }
        let at = |content| Value { span: self.key.clone(), content };
        if !files.is_empty() {
            let entry = table
                .entry("files".to_owned())
                .or_insert_with(|| Entry { key: self.key.clone(), value: at(Content::List(Vec::new())) });
            if let Content::List(list) = &mut entry.value.content {
                list.extend(files);
            }
        }
        if !values.is_empty() {
            let value = at(Content::Table(values));
            table.insert("parameters".to_owned(), Entry { key: self.key.clone(), value });
        }
        Ok(table)
    }

    /// Puts the kind's inputs in the place of those of a program, which takes anything.
    pub(crate) fn ports(&self, program: Ports) -> Ports {
        Ports { inputs: self.inputs.clone(), rest: None, ..program }
    }

    /// Returns the JSON Schema of its parameters.
    pub(crate) fn schema(&self) -> serde_json::Value {
        let property = |parameter: &Parameter| {
            let mut schema = parameter.parameter_type.schema();
            let object = schema.as_object_mut().expect("written as an object");
            if let Some(help) = &parameter.help {
                object.insert("description".to_owned(), json!(help));
            }
            if let Some(default) = &parameter.default {
                object.insert("default".to_owned(), default.to_json());
            }
            schema
        };
        let properties: serde_json::Map<String, serde_json::Value> =
            self.parameters.iter().map(|(name, parameter)| (name.clone(), property(parameter))).collect();
        json!({
            "title": self.name,
            "description": self.about.clone().unwrap_or_default(),
            "type": "object",
            "properties": properties,
            "additionalProperties": false,
        })
    }
}

/// Reads each entry of a table, and keeps what is wrong with any.
fn each(
    field: &str,
    value: &Value,
    diagnostics: &mut Vec<Diagnostic>,
    mut read: impl FnMut(&str, &Entry) -> Result<(), Diagnostic>,
) {
    let Some(table) = value.as_table() else {
        let message = format!("`{field}` is a table, not {}", value.describe());
        diagnostics.push(Diagnostic::new(value.span.clone(), message));
        return;
    };
    for (name, entry) in table {
        if let Err(diagnostic) = read(name, entry) {
            diagnostics.push(diagnostic);
        }
    }
}

/// Reads a parameter: its default, or a table with `type`, `choices`, `default` and `help`.
fn read_parameter(name: &str, entry: &Entry) -> Result<Parameter, Diagnostic> {
    if !is_name(name) || TAKEN.contains(&name) || OF_PROGRAM.contains(&name) {
        let message = format!("`{name}` cannot name a parameter");
        let help = if is_name(name) {
            "stages have a field of this name that means something else"
        } else {
            "use letters, digits, `_` and `-`"
        };
        return Err(Diagnostic::new(entry.key.clone(), message).help(help));
    }
    let Some(table) = entry.value.as_table() else {
        let parameter_type = match &entry.value.content {
            Content::Text(_) | Content::Time(_) => ParameterType::Text,
            Content::Integer(_) => ParameterType::Integer,
            Content::Float(_) => ParameterType::Number,
            Content::Bool(_) => ParameterType::Bool,
            Content::List(_) | Content::Table(_) => ParameterType::List,
        };
        return Ok(Parameter { parameter_type, default: Some(entry.value.clone()), help: None });
    };
    let known = ["type", "choices", "default", "help"];
    for (field, below) in table {
        if !known.contains(&field.as_str()) {
            return Err(Diagnostic::new(
                below.key.clone(),
                format!("unknown field `{field}` of a parameter"),
            )
            .label("not a field here")
            .maybe_help(nearest_or_all(field, "fields", known)));
        }
    }
    let text = |field: &str| -> Result<Option<String>, Diagnostic> {
        let Some(below) = table.get(field) else { return Ok(None) };
        let text = below.value.as_text().map(str::to_owned).ok_or_else(|| {
            let message = format!("`{field}` is a string, not {}", below.value.describe());
            Diagnostic::new(below.value.span.clone(), message)
        });
        text.map(Some)
    };
    let parameter_type = match (text("type")?, table.get("choices")) {
        (None, Some(choices)) => {
            let texts = choices.value.as_list().unwrap_or_default();
            let texts: Vec<String> =
                texts.iter().filter_map(|choice| choice.as_text().map(str::to_owned)).collect();
            if texts.is_empty() || choices.value.as_list().map(<[Value]>::len) != Some(texts.len()) {
                return Err(Diagnostic::new(choices.value.span.clone(), "`choices` is a list of strings"));
            }
            ParameterType::Choice(texts)
        }
        (Some(_), Some(choices)) => {
            let message = format!("parameter `{name}` has a `type` and `choices`");
            return Err(Diagnostic::new(choices.key.clone(), message).help("leave one of them out"));
        }
        (Some(named), None) => ParameterType::named(&named).ok_or_else(|| {
            let span = table["type"].value.span.clone();
            Diagnostic::new(span, format!("there is no type `{named}`")).maybe_help(nearest_or_all(
                &named,
                "types",
                ParameterType::NAMES,
            ))
        })?,
        (None, None) => {
            let message = format!("parameter `{name}` has no `type`");
            return Err(Diagnostic::new(entry.key.clone(), message)
                .label("needs `type` or `choices`")
                .maybe_help(nearest_or_all("", "types", ParameterType::NAMES)));
        }
    };
    let default = table.get("default").map(|below| below.value.clone());
    if let Some(default) = &default {
        parameter_type.check(name, default)?;
    }
    Ok(Parameter { parameter_type, default, help: text("help")? })
}

/// Reads an input: the type of its artifact, or a table with `type`, `optional` and `several`.
fn read_input(name: &str, entry: &Entry) -> Result<InputPort, Diagnostic> {
    if !is_name(name) {
        let message = format!("`{name}` cannot name an input");
        return Err(Diagnostic::new(entry.key.clone(), message).help("use letters, digits, `_` and `-`"));
    }
    let port = |types: &Value, arity: Arity| -> Result<InputPort, Diagnostic> {
        let names = types.items().iter().map(Value::as_text).collect::<Option<Vec<_>>>();
        let Some(names) = names.filter(|names| !names.is_empty()) else {
            let message = format!("the type of input `{name}` is a string or a list of strings");
            return Err(Diagnostic::new(types.span.clone(), message)
                .help("write the type of an artifact, such as `rows` or `predictions`, or `any`"));
        };
        let accepts = match names.as_slice() {
            ["any"] => Accepts::Any,
            names => Accepts::Only(names.iter().map(|name| ArtifactType::from((*name).to_owned())).collect()),
        };
        Ok(InputPort { name: name.to_owned(), accepts, arity })
    };
    let Some(table) = entry.value.as_table() else { return port(&entry.value, Arity::One) };
    let known = ["type", "optional", "several"];
    let (mut is_optional, mut takes_several) = (false, false);
    for (field, below) in table {
        let truth = match (field.as_str(), &below.value.content) {
            ("type", _) => continue,
            ("optional", Content::Bool(truth)) => (&mut is_optional, *truth),
            ("several", Content::Bool(truth)) => (&mut takes_several, *truth),
            ("optional" | "several", _) => {
                let message = format!("`{field}` is `true` or `false`, not {}", below.value.describe());
                return Err(Diagnostic::new(below.value.span.clone(), message));
            }
            _ => {
                return Err(Diagnostic::new(
                    below.key.clone(),
                    format!("unknown field `{field}` of an input"),
                )
                .label("not a field here")
                .maybe_help(nearest_or_all(field, "fields", known)));
            }
        };
        *truth.0 = truth.1;
    }
    let arity = match (is_optional, takes_several) {
        (false, false) => Arity::One,
        (true, false) => Arity::ZeroOrOne,
        (false, true) => Arity::OneOrMore,
        (true, true) => Arity::Many,
    };
    let types = table.get("type").ok_or_else(|| {
        Diagnostic::new(entry.key.clone(), format!("input `{name}` has no `type`"))
            .label("needs `type`")
            .help("write the type of an artifact, such as `rows` or `predictions`, or `any`")
    })?;
    port(&types.value, arity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toml::parse::parse;

    const KIND: &str = "
[kinds.bertscore]
about = 'BERTScore of predictions'
run = ['python3', 'files/bertscore.py']
files = ['bertscore.py']
outputs.scores = { type = 'scores', columns = ['f1'] }
resources.cores = 2
[kinds.bertscore.inputs]
predictions = 'predictions'
references = { type = ['rows', 'predictions'], optional = true }
[kinds.bertscore.parameters]
layers = 17
model = { type = 'string', help = 'which model' }
idf = { choices = ['on', 'off'], default = 'off' }
stopwords = { type = 'file', default = 'lists/stop.txt' }
";

    fn own(text: &str) -> Result<Arc<OwnKind>, Vec<String>> {
        let (table, diagnostics) = parse(text, 0);
        assert_eq!(diagnostics, []);
        let kinds = table["kinds"].value.as_table().unwrap();
        let (name, entry) = kinds.first().unwrap();
        OwnKind::read(name, entry).map_err(|wrong| wrong.into_iter().map(|wrong| wrong.message).collect())
    }

    fn program(stage: &str) -> Result<serde_json::Value, String> {
        let (table, diagnostics) = parse(stage, 10_000);
        assert_eq!(diagnostics, []);
        let program = own(KIND).unwrap().program_of(&table, &(0..0)).map_err(|wrong| wrong.message)?;
        Ok(Value { span: 0..0, content: Content::Table(program) }.to_json())
    }

    #[test]
    fn a_stage_is_written_out_as_a_program() {
        let written = program("inputs.predictions = 'texts'\nmodel = 'deberta'\nlayers = 12").unwrap();
        let expected = json!({
            "run": ["python3", "files/bertscore.py"],
            "files": ["bertscore.py", "lists/stop.txt"],
            "outputs": { "scores": { "type": "scores", "columns": ["f1"] } },
            "parameters": {
                "layers": 12, "model": "deberta", "idf": "off", "stopwords": "files/stop.txt"
            },
            "inputs": { "predictions": "texts" },
        });
        assert_eq!(written, expected);
    }

    #[test]
    fn what_a_stage_says_is_checked() {
        let wrong = |stage: &str| program(stage).unwrap_err();
        assert_eq!(wrong("layers = 12"), "missing field `model`");
        assert_eq!(wrong("model = 3"), "`model` is a string, not an integer");
        assert_eq!(wrong("model = 'a'\nidf = 'maybe'"), "`idf` is one of `on`, `off`, not `maybe`");
        assert_eq!(wrong("model = 'a'\nlayer = 1"), "unknown field `layer`");
    }

    #[test]
    fn inputs_have_types() {
        let ports = own(KIND).unwrap().ports(Ports::new().any_other_inputs(Accepts::Any));
        assert_eq!(ports.port("other"), None);
        let (accepts, arity) = ports.port("references").unwrap();
        assert_eq!((accepts.describe().as_str(), arity), ("rows or predictions", Arity::ZeroOrOne));
        assert_eq!(ports.port("predictions").unwrap().1, Arity::One);
    }

    #[test]
    fn a_broken_kind_is_reported_whole() {
        let wrong =
            own("[kinds.x]\nrnu = 1\noutputs = {}\nparameters.kind = 1\nparameters.a = { type = 'strin' }\n\
             parameters.b = {}\nparameters.c = { type = 'integer', default = 'x' }\ninputs.p = 3")
            .unwrap_err();
        assert_eq!(
            wrong,
            [
                "unknown field `rnu` of kind `x`",
                "`kind` cannot name a parameter",
                "there is no type `strin`",
                "parameter `b` has no `type`",
                "`c` is an integer, not `x`",
                "the type of input `p` is a string or a list of strings",
                "kind `x` has no `run`",
            ]
        );
    }
}
