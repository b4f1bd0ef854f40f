//! The cluster's Ed25519 key and its file.
//!
//! The file is text, one `name value` a line, mode 0600:
//!
//! ```text
//! haystore-cluster-key 1
//! cluster 6f9b1c2e-…
//! seed 64 hex characters
//! check 16 hex characters: the first 8 bytes of SHA-256 over the lines above
//! ```

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use hay_common::disk::{Disk, OpenMode, atomic_publish, read_exact_at};
use hay_common::ids::ClusterId;
use hay_common::random::Random;
use ring::digest::{SHA256, digest};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

/// Larger than any key file; what is beyond was never one.
const FILE_BYTES_MAX: u64 = 1024;
const FIRST_LINE: &str = "haystore-cluster-key 1";

/// Bytes of an Ed25519 signature.
pub(crate) const SIGNATURE_BYTES: usize = 64;

/// The public half of a cluster's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// Whether `signature` was made with the private half, over `parts` one after the other.
    pub(crate) fn verifies(&self, parts: [&[u8]; 2], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(&parts.concat(), signature).is_ok()
    }
}

/// What signs credentials and write leases. Has no `Debug` that shows it.
pub struct ClusterKey {
    cluster: ClusterId,
    seed: [u8; 32],
    pair: Ed25519KeyPair,
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterKey").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The disk failed.
    #[error("the cluster key {path} can't be read or written")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the disk said.
        #[source]
        source: io::Error,
    },
    /// The file is not what was written.
    #[error("the cluster key {path} is damaged ({what}); put it back from a backup")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it. Not its content.
        what: &'static str,
    },
    /// The file was written by a newer version.
    #[error("the cluster key {path} was written by a newer version of hay")]
    Newer {
        /// Which file.
        path: PathBuf,
    },
    /// 32 bytes that are no key.
    #[error("these bytes are no Ed25519 key")]
    BadSeed,
}

impl ClusterKey {
    /// A key from its 32 secret bytes.
    pub fn from_seed(cluster: ClusterId, seed: &[u8; 32]) -> Result<Self, KeyFileError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| KeyFileError::BadSeed)?;
        Ok(Self { cluster, seed: *seed, pair })
    }

    /// The key in the file `path`; where there is no file, a new cluster's, durable when this returns. Blocks.
    pub fn load_or_create(disk: &dyn Disk, path: &Path, random: &dyn Random) -> Result<Self, KeyFileError> {
        if let Some(key) = Self::load(disk, path)? {
            return Ok(key);
        }
        let mut seed = [0; 32];
        random.fill(&mut seed);
        let key = Self::from_seed(ClusterId::from_random(random.u128()), &seed)?;
        atomic_publish(disk, path, key.file_text().as_bytes())
            .map_err(|source| KeyFileError::Io { path: path.to_owned(), source })?;
        Ok(key)
    }

    /// The key in the file `path`, or `None` where there is no file. Blocks.
    pub fn load(disk: &dyn Disk, path: &Path) -> Result<Option<Self>, KeyFileError> {
        let io = |source| KeyFileError::Io { path: path.to_owned(), source };
        let damaged = |what| KeyFileError::Damaged { path: path.to_owned(), what };
        let Some(len) = disk.file_len(path).map_err(io)? else { return Ok(None) };
        if len > FILE_BYTES_MAX {
            return Err(damaged("it is too long"));
        }
        let mut bytes = vec![0; len as usize];
        let file = disk.open(path, OpenMode::Read).map_err(io)?;
        read_exact_at(file.as_ref(), &mut bytes, 0).map_err(io)?;
        let text = String::from_utf8(bytes).map_err(|_| damaged("it is not text"))?;
        match parse(&text) {
            Ok((cluster, seed)) => Self::from_seed(cluster, &seed).map(Some),
            Err(ParseError::Newer) => Err(KeyFileError::Newer { path: path.to_owned() }),
            Err(ParseError::Damaged(what)) => Err(damaged(what)),
        }
    }

    /// Whose key it is.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// What verifies its signatures.
    pub fn public(&self) -> PublicKey {
        let mut public = [0; 32];
        // ring's Ed25519 keys have 32 bytes.
        public.copy_from_slice(self.pair.public_key().as_ref().first_chunk::<32>().unwrap_or(&[0; 32]));
        PublicKey(public)
    }

    /// A signature over `parts` one after the other; the first names what is signed, so that no signature of one
    /// kind is good as another.
    pub(crate) fn sign(&self, parts: [&[u8]; 2]) -> [u8; SIGNATURE_BYTES] {
        let mut out = [0; SIGNATURE_BYTES];
        let signature = self.pair.sign(&parts.concat());
        out.copy_from_slice(signature.as_ref().first_chunk().unwrap_or(&[0; SIGNATURE_BYTES]));
        out
    }

    fn file_text(&self) -> String {
        let body = format!("{FIRST_LINE}\ncluster {}\nseed {}\n", self.cluster, hex::encode(self.seed));
        let check = check_of(&body);
        format!("{body}check {check}\n")
    }
}

fn check_of(body: &str) -> String {
    let digest = digest(&SHA256, body.as_bytes());
    hex::encode(digest.as_ref().first_chunk::<8>().unwrap_or(&[0; 8]))
}

enum ParseError {
    Newer,
    Damaged(&'static str),
}

fn parse(text: &str) -> Result<(ClusterId, [u8; 32]), ParseError> {
    use ParseError::Damaged;
    let mut lines = text.lines();
    match lines.next() {
        Some(FIRST_LINE) => {}
        Some(other) if other.starts_with("haystore-cluster-key ") => return Err(ParseError::Newer),
        Some(_) | None => return Err(Damaged("its first line is another")),
    }
    let mut field = |name: &str| lines.next().and_then(|line| line.strip_prefix(name)).map(str::trim_start);
    let cluster = field("cluster ").ok_or(Damaged("it names no cluster"))?;
    let seed = field("seed ").ok_or(Damaged("it holds no seed"))?;
    let check = field("check ").ok_or(Damaged("it has no check line"))?;
    let body_bytes = text.find("check ").and_then(|end| text.get(..end)).unwrap_or_default();
    if check_of(body_bytes) != check {
        return Err(Damaged("its check does not match"));
    }
    let cluster = cluster.parse().map_err(|_| Damaged("its cluster id is none"))?;
    let mut bytes = [0; 32];
    hex::decode_to_slice(seed, &mut bytes).map_err(|_| Damaged("its seed is not 64 hex characters"))?;
    Ok((cluster, bytes))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use hay_common::disk::RealDisk;
    use hay_common::random::SeededRandom;

    use super::*;

    #[test]
    fn the_file_is_made_once_private_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cluster.key");
        let disk = RealDisk::shared();
        assert!(ClusterKey::load(disk.as_ref(), &path).unwrap().is_none());
        let random = SeededRandom::shared(1);
        let made = ClusterKey::load_or_create(disk.as_ref(), &path, random.as_ref()).unwrap();
        let read = ClusterKey::load_or_create(disk.as_ref(), &path, random.as_ref()).unwrap();
        assert_eq!((made.cluster(), made.public()), (read.cluster(), read.public()));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let shown = format!("{made:?}");
        assert!(!shown.contains(&hex::encode(made.seed)) && !shown.contains("seed"), "{shown}");
    }

    #[test]
    fn no_changed_byte_passes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cluster.key");
        let disk = RealDisk::shared();
        ClusterKey::load_or_create(disk.as_ref(), &path, SeededRandom::shared(2).as_ref()).unwrap();
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() - 1 {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            fs::write(&path, &changed).unwrap();
            assert!(ClusterKey::load(disk.as_ref(), &path).is_err(), "byte {at} changed");
            fs::write(&path, &whole[..at]).unwrap();
            assert!(ClusterKey::load(disk.as_ref(), &path).is_err(), "cut at {at}");
        }
        let newer = String::from_utf8(whole).unwrap().replace("key 1", "key 2");
        fs::write(&path, newer).unwrap();
        assert!(matches!(ClusterKey::load(disk.as_ref(), &path), Err(KeyFileError::Newer { .. })));
    }
}
