//! What a process asked of the system, as `strace` tells it.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::process::{Command, Stdio};

/// All calls by which a file, its size or its name comes to be, changes or becomes durable. A missing one would show: in the end the model
/// must hold what the file system holds, and a sync that it does not see protects nothing.
const CALLS: &str = "open,openat,creat,close,dup,dup2,dup3,fcntl,write,writev,pwrite64,pwritev,pwritev2,truncate,ftruncate,fallocate,\
    fsync,fdatasync,sync_file_range,rename,renameat,renameat2,link,linkat,unlink,unlinkat,mmap";
/// Longer than any write of the log that is traced: all bytes are in the trace.
const LONGEST: &str = "2097152";

/// A system call that succeeded.
#[derive(Debug)]
pub struct Call {
    pub name: String,
    args: Vec<String>,
    pub result: u64,
}

impl Call {
    fn parse(line: &str) -> Option<Self> {
        let (call, result) = line.rsplit_once(") = ").or_else(|| {
            // Short calls are padded.
            let (call, result) = line.rsplit_once(" = ")?;
            Some((call.trim_end().strip_suffix(')')?, result))
        })?;
        let (name, args) = call.split_once('(')?;
        let result = result.split_whitespace().next()?;
        let result = match result.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).ok()?,
            // An error is negative.
            None => result.parse().ok()?,
        };
        Some(Self { name: name.to_owned(), args: split(args), result })
    }

    pub fn arg(&self, at: usize) -> &str {
        self.args.get(at).map_or("", String::as_str)
    }

    pub fn number(&self, at: usize) -> u64 {
        self.arg(at).parse().unwrap_or_else(|_| panic!("argument {at} is no number: {self}"))
    }

    pub fn has(&self, at: usize, flag: &str) -> bool {
        self.arg(at).split('|').any(|f| f == flag)
    }

    /// The bytes of a buffer, or of all buffers of a vector.
    pub fn bytes(&self, at: usize) -> Vec<u8> {
        let mut parts = self.arg(at).split('"');
        let mut bytes = Vec::new();
        // The parts are outside of a string and inside of one, in turns.
        while let (Some(_), Some(text)) = (parts.next(), parts.next()) {
            bytes.extend(text.split("\\x").skip(1).map(|hex| u8::from_str_radix(hex, 16).expect("two digits")));
        }
        bytes
    }

    pub fn text(&self, at: usize) -> String {
        String::from_utf8(self.bytes(at)).expect("a name")
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let args = (0..self.args.len()).map(|at| match self.bytes(at) {
            bytes if bytes.is_empty() => self.args[at].clone(),
            bytes if bytes.len() > 80 => format!("{} bytes", bytes.len()),
            bytes => format!("{:?}", String::from_utf8_lossy(&bytes)),
        });
        write!(f, "{}({})", self.name, args.collect::<Vec<_>>().join(", "))
    }
}

/// Splits arguments at the commas that are in no vector and no structure. Strings are in hexadecimal and hold none.
fn split(args: &str) -> Vec<String> {
    let mut depth = 0;
    let top = |c: char| {
        depth += i32::from(c == '[' || c == '{') - i32::from(c == ']' || c == '}');
        c == ',' && depth == 0
    };
    args.split(top).map(|arg| arg.trim().to_owned()).collect()
}

/// Runs this very test binary as a traced child. Returns the calls it made that succeeded, in order.
pub fn run(dir: &Path, inject: &[&str], env: &[(&str, &str)]) -> Vec<Call> {
    let told = dir.join("trace");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-xx", "-s", LONGEST, "-e", &format!("trace={CALLS}"), "-o"]).arg(&told);
    for inject in inject {
        command.args(["-e", &format!("inject={inject}")]);
    }
    command.arg(std::env::current_exe().expect("our own name"));
    command.args(["--exact", "child", "--nocapture", "--test-threads=1"]);
    let out = command.envs(env.iter().copied()).stdin(Stdio::null()).output().expect("strace starts");
    let said = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{inject:?}: {said:?}");
    calls(&std::fs::read_to_string(&told).expect("a trace"))
}

fn calls(text: &str) -> Vec<Call> {
    // A call during which another thread makes one is told in two lines.
    let mut begun: HashMap<&str, &str> = HashMap::new();
    let mut calls = Vec::new();
    for line in text.lines() {
        let Some((thread, line)) = line.split_once(' ') else { continue };
        let line = line.trim_start();
        if let Some(begin) = line.strip_suffix("<unfinished ...>") {
            begun.insert(thread, begin.trim_end());
        } else if let Some((_, end)) = line.split_once(" resumed>") {
            let begin = begun.remove(thread).unwrap_or_default();
            calls.extend(Call::parse(&format!("{begin}{end}")));
        } else {
            calls.extend(Call::parse(line));
        }
    }
    calls
}

/// Whether `strace` is there and may trace; else says why not.
pub fn can_trace() -> bool {
    match Command::new("strace").args(["-qq", "-o", "/dev/null", "-e", "trace=none", "true"]).output() {
        Ok(out) if out.status.success() => true,
        Ok(out) => {
            println!("skipped: strace may not trace here: {}", String::from_utf8_lossy(&out.stderr));
            false
        }
        Err(error) => {
            println!("skipped: no strace: {error}");
            false
        }
    }
}

#[test]
fn a_line_is_read_as_it_was_meant() {
    let call =
        r#"pwritev2(6, [{iov_base="\x00\x01", iov_len=2}, {iov_base="\xff", iov_len=1}], 2, 4096, RWF_DSYNC) = 3"#;
    let close = "close(3) = 0";
    let text = format!(
        "1 {call}\n2 open(\"\\x2f\" <unfinished ...>\n1 close(3)      = 0\n2 <... open resumed>, O_RDWR|O_CREAT) = 5\n1 fsync(4) = -1 EIO (x)\n"
    );
    let calls = calls(&text);
    assert_eq!(calls.len(), 3, "{calls:?}");
    assert_eq!((calls[0].name.as_str(), calls[0].number(3), calls[0].result), ("pwritev2", 4096, 3));
    assert_eq!(calls[0].bytes(1), [0, 1, 255]);
    assert!(calls[0].has(4, "RWF_DSYNC"));
    assert_eq!(Call::parse(close).map(|c| (c.number(0), c.result)), Some((3, 0)));
    assert_eq!((calls[2].text(0).as_str(), calls[2].has(1, "O_CREAT"), calls[2].result), ("/", true, 5));
}
