//! The folders of the library, and the files beside them, use each other one way only: DESIGN.md, *The map*.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Who uses whom, and a file in which it does.
type Arrows = BTreeMap<String, BTreeMap<String, PathBuf>>;

/// Rust files below, but for those that are nothing but tests, models and their rigs.
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

/// What a file says outside of comments and of its tests, which are its end.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).expect("text");
    let lines = text.lines().take_while(|line| !line.starts_with("mod tests {"));
    lines.filter_map(|line| line.split("//").next()).collect::<Vec<_>>().join("\n")
}

fn arrows() -> Arrows {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    files(&src, &mut found);
    let room = |file: &Path| {
        let first = file.strip_prefix(&src).ok()?.components().next()?;
        Some(Path::new(first.as_os_str()).file_stem()?.to_str()?.to_owned())
    };
    let rooms: BTreeSet<String> = found.iter().filter_map(|file| room(file)).collect();
    let mut arrows = Arrows::new();
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

/// Follows the arrows from here; `path` leads here. Those in `done` lead nowhere twice.
fn circle(here: &str, arrows: &Arrows, path: &mut Vec<String>, done: &mut BTreeSet<String>) -> Option<Vec<String>> {
    if let Some(at) = path.iter().position(|room| room == here) {
        return Some(path.split_off(at));
    }
    if done.contains(here) {
        return None;
    }
    path.push(here.to_owned());
    let found = arrows.get(here).into_iter().flat_map(BTreeMap::keys).find_map(|to| circle(to, arrows, path, done));
    if found.is_none() {
        path.pop();
        done.insert(here.to_owned());
    }
    found
}

#[test]
fn no_two_of_them_use_each_other() {
    let arrows = arrows();
    // It does see what there is.
    for (from, to) in [("wal", "engine"), ("engine", "journal"), ("journal", "space"), ("space", "format")] {
        assert!(arrows[from].contains_key(to), "{from} no longer uses {to}");
    }
    let mut done = BTreeSet::new();
    for room in arrows.keys() {
        let Some(rooms) = circle(room, &arrows, &mut Vec::new(), &mut done) else { continue };
        let ends = rooms.iter().zip(rooms.iter().cycle().skip(1));
        let told: Vec<_> = ends.map(|(a, b)| format!("{a} uses {b} in {}", arrows[a][b].display())).collect();
        panic!("a circle: {}", told.join(", "));
    }
}
