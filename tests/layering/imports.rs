//! Reads which file of a crate imports which, from its `use` lines and its paths.
//!
//! A path that names an item is an import of the file that declares the item. For an item that a `mod.rs` re-exports
//! that file is the `mod.rs`, whose own `pub use` is one more import. A `mod` declaration is not an import.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The modules of one crate: module path (empty for the root) → file.
type Modules = BTreeMap<Vec<String>, PathBuf>;

/// File → files that it imports, both relative to the crate's source directory.
pub type Graph = BTreeMap<PathBuf, BTreeSet<PathBuf>>;

/// Reads the imports below `src`, which is the directory of the crate root `root` (`lib.rs` or `main.rs`).
pub fn read(src: &Path, root: &str) -> Graph {
    let mut modules = Modules::new();
    find_modules(src, src, root, &mut modules);
    let mut graph = Graph::new();
    for (module, file) in &modules {
        let text = fs::read_to_string(src.join(file)).unwrap();
        let mut imports = BTreeSet::new();
        for path in paths(&code_of(&text)) {
            if let Some(imported) = resolve(&modules, module, &path)
                && imported != file
            {
                imports.insert(imported.clone());
            }
        }
        graph.insert(file.clone(), imports);
    }
    graph
}

fn find_modules(src: &Path, dir: &Path, root: &str, modules: &mut Modules) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let relative = path.strip_prefix(src).unwrap().to_path_buf();
        // Programs beside the library are crates of their own.
        if path.is_dir() {
            if relative != Path::new("bin") {
                find_modules(src, &path, root, modules);
            }
            continue;
        }
        let name = path.file_name().unwrap().to_str().unwrap();
        let is_root = dir == src && ["lib.rs", "main.rs"].contains(&name);
        let is_test = name.ends_with("_test.rs");
        if !name.ends_with(".rs") || is_test || (is_root && name != root) {
            continue;
        }
        let without_extension = relative.with_extension("");
        let mut module: Vec<String> = without_extension
            .iter()
            .map(|part| part.to_str().unwrap().to_owned())
            .collect();
        if is_root || name == "mod.rs" {
            module.pop();
        }
        modules.insert(module, relative);
    }
}

/// `text` without comments, strings, and modules that only tests have.
fn code_of(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let mut code = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '/' if rest.peek() == Some(&'/') => {
                for c in rest.by_ref() {
                    if c == '\n' {
                        code.push('\n');
                        break;
                    }
                }
            }
            '"' => {
                code.push('"');
                while let Some(c) = rest.next() {
                    match c {
                        '\\' => {
                            rest.next();
                        }
                        '"' => break,
                        _ => {}
                    }
                }
                code.push('"');
            }
            // A character literal with a quote in it.
            '\'' if rest.peek() == Some(&'"') => {
                rest.next();
            }
            _ => code.push(c),
        }
    }
    code
}

/// Every path in `code`: `use` trees in full, and others of two segments or more.
fn paths(code: &str) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    let mut tokens = tokens(code).into_iter().peekable();
    while let Some(token) = tokens.next() {
        if token == "$" && tokens.next_if(|token| token == "crate").is_some() {
            // Macros are exported at the root, whichever file declares them.
            paths.push(path_from("$crate".into(), &mut tokens));
        } else if token == "use" {
            let tree: Vec<String> = tokens.by_ref().take_while(|token| token != ";").collect();
            use_tree(&mut tree.into_iter().peekable(), &[], &mut paths);
        } else if is_word(&token) {
            let path = path_from(token, &mut tokens);
            if path.len() > 1 {
                paths.push(path);
            }
        }
    }
    paths
}

/// Returns the path that begins with `first`, and continues in `tokens`.
fn path_from(
    first: String,
    tokens: &mut std::iter::Peekable<impl Iterator<Item = String>>,
) -> Vec<String> {
    let mut path = vec![first];
    while tokens.next_if(|token| token == "::").is_some() {
        match tokens.next_if(|token| is_word(token)) {
            Some(word) => path.push(word),
            None => break,
        }
    }
    path
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphanumeric() || c == '_')
}

fn tokens(code: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut chars = code.chars().peekable();
    while let Some(c) = chars.next() {
        if c.is_alphanumeric() || c == '_' {
            let mut word = String::from(c);
            while let Some(c) = chars.next_if(|c| c.is_alphanumeric() || *c == '_') {
                word.push(c);
            }
            tokens.push(word);
        } else if c == ':' && chars.peek() == Some(&':') {
            chars.next();
            tokens.push("::".into());
        } else if !c.is_whitespace() {
            tokens.push(c.into());
        }
    }
    tokens
}

/// Adds each path of the use tree that `tokens` begins with, up to its `,` or `}`.
fn use_tree(
    tokens: &mut std::iter::Peekable<impl Iterator<Item = String>>,
    prefix: &[String],
    paths: &mut Vec<Vec<String>>,
) {
    let mut path = prefix.to_vec();
    while let Some(token) = tokens.peek().cloned() {
        match token.as_str() {
            "," | "}" => break,
            "{" => {
                tokens.next();
                while tokens.peek().is_some_and(|token| token != "}") {
                    use_tree(tokens, &path, paths);
                    tokens.next_if(|token| token == ",");
                }
                tokens.next();
                return;
            }
            "as" => {
                tokens.next();
                tokens.next();
                continue;
            }
            "::" | "*" => {}
            "self" if !path.is_empty() => {}
            _ => path.push(token),
        }
        tokens.next();
    }
    if path.len() > prefix.len() || !path.is_empty() {
        paths.push(path);
    }
}

/// The file in which `path`, written in `module`, leads.
fn resolve<'m>(modules: &'m Modules, module: &[String], path: &[String]) -> Option<&'m PathBuf> {
    let mut at = module.to_vec();
    let mut rest = path.iter().peekable();
    match rest.peek()?.as_str() {
        "crate" | "$crate" => {
            at.clear();
            rest.next();
        }
        "super" => {
            while rest.next_if(|word| *word == "super").is_some() {
                at.pop()?;
            }
        }
        "self" => {
            rest.next();
        }
        // A path that begins with a child of this module.
        first => {
            at.push(first.to_owned());
            modules.get(&at)?;
            at.pop();
        }
    }
    for word in rest {
        at.push(word.clone());
        if !modules.contains_key(&at) {
            at.pop();
            break;
        }
    }
    let exported_macro = at.is_empty() && path.first().is_some_and(|word| word == "$crate");
    modules.get(&at).filter(|_| !exported_macro)
}

/// The sets of more than one node that reach each other, the largest first.
pub fn circles<N: Ord + Clone>(graph: &BTreeMap<N, BTreeSet<N>>) -> Vec<Vec<N>> {
    let reached: BTreeMap<&N, BTreeSet<&N>> = graph
        .keys()
        .map(|start| {
            let mut seen = BTreeSet::new();
            let mut next: Vec<&N> = vec![start];
            while let Some(node) = next.pop() {
                for to in graph.get(node).into_iter().flatten() {
                    if seen.insert(to) {
                        next.push(to);
                    }
                }
            }
            (start, seen)
        })
        .collect();
    let mut circles = BTreeSet::new();
    for (start, seen) in &reached {
        let circle: Vec<N> = seen
            .iter()
            .filter(|node| {
                reached
                    .get(**node)
                    .is_some_and(|back| back.contains(*start))
            })
            .map(|node| (*node).clone())
            .collect();
        if circle.len() > 1 {
            circles.insert(circle);
        }
    }
    let mut circles: Vec<_> = circles.into_iter().collect();
    circles.sort_by_key(|circle| std::cmp::Reverse(circle.len()));
    circles
}

/// The room of `file`: its top-level folder, or the file itself.
pub fn room(file: &Path) -> PathBuf {
    file.iter().next().map(PathBuf::from).unwrap_or_default()
}

/// Room → rooms that its files import.
pub fn rooms(graph: &Graph) -> BTreeMap<PathBuf, BTreeSet<PathBuf>> {
    let mut rooms = BTreeMap::<_, BTreeSet<_>>::new();
    for (file, imports) in graph {
        let from = rooms.entry(room(file)).or_default();
        from.extend(
            imports
                .iter()
                .map(|file| room(file))
                .filter(|to| *to != room(file)),
        );
    }
    rooms
}

/// The imports between files of one room.
pub fn inside(graph: &Graph) -> Graph {
    let same = |file: &Path, imports: &BTreeSet<PathBuf>| {
        let imports = imports.iter().filter(|to| room(to) == room(file));
        imports.cloned().collect()
    };
    let files = graph.iter();
    files
        .map(|(file, imports)| (file.clone(), same(file, imports)))
        .collect()
}
