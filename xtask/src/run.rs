//! Running cargo, with a limit in time.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Not a file: the tests that run under schedules which are drawn, too.
pub const SHUTTLE: &str = "shuttle";

/// What became of a command.
pub struct Outcome {
    pub ok: bool,
    /// It did not end in time, and was ended with all its children.
    pub timed_out: bool,
    /// Both of its outputs.
    pub output: String,
}

/// The root of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

/// Runs the command to its end, or ends it and its children after `limit`.
pub fn run(command: &mut Command, limit: Duration) -> io::Result<Outcome> {
    // Both outputs into one pipe; a process group of its own, so that nothing is left behind.
    let (mut reader, writer) = io::pipe()?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).process_group(0);
    let mut child = command.spawn()?;
    // Ours are closed, or the reader would wait for itself.
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
    // No signals in the standard library, and not worth a dependency.
    let _ = Command::new("kill").args(["-KILL", "--", &format!("-{id}")]).stderr(Stdio::null()).status();
}
