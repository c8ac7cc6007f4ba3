//! Runs cargo with a time limit.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// No test file, but the tests that also run under drawn schedules.
pub const SHUTTLE: &str = "shuttle";

/// What became of a command.
pub struct Outcome {
    pub ok: bool,
    /// It did not end in time, and was killed with all its children.
    pub timed_out: bool,
    /// Its standard output and standard error together.
    pub output: String,
}

/// The root of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

/// Runs the command to its end, or kills it and its children after `limit`.
pub fn run(command: &mut Command, limit: Duration) -> io::Result<Outcome> {
    // Both outputs into one pipe; a process group of its own, so that nothing is left behind.
    let (mut reader, writer) = io::pipe()?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).process_group(0);
    let mut child = command.spawn()?;
    // Closes our own ends of the pipe, or the reader would wait for them for ever.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let reading = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = reader.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let started = Instant::now();
    let mut timed_out = false;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if started.elapsed() > limit && !timed_out {
            timed_out = true;
            kill_group(child.id());
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    kill_group(child.id());
    let output = reading.join().unwrap_or_default();
    Ok(Outcome { ok: status.success(), timed_out, output })
}

fn kill_group(id: u32) {
    // The standard library sends no signals, and they are not worth a dependency.
    let _ = Command::new("kill").args(["-KILL", "--", &format!("-{id}")]).stderr(Stdio::null()).status();
}
