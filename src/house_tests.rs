//! The law of the house, read from its sources: what cargo and rustc do not check.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Returns every source file below `folder`.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// Returns the rooms in the order in which `lib.rs` declares them, low to high.
fn rooms(source: &Path) -> BTreeMap<String, usize> {
    let map = fs::read_to_string(source.join("lib.rs")).unwrap();
    let declared = map.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    declared.enumerate().map(|(rank, room)| (room.to_owned(), rank)).collect()
}

/// Returns the product part of a file: unit tests may import anything.
fn product(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned()
}

fn is_test(path: &Path) -> bool {
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let is_of_tests = |part: &str| part == "tests" || part == "model_tests";
    name.ends_with("tests") || path.iter().any(|part| is_of_tests(&part.to_string_lossy()))
}

/// Returns the rooms that a text names as `crate::room` or `crate::{room, …}`.
fn named(text: &str) -> impl Iterator<Item = &str> {
    text.split("crate::").skip(1).flat_map(|rest| {
        let end = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
        match rest.strip_prefix('{').and_then(|rest| rest.split('}').next()) {
            Some(group) => group.split(',').map(|item| item.trim().split(end).next().unwrap_or_default()).collect(),
            None => vec![rest.split(end).next().unwrap_or_default()],
        }
    })
}

/// Returns the folders of sources of the package and of the crates of the workspace.
fn source_folders() -> Vec<PathBuf> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let crates = fs::read_dir(top.join("crates")).unwrap().map(|entry| entry.unwrap().path().join("src"));
    crates.chain([top.join("src")]).collect()
}

#[test]
fn imports_inside_a_crate_point_down() {
    let (mut checked, mut up) = (0, Vec::new());
    for source in source_folders() {
        let rooms = rooms(&source);
        checked += rooms.len();
        for path in sources(&source).iter().filter(|path| !is_test(path)) {
            let inside = path.strip_prefix(&source).unwrap();
            let room = inside.iter().next().unwrap().to_string_lossy();
            let Some(rank) = rooms.get(room.trim_end_matches(".rs")) else { continue };
            let text = product(path);
            let above = named(&text).filter(|name| rooms.get(*name).is_some_and(|other| other > rank));
            up.extend(above.map(|name| format!("{} imports {name}", path.display())));
        }
    }
    assert!(checked > 30, "each lib.rs declares its rooms one a line; {checked} were found");
    assert!(up.is_empty(), "imports that run up, against the order of their lib.rs:\n{}", up.join("\n"));
}

/// Returns the folders of everything that is read as code: the sources, the tests and the fuzz targets.
fn code_folders() -> Vec<PathBuf> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    source_folders().into_iter().chain(["tests", "fuzz/fuzz_targets"].map(|folder| top.join(folder))).collect()
}

/// Words with which no doc comment begins: the sentence that they open has no subject or no verb.
const NO_BEGINNINGS: [&str; 9] = ["What", "Who", "Whether", "Its", "Of", "As", "One", "Where", "How"];

#[test]
fn doc_comments_begin_with_a_noun_or_a_verb() {
    let (mut read, mut wrong) = (0, Vec::new());
    for path in code_folders().iter().flat_map(|folder| sources(folder)) {
        let text = fs::read_to_string(&path).unwrap();
        let mut inside = false;
        for (number, line) in text.lines().enumerate() {
            let line = line.trim_start();
            let doc = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"));
            if let Some(doc) = doc.filter(|_| !inside) {
                read += 1;
                let first = doc.trim_start().split(|c: char| !c.is_alphabetic()).next().unwrap_or_default();
                if NO_BEGINNINGS.contains(&first) {
                    wrong.push(format!("{}:{}: {line}", path.display(), number + 1));
                }
            }
            inside = doc.is_some();
        }
    }
    assert!(read > 2000, "only {read} doc comments were found");
    assert!(wrong.is_empty(), "begin with a noun, or with a verb in the third person:\n{}", wrong.join("\n"));
}

fn is_path(code: &str) -> bool {
    ["src/", "crates/", "tests/"].iter().any(|folder| code.starts_with(folder))
}

#[test]
fn every_file_that_the_pages_for_newcomers_name_exists() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut named = 0;
    for page in ["CONTRIBUTING.md", "docs/README.md", "docs/life-of-a-message.md"] {
        let text = fs::read_to_string(top.join(page)).unwrap();
        let folder = top.join(page).parent().unwrap().to_owned();
        let code = text.split('`').skip(1).step_by(2).filter(|code| is_path(code)).map(|code| top.join(code));
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next()).map(|link| folder.join(link));
        for path in code.chain(links) {
            assert!(path.exists(), "{page} names {}, which does not exist", path.display());
            named += 1;
        }
    }
    assert!(named > 60, "only {named} files were found in the pages");
}
