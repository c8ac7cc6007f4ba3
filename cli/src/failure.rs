//! Why a command failed.

use std::fmt;
use std::io;

/// Why the command could not do its work.
#[derive(Debug)]
pub enum Failure {
    /// The log returned an error.
    Log(strandlog::Error),
    /// The output could not be written.
    Output(io::Error),
    /// The request makes no sense here.
    Request(String),
}

impl Failure {
    /// Whether the reader of the output went away, which is not our failure.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(e) if e.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log(error) => error.fmt(f),
            Self::Output(error) => write!(f, "writing the output: {error}"),
            Self::Request(why) => f.write_str(why),
        }
    }
}

impl From<strandlog::Error> for Failure {
    fn from(error: strandlog::Error) -> Self {
        Self::Log(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// The result of a command.
pub type Result<T> = std::result::Result<T, Failure>;
