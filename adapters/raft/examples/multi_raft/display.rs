//! Progress: one line that changes on a terminal; elsewhere a line now and then.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Time between two plain lines.
const PLAIN_EVERY: Duration = Duration::from_secs(1);

pub struct Display {
    bar: Option<ProgressBar>,
    start: Instant,
    plain: Instant,
}

impl Display {
    pub fn new() -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("  {spinner} {msg}");
            let bar = ProgressBar::new_spinner();
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        let now = Instant::now();
        Display { bar, start: now, plain: now }
    }

    /// Prints an event, which stays.
    pub fn say(&self, what: impl AsRef<str>) {
        let line = format!("{:6.2} s  {}", self.start.elapsed().as_secs_f64(), what.as_ref());
        match &self.bar {
            Some(bar) => bar.suspend(|| println!("{line}")),
            None => println!("{line}"),
        }
    }

    /// Shows the current state.
    pub fn live(&mut self, what: String) {
        match &self.bar {
            Some(bar) => bar.set_message(what),
            None if self.plain.elapsed() >= PLAIN_EVERY => {
                self.plain = Instant::now();
                self.say(format!("  {what}"));
            }
            None => {}
        }
    }

    pub fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
