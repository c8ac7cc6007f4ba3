//! `strandlog completions` and `strandlog man`: what the tool says of itself.

use std::io::Write;
use std::process::ExitCode;

use clap::CommandFactory;
use serde_json::json;

use crate::args::{Args, Completions, Man};
use crate::failure::{Failure, Result};
use crate::output::Output;

/// Writes the completions for a shell.
pub fn completions(args: &Completions, out: &mut Output) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "strandlog", &mut script);
    if out.is_json() {
        out.json(&json!({ "shell": args.shell.to_string(), "script": String::from_utf8_lossy(&script) }))?;
    } else {
        out.write_all(&script)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes the manual: one page, or all of them into a directory.
pub fn man(args: &Man, out: &mut Output) -> Result<ExitCode> {
    if let Some(dir) = &args.dir {
        let failed = |e| Failure::Request(format!("writing to {}: {e}", dir.display()));
        std::fs::create_dir_all(dir).map_err(failed)?;
        clap_mangen::generate_to(Args::command(), dir).map_err(failed)?;
        if out.is_json() {
            out.json(&json!({ "written": dir.display().to_string() }))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(Args::command()).render(&mut page)?;
    if out.is_json() {
        out.json(&json!({ "page": String::from_utf8_lossy(&page) }))?;
    } else {
        out.write_all(&page)?;
    }
    Ok(ExitCode::SUCCESS)
}
