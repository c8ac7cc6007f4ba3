//! `strandlog grow`

use serde_json::json;

use crate::args::Grow;
use crate::failure::Result;
use crate::output::{Output, Style};
use crate::size::human;
use crate::{open, progress};

/// Makes the log longer.
pub fn run(args: &Grow, out: &mut Output) -> Result<()> {
    let bar = progress::bytes("growing", out.is_json());
    let grown = strandlog::grow(&args.path, args.capacity, |p| {
        bar.set_length(p.total);
        bar.set_position(p.done);
    });
    bar.finish_and_clear();
    let grown = grown.map_err(|error| open::named(&args.path, error))?;
    let path = args.path.display().to_string();
    if out.is_json() {
        out.json(&json!({
            "grown": path, "from": grown.from, "to": grown.to, "file_from": grown.file_from,
            "usable_from": grown.usable_from, "usable_to": grown.usable_to,
        }))?;
        return Ok(());
    }
    let done = out.styled(Style::Good, "grown");
    out.line(format_args!("{done} {path}: from {} to {}", human(grown.from), human(grown.to)))?;
    if grown.file_from > grown.from {
        let had = human(grown.file_from);
        out.line(format_args!("  the file had {had}: an earlier growth was interrupted"))?;
    }
    Ok(())
}
