//! Snapshots on their way between members: files in parts. What arrives is verified whole before anything is done with
//! it; what was cut leaves nothing.

mod receive;
mod send;

#[cfg(test)]
mod tests;

pub(crate) use receive::{Arrived, receive};
pub(crate) use send::{await_done, read_parts};

use std::path::{Component, Path, PathBuf};

use hay_common::limits::RAFT_SNAPSHOT_NAME_BYTES_MAX;

/// The running checksum over all files.
fn add_file(crc: u32, name: &str, length: u64, file_crc: u32) -> u32 {
    let crc = crc32c::crc32c_append(crc, name.as_bytes());
    let crc = crc32c::crc32c_append(crc, &length.to_le_bytes());
    crc32c::crc32c_append(crc, &file_crc.to_le_bytes())
}

/// A name that stays below the snapshot's directory, as a path; `None` for any other.
fn safe_name(name: &str) -> Option<PathBuf> {
    if name.is_empty() || name.len() > RAFT_SNAPSHOT_NAME_BYTES_MAX || name.contains('\0') {
        return None;
    }
    let path = Path::new(name);
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    // `a//b` and `a/./b` have the components of `a/b`: only one spelling of a file is taken.
    let spelled = path.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>();
    (plain && spelled.join("/") == name).then(|| path.to_owned())
}
