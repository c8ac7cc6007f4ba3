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

/// Whatever fails on the way, the user knows what file is left, if any. If `strace` is missing or may not trace, the test passes.
#[test]
fn a_creation_that_fails_leaves_no_file_or_a_whole_log_and_says_so() {
    const CALLS: &str = "pwrite64,pwritev2,fsync,fdatasync";
    let (_dir, path) = place();
    let create = |options: &[&str]| {
        let mut strace = std::process::Command::new("strace");
        strace.args(["-f", "-qq", "-o", "/dev/null", "-e", "inject=io_uring_setup:error=EPERM"]).args(options);
        let args = ["create", str(&path), "--capacity", "4M", "--segment-size", "64K", "--chunk-size", "4K"];
        strace.arg(env!("CARGO_BIN_EXE_strandlog")).args(args).output()
    };
    if !create(&[]).is_ok_and(|ran| ran.status.success()) {
        println!("skipped: no strace, or it may not trace here");
        return;
    }
    let (mut left, mut none) = (0, 0);
    for nth in 1..200 {
        let _ = std::fs::remove_file(&path);
        // From this call on, the device accepts nothing.
        let inject = format!("inject={CALLS}:error=EIO:when={nth}+");
        let ran = create(&["-e", &inject]).expect("it starts");
        let err = String::from_utf8_lossy(&ran.stderr);
        if ran.status.success() {
            break;
        }
        assert_eq!(ran.status.code(), Some(2), "{nth}: {err}");
        assert_eq!(path.exists(), err.contains("a whole log with nothing in it"), "{nth}: {err}");
        (left, none) = (left + u64::from(path.exists()), none + u64::from(!path.exists()));
        if path.exists() {
            let wal = strandlog::Wal::options().create(false).open(&path).expect("it was said to open");
            assert!(wal.replicas().is_empty());
        }
    }
    assert!(left > 0 && none > 0, "{left}, {none}");
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

/// Creating the log would take hours, and opening it that much memory. Here nothing is created, because the shell's limit does not allow it.
#[test]
fn what_a_log_of_very_many_chunks_takes_of_memory_is_said_first() {
    let (_dir, path) = place();
    let create = |chunk: &str| {
        let tool = ["-c", "ulimit -f 1000; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_strandlog"), "create", str(&path)];
        let ran =
            std::process::Command::new("sh").args(tool).args(["--capacity", "8T", "--chunk-size", chunk]).output();
        let ran = ran.unwrap();
        assert!(ran.status.code() == Some(2) && !path.exists(), "{ran:?}");
        String::from_utf8(ran.stderr).unwrap()
    };
    let said = create("4K");
    assert!(said.contains("20 GiB of memory") && said.contains("--chunk-size"), "{said}");
    let said = create("64K");
    assert!(said.contains("RLIMIT_FSIZE") && !said.contains("of memory"), "{said}");
}
