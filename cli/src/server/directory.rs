//! The data directory as a whole: one process at a time, one format, one administrator's token.
//!
//! ```text
//! DIR/lock               held while a server runs
//! DIR/format             what this build reads and writes
//! DIR/cluster.key        cluster id and signing key, 0600
//! DIR/credentials.toml   server address and administrator's token, 0600
//! DIR/master  DIR/volume  DIR/filer
//! ```

use std::io;
use std::path::{Path, PathBuf};

use hay_common::disk::{DirLock, Disk, OpenMode, atomic_publish, read_exact_at};
use hay_common::random::Random;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The format of a data directory that this build reads and writes.
const FORMAT: u32 = 1;
/// Stands behind the format until the first start is through: a crash before that leaves a directory that may lack
/// parts, one after it leaves a directory whose missing parts were lost.
const STARTING: &str = " starting";
/// Files of two lines.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Why a directory can't be served from.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// Another process has it.
    #[error("{} is in use by another server: stop it first, or name another directory with --dir", .0.display())]
    InUse(PathBuf),
    /// Files, but none of ours.
    #[error(
        "{} holds files but no Haystore: name an empty or new directory with --dir (nothing was changed)", .0.display()
    )]
    Foreign(PathBuf),
    /// Written by another version.
    #[error(
        "{} has format {found}, this build reads format {FORMAT}: {}", .dir.display(),
        if *.found > FORMAT { "it was written by a newer Haystore; use that one" }
        else { "it was written by an early Haystore; read it with that one and store it anew" }
    )]
    OtherFormat {
        /// The directory.
        dir: PathBuf,
        /// What stands in its `format` file.
        found: u32,
    },
    /// A file of the directory does not say what it should.
    #[error("{} is damaged: {what}", .path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// In what way.
        what: String,
    },
    /// The file with the administrator's token is gone.
    #[error(
        "{} is missing and only its token's hash is kept: put the file back, or start once with --new-token",
        .0.display()
    )]
    NoCredentials(PathBuf),
    /// The disk did not do it.
    #[error("{}: {source}", .path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A data directory that this process holds.
pub struct DataDirectory {
    path: PathBuf,
    /// No first start has come through yet.
    new: bool,
    _lock: Box<dyn DirLock>,
}

impl DataDirectory {
    /// Creates or takes the directory.
    ///
    /// # Errors
    /// See [`DirectoryError`]. A directory that is refused is left as it was, but for a `lock` file.
    pub fn open(disk: &dyn Disk, path: &Path) -> Result<Self, DirectoryError> {
        let io = |source| DirectoryError::Io { path: path.to_owned(), source };
        disk.create_dir_all(path).map_err(io)?;
        let lock = disk.lock(&path.join("lock")).map_err(|e| match e.kind() {
            io::ErrorKind::WouldBlock => DirectoryError::InUse(path.to_owned()),
            _ => io(e),
        })?;
        let format = path.join("format");
        let new = match read_small(disk, &format)? {
            Some(text) => {
                let text = text.trim();
                let number = text.strip_suffix(STARTING).unwrap_or(text);
                let found = number.parse::<u32>().map_err(|_| DirectoryError::Damaged {
                    path: format.clone(),
                    what: "it should hold one number".into(),
                })?;
                if found != FORMAT {
                    return Err(DirectoryError::OtherFormat { dir: path.to_owned(), found });
                }
                text.ends_with(STARTING)
            }
            None => {
                let ours =
                    |name: &Path| ["lock", "format.new", "lost+found"].iter().any(|n| name == Path::new(n));
                if disk.read_dir(path).map_err(io)?.iter().any(|name| !ours(name)) {
                    return Err(DirectoryError::Foreign(path.to_owned()));
                }
                atomic_publish(disk, &format, format!("{FORMAT}{STARTING}\n").as_bytes()).map_err(io)?;
                // The directory's own name must last as well.
                let above = path.canonicalize().map_err(io)?;
                if let Some(above) = above.parent() {
                    disk.sync_dir(above).map_err(io)?;
                }
                true
            }
        };
        Ok(Self { path: path.to_owned(), new, _lock: lock })
    }

    /// The directory of a role, which is made at the first start and never again: one that is missing later was lost,
    /// and an empty one in its place would hide that.
    ///
    /// # Errors
    /// When it is missing, or can't be made.
    pub fn role(&self, disk: &dyn Disk, name: &str) -> Result<PathBuf, DirectoryError> {
        let path = self.path.join(name);
        let io = |source| DirectoryError::Io { path: path.clone(), source };
        if self.new {
            disk.create_dir_all(&path).map_err(io)?;
            disk.sync_dir(&self.path).map_err(io)?;
        } else if disk.file_len(&path).map_err(io)?.is_none() {
            return Err(DirectoryError::Damaged {
                path,
                what: "it is missing, and this is no new directory".into(),
            });
        } else if disk.read_dir(&path).map_err(io)?.is_empty() {
            let what = "it is empty, and this is no new directory: is a disk not mounted?".into();
            return Err(DirectoryError::Damaged { path, what });
        }
        Ok(path)
    }

    /// The first start is through.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn complete(&mut self, disk: &dyn Disk) -> Result<(), DirectoryError> {
        if self.new {
            let path = self.path.join("format");
            atomic_publish(disk, &path, format!("{FORMAT}\n").as_bytes())
                .map_err(|source| DirectoryError::Io { path, source })?;
            self.new = false;
        }
        Ok(())
    }

    /// Whether no first start has come through yet.
    pub fn is_new(&self) -> bool {
        self.new
    }

    /// A path below it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// What stands in `credentials.toml`.
#[derive(Clone, Serialize, Deserialize)]
pub struct Credentials {
    /// `http://HOST:PORT`.
    pub server: String,
    /// The administrator's bearer token. No `Debug` shows it.
    pub token: String,
}

impl Credentials {
    /// Those of a directory, for the server at `server`, which may have changed since; made anew at the first start and
    /// where `renew` asks for it. They are in their file before anybody knows the token: a crash in between leaves a
    /// token that the next start makes known.
    ///
    /// # Errors
    /// When they are lost, or the disk fails.
    pub fn of_directory(
        disk: &dyn Disk,
        directory: &DataDirectory,
        server: &str,
        renew: bool,
        random: &dyn Random,
    ) -> Result<Self, DirectoryError> {
        let path = directory.join("credentials.toml");
        let credentials = match Self::load(disk, &path)? {
            Some(found) => Self { server: server.to_owned(), ..found },
            None if directory.is_new() || renew => Self::generate(server, random),
            None => return Err(DirectoryError::NoCredentials(path)),
        };
        credentials.store(disk, &path)?;
        Ok(credentials)
    }

    /// A new token of 256 random bits.
    pub fn generate(server: &str, random: &dyn Random) -> Self {
        let mut secret = [0; 32];
        random.fill(&mut secret);
        Self { server: server.to_owned(), token: format!("hay_{}", hex::encode(secret)) }
    }

    /// Reads the file, or `None` where there is none.
    ///
    /// # Errors
    /// When it can't be read or understood; the message shows nothing of its content.
    pub fn load(disk: &dyn Disk, path: &Path) -> Result<Option<Self>, DirectoryError> {
        let Some(text) = read_small(disk, path)? else { return Ok(None) };
        toml::from_str(&text).map(Some).map_err(|_| DirectoryError::Damaged {
            path: path.to_owned(),
            what: "it needs the lines server = \"…\" and token = \"…\"".into(),
        })
    }

    /// Writes the file, mode 0600, whole or not at all.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn store(&self, disk: &dyn Disk, path: &Path) -> Result<(), DirectoryError> {
        let io = |source| DirectoryError::Io { path: path.to_owned(), source };
        let text = toml::to_string(self).map_err(|e| io(io::Error::other(e)))?;
        atomic_publish(disk, path, text.as_bytes()).map_err(io)
    }

    /// What the filer knows the token by.
    pub fn token_hash(&self) -> [u8; 32] {
        Sha256::digest(self.token.as_bytes()).into()
    }
}

fn read_small(disk: &dyn Disk, path: &Path) -> Result<Option<String>, DirectoryError> {
    let io = |source| DirectoryError::Io { path: path.to_owned(), source };
    let Some(len) = disk.file_len(path).map_err(io)? else { return Ok(None) };
    let damaged = |what: &str| DirectoryError::Damaged { path: path.to_owned(), what: what.into() };
    if len > FILE_BYTES_MAX {
        return Err(damaged("it is far too long"));
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or_default()];
    let file = disk.open(path, OpenMode::Read).map_err(io)?;
    read_exact_at(file.as_ref(), &mut bytes, 0).map_err(io)?;
    String::from_utf8(bytes).map(Some).map_err(|_| damaged("it is no text"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hay_common::disk::RealDisk;
    use hay_common::random::SeededRandom;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_directory_is_taken_once_and_known_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let mut held = DataDirectory::open(&RealDisk, &path).unwrap();
        assert!(matches!(DataDirectory::open(&RealDisk, &path), Err(DirectoryError::InUse(_))));
        std::fs::write(held.role(&RealDisk, "filer").unwrap().join("x"), b"x").unwrap();
        held.complete(&RealDisk).unwrap();
        drop(held);
        DataDirectory::open(&RealDisk, &path).unwrap().role(&RealDisk, "filer").unwrap();
    }

    #[test]
    fn a_lost_role_is_made_anew_only_before_the_first_start_is_through() {
        let dir = tempfile::tempdir().unwrap();
        let crashed = DataDirectory::open(&RealDisk, dir.path()).unwrap();
        drop(crashed);
        let mut held = DataDirectory::open(&RealDisk, dir.path()).unwrap();
        let role = held.role(&RealDisk, "volume").unwrap();
        held.complete(&RealDisk).unwrap();
        assert!(matches!(held.role(&RealDisk, "volume"), Err(DirectoryError::Damaged { .. })), "emptied");
        std::fs::write(role.join("node"), b"x").unwrap();
        held.role(&RealDisk, "volume").unwrap();
        std::fs::remove_dir_all(&role).unwrap();
        assert!(matches!(held.role(&RealDisk, "volume"), Err(DirectoryError::Damaged { .. })));
        drop(held);
        let again = DataDirectory::open(&RealDisk, dir.path()).unwrap();
        assert!(matches!(again.role(&RealDisk, "volume"), Err(DirectoryError::Damaged { .. })));
    }

    #[test]
    fn foreign_and_other_formats_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("thesis.tex"), b"x").unwrap();
        assert!(matches!(DataDirectory::open(&RealDisk, dir.path()), Err(DirectoryError::Foreign(_))));
        for (text, newer) in [("2", true), ("0", false)] {
            std::fs::write(dir.path().join("format"), text).unwrap();
            let error = DataDirectory::open(&RealDisk, dir.path()).err().unwrap();
            assert_eq!(error.to_string().contains("newer"), newer, "{error}");
        }
        std::fs::write(dir.path().join("format"), "one").unwrap();
        assert!(matches!(DataDirectory::open(&RealDisk, dir.path()), Err(DirectoryError::Damaged { .. })));
    }

    #[test]
    fn credentials_are_private_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials.toml");
        assert!(Credentials::load(&RealDisk, &path).unwrap().is_none());
        let written = Credentials::generate("http://127.0.0.1:1", SeededRandom::shared(3).as_ref());
        written.store(&RealDisk, &path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let read = Credentials::load(&RealDisk, &path).unwrap().unwrap();
        assert_eq!(read.token_hash(), written.token_hash());
        assert_eq!(written.token.len(), 68);
    }
}
