//! The example in short: it loses nothing in some crashes, and finds the loss that a lie leads to.

use std::process::{Command, Output};

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_only-wal")).args(["--rounds", "0"]).args(args).output().expect("it starts")
}

#[test]
fn nothing_acknowledged_is_lost() {
    let output = run(&["--crashes", "8"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("8 crashes, 4 of them as by a power cut"), "{said}");
    assert!(said.contains("own journal takes 0 bytes"), "{said}");
}

/// A report of what is not durable yet loses it, and the check finds that: it is no formality.
#[test]
fn a_report_that_comes_too_early_is_found() {
    let output = run(&["--crashes", "8", "--lie"]);
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("lost: group"), "{said}");
}

#[test]
fn one_log_and_two_are_compared() {
    let output = Command::new(env!("CARGO_BIN_EXE_only-wal")).args(["--crashes", "0", "--rounds", "100"]).output();
    let output = output.expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout).matches(" us |").count(), 2 * 3);
}
