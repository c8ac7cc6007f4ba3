//! Logs of a future version: every command says what it lacks, and changes nothing.

mod support;

use strandlog::format::superblock::{SUPERBLOCK_BYTES, SUPERBLOCK_OFFSETS};
use support::{filled, str, strandlog};

/// Changes a field in these copies of the superblock, and their checksums.
fn patch(image: &mut [u8], copies: &[u64], field: usize, value: u8) {
    for &copy in copies {
        let block = &mut image[copy as usize..][..SUPERBLOCK_BYTES];
        block[field] = value;
        let (body, crc) = block.split_at_mut(SUPERBLOCK_BYTES - 4);
        crc.copy_from_slice(&crc32c(body).to_le_bytes());
    }
}

/// CRC-32C, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

#[test]
fn a_log_of_a_newer_version_is_refused_by_name_and_left_alone() {
    let (dir, path) = filled();
    let file = |name: &str| dir.path().join(name).display().to_string();
    let (lines, new) = (file("lines"), file("new"));
    assert_eq!(strandlog(&["export", str(&path), "--out", &lines]).code, 0);
    let sound = std::fs::read(&path).unwrap();
    let path = str(&path);
    let commands: [&[&str]; 10] = [
        &["info", path],
        &["map", path],
        &["map", path, "--svg", &new],
        &["dump", path, "--entries"],
        &["verify", path],
        &["export", path],
        &["export", path, "--out", &new],
        &["salvage", path, &new],
        &["grow", path, "--capacity", "8M"],
        &["import", "--from", "jsonl", &lines, path],
    ];
    let [a, b] = SUPERBLOCK_OFFSETS;
    // The newer version has rewritten one copy, or both.
    for copies in [&[a][..], &[b], &[a, b]] {
        for (field, value, named) in [(8, 2, "format version 2"), (16, 4, "feature bits 0x4")] {
            let mut image = sound.clone();
            patch(&mut image, copies, field, value);
            std::fs::write(path, &image).unwrap();
            for command in commands {
                let ran = strandlog(&[command, &["--json"]].concat());
                let told = ran.json()["error"].as_str().unwrap_or_default().to_owned();
                assert_eq!(ran.code, 2, "{command:?}: {ran:?}");
                assert!(told.contains(named) && told.contains("newer") && told.contains(path), "{command:?}: {told}");
                assert!(std::fs::read(path).unwrap() == image, "{command:?}: it was changed");
                assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "{command:?}: something is left");
            }
        }
    }
}
