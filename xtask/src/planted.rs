//! Planted bugs: each must turn a test red, or the tests prove less than they claim.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{fs, io};

use crate::run;

#[derive(clap::Args)]
pub struct Args {
    /// Only bugs whose name contains one of these; the table is then printed, not written
    names: Vec<String>,
    /// Only see that each bug can be planted
    #[arg(long)]
    check: bool,
    /// Where the copy of the tree is built
    #[arg(long, default_value = "target/planted")]
    dir: PathBuf,
}

/// A bug as its file describes it.
struct Bug {
    name: String,
    what: String,
    file: String,
    /// The test target that is tried first.
    first: Option<String>,
    /// Why no test can see it: then it is not counted.
    equivalent: Option<String>,
    find: String,
    put: String,
}

/// From quick to slow; the first red one ends the search.
const TARGETS: [&str; 14] = [
    "lib",
    "smoke",
    "in_flight",
    "moves",
    "faults",
    "scrub",
    "fuzz_found",
    "damage",
    "power_cut",
    "model",
    "space",
    "small_worlds",
    "concurrency",
    "kill9",
];
/// A test that takes longer hangs; the slowest takes a sixth of this.
const LIMIT: Duration = Duration::from_secs(180);

pub fn run(args: &Args) -> io::Result<bool> {
    let root = run::root();
    let mut bugs = read_all(&root)?;
    for bug in &bugs {
        let text = fs::read_to_string(root.join(&bug.file))?;
        let n = text.matches(&bug.find).count();
        if n != 1 {
            return Err(io::Error::other(format!("{}: what it looks for occurs {n} times in {}", bug.name, bug.file)));
        }
    }
    println!("{} bugs, each can be planted", bugs.len());
    if args.check {
        return Ok(true);
    }
    bugs.retain(|b| args.names.is_empty() || args.names.iter().any(|n| b.name.contains(n)));
    let tree = root.join(&args.dir).join("tree");
    copy(&root, &tree)?;
    let mut results = BTreeMap::new();
    for (i, bug) in bugs.iter().enumerate() {
        let started = Instant::now();
        let killer = plant(&tree, bug)?;
        let text = killer.as_deref().unwrap_or("SURVIVED");
        println!("{:3}/{} {:45} {text} ({} s)", i + 1, bugs.len(), bug.name, started.elapsed().as_secs());
        results.insert(bug.name.clone(), killer);
    }
    let (table, survived) = table(&bugs, &results);
    if args.names.is_empty() {
        fs::write(root.join("tests/planted/RESULTS.md"), table)?;
    } else {
        println!("{table}");
    }
    Ok(survived == 0)
}

fn read_all(root: &Path) -> io::Result<Vec<Bug>> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(root.join("tests/planted"))?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
    paths.retain(|p| p.extension().is_some_and(|e| e == "txt"));
    paths.sort();
    paths.iter().map(|p| parse(p)).collect()
}

/// `key: value` lines, then `--- find` and `--- put`, each followed by text that is taken as it is.
fn parse(path: &Path) -> io::Result<Bug> {
    let bad = |what: &str| io::Error::other(format!("{}: {what}", path.display()));
    let text = fs::read_to_string(path)?;
    let (head, rest) = text.split_once("--- find\n").ok_or_else(|| bad("no `--- find`"))?;
    let (find, put) = rest.split_once("--- put\n").ok_or_else(|| bad("no `--- put`"))?;
    let field = |name: &str| head.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": ")).map(str::to_owned);
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Bug {
        name,
        what: field("what").ok_or_else(|| bad("no `what`"))?,
        file: field("file").ok_or_else(|| bad("no `file`"))?,
        first: field("try"),
        equivalent: field("equivalent"),
        find: find.to_owned(),
        put: put.to_owned(),
    })
}

/// Copies what git knows of, so that nothing in the tree itself is touched. What is the same keeps its time stamp.
fn copy(root: &Path, tree: &Path) -> io::Result<()> {
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(root).output()?;
    for name in listed.stdout.split(|&b| b == 0).filter(|n| !n.is_empty()) {
        let name = String::from_utf8_lossy(name);
        let (from, to) = (root.join(&*name), tree.join(&*name));
        let Ok(bytes) = fs::read(&from) else { continue };
        if fs::read(&to).is_ok_and(|old| old == bytes) {
            continue;
        }
        if let Some(dir) = to.parent() {
            fs::create_dir_all(dir)?;
        }
        fs::write(to, bytes)?;
    }
    Ok(())
}

/// Plants the bug, looks for a test that notices, and takes the bug out again. `None`: nobody noticed.
fn plant(tree: &Path, bug: &Bug) -> io::Result<Option<String>> {
    let path = tree.join(&bug.file);
    let whole = fs::read_to_string(&path)?;
    fs::write(&path, whole.replacen(&bug.find, &bug.put, 1))?;
    let killer = hunt(tree, bug);
    fs::write(&path, whole)?;
    killer
}

fn hunt(tree: &Path, bug: &Bug) -> io::Result<Option<String>> {
    let first = bug.first.as_deref();
    let rest = TARGETS.into_iter().filter(|t| Some(*t) != first);
    for target in first.into_iter().chain(rest) {
        let mut build = cargo(tree, target);
        let built = run::run(build.arg("--no-run"), Duration::from_secs(1800))?;
        if !built.ok {
            println!("{}: DOES NOT COMPILE:\n{}", bug.name, built.output);
            return Ok(None);
        }
        let mut test = cargo(tree, target);
        // Tests say the name of each only when they are not quiet.
        let ran = run::run(test.args(["--", "--format=pretty"]).env("RUST_BACKTRACE", "0"), LIMIT)?;
        if !ran.ok {
            let red = ran.output.lines().find_map(|l| l.strip_prefix("test ")?.strip_suffix(" ... FAILED"));
            let how = if ran.timed_out { "hangs" } else { "aborts" };
            return Ok(Some(format!("`{target}`: {}", red.map_or(how.to_owned(), |r| format!("`{r}`")))));
        }
    }
    Ok(None)
}

fn cargo(tree: &Path, target: &str) -> Command {
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--quiet", "--package", "strandlog"]).current_dir(tree);
    cargo.env("CARGO_TARGET_DIR", tree.join("../target")).env_remove("RUSTFLAGS");
    match target {
        "lib" => cargo.arg("--lib"),
        test => cargo.args(["--test", test]),
    };
    cargo
}

fn table(bugs: &[Bug], results: &BTreeMap<String, Option<String>>) -> (String, usize) {
    let mut out = String::from(
        "# Planted bugs\n\nWritten by `cargo xtask planted`. Each bug is applied alone to a copy of the tree; the first test that went red is named.\n\n",
    );
    let killed = |b: &&Bug| matches!(results.get(&b.name), Some(Some(_)));
    let red = bugs.iter().filter(killed).count();
    let equivalent = bugs.iter().filter(|b| b.equivalent.is_some() && !killed(b)).count();
    let survived = bugs.len() - red - equivalent;
    let _ = writeln!(out, "{} planted, {red} red, {equivalent} equivalent, {survived} survived.\n", bugs.len());
    let _ = writeln!(out, "| bug | what | caught by |\n|---|---|---|");
    for bug in bugs {
        let by = match (results.get(&bug.name).and_then(Option::as_ref), &bug.equivalent) {
            (Some(killer), _) => killer.clone(),
            (None, Some(why)) => format!("equivalent: {why}"),
            (None, None) => "**nobody**".to_owned(),
        };
        let _ = writeln!(out, "| {} | {} | {by} |", bug.name, bug.what);
    }
    (out, survived)
}
