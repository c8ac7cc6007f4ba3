//! Who uses whom, and whether that goes round.

use std::collections::{BTreeMap, BTreeSet};

/// Who uses whom, and how it is known.
pub type Arrows<W> = BTreeMap<String, BTreeMap<String, W>>;

/// Panics where the arrows lead back to where they came from; `told` says each of them.
pub fn none<W>(arrows: &Arrows<W>, told: impl Fn(&str, &str, &W) -> String) {
    let mut done = BTreeSet::new();
    for room in arrows.keys() {
        let Some(rooms) = circle(room, arrows, &mut Vec::new(), &mut done) else { continue };
        let ends = rooms.iter().zip(rooms.iter().cycle().skip(1));
        let told: Vec<_> = ends.map(|(a, b)| told(a, b, &arrows[a][b])).collect();
        panic!("a circle: {}", told.join(", "));
    }
}

/// Follows the arrows from here; `path` leads here. Those in `done` lead nowhere twice.
fn circle<W>(
    here: &str,
    arrows: &Arrows<W>,
    path: &mut Vec<String>,
    done: &mut BTreeSet<String>,
) -> Option<Vec<String>> {
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
