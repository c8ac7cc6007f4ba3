//! Standard output: buffered, for people or for machines.

use std::fmt::{Arguments, Display};
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write, stdout};
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::failure::{Failure, Result};
use crate::size::human;

/// What the command ends with where the reader of its output went away before the end: what a shell says of who is killed by SIGPIPE.
pub const CUT_OFF: u8 = 128 + 13;

/// How something looks, where colours are wanted.
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
    /// The journal's.
    Journal,
    /// The chains'.
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
    /// Standard output; coloured if that is a terminal and nobody objects.
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

    /// Damage was found, or not everything could be done as it was asked for. Said before it is written about: it holds
    /// though nobody reads that to its end.
    pub fn not_all_is_well(&mut self) {
        self.all_is_well = false;
    }

    /// What the command ends with, if it comes to its end.
    pub fn exit_code(&self) -> ExitCode {
        if self.all_is_well { ExitCode::SUCCESS } else { ExitCode::from(1) }
    }

    /// What it ends with where its output was cut off. Damage that was found until then counts.
    pub fn cut_off(&self) -> ExitCode {
        if self.all_is_well { ExitCode::from(CUT_OFF) } else { self.exit_code() }
    }

    /// Writes a line.
    pub fn line(&mut self, text: Arguments<'_>) -> Result<()> {
        Ok(writeln!(self.out, "{text}")?)
    }

    /// Writes a fact: its name, and what it is.
    pub fn fact(&mut self, name: &str, value: impl Display) -> Result<()> {
        let name = self.styled(Style::Dim, format_args!("{name:<11}"));
        self.line(format_args!("  {name} {value}"))
    }

    /// Writes a JSON value on a line of its own.
    pub fn json(&mut self, value: &Value) -> Result<()> {
        self.line(format_args!("{value}"))
    }

    /// The text in a style, where colours are wanted.
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

    /// Tells the user why the command could not do its work; as JSON where JSON was asked for.
    ///
    /// Behind everything that was written before: it must not come ahead of that, nor in the middle of a line.
    pub fn failure(&mut self, failure: &Failure) {
        let told = self.json
            && self.finish().is_ok()
            && self.json(&json!({ "error": failure.to_string() })).and_then(|()| self.finish()).is_ok();
        if !told {
            // What is there goes out first, if it can. And if this cannot be told either, the exit code says it.
            let _ = self.finish();
            say(format_args!("{failure}"));
        }
    }

    /// Everything is out.
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

/// Tells people what does not belong among the output.
pub fn say(what: Arguments<'_>) {
    // Nobody may be there to hear it.
    let _ = writeln!(io::stderr(), "strandlog: {what}");
}

/// What it means that so much of a log has no place on the device; nothing to say where that is nothing.
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
