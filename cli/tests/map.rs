//! `strandlog map`

mod support;

use std::process::Command;

use support::{filled, rot, str, strandlog};

#[test]
fn the_map_names_the_holders_and_accounts_for_every_chunk() {
    let (_dir, path) = filled();
    let ran = strandlog(&["map", str(&path), "--width", "80"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    for part in
        ["A replica 2", "_ journal, free", "+ snapshot of the index", ". free", "each character is one chunk, 4 KiB"]
    {
        assert!(ran.out.contains(part), "{part}:\n{}", ran.out);
    }
    assert!(!ran.out.contains('\x1b'), "no colours where nobody looks");
    let json = strandlog(&["map", str(&path), "--json"]).json();
    let sum = |list: &str| -> u64 {
        json[list].as_array().unwrap().iter().map(|part| part["chunks"].as_u64().unwrap()).sum()
    };
    assert_eq!(sum("totals"), sum("layout"));
    let holder = json["totals"].as_array().unwrap().iter().find(|t| t["kind"] == "holder").unwrap();
    assert_eq!(holder["replica"], 2);
    // Twenty entries of about 590 bytes, and their table.
    assert!((11_500..12_500).contains(&holder["live_bytes"].as_u64().unwrap()), "{holder}");
}

#[test]
fn the_picture_is_written_and_says_whose_what_is() {
    let (dir, path) = filled();
    let picture = dir.path().join("map.svg");
    let ran = strandlog(&["map", str(&path), "--svg", str(&picture)]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.starts_with("drawn "), "{ran:?}");
    let drawn = std::fs::read_to_string(&picture).unwrap();
    for part in ["<svg", "test.log", "4 MiB", "replica 2", "journal, free", "snapshot of the index", "</svg>"] {
        assert!(drawn.contains(part), "{part}");
    }
    let ran = strandlog(&["map", str(&path), "--svg", str(&dir.path().join("missing/map.svg"))]);
    assert!(ran.code == 2 && ran.err.contains("writing"), "{ran:?}");
}

#[test]
fn a_file_that_is_there_is_replaced_only_by_force() {
    let (dir, path) = filled();
    let (precious, picture) = (dir.path().join("precious.log"), dir.path().join("map.svg"));
    std::fs::copy(&path, &precious).unwrap();
    let before = std::fs::read(&precious).unwrap();
    let ran = strandlog(&["map", str(&path), "--svg", str(&precious)]);
    assert!(ran.code == 2 && ran.err.contains("exists already") && ran.err.contains("--force"), "{ran:?}");
    // If one picture cannot be written, neither is.
    let ran = strandlog(&["map", str(&path), "--svg", str(&picture), "--png", str(&precious)]);
    assert!(ran.code == 2 && !picture.exists(), "{ran:?}");
    assert_eq!(std::fs::read(&precious).unwrap(), before);
    std::fs::write(&picture, "of yesterday").unwrap();
    assert_eq!(strandlog(&["map", str(&path), "--svg", str(&picture), "--force"]).code, 0);
    assert!(std::fs::read_to_string(&picture).unwrap().ends_with("</svg>"));
}

#[test]
fn a_png_is_drawn_or_it_is_said_why_not() {
    let (dir, path) = filled();
    let picture = dir.path().join("map.png");
    let ran = strandlog(&["map", str(&path), "--png", str(&picture)]);
    match std::fs::read(&picture) {
        Ok(bytes) => assert!(ran.code == 0 && bytes.starts_with(b"\x89PNG"), "{ran:?}"),
        Err(_) => assert!(ran.code == 2 && ran.err.contains("--svg"), "{ran:?}"),
    }
}

/// No output replaces a log, even with `--force`: neither the one that is read, under whichever name, nor another.
#[test]
fn a_log_is_replaced_by_no_output() {
    let (dir, path) = filled();
    let at = |name: &str| dir.path().join(name);
    std::os::unix::fs::symlink(&path, at("link")).unwrap();
    std::fs::hard_link(&path, at("other name")).unwrap();
    std::fs::create_dir(at("sub")).unwrap();
    std::fs::copy(&path, at("another")).unwrap();
    std::fs::copy(&path, at("rotten")).unwrap();
    // Still a log: it opens by the other copy of the superblock.
    rot(&at("rotten"), 0);
    let before = std::fs::read(&path).unwrap();
    for (name, forced) in [
        ("test.log", true),
        ("test.log", false),
        ("sub/../test.log", true),
        ("link", true),
        ("other name", true),
        ("another", true),
        ("rotten", true),
    ] {
        let of_it = std::fs::read(at(name)).unwrap();
        for kind in ["--svg", "--png"] {
            let mut args = vec!["map", str(&path), kind];
            let name = at(name);
            args.push(str(&name));
            args.extend(forced.then_some("--force"));
            let ran = strandlog(&args);
            assert!(ran.code == 2 && ran.err.contains("is a strandlog file"), "{args:?}: {ran:?}");
            assert!(std::fs::read(&name).unwrap() == of_it, "{args:?}: replaced");
        }
    }
    assert!(std::fs::read(&path).unwrap() == before);
}

/// Nor is a log written to if the shell redirects the output into it.
#[test]
fn no_output_is_written_into_a_log() {
    let (dir, path) = filled();
    std::fs::copy(&path, dir.path().join("another")).unwrap();
    for name in ["test.log", "another"] {
        let into = dir.path().join(name);
        let before = std::fs::read(&into).unwrap();
        for args in [&["map"][..], &["export"], &["dump", "--json"], &["verify"]] {
            let log = std::fs::File::options().append(true).open(&into).unwrap();
            let mut tool = Command::new(env!("CARGO_BIN_EXE_strandlog"));
            let ran = tool.args(args).arg(&path).stdout(log).output().unwrap();
            let said = String::from_utf8_lossy(&ran.stderr);
            assert!(std::fs::read(&into).unwrap() == before, "{args:?} > {name}");
            assert!(ran.status.code() == Some(2) && said.contains("is a strandlog file"), "{args:?} > {name}: {said}");
        }
    }
    // Any other file may take the output.
    let lines = std::fs::File::create(dir.path().join("lines")).unwrap();
    let mut tool = Command::new(env!("CARGO_BIN_EXE_strandlog"));
    assert!(tool.args(["export", str(&path)]).stdout(lines).status().unwrap().success());
    assert!(std::fs::read_to_string(dir.path().join("lines")).unwrap().starts_with("{\"strandlog\":1"));
}

/// If a picture cannot be written, the old file is unchanged, and no half picture is left.
#[test]
fn a_picture_that_finds_no_room_takes_nothing_away() {
    let (dir, path) = filled();
    let picture = dir.path().join("map.svg");
    // Files are limited to a kilobyte: longer ones are refused, as on a full device.
    let draw = |force: &str| {
        let tool = env!("CARGO_BIN_EXE_strandlog");
        let limited = r#"trap '' XFSZ; ulimit -f 1; exec "$0" map "$1" --svg "$2" $3"#;
        let ran = Command::new("sh").args(["-c", limited, tool, str(&path), str(&picture), force]).output().unwrap();
        assert_eq!(ran.status.code(), Some(2), "{ran:?}");
        assert!(String::from_utf8(ran.stderr).unwrap().contains("writing"));
    };
    let names = || std::fs::read_dir(dir.path()).unwrap().count();
    let before = names();
    draw("");
    assert!(!picture.exists(), "{:?}", std::fs::read_to_string(&picture));
    draw("--force");
    assert_eq!(names(), before, "nothing is left of it");
    std::fs::write(&picture, "of yesterday").unwrap();
    draw("--force");
    assert_eq!(std::fs::read_to_string(&picture).unwrap(), "of yesterday");
    assert_eq!(names(), before + 1, "nothing is left of it");
}

/// A link is followed, and a device is written into: neither is replaced by a regular file.
#[test]
fn a_picture_is_forced_into_what_its_name_leads_to() {
    let (dir, path) = filled();
    let (link, real) = (dir.path().join("link.svg"), dir.path().join("real.svg"));
    std::fs::write(&real, "of yesterday").unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    assert_eq!(strandlog(&["map", str(&path), "--svg", str(&link), "--force"]).code, 0);
    assert!(link.symlink_metadata().unwrap().is_symlink());
    assert!(std::fs::read_to_string(&real).unwrap().ends_with("</svg>"));
    let device = dir.path().join("device.svg");
    std::os::unix::fs::symlink("/dev/null", &device).unwrap();
    assert_eq!(strandlog(&["map", str(&path), "--svg", str(&device), "--force"]).code, 0);
    assert!(!device.metadata().unwrap().is_file());
}

/// `--force` is not advised where it does not help.
#[test]
fn a_link_that_leads_nowhere_is_named_as_that_where_force_is_given() {
    let (dir, path) = filled();
    let link = dir.path().join("link.svg");
    std::os::unix::fs::symlink(dir.path().join("nowhere"), &link).unwrap();
    let ran = strandlog(&["map", str(&path), "--svg", str(&link), "--force"]);
    assert!(ran.code == 2 && ran.err.contains("leads nowhere; remove it first"), "{ran:?}");
    assert!(link.symlink_metadata().unwrap().is_symlink() && !dir.path().join("nowhere").exists());
}
