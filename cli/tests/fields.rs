//! Every field that the tool writes with `--json` stands in a table of `docs/tool.md`, and every field of the tables is written.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use strandlog::{Batch, Wal};
use support::{filled, find, payload, refused, rot, str, strandlog};

/// The kind of a line (empty where a command writes one kind), and a field of it.
type Field = (String, String);
/// Fields by command.
type Fields = BTreeMap<String, BTreeSet<Field>>;

/// Objects whose fields are not named by the tool.
const OPEN: [&str; 3] = ["state", "methods[].one", "methods[].two"];
/// Written only where a device does not read, so that `strace` is needed to see them.
const UNREADABLE: [(&str, &str); 6] = [
    ("dump", "replica"),
    ("dump", "index"),
    ("dump", "unread"),
    ("verify", "unreadable[].replica"),
    ("verify", "unreadable[].entries"),
    ("verify", "unreadable[].state"),
];

/// The fields of the tables. Each row has a field or several of them, a unit and a meaning.
fn documented() -> Fields {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/tool.md")).unwrap();
    let (_, page) = page.split_once("\n## JSON, field by field\n").expect("the tables");
    let (mut fields, mut command) = (Fields::new(), "");
    for line in page.lines() {
        if let Some(title) = line.strip_prefix("### `") {
            command = title.strip_suffix('`').expect("a command");
        }
        let Some(row) = line.strip_prefix("| ").and_then(|row| row.strip_suffix(" |")) else { continue };
        let cells: Vec<&str> = row.split(" | ").collect();
        if cells[0] == "field" || cells[0] == "line" {
            continue;
        }
        let (kind, cells) = if cells[0].starts_with('`') { ("", &cells[..]) } else { (cells[0], &cells[1..]) };
        assert!(cells.len() == 3 && cells.iter().all(|cell| !cell.trim().is_empty()), "{line}");
        let names = cells[0].split(", ").map(|name| name.strip_prefix('`').and_then(|name| name.strip_suffix('`')));
        for name in names {
            let field = (kind.to_owned(), name.expect(line).to_owned());
            assert!(fields.entry(command.to_owned()).or_default().insert(field), "twice: {line}");
        }
    }
    fields
}

/// The fields of a value: its leaves and its lists.
fn fields_of(value: &Value, at: &str, fields: &mut impl FnMut(&str)) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                let name = if OPEN.contains(&at) { "*" } else { name };
                let at = if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") };
                fields_of(value, &at, fields);
            }
        }
        Value::Array(list) => {
            fields(at);
            for value in list.iter().filter(|value| value.is_object()) {
                fields_of(value, &format!("{at}[]"), fields);
            }
        }
        _ => fields(at),
    }
}

/// The kind of a line of a command that writes several.
fn kind(command: &str, line: &Value) -> &'static str {
    let by: &[(&str, &str)] = match command {
        "dump" => &[
            ("state", "replica"),
            ("damaged", "damaged"),
            ("unread", "unread"),
            ("no_entries", "none"),
            ("len", "entry"),
        ],
        "export" => &[
            ("strandlog", "log"),
            ("end", "end"),
            ("lost", "lost"),
            ("key", "key"),
            ("index", "entry"),
            ("first", "replica"),
        ],
        _ => return "",
    };
    by.iter().find(|(field, _)| line.get(field).is_some()).unwrap_or_else(|| panic!("{command}: {line}")).1
}

/// What was written.
#[derive(Default)]
struct Written(Fields);

impl Written {
    /// Runs the tool and notes the fields of all that it wrote for this command.
    fn run(&mut self, command: &str, args: &[&str]) {
        let ran = strandlog(&[args, &["--json"]].concat());
        assert!(ran.code < 2, "{args:?}: {ran:?}");
        self.note(command, &ran.out);
    }

    fn note(&mut self, command: &str, out: &str) {
        for line in out.lines() {
            let line = serde_json::from_str(line).unwrap_or_else(|error| panic!("{command}: {error}: {line}"));
            let (kind, written) = (kind(command, &line).to_owned(), self.0.entry(command.to_owned()).or_default());
            fields_of(&line, "", &mut |field| {
                written.insert((kind.clone(), field.to_owned()));
            });
        }
    }

    /// As [`run`](Self::run), for each read of the log that the device may refuse. Returns whether `strace` may trace here.
    fn run_unreadable(&mut self, command: &str, log: &Path, args: &[&str]) -> bool {
        let traced = |options: &[&str]| {
            let mut strace = Command::new("strace");
            strace.args(["-f", "-qq", "-o", "/dev/null", "-P", str(log)]).args(options);
            strace.arg(env!("CARGO_BIN_EXE_strandlog")).args(args).args([str(log), "--json"]).output()
        };
        if !traced(&["-e", "trace=none"]).is_ok_and(|ran| ran.status.success()) {
            println!("skipped: no strace, or it may not trace here");
            return false;
        }
        for nth in 1.. {
            let inject = format!("inject=pread64:error=EIO:when={nth}..{}", nth + 1);
            let ran = traced(&["-e", "trace=pread64", "-e", &inject]).expect("it starts");
            if ran.status.code().is_some_and(|code| code < 2) {
                self.note(command, &String::from_utf8(ran.stdout).expect("text"));
            }
            // There were fewer reads than that.
            if ran.status.success() {
                break;
            }
        }
        true
    }
}

/// The commands that look at a log, or copy it.
fn look(written: &mut Written, dir: &Path, log: &Path) {
    let name = |name: &str| (0..).map(|n| dir.join(format!("{name}{n}"))).find(|path| !path.exists()).unwrap();
    let path = str(log);
    written.run("info", &["info", path]);
    written.run("map", &["map", path]);
    written.run("dump", &["dump", path, "--entries"]);
    written.run("dump", &["dump", path, "--from", "1000000"]);
    written.run("verify", &["verify", path]);
    written.run("salvage", &["salvage", path, str(&name("saved"))]);
    if strandlog(&["export", path]).code < 2 {
        let (lines, copy) = (name("lines"), name("copy"));
        written.run("export", &["export", path]);
        written.run("export --out", &["export", path, "--out", str(&lines)]);
        if strandlog(&["export", path]).code == 0 {
            written.run("import", &["import", "--from", "jsonl", str(&lines), str(&copy)]);
        }
    }
}

fn watch(written: &mut Written, log: &Path) {
    let wal = Wal::options().open(log).unwrap();
    let stats = log.with_extension("stats");
    let publisher = wal.publish_stats(&stats, Duration::from_millis(20)).unwrap();
    let args = ["top", str(log), "--stats", str(&stats), "--count", "3"];
    std::thread::scope(|s| {
        let seen = s.spawn(|| written.run("top", &args));
        for index in 21.. {
            wal.commit(Batch::new().append(2, &[(index, 9, [3; 100])])).unwrap();
            if seen.is_finished() {
                break;
            }
        }
    });
    drop(publisher);
}

#[test]
fn every_field_that_is_written_stands_in_the_tables_and_the_other_way_round() {
    let mut written = Written::default();
    let (dir, path) = filled();
    let wal = Wal::options().direct_threshold(8 << 10).open(&path).unwrap();
    wal.commit(Batch::new().put(2, b"large", &[7; 20_000]).durable_applied(3, 50)).unwrap();
    wal.close().unwrap();
    drop(wal);
    look(&mut written, dir.path(), &path);
    let verifies = written.run_unreadable("verify", &path, &["verify"]);
    let traces = written.run_unreadable("dump", &path, &["dump", "--entries"]) && verifies;
    // Of the other damaged logs each has something of its own: a lost entry, a lost value, lost state, a lost frame, a lost end.
    for what in [&payload(2, 13)[..], &[7; 64], b"one hundred"] {
        let (dir, hurt) = (tempfile::tempdir().unwrap(), path.with_extension("hurt"));
        std::fs::copy(&path, &hurt).unwrap();
        rot(&hurt, find(&hurt, what));
        look(&mut written, dir.path(), &hurt);
    }
    let (refused_dir, refused) = refused();
    look(&mut written, refused_dir.path(), &refused);
    let cut = dir.path().join("cut");
    std::fs::copy(&path, &cut).unwrap();
    std::fs::File::options().write(true).open(&cut).unwrap().set_len(3 << 20).unwrap();
    look(&mut written, dir.path(), &cut);
    watch(&mut written, &path);

    let (new, inner) = (dir.path().join("new"), dir.path().join("pages"));
    written.run("create", &["create", str(&new), "--capacity", "4M"]);
    written.run("grow", &["grow", str(&new), "--capacity", "8M"]);
    written.run("completions", &["completions", "bash"]);
    written.run("man", &["man"]);
    written.run("man", &["man", "--dir", str(&inner)]);
    let bench = ["bench", str(dir.path()), "--seconds", "0.6", "--capacity", "32M", "--replicas", "50"];
    written.run("bench", &bench);
    written.run("probe", &["probe", str(dir.path()), "--seconds", "0.3", "--size", "4M"]);

    let tables = documented();
    assert_eq!(tables.keys().collect::<Vec<_>>(), written.0.keys().collect::<Vec<_>>());
    for (command, table) in tables {
        let seen = &written.0[&command];
        let untold: Vec<_> = seen.difference(&table).collect();
        assert!(untold.is_empty(), "{command}: in no table: {untold:?}");
        let rare = |(kind, name): &Field| {
            !traces && UNREADABLE.contains(&(&command, name)) && ["", "unread"].contains(&kind.as_str())
        };
        let missing: Vec<_> = table.difference(seen).filter(|field| !rare(field)).collect();
        assert!(missing.is_empty(), "{command}: never written: {missing:?}");
    }
}
