//! The files of this crate use each other in one direction only, as the folders of the log do. That includes the methods of `GroupStorage`,
//! which are defined in several files.

#[path = "../../../tests/support/circles.rs"]
mod circles;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use circles::Arrows;

/// The arrows, each with what is used.
type Found = Arrows<String>;

/// Rust files below a folder.
fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

/// The code of each file, or of a folder as one, without comments and without its tests, which come last.
fn code() -> BTreeMap<String, String> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut found, mut code) = (Vec::new(), BTreeMap::<_, String>::new());
    files(&src, &mut found);
    for file in found {
        let text = fs::read_to_string(&file).expect("text");
        let lines = text.lines().take_while(|line| !line.starts_with("mod tests {"));
        let lines: Vec<&str> = lines.filter_map(|line| line.split("//").next()).collect();
        let first = file.strip_prefix(&src).expect("below").components().next().expect("a name");
        let room = Path::new(first.as_os_str()).file_stem().expect("a name").to_string_lossy().into_owned();
        code.entry(room).or_default().push_str(&(lines.join("\n") + "\n"));
    }
    code
}

fn word(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
}

/// The names after each occurrence; for `crate::` also those in a whole list.
fn names(code: &str, behind: &str) -> Vec<String> {
    let mut names = Vec::new();
    for part in code.split(behind).skip(1) {
        match part.strip_prefix('{') {
            Some(list) => {
                let list = list.split('}').next().unwrap_or_default();
                names.extend(list.split(',').map(|name| word(name.trim()).to_owned()));
            }
            None => names.push(word(part).to_owned()),
        }
    }
    names
}

fn arrows() -> Found {
    let mut code = code();
    let root = code.remove("lib").expect("the root");
    let rooms: BTreeSet<String> = code.keys().cloned().collect();
    // What the root re-exports, and each method of the storage, belongs to one file.
    let mut homes: BTreeMap<String, String> = rooms.iter().map(|room| (room.clone(), room.clone())).collect();
    for line in root.lines().filter_map(|line| line.strip_prefix("pub use ")) {
        let (room, list) = line.split_once("::").expect("a module and its names");
        let list = list.trim_matches(['{', '}', ';']).split(',').map(|name| word(name.trim()).to_owned());
        homes.extend(list.map(|name| (name, room.to_owned())));
    }
    let storage = |code: &str| code.contains("impl GroupStorage {") || code.contains(" for GroupStorage {");
    let mut methods = BTreeMap::new();
    for (room, text) in code.iter().filter(|(_, text)| storage(text)) {
        methods.extend(names(text, "    pub fn ").into_iter().map(|name| (name, room.clone())));
        methods.extend(names(text, "    pub(crate) fn ").into_iter().map(|name| (name, room.clone())));
    }
    let mut arrows = Found::new();
    for (from, text) in &code {
        let mut used: Vec<_> = names(text, "crate::").into_iter().map(|name| (homes.get(&name), name)).collect();
        if storage(text) {
            used.extend(names(text, "self.").into_iter().map(|name| (methods.get(&name), name)));
        }
        for (to, name) in used {
            if let Some(to) = to.filter(|to| *to != from) {
                arrows.entry(from.clone()).or_default().insert(to.clone(), name);
            }
        }
    }
    arrows
}

#[test]
fn no_two_of_them_use_each_other() {
    let arrows = arrows();
    // The check does see something: names in a module, names that the root re-exports, methods.
    for (from, to) in [("queue", "round"), ("round", "storage"), ("storage", "error"), ("applied", "write")] {
        assert!(arrows[from].contains_key(to), "{from} no longer uses {to}: {arrows:?}");
    }
    circles::none(&arrows, |a, b, name| format!("{a} uses {name} of {b}"));
}
