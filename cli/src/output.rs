//! Standard output: buffered, for people or for machines.

use std::fmt::{Arguments, Display};
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write, stdout};
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::failure::{Failure, Result};
use crate::size::human;

/// Exit code if the reader of the output went away before its end: as a shell reports a process killed by SIGPIPE.
pub const CUT_OFF: u8 = 128 + 13;

/// How text looks if colours are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// A heading.
    Bold,
    /// Less important.
    Dim,
    /// As it should be.
    Good,
    /// Damage.
    Bad,
    /// Belongs to the journal.
    Journal,
    /// Belongs to a chain.
    Chain,
    /// One of the 256 colours.
    Hue(u8),
}

/// Where the output goes.
#[derive(Debug)]
pub struct Output {
    out: BufWriter<StdoutLock<'static>>,
    json: bool,
    colours: bool,
    all_is_well: bool,
}

impl Output {
    /// Standard output; coloured if it is a terminal and `NO_COLOR` is not set.
    pub fn new(json: bool) -> Self {
        let colours = !json && stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { out: BufWriter::new(stdout().lock()), json, colours, all_is_well: true }
    }

    /// Whether JSON was asked for.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Whether there are colours.
    pub fn has_colours(&self) -> bool {
        self.colours
    }

    /// Notes that damage was found, or that not everything could be done as asked. Call this before writing about it, so that the exit code is
    /// right even if the reader goes away in between.
    pub fn not_all_is_well(&mut self) {
        self.all_is_well = false;
    }

    /// The exit code of a command that ran to its end.
    pub fn exit_code(&self) -> ExitCode {
        if self.all_is_well { ExitCode::SUCCESS } else { ExitCode::from(1) }
    }

    /// The exit code of a command whose output was cut off. Damage found until then takes precedence.
    pub fn cut_off(&self) -> ExitCode {
        if self.all_is_well { ExitCode::from(CUT_OFF) } else { self.exit_code() }
    }

    /// Writes a line.
    pub fn line(&mut self, text: Arguments<'_>) -> Result<()> {
        Ok(writeln!(self.out, "{text}")?)
    }

    /// Writes a fact: a name and a value.
    pub fn fact(&mut self, name: &str, value: impl Display) -> Result<()> {
        let name = self.styled(Style::Dim, format_args!("{name:<11}"));
        self.line(format_args!("  {name} {value}"))
    }

    /// Writes a JSON value on a line of its own.
    pub fn json(&mut self, value: &Value) -> Result<()> {
        self.line(format_args!("{value}"))
    }

    /// The text in a style, or plain if colours are not wanted.
    pub fn styled(&self, style: Style, text: impl Display) -> String {
        if !self.colours {
            return text.to_string();
        }
        let code = match style {
            Style::Bold => "1",
            Style::Dim => "2",
            Style::Good => "32",
            Style::Bad => "1;31",
            Style::Journal => "36",
            Style::Chain => "33",
            Style::Hue(hue) => return format!("\x1b[38;5;{hue}m{text}\x1b[0m"),
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// Tells the user why the command could not do its work, as JSON with --json.
    ///
    /// The buffered output is flushed first: the failure must not come before it, nor in the middle of a line.
    pub fn failure(&mut self, failure: &Failure) {
        let told = self.json
            && self.finish().is_ok()
            && self.json(&json!({ "error": failure.to_string() })).and_then(|()| self.finish()).is_ok();
        if !told {
            // The buffered output goes first, if it can be written. If the failure cannot be told either, the exit code still says it.
            let _ = self.finish();
            say(format_args!("{failure}"));
        }
    }

    /// Flushes the output.
    pub fn finish(&mut self) -> Result<()> {
        Ok(self.out.flush()?)
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Writes to standard error what does not belong in the output.
pub fn say(what: Arguments<'_>) {
    // Standard error may be closed.
    let _ = writeln!(io::stderr(), "strandlog: {what}");
}

/// The warning about this many bytes of a log that are holes, without space on the device; `None` if there are none.
pub fn holes(bytes: u64) -> Option<String> {
    (bytes > 0).then(|| {
        format!(
            "{} of the file are holes, which take space when they are written, and fail commits where there is none: copy it with `cp --sparse=never` \
             before it is used",
            human(bytes)
        )
    })
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut out, byte| {
        // Writing to a string cannot fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}
