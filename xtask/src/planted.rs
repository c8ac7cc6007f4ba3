//! Planted bugs: each must turn a test red, or the tests prove less than they claim.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{fs, io};

use crate::run::{self, SHUTTLE};

#[derive(clap::Args)]
pub struct Args {
    /// Only bugs whose name contains one of these; the others keep their rows in the table
    names: Vec<String>,
    /// Only check that each bug can be planted
    #[arg(long)]
    check: bool,
    /// Only bugs that the table does not name as caught
    #[arg(long)]
    missing: bool,
    /// Leave the slow targets out: a bug that survives may still be caught by them
    #[arg(long)]
    quick: bool,
    /// Try only the target that each bug names: a bug that survives may still be caught by others
    #[arg(long)]
    first: bool,
    /// Only write the table anew from the rows it has, also where two of them met in a merge
    #[arg(long)]
    table: bool,
    /// Do not check first that everything is green without a bug
    #[arg(long)]
    no_baseline: bool,
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

impl Bug {
    /// The package that it is planted in, unless that is the library.
    fn package(&self) -> Option<&'static str> {
        PACKAGES.into_iter().find(|(dir, _)| self.file.starts_with(dir)).map(|(_, package)| package)
    }
}

/// The targets of the library, from quick to slow; the first red one ends the search.
const TARGETS: [&str; 43] = [
    "lib",
    "smoke",
    "in_flight",
    "endings",
    "hands",
    "moves",
    "one_moment",
    "histories",
    "resize",
    "snapshot",
    "faults",
    "files",
    "scrub",
    "applied",
    "mixes",
    "from_the_docs",
    "ends",
    "events",
    "migrate",
    "migrate_edges",
    "migrate_strange",
    "idle",
    "fuzz_found",
    "damage",
    "astray",
    "stale",
    "recovery_modes",
    "power_cut",
    "model",
    "space",
    "full",
    "large_values",
    "brim",
    "meddling",
    SHUTTLE,
    "small_worlds",
    "long_lives",
    "large_worlds",
    "concurrency",
    "kill9",
    "creation",
    "system_faults",
    LOOM,
];
/// Where the packages beside the library live. A bug there is looked for by all tests of its package, and by no others.
const PACKAGES: [(&str, &str); 3] =
    [("adapters/raft/", "strandlog-raft"), ("adapters/openraft/", "strandlog-openraft"), ("cli/", "strandlog-cli")];
/// The first of the slow targets.
const SLOW: &str = "small_worlds";
/// Seeds of each test of [`SHUTTLE`].
const SCHEDULES: &str = "400";
/// No test file, but the models of the primitives, in every interleaving.
const LOOM: &str = "loom";
/// A target that takes longer hangs. Those that are slow without a bug are given [`PATIENCE`] times what they took then.
const LIMIT: Duration = Duration::from_secs(150);
const PATIENCE: u32 = 4;
const RESULTS: &str = "tests/planted/RESULTS.md";

pub fn run(args: &Args) -> io::Result<bool> {
    let root = run::root();
    let all = read_all(&root)?;
    check(&root, &all)?;
    println!("{} bugs, each can be planted", all.len());
    if args.check {
        return Ok(true);
    }
    let mut results = read_results(&root.join(RESULTS));
    if args.table {
        fs::write(root.join(RESULTS), table(&all, &results))?;
        return Ok(true);
    }
    let chosen = |b: &&Bug| {
        let named = args.names.iter().any(|n| b.name.contains(n));
        let missing = !args.missing || !results.get(&b.name).is_some_and(|by| is_red(by));
        named || args.names.is_empty() && missing && b.equivalent.is_none()
    };
    let bugs: Vec<&Bug> = all.iter().filter(chosen).collect();
    let dir = root.join(&args.dir);
    let packages: BTreeSet<_> = bugs.iter().filter_map(|bug| bug.package()).collect();
    let library = bugs.iter().any(|bug| bug.package().is_none());
    let suite = Suite::new(&root, &dir, args, library, &packages)?;
    let mut broken = false;
    for (i, bug) in bugs.iter().enumerate() {
        let started = Instant::now();
        let killer = suite.plant(bug);
        let text = match &killer {
            Ok(Some(test)) => test.clone(),
            Ok(None) => "SURVIVED".to_owned(),
            Err(error) => error.to_string(),
        };
        println!("{:3}/{} {:45} {text} ({} s)", i + 1, bugs.len(), bug.name, started.elapsed().as_secs());
        broken |= killer.is_err();
        // Read and written for each bug: a long run that is ended keeps what it found so far, and two runs at once keep each other's rows.
        results = read_results(&root.join(RESULTS));
        match killer {
            Ok(Some(test)) => drop(results.insert(bug.name.clone(), test)),
            Ok(None) if bug.package().is_some() || suite.targets.len() == TARGETS.len() => {
                drop(results.insert(bug.name.clone(), NOBODY.to_owned()))
            }
            _ => drop(results.remove(&bug.name)),
        }
        fs::write(root.join(RESULTS), table(&all, &results))?;
    }
    let survived =
        bugs.iter().filter(|b| b.equivalent.is_none() && !results.get(&b.name).is_some_and(|by| is_red(by))).count();
    Ok(survived == 0 && !broken)
}

/// Checks that what each bug looks for occurs exactly once.
fn check(root: &Path, bugs: &[Bug]) -> io::Result<()> {
    for bug in bugs {
        let n = fs::read_to_string(root.join(&bug.file))?.matches(&bug.find).count();
        if n != 1 {
            return Err(io::Error::other(format!("{}: what it looks for occurs {n} times in {}", bug.name, bug.file)));
        }
    }
    Ok(())
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

/// Copies the files that git knows of, so that nothing in the tree itself is touched. A file that is the same keeps its time stamp; one
/// that is no more is removed.
fn copy(root: &Path, tree: &Path) -> io::Result<()> {
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(root).output()?;
    prune(tree, tree, &listed.stdout.split(|&b| b == 0).collect())?;
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

/// Removes the files under `dir` that are not listed.
fn prune(tree: &Path, dir: &Path, listed: &HashSet<&[u8]>) -> io::Result<()> {
    let Ok(entries) = fs::read_dir(dir) else { return Ok(()) };
    for path in entries.map(|e| e.map(|e| e.path())).collect::<io::Result<Vec<_>>>()? {
        let name = path.strip_prefix(tree).unwrap_or(&path).as_os_str().as_encoded_bytes();
        if path.is_dir() {
            prune(tree, &path, listed)?;
        } else if !listed.contains(name) && name != b"Cargo.lock" {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// A copy of the tree, and the time limit of each target in it.
struct Suite {
    tree: PathBuf,
    targets: Vec<&'static str>,
    limits: BTreeMap<&'static str, Duration>,
}

impl Suite {
    fn new(root: &Path, dir: &Path, args: &Args, library: bool, packages: &BTreeSet<&'static str>) -> io::Result<Self> {
        let targets: Vec<_> = TARGETS.into_iter().take_while(|t| !(args.first || args.quick && *t == SLOW)).collect();
        let mut this = Self { tree: dir.join("tree"), targets, limits: BTreeMap::new() };
        copy(root, &this.tree)?;
        let own = this.targets.clone().into_iter().filter(|_| library);
        for target in own.chain(packages.iter().copied()).filter(|_| !args.no_baseline) {
            this.build(target)?;
            let started = Instant::now();
            if let Some(red) = this.test(target, 10 * LIMIT)? {
                return Err(io::Error::other(format!("without a bug, {red}")));
            }
            println!("without a bug: {target:15} green ({} s)", started.elapsed().as_secs());
            this.limits.insert(target, LIMIT.max(started.elapsed() * PATIENCE));
        }
        Ok(this)
    }

    /// Plants the bug, looks for a test that notices, and takes the bug out again. `None`: no test noticed.
    fn plant(&self, bug: &Bug) -> io::Result<Option<String>> {
        let path = self.tree.join(&bug.file);
        let whole = fs::read_to_string(&path)?;
        fs::write(&path, whole.replacen(&bug.find, &bug.put, 1))?;
        let killer = self.hunt(bug);
        fs::write(&path, whole)?;
        killer
    }

    fn hunt(&self, bug: &Bug) -> io::Result<Option<String>> {
        let package = bug.package();
        let first = package.or_else(|| TARGETS.into_iter().find(|t| Some(*t) == bug.first.as_deref()));
        let rest = self.targets.iter().copied().filter(|t| Some(*t) != first && package.is_none());
        for target in first.into_iter().chain(rest) {
            self.build(target)?;
            let limit = self.limits.get(target).copied().unwrap_or(LIMIT);
            if let Some(red) = self.test(target, limit)? {
                return Ok(Some(red));
            }
        }
        Ok(None)
    }

    fn build(&self, target: &str) -> io::Result<()> {
        let built = run::run(self.cargo(target).arg("--no-run"), Duration::from_secs(1800))?;
        if built.ok { Ok(()) } else { Err(io::Error::other(format!("does not compile:\n{}", built.output))) }
    }

    /// The red test, or `None` if all are green.
    fn test(&self, target: &str, limit: Duration) -> io::Result<Option<String>> {
        let mut test = self.cargo(target);
        if target == LOOM {
            test.arg("loom");
        }
        // With `--quiet` alone, tests would not say their names.
        test.args(["--", "--format=pretty"]);
        if target == SHUTTLE {
            test.args(["--skip", "a_thousand"]);
        }
        let ran = run::run(test.env("RUST_BACKTRACE", "0"), limit)?;
        if ran.ok {
            return Ok(None);
        }
        let red = ran.output.lines().find_map(|l| l.strip_prefix("test ")?.strip_suffix(" ... FAILED"));
        let how = if ran.timed_out { "hangs" } else { "aborts" };
        Ok(Some(format!("`{target}`: {}", red.map_or(how.to_owned(), |r| format!("`{r}`")))))
    }

    fn cargo(&self, target: &str) -> Command {
        let mut cargo = Command::new("cargo");
        let package = PACKAGES.into_iter().map(|(_, package)| package).find(|package| *package == target);
        cargo.args(["test", "--quiet", "--package", package.unwrap_or("strandlog")]).current_dir(&self.tree);
        cargo.env("CARGO_TARGET_DIR", self.tree.join("../target")).env_remove("RUSTFLAGS");
        match target {
            // One red test file is enough, and the examples in the documentation are left out.
            _ if package.is_some() => cargo.args(["--all-features", "--tests"]),
            LOOM => {
                cargo.args(["--lib", "--release"]).env("RUSTFLAGS", "--cfg loom").env("LOOM_MAX_PREEMPTIONS", "2");
                cargo.env("CARGO_TARGET_DIR", self.tree.join("../loom"))
            }
            SHUTTLE => {
                cargo.args([
                    "--release",
                    "--lib",
                    "--test",
                    "schedules",
                    "--test",
                    "histories",
                    "--test",
                    "large_worlds",
                ]);
                cargo.env("RUSTFLAGS", "--cfg shuttle").env("STRANDLOG_SEEDS", SCHEDULES);
                cargo.env("CARGO_TARGET_DIR", self.tree.join("../shuttle"))
            }
            "lib" => cargo.arg("--lib"),
            test => cargo.args(["--test", test]),
        };
        cargo
    }
}

/// What the table says of a bug that no target noticed.
const NOBODY: &str = "**nobody**";

fn is_red(by: &str) -> bool {
    by.starts_with('`')
}

/// The name of each bug that was tried, and what caught it.
fn read_results(path: &Path) -> BTreeMap<String, String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ");
        let (name, by) = (cells.next()?, cells.last()?);
        (is_red(by) || by == NOBODY).then(|| (name.to_owned(), by.to_owned()))
    };
    text.lines().filter_map(row).collect()
}

fn table(bugs: &[Bug], results: &BTreeMap<String, String>) -> String {
    let mut out = String::from(
        "# Planted bugs\n\nWritten by `cargo xtask planted`. Each bug is applied alone to a copy of the tree; the first test that went red is named.\n\n",
    );
    let red = |b: &Bug| results.get(&b.name).is_some_and(|by| is_red(by));
    let equivalent = bugs.iter().filter(|b| b.equivalent.is_some() && !red(b)).count();
    let survived =
        bugs.iter().filter(|b| b.equivalent.is_none() && results.get(&b.name).is_some_and(|by| by == NOBODY));
    let (counted, red, survived) = (bugs.len() - equivalent, bugs.iter().filter(|b| red(b)).count(), survived.count());
    let untried = counted - red - survived;
    let _ = writeln!(
        out,
        "{counted} planted: {red} red, {survived} noticed by nobody, {untried} not tried by every target yet. Beside them {equivalent} that change nothing.\n"
    );
    let _ = writeln!(out, "| bug | what | caught by |\n|---|---|---|");
    for bug in bugs {
        let by = match (results.get(&bug.name), &bug.equivalent) {
            (Some(killer), _) if is_red(killer) => killer.clone(),
            (_, Some(why)) => format!("equivalent: {why}"),
            (Some(nobody), None) => nobody.clone(),
            (None, None) => "not tried by every target yet".to_owned(),
        };
        let _ = writeln!(out, "| {} | {} | {by} |", bug.name, bug.what);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bug_can_be_planted() {
        let root = run::root();
        let bugs = read_all(&root).unwrap();
        assert!(bugs.len() >= 40);
        check(&root, &bugs).unwrap();
        for bug in &bugs {
            assert_ne!(bug.find, bug.put, "{}", bug.name);
            let known = match (bug.package(), bug.first.as_deref()) {
                (None, first) => first.is_none_or(|first| TARGETS.contains(&first)),
                (Some(_), first) => first.is_none(),
            };
            assert!(known, "{}: no such target", bug.name);
            let library = bug.file.starts_with("src/");
            assert!(library != bug.package().is_some(), "{}: nobody looks for what is in {}", bug.name, bug.file);
        }
    }

    #[test]
    fn a_table_is_read_as_it_is_written() {
        let bug = |name: &str| Bug {
            name: name.to_owned(),
            what: "what | it is".to_owned(),
            file: String::new(),
            first: None,
            equivalent: None,
            find: String::new(),
            put: String::new(),
        };
        let caught = BTreeMap::from([("a".to_owned(), "`lib`: `some::test`".to_owned())]);
        let text = table(&[bug("a"), bug("b")], &caught);
        let path = std::env::temp_dir().join(format!("planted-table-{}", std::process::id()));
        fs::write(&path, text).unwrap();
        assert_eq!(read_results(&path), caught);
        fs::remove_file(&path).unwrap();
    }
}
