//! Expands the embedded data of the `mini` profile into one table of molecules.
//!
//! Reads `experiments/mini/named.tsv` (molecules written one by one) and
//! `experiments/mini/classes.toml` (templates and the fragments that fill them), and writes
//! `molecules.tsv` beside them with its BLAKE3 digest. Every SMILES must parse, no molecule and
//! no id may occur twice, and every property list must be clean; the first mistake names its
//! file and row.
//!
//! ```text
//! cargo run -p corpus --example mini             # writes molecules.tsv and its digest
//! cargo run -p corpus --example mini -- --check  # fails if they differ from what is there
//! ```

#![expect(clippy::print_stderr, clippy::print_stdout, reason = "its output is what it is for")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use serde::Deserialize;

/// The folder of the data, seen from this package.
const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../experiments/mini");
const NAMED: &str = "named.tsv";
const CLASSES: &str = "classes.toml";
const MOLECULES: &str = "molecules.tsv";
const DIGEST: &str = "molecules.tsv.blake3";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => build().and_then(|table| write(&table)),
        ["--check"] => build().and_then(|table| check(&table)),
        _ => Err(Mistake::Usage),
    };
    match outcome {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(mistake) => {
            eprintln!("error: {mistake}");
            ExitCode::FAILURE
        }
    }
}

/// What can be wrong with the data or the command line.
#[derive(Debug, thiserror::Error)]
enum Mistake {
    #[error("usage: mini [--check]")]
    Usage,
    #[error("failed to read or write {file}: {source}")]
    File { file: &'static str, source: std::io::Error },
    #[error("{NAMED}: {0}")]
    Named(csv::Error),
    #[error("{CLASSES}: {0}")]
    Classes(toml::de::Error),
    #[error("{origin}: {what}")]
    Row { origin: String, what: String },
    #[error("{0} is out of date; run `cargo run -p corpus --example mini`")]
    OutOfDate(&'static str),
}

/// One molecule before it is checked; `origin` says which row of which file it comes from.
struct Entry {
    origin: String,
    name: String,
    smiles: String,
    properties: Vec<String>,
    class: String,
}

impl Entry {
    fn mistake(&self, what: impl Into<String>) -> Mistake {
        Mistake::Row { origin: self.origin.clone(), what: what.into() }
    }
}

/// A row of `named.tsv`. The formula is for readers and for checks with other programs.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NamedRow {
    name: String,
    smiles: String,
    properties: String,
    #[expect(dead_code, reason = "the column is in the file")]
    formula: String,
    class: String,
}

/// The whole of `classes.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Classes {
    /// Table of fragments -> fragment's name -> fragment.
    fragments: BTreeMap<String, BTreeMap<String, Fragment>>,
    class: Vec<Class>,
}

/// A piece of SMILES that fills a slot of a template.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fragment {
    smiles: String,
    #[serde(default)]
    tags: BTreeSet<String>,
}

/// Molecules whose structure and properties follow from one template.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Class {
    name: String,
    /// Template of the members' names; `{1}` is the name of the first slot's fragment.
    #[serde(default)]
    title: String,
    /// Template of the members' SMILES; `{1}` is the SMILES of the first slot's fragment.
    #[serde(default)]
    smiles: String,
    /// The table of fragments that fills each slot.
    #[serde(default)]
    slots: Vec<String>,
    /// Members: the names of their fragments, one per slot, separated by spaces.
    #[serde(default)]
    members: Vec<String>,
    /// Members: every combination of these fragments, one list per slot.
    #[serde(default)]
    product: Vec<Vec<String>>,
    /// Members written out: name -> SMILES.
    #[serde(default)]
    listed: BTreeMap<String, String>,
    /// What all members have.
    properties: Vec<String>,
    /// What members have by the tags of their fragments.
    #[serde(default)]
    when: Vec<Condition>,
    /// What single members have besides: name -> properties.
    #[serde(default)]
    extra: BTreeMap<String, Vec<String>>,
}

/// Properties of the members in which `slots` of the fragments carry `tag`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Condition {
    tag: String,
    slots: Slots,
    add: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Slots {
    Every,
    Some,
    None,
}

impl Condition {
    fn holds(&self, fragments: &[(&str, &Fragment)]) -> bool {
        let mut tagged = fragments.iter().map(|(_, f)| f.tags.contains(&self.tag));
        match self.slots {
            Slots::Every => tagged.all(|tagged| tagged),
            Slots::Some => tagged.any(|tagged| tagged),
            Slots::None => !tagged.any(|tagged| tagged),
        }
    }
}

/// The finished table and its digest, as they lie in their files.
struct Table {
    text: String,
    digest: String,
    counts: BTreeMap<String, usize>,
}

fn build() -> Result<Table, Mistake> {
    let mut entries = named()?;
    entries.extend(classes()?);
    let mut text = String::from("id\tmolecule\tproperties\tname\tclass\n");
    let mut ids = BTreeMap::new();
    let mut molecules = BTreeMap::new();
    let mut counts = BTreeMap::new();
    for entry in &entries {
        let id = slug(&entry.name);
        if id.is_empty() || entry.class.is_empty() || entry.class.trim() != entry.class {
            return Err(entry.mistake("name or class is empty or has spaces around it"));
        }
        if let Some(first) = ids.insert(id.clone(), &entry.origin) {
            return Err(entry.mistake(format!("id `{id}` is that of {first}")));
        }
        let molecule = chem::canonical(&entry.smiles)
            .map_err(|error| entry.mistake(format!("`{}`: {error}", entry.smiles)))?;
        if let Some(first) = molecules.insert(molecule.clone(), &entry.origin) {
            return Err(entry.mistake(format!("`{molecule}` is already at {first}")));
        }
        let properties = properties(entry)?.join("|");
        let row = [&id, &molecule, &properties, &entry.name, &entry.class];
        if row.iter().any(|field| field.contains(['\t', '\n', '\r'])) {
            return Err(entry.mistake("a field holds a tab or a line break"));
        }
        text.push_str(&row.map(String::as_str).join("\t"));
        text.push('\n');
        *counts.entry(entry.class.clone()).or_insert(0) += 1;
    }
    let digest = format!("{}\n", blake3::hash(text.as_bytes()).to_hex());
    Ok(Table { text, digest, counts })
}

fn write(table: &Table) -> Result<String, Mistake> {
    for (file, text) in [(MOLECULES, &table.text), (DIGEST, &table.digest)] {
        fs::write(Path::new(DATA).join(file), text).map_err(|source| Mistake::File { file, source })?;
    }
    let mut report = String::new();
    for (class, count) in &table.counts {
        report.push_str(&format!("{count:5} {class}\n"));
    }
    report.push_str(&format!("{:5} in all", table.counts.values().sum::<usize>()));
    Ok(report)
}

fn check(table: &Table) -> Result<String, Mistake> {
    for (file, text) in [(MOLECULES, &table.text), (DIGEST, &table.digest)] {
        if read(file)? != *text {
            return Err(Mistake::OutOfDate(file));
        }
    }
    Ok(format!("{MOLECULES} is up to date"))
}

fn read(file: &'static str) -> Result<String, Mistake> {
    fs::read_to_string(Path::new(DATA).join(file)).map_err(|source| Mistake::File { file, source })
}

fn named() -> Result<Vec<Entry>, Mistake> {
    let text = read(NAMED)?;
    let mut reader = csv::ReaderBuilder::new().delimiter(b'\t').quoting(false).from_reader(text.as_bytes());
    let mut entries = Vec::new();
    for (index, row) in reader.deserialize().enumerate() {
        let row: NamedRow = row.map_err(Mistake::Named)?;
        entries.push(Entry {
            // The header is line 1.
            origin: format!("{NAMED}, line {} (`{}`)", index + 2, row.name),
            properties: row.properties.split('|').map(str::to_owned).collect(),
            name: row.name,
            smiles: row.smiles,
            class: row.class,
        });
    }
    Ok(entries)
}

fn classes() -> Result<Vec<Entry>, Mistake> {
    let classes: Classes = toml::from_str(&read(CLASSES)?).map_err(Mistake::Classes)?;
    let mut entries = Vec::new();
    for class in &classes.class {
        let origin = |name: &str| format!("{CLASSES}, class `{}` (`{name}`)", class.name);
        let mut rest: BTreeSet<&str> = class.extra.keys().map(String::as_str).collect();
        let mut add = |name: String, smiles: String, properties: Vec<String>| {
            rest.remove(name.as_str());
            let extra = class.extra.get(&name).into_iter().flatten().cloned();
            entries.push(Entry {
                origin: origin(&name),
                properties: properties.into_iter().chain(extra).collect(),
                name,
                smiles,
                class: class.name.clone(),
            });
        };
        for (name, smiles) in &class.listed {
            add(name.clone(), smiles.clone(), class.properties.clone());
        }
        for member in members(class) {
            let fragments = fragments(&classes, class, &member)
                .map_err(|what| Mistake::Row { origin: origin(&member.join(" ")), what })?;
            let mut properties = class.properties.clone();
            for condition in class.when.iter().filter(|c| c.holds(&fragments)) {
                properties.extend(condition.add.iter().cloned());
            }
            let names = fragments.iter().map(|(name, _)| *name);
            let smiles = fragments.iter().map(|(_, fragment)| fragment.smiles.as_str());
            add(fill(&class.title, names), fill(&class.smiles, smiles), properties);
        }
        // A misspelt name would otherwise lose its properties in silence.
        if let Some(name) = rest.first() {
            return Err(Mistake::Row {
                origin: origin(name),
                what: "extra properties for a member that does not exist".to_owned(),
            });
        }
    }
    Ok(entries)
}

/// Returns the fragments' names of each member: first the rows, then the product.
fn members(class: &Class) -> Vec<Vec<&str>> {
    let rows = class.members.iter().map(|row| row.split_whitespace().collect());
    let mut product: Vec<Vec<&str>> = Vec::new();
    for (slot, names) in class.product.iter().enumerate() {
        let heads = if slot == 0 { vec![Vec::new()] } else { product };
        product = heads
            .iter()
            .flat_map(|head| names.iter().map(|name| [head.as_slice(), &[name.as_str()]].concat()))
            .collect();
    }
    rows.chain(product).collect()
}

fn fragments<'a>(
    classes: &'a Classes,
    class: &'a Class,
    member: &[&'a str],
) -> Result<Vec<(&'a str, &'a Fragment)>, String> {
    if member.len() != class.slots.len() {
        let (found, wanted) = (member.len(), class.slots.len());
        return Err(format!("{found} fragments for {wanted} slots"));
    }
    let find = |(slot, name): (&String, &&'a str)| {
        let table = classes.fragments.get(slot).ok_or(format!("no table of fragments `{slot}`"))?;
        let fragment = table.get(*name).ok_or(format!("no fragment `{name}` in `{slot}`"))?;
        Ok((*name, fragment))
    };
    class.slots.iter().zip(member).map(find).collect()
}

/// Returns the template with `{1}`, `{2}`, … replaced by the values in turn.
fn fill<'a>(template: &str, values: impl Iterator<Item = &'a str>) -> String {
    values
        .enumerate()
        .fold(template.to_owned(), |text, (index, value)| text.replace(&format!("{{{}}}", index + 1), value))
}

/// Returns the entry's properties in alphabetical order, as L+M-24 lists them.
fn properties(entry: &Entry) -> Result<Vec<&str>, Mistake> {
    let mut sorted = BTreeSet::new();
    for property in &entry.properties {
        if property.is_empty() || property.trim() != property || property.contains('|') {
            return Err(entry.mistake(format!("property `{property}` is empty or untrimmed")));
        }
        if !sorted.insert(property.as_str()) {
            return Err(entry.mistake(format!("property `{property}` occurs twice")));
        }
    }
    Ok(sorted.into_iter().collect())
}

/// Returns the name in lower case with runs of other characters than letters and digits as one
/// hyphen, so that a row keeps its id whatever is inserted before it.
fn slug(name: &str) -> String {
    let plain: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { ' ' }).collect();
    plain.split_whitespace().collect::<Vec<_>>().join("-")
}
