//! A local file on its way to the server: opened once, its length promised, and looked at again at the end.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use hay_common::ids::ContentHash;
use rustix::fs::OFlags;
use tokio::sync::mpsc;

use super::hashing::{ContentHasher, content_hash};
use super::progress::Progress;
use crate::api::Piece;

/// Files up to this size are read at once, and can be sent again from memory.
pub const WHOLE_BYTES_MAX: u64 = 1 << 20;
const PIECE_BYTES: usize = 256 << 10;

/// Why a local file can't be stored.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It can't be opened or read.
    #[error("can't be read: {0}")]
    Io(#[from] io::Error),
    /// A directory, pipe or device.
    #[error("is not a regular file")]
    NotAFile,
    /// Somebody writes to it.
    #[error("changed while it was being read; nothing of it was stored")]
    Changed,
    /// The connection took no more. Whoever sends knows why.
    #[error("the connection took no more")]
    Closed,
}

/// What must stay the same while a file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Look {
    len: u64,
    modified: (i64, i64),
}

impl Look {
    fn at(metadata: &Metadata) -> Self {
        Self { len: metadata.len(), modified: (metadata.mtime(), metadata.mtime_nsec()) }
    }
}

/// A file ready to be sent.
pub enum Source {
    /// Read whole.
    Whole {
        /// Its bytes.
        bytes: Bytes,
        /// Their content hash.
        hash: ContentHash,
    },
    /// To be streamed by [`Opened::send`].
    Stream(Opened),
}

/// An open file of known length.
pub struct Opened {
    file: File,
    look: Look,
}

/// Opens a file, and reads it if it is small. Blocks.
pub fn open(path: &Path, follow: bool) -> Result<Source, SourceError> {
    // O_NONBLOCK: a pipe that took the file's place must not hold us for ever.
    let mut flags = OFlags::NONBLOCK;
    if !follow {
        flags |= OFlags::NOFOLLOW;
    }
    let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(SourceError::NotAFile);
    }
    let mut opened = Opened { look: Look::at(&metadata), file };
    if opened.look.len > WHOLE_BYTES_MAX {
        return Ok(Source::Stream(opened));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(opened.look.len).unwrap_or(0) + 1);
    (&mut opened.file).take(opened.look.len + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != opened.look.len || opened.has_changed()? {
        return Err(SourceError::Changed);
    }
    let hash = content_hash(&bytes);
    Ok(Source::Whole { bytes: bytes.into(), hash })
}

impl Opened {
    /// Its length.
    pub fn len(&self) -> u64 {
        self.look.len
    }

    fn has_changed(&self) -> io::Result<bool> {
        Ok(Look::at(&self.file.metadata()?) != self.look)
    }

    /// Sends the file, and returns its content hash. Blocks; `stop` ends it early.
    ///
    /// The last piece goes only when the file was seen to be unchanged: the server then has fewer bytes than were
    /// announced, and nothing appears.
    pub fn send(
        mut self,
        pieces: &mpsc::Sender<io::Result<Piece>>,
        stop: &AtomicBool,
        progress: &Progress,
    ) -> Result<ContentHash, SourceError> {
        let ended = self.send_all(pieces, stop, progress);
        if ended.is_err() {
            // The body must fail, not end. Where nobody listens any more, it has failed already.
            let _ = pieces.try_send(Err(io::Error::other("the local file could not be read whole")));
        }
        ended
    }

    fn send_all(
        &mut self,
        pieces: &mpsc::Sender<io::Result<Piece>>,
        stop: &AtomicBool,
        progress: &Progress,
    ) -> Result<ContentHash, SourceError> {
        let mut hasher = ContentHasher::new();
        let mut left = self.look.len;
        while left > 0 {
            if stop.load(Ordering::Relaxed) {
                return Err(SourceError::Closed);
            }
            let piece = read_piece(&mut self.file, left)?;
            if piece.is_empty() {
                return Err(SourceError::Changed);
            }
            left -= piece.len() as u64;
            hasher.push(&piece);
            if left == 0 && (!read_piece(&mut self.file, 1)?.is_empty() || self.has_changed()?) {
                return Err(SourceError::Changed);
            }
            progress.advance(piece.len() as u64);
            pieces.blocking_send(Ok(Piece::Data(piece))).map_err(|_| SourceError::Closed)?;
        }
        // Where the length was announced, the connection may have closed its ear after the last byte.
        let _ = pieces.blocking_send(Ok(Piece::End));
        Ok(hasher.finish())
    }
}

/// Up to a piece; empty at the end.
pub fn read_piece(file: &mut impl Read, at_most: u64) -> io::Result<Bytes> {
    let mut buffer = vec![0; usize::try_from(at_most).unwrap_or(usize::MAX).min(PIECE_BYTES)];
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(filled);
    Ok(buffer.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn streamed(dir: &Path, bytes: usize) -> (std::path::PathBuf, Opened) {
        let path = dir.join("large");
        std::fs::write(&path, vec![3; bytes]).unwrap();
        match open(&path, false).unwrap() {
            Source::Stream(opened) => (path, opened),
            Source::Whole { .. } => panic!("it is large"),
        }
    }

    fn drain(opened: Opened, between: impl FnOnce() + Send) -> (Result<ContentHash, SourceError>, u64, bool) {
        let (tx, mut rx) = mpsc::channel(1);
        std::thread::scope(|scope| {
            let sender =
                scope.spawn(move || opened.send(&tx, &AtomicBool::new(false), &Progress::new("test")));
            let (mut bytes, mut ended, mut between) = (0, false, Some(between));
            while let Some(piece) = rx.blocking_recv() {
                match piece {
                    Ok(Piece::Data(data)) => bytes += data.len() as u64,
                    Ok(Piece::End) => ended = true,
                    Err(_) => {}
                }
                if let Some(between) = between.take() {
                    between();
                }
            }
            (sender.join().unwrap(), bytes, ended)
        })
    }

    #[test]
    fn small_files_come_whole_and_large_ones_stream() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("small"), b"abc").unwrap();
        let Source::Whole { bytes, hash } = open(&dir.path().join("small"), false).unwrap() else {
            panic!("it is small")
        };
        assert_eq!((&bytes[..], hash), (&b"abc"[..], content_hash(b"abc")));
        let size = 3 * PIECE_BYTES + WHOLE_BYTES_MAX as usize + 1;
        let (_, opened) = streamed(dir.path(), size);
        let (hash, bytes, ended) = drain(opened, || ());
        assert_eq!((hash.unwrap(), bytes, ended), (content_hash(&vec![3; size]), size as u64, true));
    }

    #[test]
    fn a_file_that_grows_shrinks_or_is_touched_is_never_sent_whole() {
        let dir = tempfile::tempdir().unwrap();
        let size = WHOLE_BYTES_MAX as usize * 3;
        for change in ["grow", "shrink", "touch"] {
            let (path, opened) = streamed(dir.path(), size);
            let (ended, bytes, end) = drain(opened, || {
                let mut file = OpenOptions::new().append(true).open(&path).unwrap();
                match change {
                    "grow" => file.write_all(b"x").unwrap(),
                    "shrink" => file.set_len(size as u64 / 2).unwrap(),
                    _ => file.set_modified(std::time::UNIX_EPOCH).unwrap(),
                }
            });
            assert!(matches!(ended, Err(SourceError::Changed)), "{change}: {ended:?}");
            assert!(bytes < size as u64 && !end, "{change}");
        }
    }

    #[test]
    fn only_regular_files_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
        assert!(matches!(open(&dir.path().join("link"), false), Err(SourceError::Io(_))));
        assert!(open(&dir.path().join("link"), true).is_ok());
        assert!(matches!(open(dir.path(), false), Err(SourceError::NotAFile)));
    }
}
