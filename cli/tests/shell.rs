//! `strandlog completions` and `strandlog man`

mod support;

use support::{filled, place, str, strandlog};

const COMMANDS: [&str; 13] = [
    "create",
    "info",
    "map",
    "dump",
    "verify",
    "top",
    "probe",
    "bench",
    "export",
    "import",
    "grow",
    "salvage",
    "completions",
];

#[test]
fn every_shell_completes_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let ran = strandlog(&["completions", shell]);
        assert_eq!(ran.code, 0, "{ran:?}");
        for command in COMMANDS {
            assert!(ran.out.contains(command), "{shell}: {command}");
        }
        assert_eq!(strandlog(&["completions", shell, "--json"]).json()["script"], ran.out);
    }
    assert_eq!(strandlog(&["completions", "tcsh"]).code, 2);
}

/// The help also says what needs a build with other features.
#[test]
fn the_help_says_how_a_size_is_written_and_which_build_can_do_what() {
    for command in ["create", "probe", "bench", "import", "grow", "salvage"] {
        for help in ["--help", "-h"] {
            assert!(strandlog(&[command, help]).out.contains("64K, 4M, 1G, 2T"), "{command} {help}");
        }
    }
    assert!(strandlog(&["map", "--help"]).out.contains("`--features png`"));
    assert!(strandlog(&["import", "--help"]).out.contains("`--features raft-engine`"));
}

#[test]
fn the_manual_names_every_command_and_the_exit_codes() {
    let (dir, _) = place();
    let page = strandlog(&["man"]).out;
    for part in COMMANDS.iter().chain(&[".TH strandlog", "Exit codes"]) {
        assert!(page.contains(part), "{part}");
    }
    assert_eq!(strandlog(&["man", "--dir", str(dir.path())]).code, 0);
    for command in COMMANDS {
        assert!(dir.path().join(format!("strandlog-{command}.1")).exists(), "{command}");
    }
}

#[test]
fn pages_of_the_manual_replace_no_file_that_is_there() {
    let (dir, _) = place();
    let page = dir.path().join("strandlog-map.1");
    std::fs::write(&page, "precious").unwrap();
    let ran = strandlog(&["man", "--dir", str(dir.path())]);
    assert!(ran.code == 2 && ran.err.contains("exists already") && ran.err.contains("--force"), "{ran:?}");
    assert_eq!(std::fs::read_to_string(&page).unwrap(), "precious");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "all of them or none");
    assert_eq!(strandlog(&["man", "--dir", str(dir.path()), "--force"]).code, 0);
    assert!(std::fs::read_to_string(&page).unwrap().contains(".TH"));
}

#[test]
fn a_page_of_the_manual_replaces_no_log() {
    let (_dir, path) = filled();
    let (dir, _) = place();
    let page = dir.path().join("strandlog-map.1");
    std::fs::copy(&path, &page).unwrap();
    let ran = strandlog(&["man", "--dir", str(dir.path()), "--force"]);
    assert!(ran.code == 2 && ran.err.contains("is a strandlog file"), "{ran:?}");
    assert!(std::fs::read(&page).unwrap() == std::fs::read(&path).unwrap());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "all of them or none");
}
