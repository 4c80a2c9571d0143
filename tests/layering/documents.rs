//! Checks the documentation: links lead to files, and the README stays short.

#[path = "links.rs"]
mod links;

use std::fs;
use std::path::{Path, PathBuf};

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The Markdown pages of the project.
fn pages() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    for dir in [".", "resources/docs", "resources/guest"] {
        for entry in fs::read_dir(project().join(dir)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    pages
}

#[test]
fn links_in_the_documentation_lead_to_files() {
    let links: usize = pages().iter().map(|page| links::check(page)).sum();
    assert!(links > 20, "only {links} links");
}

#[test]
fn the_readme_has_at_most_250_lines() {
    let readme = fs::read_to_string(project().join("README.md")).unwrap();
    let lines = readme.lines().count();
    assert!(lines <= 250, "{lines} lines");
}
