//! `strandlog completions` and `strandlog man`

use std::io::Write;
use std::path::Path;

use clap::CommandFactory;
use serde_json::json;

use crate::args::{Args, Completions, Man};
use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::save;

/// Writes the completions for a shell.
pub fn completions(args: &Completions, out: &mut Output) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "strandlog", &mut script);
    if out.is_json() {
        out.json(&json!({ "shell": args.shell.to_string(), "script": String::from_utf8_lossy(&script) }))?;
    } else {
        out.write_all(&script)?;
    }
    Ok(())
}

/// Writes the manual: one page, or all of them into a directory.
pub fn man(args: &Man, out: &mut Output) -> Result<()> {
    if let Some(dir) = &args.dir {
        pages_into(dir, args.force)?;
        if out.is_json() {
            out.json(&json!({ "written": dir.display().to_string() }))?;
        }
        return Ok(());
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(Args::command()).render(&mut page)?;
    if out.is_json() {
        out.json(&json!({ "page": String::from_utf8_lossy(&page) }))?;
    } else {
        out.write_all(&page)?;
    }
    Ok(())
}

/// Writes a page for the tool and one for each command: all, or none if one of the names is taken.
fn pages_into(dir: &Path, force: bool) -> Result<()> {
    let mut tool = Args::command().disable_help_subcommand(true);
    // Names the commands' pages `strandlog-map` and so on.
    tool.build();
    let commands = tool.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let mut pages = Vec::new();
    for command in commands.chain([tool.clone()]) {
        let page = clap_mangen::Man::new(command);
        let mut text = Vec::new();
        page.render(&mut text)?;
        pages.push((dir.join(page.get_filename()), text));
    }
    if dir.symlink_metadata().is_ok() && !dir.is_dir() {
        return Err(Failure::Request(format!("{} is no directory", dir.display())));
    }
    std::fs::create_dir_all(dir).map_err(|e| Failure::Request(format!("writing to {}: {e}", dir.display())))?;
    pages.iter().try_for_each(|(path, _)| save::check(path, force))?;
    pages.iter().try_for_each(|(path, text)| save::save(path, text, force))
}
