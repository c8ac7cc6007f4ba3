//! `strandlog bench`

mod support;

use std::process::{Command, Stdio};

use support::{filled, place, str, strandlog};

#[test]
fn every_workload_runs_and_leaves_nothing() {
    for workload in ["append", "batch", "churn", "state", "window"] {
        let (dir, _) = place();
        let dir = str(dir.path());
        let small = ["--seconds", "0.6", "--capacity", "32M", "--replicas", "60", "--threads", "3", "--batch", "20"];
        let ran = strandlog(&[&["bench", dir, "--json", "--workload", workload][..], &small].concat());
        assert_eq!(ran.code, 0, "{workload}: {ran:?}");
        let json = ran.json();
        assert!(json["items"].as_u64().unwrap() > 0 && json["frames"].as_u64().unwrap() > 0, "{workload}: {json}");
        let sizes = json["frame_sizes"].as_array().unwrap();
        let frames: u64 = sizes.iter().map(|s| s["frames"].as_u64().unwrap()).sum();
        assert!(frames >= json["frames"].as_u64().unwrap(), "{workload}: {json}");
        assert!(json["commit_us"]["p50"].as_f64().unwrap() <= json["commit_us"]["max"].as_f64().unwrap(), "{json}");
        assert_eq!(std::fs::read_dir(dir).unwrap().count(), 0, "{workload}");
    }
}

/// With --capacity, the workload fits the log, however fast the disk is.
#[test]
fn a_small_log_gets_work_that_fits() {
    let (dir, _) = place();
    for workload in ["append", "batch", "churn", "window"] {
        let ran = strandlog(&["bench", str(dir.path()), "--seconds", "1", "--capacity", "16M", "--workload", workload]);
        assert_eq!(ran.code, 0, "{workload}: {ran:?}");
    }
}

#[test]
fn a_report_is_one_page_that_needs_nothing_else() {
    let (dir, path) = place();
    let html = path.with_extension("html");
    let args = ["--seconds", "0.6", "--capacity", "32M", "--replicas", "50", "--html", str(&html)];
    let ran = strandlog(&[&["bench", str(dir.path())][..], &args].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("p99") && ran.out.contains("report: "), "{ran:?}");
    let page = std::fs::read_to_string(&html).unwrap();
    assert_eq!(page.matches("<svg").count(), 6, "six plots");
    assert!(!page.contains("not drawn") && page.ends_with("</html>\n"));
    for outside in ["<script", "<link", "src=", "@import"] {
        assert!(!page.contains(outside), "{outside}");
    }
}

/// Minutes of measuring are not lost for a page.
#[test]
fn a_report_that_cannot_be_written_takes_nothing_from_what_was_measured() {
    let (dir, _) = place();
    let args = ["--seconds", "0.3", "--capacity", "32M", "--replicas", "50", "--html", "/dev/full", "--force"];
    let ran = strandlog(&[&["bench", str(dir.path())][..], &args].concat());
    assert!(ran.code == 2 && ran.err.contains("No space left"), "{ran:?}");
    assert!(ran.out.contains("p99") && !ran.out.contains("report: "), "{ran:?}");
    let ran = strandlog(&[&["bench", str(dir.path()), "--json"][..], &args].concat());
    let lines = ran.lines();
    assert!(ran.code == 2 && lines[0]["items"].is_u64() && lines[1]["error"].is_string(), "{ran:?}");
}

/// The refusal comes at once, not after the measurement.
#[test]
fn a_report_replaces_no_file_that_is_there() {
    let (dir, path) = place();
    std::fs::write(&path, "precious").unwrap();
    let args = ["bench", str(dir.path()), "--seconds", "0.3", "--capacity", "32M", "--html", str(&path)];
    let ran = strandlog(&args);
    assert_eq!(ran.out, "", "{ran:?}");
    assert!(ran.code == 2 && ran.err.contains("exists already") && ran.err.contains("--force"), "{ran:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else was made");
    let args = ["bench", str(dir.path()), "--seconds", "0.3", "--capacity", "32M", "--html", str(&path), "--force"];
    assert_eq!(strandlog(&args).code, 0);
    assert!(std::fs::read_to_string(&path).unwrap().ends_with("</html>\n"));
}

/// An interruption shows what was measured so far, and leaves no files.
#[test]
fn an_interrupted_bench_ends_well() {
    let (dir, _) = place();
    let mut bench = Command::new(env!("CARGO_BIN_EXE_strandlog"));
    bench.args(["bench", str(dir.path()), "--seconds", "3600", "--capacity", "32M", "--replicas", "50", "--json"]);
    let child = bench.stdout(Stdio::piped()).spawn().unwrap();
    let is_figures = |name: &std::ffi::OsStr| name.to_string_lossy().ends_with(".stats");
    // Once figures are published, the workload runs.
    while !std::fs::read_dir(dir.path()).unwrap().any(|f| is_figures(&f.unwrap().file_name())) {
        std::thread::yield_now();
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(json["seconds"].as_f64().unwrap() < 3600.0, "{json}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn nonsense_is_refused() {
    let (dir, path) = place();
    for args in [["--threads", "0"], ["--entry-size", "1G"], ["--seconds", "0"], ["--workload", "sleep"]] {
        let ran = strandlog(&[&["bench", str(dir.path())][..], &args].concat());
        assert_eq!(ran.code, 2, "{args:?}: {ran:?}");
    }
    assert!(strandlog(&["bench", str(&path)]).err.contains("is no directory"));
    let ran = strandlog(&["bench", str(dir.path()), "--capacity", "1K"]);
    assert!(ran.code == 2 && ran.err.contains("capacity"), "{ran:?}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// Not even with `--force`.
#[test]
fn a_report_replaces_no_log() {
    let (_dir, path) = filled();
    let (dir, _) = place();
    let before = std::fs::read(&path).unwrap();
    let small = ["bench", str(dir.path()), "--seconds", "0.3", "--capacity", "32M"];
    let ran = strandlog(&[&small[..], &["--html", str(&path), "--force"]].concat());
    assert!(ran.code == 2 && ran.err.contains("is a strandlog file") && ran.out.is_empty(), "{ran:?}");
    assert!(std::fs::read(&path).unwrap() == before);
}

/// Replicas and batches are as asked for; without --threads there are as many threads as can have replicas of their own.
#[test]
fn what_was_asked_for_is_what_runs() {
    let (dir, _) = place();
    let bench = |more: &[&str]| {
        let small = ["bench", str(dir.path()), "--json", "--seconds", "0.2", "--capacity", "32M", "--workload"];
        strandlog(&[&small[..], more].concat())
    };
    for (args, threads, replicas) in [
        (&["batch", "--batch", "100", "--replicas", "100"][..], 1, 100),
        (&["batch", "--replicas", "60"], 2, 60),
        (&["append", "--replicas", "3"], 3, 3),
        (&["state", "--batch", "10", "--replicas", "45"], 4, 45),
    ] {
        let ran = bench(args);
        assert_eq!(ran.code, 0, "{args:?}: {ran:?}");
        assert_eq!((&ran.json()["threads"], &ran.json()["replicas"]), (&threads.into(), &replicas.into()), "{args:?}");
    }
    for (args, why) in [
        (&["batch", "--batch", "300", "--replicas", "100"][..], "--batch 300"),
        (&["batch", "--threads", "2", "--batch", "100", "--replicas", "100"], "200 replicas"),
        (&["append", "--threads", "4", "--replicas", "3"], "4 replicas"),
    ] {
        let ran = bench(args);
        let said = ran.json()["error"].as_str().unwrap_or_default().to_owned();
        assert!(ran.code == 2 && said.contains(why) && said.contains("--replicas"), "{args:?}: {ran:?}");
    }
}

/// Creating the file may take minutes, and one interruption must end that at once. If `strace` is missing or may not trace, the test passes.
#[test]
fn an_interruption_while_the_file_is_made_ends_it_and_leaves_nothing() {
    for command in [&["bench", "--capacity"][..], &["probe", "--size"]] {
        let dir = tempfile::tempdir().unwrap();
        let traced = |inject: &str| {
            let mut strace = std::process::Command::new("strace");
            strace.args(["-f", "-qq", "-o", "/dev/null", "-e", inject, env!("CARGO_BIN_EXE_strandlog")]);
            strace.args(command).args(["16M", "--seconds", "0.1", str(dir.path())]).output()
        };
        if !traced("trace=none").is_ok_and(|ran| ran.status.success()) {
            println!("skipped: no strace, or it may not trace here");
            return;
        }
        // Interrupt it while space is reserved, before the file is written.
        let ran = traced("inject=fallocate:signal=INT").unwrap();
        assert_eq!(ran.status.code(), Some(130), "{command:?}: {ran:?}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "{command:?}: something is left");
    }
}
