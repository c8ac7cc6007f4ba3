//! Finds circles in who uses whom.

use std::collections::{BTreeMap, BTreeSet};

/// For each user, whom it uses, and by what evidence that is known.
pub type Arrows<W> = BTreeMap<String, BTreeMap<String, W>>;

/// Panics if the arrows form a circle, and names each arrow of it as `told` words it.
pub fn none<W>(arrows: &Arrows<W>, told: impl Fn(&str, &str, &W) -> String) {
    let mut done = BTreeSet::new();
    for room in arrows.keys() {
        let Some(rooms) = circle(room, arrows, &mut Vec::new(), &mut done) else { continue };
        let ends = rooms.iter().zip(rooms.iter().cycle().skip(1));
        let told: Vec<_> = ends.map(|(a, b)| told(a, b, &arrows[a][b])).collect();
        panic!("a circle: {}", told.join(", "));
    }
}

/// Returns a circle that the arrows from `here` lead into. `path` leads here; those in `done` lead into none.
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
