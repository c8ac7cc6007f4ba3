//! Logs that do not open: what is left is shown, with a warning that it is only that.

mod support;

use support::{filled, refused, str, strandlog};

/// The commands that look show what is left, and none calls it whole. It is not exported, so that no import makes a log of it.
#[test]
fn what_is_left_of_a_log_that_does_not_open_is_shown_with_a_warning() {
    let (cut_dir, cut) = filled();
    let keeps = std::fs::metadata(&cut).unwrap().len() / 2;
    std::fs::File::options().write(true).open(&cut).unwrap().set_len(keeps).unwrap();
    let (refused_dir, refused) = refused();
    for (dir, path, why) in [(cut_dir, cut, "the file is cut"), (refused_dir, refused, "nobody can say")] {
        let before = std::fs::read(&path).unwrap();
        for args in [&["map"][..], &["map", "--json"], &["dump"], &["dump", "--json", "--entries"]] {
            let ran = strandlog(&[args, &[str(&path)]].concat());
            assert_eq!(ran.code, 1, "{args:?}: {ran:?}");
            assert!(ran.err.contains("does not open") && ran.err.contains(why), "{args:?}: {ran:?}");
            assert!(ran.out.contains("replica"), "{args:?}: {ran:?}");
        }
        let ran = strandlog(&["dump", "--replica", "77", str(&path)]);
        assert!(ran.code == 2 && ran.err.contains("no replica 77 in what is left of"), "{ran:?}");

        let ran = strandlog(&["info", str(&path)]);
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.out.contains("does not open") && ran.out.contains(why), "{}", ran.out);
        assert!(!ran.out.contains("none known"), "{}", ran.out);
        let json = strandlog(&["info", "--json", str(&path)]).json();
        assert!(json["refused"].as_str().unwrap().contains(why), "{json}");
        assert_eq!(json["cut"].is_object(), why.contains("cut"), "{json}");
        assert_eq!(json["recovery"]["unnamed"], !why.contains("cut"), "{json}");

        let lines = dir.path().join("lines");
        let ran = strandlog(&["export", str(&path), "--out", str(&lines)]);
        assert!(ran.code == 2 && ran.err.contains("`strandlog salvage`") && !lines.exists(), "{ran:?}");
        assert_eq!(std::fs::read(&path).unwrap(), before, "it is not touched");
    }
    let (_dir, sound) = filled();
    let json = strandlog(&["info", "--json", str(&sound)]).json();
    assert!(json["refused"].is_null() && json["cut"].is_null(), "{json}");
    assert_eq!(json["recovery"]["unnamed"], false, "{json}");
}
