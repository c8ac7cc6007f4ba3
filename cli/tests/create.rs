//! `strandlog create`

mod support;

use support::{place, str, strandlog};

#[test]
fn a_created_log_opens_and_has_the_size_asked_for() {
    let (_dir, path) = place();
    let ran = strandlog(&["create", str(&path), "--capacity", "8M", "--chunk-size", "16K", "--json"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(ran.json()["capacity"], 8 << 20);
    assert_eq!(ran.json()["chunk_size"], 16 << 10);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 8 << 20);
    let wal = strandlog::Wal::options().create(false).open(&path).unwrap();
    assert!(wal.replicas().is_empty());
}

#[test]
fn an_existing_file_is_left_alone() {
    let (_dir, path) = place();
    std::fs::write(&path, b"precious").unwrap();
    let ran = strandlog(&["create", str(&path)]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("exists already"), "{ran:?}");
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

#[test]
fn nonsense_is_refused_with_its_range_and_leaves_nothing() {
    let (_dir, path) = place();
    let ran = strandlog(&["create", str(&path), "--capacity", "1K"]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("capacity") && ran.err.contains("from"), "{ran:?}");
    assert!(!path.exists());
    assert_eq!(strandlog(&["create", str(&path), "--capacity", "lots"]).code, 2);
}
