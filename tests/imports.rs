//! Which files of a crate import which, read from their text.
//!
//! A file imports another if it names something that the other defines: in a `use`, or by a path in
//! the code. A name that a module only hands on (`pub use`) counts as an import of the file that
//! defines it. What is inside `#[cfg(test)]` does not count.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The files of a crate, and which of the others each of them imports. Paths start at `src`.
pub(crate) type Imports = BTreeMap<String, BTreeSet<String>>;

/// Returns the imports between the files of the crate whose root file is at this path.
///
/// # Panics
/// When a file cannot be read, or is not Rust.
pub(crate) fn imports(root: &Path) -> Imports {
    let folder = root.parent().expect("a root file is in a folder");
    let mut modules = BTreeMap::new();
    read_module(root, folder, folder, Vec::new(), &mut modules);
    let resolver = Resolver { modules: &modules };
    let mut imports = Imports::new();
    for (path, module) in &modules {
        let mut imported = BTreeSet::new();
        for named in &module.paths {
            imported.extend(resolver.file(path, named, Unknown::Defined, 0));
        }
        imported.remove(&module.file);
        imports.entry(module.file.clone()).or_default().extend(imported);
    }
    imports
}

/// Returns the groups of files that import each other, directly or through others; each group is
/// sorted, and a file that is in no circle is in none.
pub(crate) fn circles(imports: &Imports) -> Vec<Vec<String>> {
    let reachable: BTreeMap<&String, BTreeSet<&String>> =
        imports.keys().map(|file| (file, reachable(imports, file))).collect();
    let mut circles = BTreeSet::new();
    for file in imports.keys().filter(|file| reachable[file].contains(file)) {
        let group = reachable[file].iter().filter(|other| reachable[*other].contains(file));
        circles.insert(group.map(|other| (*other).clone()).collect::<Vec<_>>());
    }
    circles.into_iter().collect()
}

fn reachable<'a>(imports: &'a Imports, file: &String) -> BTreeSet<&'a String> {
    let mut reachable = BTreeSet::new();
    let mut next: Vec<&String> = imports[file].iter().collect();
    while let Some(file) = next.pop() {
        if reachable.insert(file) {
            next.extend(&imports[file]);
        }
    }
    reachable
}

/// A module in a file of its own.
struct Module {
    /// Its file, as a path from `src`.
    file: String,
    /// The modules that are declared in it and have files of their own.
    children: BTreeSet<String>,
    /// What it brings into scope: a name, and the path that the name stands for.
    uses: BTreeMap<String, Vec<String>>,
    /// The paths of which all names are brought into scope.
    globs: Vec<Vec<String>>,
    /// The names that are defined in it.
    defined: BTreeSet<String>,
    /// The paths that its code names.
    paths: BTreeSet<Vec<String>>,
}

fn read_module(
    file: &Path,
    folder: &Path,
    source: &Path,
    path: Vec<String>,
    modules: &mut BTreeMap<Vec<String>, Module>,
) {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let tokens: TokenStream =
        text.parse().unwrap_or_else(|error| panic!("{}: not Rust: {error}", file.display()));
    let mut module = Module {
        file: file.strip_prefix(source).expect("below `src`").to_string_lossy().into_owned(),
        children: BTreeSet::new(),
        uses: BTreeMap::new(),
        globs: Vec::new(),
        defined: BTreeSet::new(),
        paths: BTreeSet::new(),
    };
    let mut handed_on = Vec::new();
    read_tokens(tokens, &mut module, &mut handed_on);
    // What is imported under a name that the file uses itself is an import; what it only hands on is none.
    let heads: BTreeSet<String> = module.paths.iter().map(|path| path[0].clone()).collect();
    for (name, target) in handed_on {
        if heads.contains(&name) {
            module.paths.insert(target);
        }
    }
    let children: Vec<(String, PathBuf)> = module
        .children
        .iter()
        .map(|name| (name.clone(), folder.join(format!("{name}.rs"))))
        .filter(|(_, file)| file.exists())
        .collect();
    module.children = children.iter().map(|(name, _)| name.clone()).collect();
    modules.insert(path.clone(), module);
    for (name, file) in children {
        let path = path.iter().cloned().chain([name.clone()]).collect();
        read_module(&file, &folder.join(&name), source, path, modules);
    }
}

/// Reads what a file declares, brings into scope and names. `handed_on` takes what it makes public of
/// other files.
fn read_tokens(tokens: TokenStream, module: &mut Module, handed_on: &mut Vec<(String, Vec<String>)>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        if is_test_only(&tokens, at) {
            at = end_of_item(&tokens, at + 2);
            continue;
        }
        match &tokens[at] {
            TokenTree::Ident(word) if word == "mod" && is_punct(tokens.get(at + 2), ';') => {
                module.children.insert(tokens[at + 1].to_string());
                at += 3;
            }
            TokenTree::Ident(word) if word == "use" => {
                let end =
                    (at..tokens.len()).find(|&end| is_punct(tokens.get(end), ';')).unwrap_or(tokens.len());
                let is_public = at > 0 && is_visibility(&tokens, at - 1);
                for (name, path) in use_tree(&tokens[at + 1..end], Vec::new()) {
                    match name.as_str() {
                        "*" => module.globs.push(path.clone()),
                        _ => {
                            module.uses.insert(name.clone(), path.clone());
                        }
                    }
                    if is_public {
                        handed_on.push((name, path));
                    } else if name != "*" {
                        module.paths.insert(path);
                    }
                }
                at = end + 1;
            }
            TokenTree::Ident(word) => {
                let word = word.to_string();
                if DEFINING.contains(&word.as_str()) {
                    let name = if is_punct(tokens.get(at + 1), '!') { at + 2 } else { at + 1 };
                    if let Some(TokenTree::Ident(name)) = tokens.get(name) {
                        module.defined.insert(name.to_string());
                    }
                }
                let (path, end) = path_at(&tokens, at);
                module.paths.insert(path);
                at = end;
            }
            TokenTree::Group(group) => {
                read_tokens(group.stream(), module, handed_on);
                at += 1;
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => at += 1,
        }
    }
}

/// Words that are followed by the name of what they define.
const DEFINING: &[&str] =
    &["struct", "enum", "trait", "fn", "type", "const", "static", "macro_rules", "union", "mod"];

fn is_punct(token: Option<&TokenTree>, character: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == character)
}

/// Returns whether a token ends `pub` or `pub(…)`.
fn is_visibility(tokens: &[TokenTree], at: usize) -> bool {
    match &tokens[at] {
        TokenTree::Ident(word) => word == "pub",
        TokenTree::Group(group) if group.delimiter() == Delimiter::Parenthesis => {
            at > 0 && matches!(&tokens[at - 1], TokenTree::Ident(word) if word == "pub")
        }
        _ => false,
    }
}

/// Returns whether `#[cfg(test)]` stands here.
fn is_test_only(tokens: &[TokenTree], at: usize) -> bool {
    is_punct(tokens.get(at), '#')
        && matches!(tokens.get(at + 1), Some(TokenTree::Group(group))
            if group.stream().to_string().replace(' ', "") == "cfg(test)")
}

/// Returns where the item ends that begins here, with its attributes: behind its braces or its semicolon.
fn end_of_item(tokens: &[TokenTree], start: usize) -> usize {
    let ends = |token: &TokenTree| match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        TokenTree::Punct(punct) => punct.as_char() == ';',
        TokenTree::Ident(_) | TokenTree::Literal(_) => false,
    };
    (start..tokens.len()).find(|&at| ends(&tokens[at])).map_or(tokens.len(), |at| at + 1)
}

/// Returns the path that begins here, `a::b::c`, and where it ends.
fn path_at(tokens: &[TokenTree], start: usize) -> (Vec<String>, usize) {
    let mut path = vec![tokens[start].to_string()];
    let mut at = start + 1;
    while is_punct(tokens.get(at), ':') && is_punct(tokens.get(at + 1), ':') {
        let Some(TokenTree::Ident(word)) = tokens.get(at + 2) else { break };
        path.push(word.to_string());
        at += 3;
    }
    (path, at)
}

/// Returns each name that a tree of `use` brings into scope, with the path that it stands for.
fn use_tree(tokens: &[TokenTree], prefix: Vec<String>) -> Vec<(String, Vec<String>)> {
    let mut path = prefix;
    let mut name = None;
    let mut at = 0;
    let mut names = Vec::new();
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Ident(word) if word == "as" => {
                name = tokens.get(at + 1).map(ToString::to_string);
                at += 1;
            }
            // In `a::{self}` it stands for `a`.
            TokenTree::Ident(word) if word == "self" && !path.is_empty() => {}
            TokenTree::Ident(word) => path.push(word.to_string()),
            TokenTree::Punct(punct) if punct.as_char() == '*' => {
                names.push(("*".to_owned(), path));
                return names;
            }
            TokenTree::Group(group) => {
                let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                let branches =
                    inner.split(|token| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ','));
                for branch in branches.filter(|branch| !branch.is_empty()) {
                    names.extend(use_tree(branch, path.clone()));
                }
                return names;
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
        at += 1;
    }
    if let Some(last) = path.last().cloned() {
        names.push((name.unwrap_or(last), path));
    }
    names
}

/// What a name is that a module neither defines nor brings into scope.
#[derive(Clone, Copy)]
enum Unknown {
    /// Defined by it, through a macro.
    Defined,
    /// None of its names: it may come from another.
    Absent,
}

struct Resolver<'a> {
    modules: &'a BTreeMap<Vec<String>, Module>,
}

impl Resolver<'_> {
    /// Returns the file that defines what a path names, seen from a module; `None` if it is none of
    /// this crate's, or only a module.
    fn file(&self, from: &[String], path: &[String], unknown: Unknown, depth: usize) -> Option<String> {
        // Names that stand for each other in a circle are none of ours to follow.
        if depth > 16 {
            return None;
        }
        let (mut module, mut rest): (Vec<String>, &[String]) = match path[0].as_str() {
            "crate" => (Vec::new(), &path[1..]),
            "self" => (from.to_vec(), &path[1..]),
            "super" => (from[..from.len().checked_sub(1)?].to_vec(), &path[1..]),
            _ => (from.to_vec(), path),
        };
        while rest.first().is_some_and(|name| name == "super") {
            module.pop()?;
            rest = &rest[1..];
        }
        let mut is_outside = module != from;
        while let Some(name) = rest.first() {
            let here = &self.modules[&module];
            if here.children.contains(name) {
                module.push(name.clone());
                rest = &rest[1..];
                is_outside = true;
                continue;
            }
            if let Some(target) = here.uses.get(name) {
                // The name of a dependency is a path of its own.
                let whole: Vec<String> = target.iter().chain(&rest[1..]).cloned().collect();
                // The name of another crate stands for itself.
                if whole[..] == path[..] {
                    return None;
                }
                return self.file(&module, &whole, unknown, depth + 1);
            }
            if here.defined.contains(name) {
                return Some(here.file.clone());
            }
            for glob in &here.globs {
                let whole: Vec<String> = glob.iter().chain(rest).cloned().collect();
                if let Some(file) = self.file(&module, &whole, Unknown::Absent, depth + 1) {
                    return Some(file);
                }
            }
            return match unknown {
                Unknown::Defined if is_outside => Some(here.file.clone()),
                Unknown::Defined | Unknown::Absent => None,
            };
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(files: &[(&str, &str)]) -> Imports {
        let folder = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("created");
            fs::write(path, text).expect("written");
        }
        imports(&folder.path().join("lib.rs"))
    }

    fn edges(imports: &Imports) -> Vec<String> {
        let edge = |(file, imported): (&String, &BTreeSet<String>)| {
            imported.iter().map(|other| format!("{file} -> {other}")).collect::<Vec<_>>()
        };
        imports.iter().flat_map(edge).collect()
    }

    #[test]
    fn uses_and_paths_are_imports_and_handing_on_is_none() {
        let imports = of(&[
            ("lib.rs", "mod a; mod b; mod c; pub use a::deep::Thing; pub use b::*;"),
            ("a.rs", "pub mod deep; pub(crate) use deep::Other;"),
            ("a/deep.rs", "pub struct Thing; pub struct Other; pub fn f() { crate::b::g() }"),
            ("b.rs", "use crate::c; pub fn g() { c::h(); } #[cfg(test)] mod tests { use crate::a::Other; }"),
            ("c.rs", "pub fn h() {} use std::fs; // crate::a::Other\n/// [`crate::b::g`]\nfn k() {}"),
        ]);
        assert_eq!(edges(&imports), ["a/deep.rs -> b.rs", "b.rs -> c.rs"]);
        assert_eq!(circles(&imports), Vec::<Vec<String>>::new());
    }

    #[test]
    fn circles_are_found_through_names_that_are_handed_on() {
        let imports = of(&[
            ("lib.rs", "mod a; mod b; mod c; pub use a::A;"),
            ("a.rs", "use crate::b::{self, B as Bee}; pub struct A(Bee, b::Bb);"),
            ("b.rs", "use super::c::C; pub struct B(C); pub struct Bb;"),
            ("c.rs", "pub struct C; impl C { fn f(_: crate::A) {} }"),
        ]);
        assert_eq!(edges(&imports), ["a.rs -> b.rs", "b.rs -> c.rs", "c.rs -> a.rs"]);
        assert_eq!(circles(&imports), [["a.rs", "b.rs", "c.rs"]]);
    }

    #[test]
    fn a_root_that_uses_what_it_hands_on_imports_it() {
        let imports = of(&[
            ("lib.rs", "mod a;"),
            ("a.rs", "mod part; pub use part::Part; pub fn f(_: Part) {} pub fn help() {}"),
            ("a/part.rs", "pub struct Part; fn g() { super::help() }"),
        ]);
        assert_eq!(circles(&imports), [["a.rs", "a/part.rs"]]);
    }
}
