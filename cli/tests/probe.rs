//! `strandlog probe`

mod support;

use support::{place, str, strandlog};

#[test]
fn a_probe_says_what_it_measured_and_what_it_recommends_and_leaves_nothing() {
    let (dir, _) = place();
    let ran = strandlog(&["probe", str(dir.path()), "--seconds", "0.5", "--size", "4M", "--json"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let json = ran.json();
    let methods = json["methods"].as_array().unwrap();
    assert!(methods.iter().any(|m| m["method"] == json["recommended"]), "{json}");
    for m in methods {
        for kind in [&m["one"]["4096"], &m["one"]["65536"], &m["one"]["1048576"], &m["two"]["4096"], &m["scattered"]] {
            assert!(kind["writes"].as_u64().unwrap() > 0, "{m}");
            assert!(kind["p50_us"].as_f64().unwrap() <= kind["p99_us"].as_f64().unwrap(), "{m}");
        }
    }
    assert!(json["words"].as_array().unwrap().len() >= 3, "{json}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "the file is removed");
    let ran = strandlog(&["probe", str(dir.path()), "--seconds", "0.5", "--size", "4M"]);
    assert!(ran.code == 0 && ran.out.contains("Use ") && ran.out.contains("1 MiB"), "{ran:?}");
}

/// The size that is told is the one that was measured in; no number is too large to be refused.
#[test]
fn a_file_of_any_size_is_made_or_refused() {
    let (dir, _) = place();
    let ran = strandlog(&["probe", str(dir.path()), "--seconds", "0.2", "--size", "0"]);
    assert!(ran.code == 0 && ran.out.contains("a file of 2.1 MiB"), "{ran:?}");
    let most = u64::MAX.to_string();
    let ran = strandlog(&["probe", str(dir.path()), "--seconds", "0.2", "--size", &most]);
    assert!(ran.code == 2 && ran.err.starts_with("strandlog: "), "{ran:?}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left");
}

#[test]
fn nonsense_is_refused() {
    let (_dir, path) = place();
    let ran = strandlog(&["probe", str(&path)]);
    assert!(ran.code == 2 && ran.err.contains("is no directory"), "{ran:?}");
    for seconds in ["0", "-1", "inf", "NaN", "soon"] {
        let ran = strandlog(&["probe", str(&path), "--seconds", seconds]);
        assert!(ran.code == 2 && ran.err.contains("is no time") || ran.err.contains("unexpected"), "{ran:?}");
    }
}
