//! The folders of the library and the files beside them never use each other in a circle: the map of DESIGN.md is true. It is read off the
//! `crate::` paths in the sources.

#[path = "support/circles.rs"]
mod circles;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use circles::Arrows;

/// Each arrow with a file that proves it.
type Found = Arrows<PathBuf>;

/// Collects all Rust files below `dir` but tests, models and their rigs.
fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().and_then(|stem| stem.to_str()).expect("a name").to_owned();
        let is_test = ["tests", "rig"].contains(&&*name) || name.ends_with("_tests") || name.ends_with("_loom");
        if path.is_dir() {
            files(&path, found);
        } else if !is_test {
            found.push(path);
        }
    }
}

/// The code of a file without comments, up to its tests, which come last.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).expect("text");
    let lines = text.lines().take_while(|line| !line.starts_with("mod tests {"));
    lines.filter_map(|line| line.split("//").next()).collect::<Vec<_>>().join("\n")
}

fn arrows() -> Found {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    files(&src, &mut found);
    let room = |file: &Path| {
        let first = file.strip_prefix(&src).ok()?.components().next()?;
        Some(Path::new(first.as_os_str()).file_stem()?.to_str()?.to_owned())
    };
    let rooms: BTreeSet<String> = found.iter().filter_map(|file| room(file)).collect();
    let mut arrows = Found::new();
    for file in &found {
        let from = room(file).expect("a room");
        let code = code(file);
        assert!(!code.contains("crate::{"), "{}: one `use` a module, so that this sees it", file.display());
        for part in code.split("crate::").skip(1) {
            let to: String = part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if to != from && rooms.contains(&to) {
                arrows.entry(from.clone()).or_default().entry(to).or_insert_with(|| file.clone());
            }
        }
    }
    arrows
}

#[test]
fn no_two_of_them_use_each_other() {
    let arrows = arrows();
    // The search does find the arrows that there are.
    for (from, to) in [("wal", "engine"), ("engine", "journal"), ("journal", "space"), ("space", "format")] {
        assert!(arrows[from].contains_key(to), "{from} no longer uses {to}");
    }
    circles::none(&arrows, |a, b, file| format!("{a} uses {b} in {}", file.display()));
}
