//! Progress bars for what takes long, on standard error, and only if it is a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const BYTES: &str = "{msg} {bar:40} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
const COUNT: &str = "{msg} {bar:40} {human_pos} of {human_len} replicas, {eta} left";

/// A bar that counts bytes.
pub fn bytes(what: &'static str, quiet: bool) -> ProgressBar {
    bar(what, quiet, BYTES)
}

/// A bar that counts replicas.
pub fn replicas(what: &'static str, quiet: bool) -> ProgressBar {
    bar(what, quiet, COUNT)
}

fn bar(what: &'static str, quiet: bool, template: &str) -> ProgressBar {
    let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(Some(0), target).with_message(what);
    // If the template does not parse, the default style remains.
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style.progress_chars("=> ")),
        Err(_) => bar,
    }
}

/// A bar that counts milliseconds, with changing figures beside it.
pub fn live(quiet: bool) -> ProgressBar {
    bar("", quiet, "{bar:24} {msg}")
}
