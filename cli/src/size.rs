//! Sizes: read as `64K` or `1G`, written as `64 KiB` or `1.0 GiB`.

const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/// The largest capacity that a log can be created with.
const LARGEST_LOG: u64 = 8 << 40;

/// Reads a size: a number, optionally followed by `K`, `M`, `G` or `T` (or `KiB` and so on), in either case.
///
/// # Errors
/// Says what is expected.
pub fn parse(text: &str) -> Result<u64, String> {
    let expected = || format!("`{text}` is no size: write bytes, or a number with K, M, G or T");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| expected())?;
    let shift = match suffix.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return Err(expected()),
    };
    number.checked_mul(1 << shift).ok_or_else(|| format!("`{text}` is more than any file can hold"))
}

/// As [`parse`], for sizes below 4 GiB.
///
/// # Errors
/// As [`parse`].
pub fn parse32(text: &str) -> Result<u32, String> {
    u32::try_from(parse(text)?).map_err(|_| format!("`{text}` is too much here: it must be below 4G"))
}

/// An eighth more, but no more than any log can have. A copy needs more room until its entries are moved to where they take least, so a copy of a full
/// log does not fit a log of the same size.
pub fn with_spare(capacity: u64) -> u64 {
    capacity.saturating_add(capacity / 8).min(LARGEST_LOG.max(capacity))
}

/// Writes a size so that it is read at a glance.
pub fn human(bytes: u64) -> String {
    let mut unit = 0;
    let mut value = bytes as f64;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 || (value.fract() == 0.0 && value < 1000.0) {
        format!("{value:.0} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// Writes a count with a comma between thousands.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_a_suffix() {
        assert_eq!(parse("4096"), Ok(4096));
        assert_eq!(parse("64K"), Ok(65536));
        assert_eq!(parse("1g"), Ok(1 << 30));
        assert_eq!(parse("2 MiB"), Ok(2 << 20));
        for bad in ["", "K", "1.5G", "-1", "5X", "99999999999T"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse32("4G").is_err());
    }

    #[test]
    fn a_copy_of_a_log_at_the_bound_is_asked_for_no_more_than_that() {
        assert_eq!(with_spare(64 << 20), 72 << 20);
        assert_eq!(with_spare(LARGEST_LOG - (1 << 30)), LARGEST_LOG);
        assert_eq!(with_spare(LARGEST_LOG), LARGEST_LOG);
        let dir = tempfile::tempdir().unwrap();
        let opened = |capacity| strandlog::Wal::options().capacity(capacity).open(dir.path().join("missing/log"));
        assert!(!matches!(opened(LARGEST_LOG), Err(strandlog::Error::Option { .. }) | Ok(_)));
        assert!(matches!(opened(LARGEST_LOG + 1), Err(strandlog::Error::Option { .. })));
    }

    #[test]
    fn sizes_and_counts_are_written_for_people() {
        assert_eq!(human(0), "0 B");
        assert_eq!(human(65536), "64 KiB");
        assert_eq!(human(1 << 30), "1 GiB");
        assert_eq!(human(1500), "1.5 KiB");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(12), "12");
    }
}
