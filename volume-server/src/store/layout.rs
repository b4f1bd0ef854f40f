//! The files of a volume server's directory.
//!
//! ```text
//! DIR/lock                  held while a process has the directory
//! DIR/node                  the server's id and its cluster
//! DIR/inventory             the volumes that must be there
//! DIR/00000007.vol          the data of volume 7
//! DIR/00000007.state        its epoch, whether it is sealed or read-only
//! DIR/00000007.checkpoint   its index, as of some length
//! DIR/00000007.torn-5000    what recovery cut off at offset 5000, kept for people
//! DIR/00000007.anew.*       the same three files of a copy that is written anew beside one that can't be written to
//! DIR/00000007.replaced-ID  its data before that, where the new one, of that incarnation, may lack needles; for people
//! ```

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use hay_common::disk::{Disk, OpenMode, atomic_publish, read_exact_at};
use hay_common::ids::{ClusterId, Incarnation, NodeId, VolumeId};
use hay_common::random::Random;

use super::error::{At, StoreError};

const NODE_HEAD: &str = "haystore volume server 1";
const INVENTORY_HEAD: &str = "haystore volumes 1";
/// An inventory is never longer: VOLUMES_MAX lines of at most 11 bytes.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// The names of one volume's files.
#[derive(Debug, Clone)]
pub(crate) struct VolumePaths {
    pub dir: PathBuf,
    pub data: PathBuf,
    pub state: PathBuf,
    pub checkpoint: PathBuf,
    stem: String,
}

impl VolumePaths {
    pub fn new(dir: &Path, volume: VolumeId) -> Self {
        Self::with_stem(dir, format!("{:08}", volume.0))
    }

    /// Of a copy that is written anew, until it takes its place.
    pub fn anew(dir: &Path, volume: VolumeId) -> Self {
        Self::with_stem(dir, format!("{:08}.anew", volume.0))
    }

    fn with_stem(dir: &Path, stem: String) -> Self {
        Self {
            dir: dir.to_owned(),
            data: dir.join(format!("{stem}.vol")),
            state: dir.join(format!("{stem}.state")),
            checkpoint: dir.join(format!("{stem}.checkpoint")),
            stem,
        }
    }

    pub fn torn(&self, offset: u64, attempt: u32) -> PathBuf {
        let again = if attempt == 0 { String::new() } else { format!("-{attempt}") };
        self.dir.join(format!("{}.torn-{offset}{again}", self.stem))
    }

    /// Of the data that another writing of the volume has replaced.
    pub fn replaced(&self, by: Incarnation) -> PathBuf {
        self.dir.join(format!("{}.replaced-{by}", self.stem))
    }
}

/// A whole file; `None` where nothing is, and only then.
pub(crate) fn read_file(disk: &dyn Disk, path: &Path, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match disk.open(path, OpenMode::Read) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let len = file.len()?;
    if len > bytes_max {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("{len} bytes are over the limit of {bytes_max}"),
        ));
    }
    let mut bytes = vec![0; len as usize];
    read_exact_at(file.as_ref(), &mut bytes, 0)?;
    Ok(Some(bytes))
}

fn text_file(disk: &dyn Disk, path: &Path) -> Result<Option<String>, StoreError> {
    match read_file(disk, path, FILE_BYTES_MAX).at(path)? {
        None => Ok(None),
        Some(bytes) => String::from_utf8(bytes)
            .map(Some)
            .map_err(|_| StoreError::Unusable { path: path.to_owned(), reason: "it is not text".to_owned() }),
    }
}

/// The server's id. Made at the first start, in an empty directory; a directory of another cluster, or one whose node
/// file is gone while its volumes are not, is refused.
pub(crate) fn node(
    disk: &dyn Disk,
    dir: &Path,
    own: ClusterId,
    random: &dyn Random,
) -> Result<NodeId, StoreError> {
    let path = dir.join("node");
    let Some(text) = text_file(disk, &path)? else { return new_node(disk, dir, &path, own, random) };
    let unusable = |reason: &str| StoreError::Unusable { path: path.clone(), reason: reason.to_owned() };
    let mut lines = text.lines();
    if lines.next() != Some(NODE_HEAD) {
        return Err(unusable("it is not a node file of this version"));
    }
    let node = lines.next().and_then(|l| l.strip_prefix("node ")).and_then(|t| t.parse().ok());
    let cluster =
        lines.next().and_then(|l| l.strip_prefix("cluster ")).and_then(|t| t.parse::<ClusterId>().ok());
    match (node, cluster) {
        (Some(node), Some(found)) if found == own => Ok(node),
        (Some(_), Some(found)) => Err(StoreError::ForeignCluster { dir: dir.to_owned(), found, own }),
        _ => Err(unusable("it is damaged")),
    }
}

fn new_node(
    disk: &dyn Disk,
    dir: &Path,
    path: &Path,
    own: ClusterId,
    random: &dyn Random,
) -> Result<NodeId, StoreError> {
    if data_files(disk, dir)?.next().is_some() {
        return Err(StoreError::Missing {
            dir: dir.to_owned(),
            what: "the node file".to_owned(),
            remedy: "the volumes there belong to a server whose identity is lost; restore the file `node`",
        });
    }
    // First the inventory: a node file without one means that it was lost.
    write_inventory(disk, dir, &BTreeSet::new())?;
    let node = NodeId::from_random(random.u128());
    let text = format!("{NODE_HEAD}\nnode {node}\ncluster {own}\n");
    atomic_publish(disk, path, text.as_bytes()).at(path)?;
    Ok(node)
}

/// The volumes whose data files are there.
pub(crate) fn data_files(
    disk: &dyn Disk,
    dir: &Path,
) -> Result<impl Iterator<Item = VolumeId> + use<>, StoreError> {
    let names = disk.read_dir(dir).at(dir)?;
    Ok(names.into_iter().filter_map(|name| {
        let stem = name.to_str()?.strip_suffix(".vol")?;
        if stem.len() < 8 { None } else { stem.parse().ok().map(VolumeId) }
    }))
}

/// The volumes of which there are files that were written anew.
pub(crate) fn anew(disk: &dyn Disk, dir: &Path) -> Result<BTreeSet<VolumeId>, StoreError> {
    let names = disk.read_dir(dir).at(dir)?;
    let volume = |name: PathBuf| {
        let (stem, ending) = name.to_str()?.split_once(".anew.")?;
        let is_one = ["vol", "state", "checkpoint"].contains(&ending);
        if is_one { stem.parse().ok().map(VolumeId) } else { None }
    };
    Ok(names.into_iter().filter_map(volume).collect())
}

/// The volumes that were made here and not removed.
pub(crate) fn inventory(disk: &dyn Disk, dir: &Path) -> Result<BTreeSet<VolumeId>, StoreError> {
    let path = dir.join("inventory");
    let missing = || StoreError::Missing {
        dir: dir.to_owned(),
        what: "the inventory of volumes".to_owned(),
        remedy: "was the directory emptied? Restore it, or start with a new directory",
    };
    let text = text_file(disk, &path)?.ok_or_else(missing)?;
    let unusable = |reason: &str| StoreError::Unusable { path: path.clone(), reason: reason.to_owned() };
    let (body, sum) = text.rsplit_once("crc32c ").ok_or_else(|| unusable("it is damaged"))?;
    if u32::from_str_radix(sum.trim_end(), 16).ok() != Some(crc32c::crc32c(body.as_bytes())) {
        return Err(unusable("it is damaged"));
    }
    let mut lines = body.lines();
    if lines.next() != Some(INVENTORY_HEAD) {
        return Err(unusable("it is not an inventory of this version"));
    }
    lines.map(|l| l.parse().map(VolumeId).map_err(|_| unusable("it names no volume"))).collect()
}

/// Replaces the inventory.
pub(crate) fn write_inventory(
    disk: &dyn Disk,
    dir: &Path,
    volumes: &BTreeSet<VolumeId>,
) -> Result<(), StoreError> {
    let path = dir.join("inventory");
    let mut text = format!("{INVENTORY_HEAD}\n");
    for volume in volumes {
        text.push_str(&format!("{volume}\n"));
    }
    let sum = crc32c::crc32c(text.as_bytes());
    text.push_str(&format!("crc32c {sum:08x}\n"));
    atomic_publish(disk, &path, text.as_bytes()).at(&path)
}
