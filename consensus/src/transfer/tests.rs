//! Every way in which a transfer can be wrong: nothing of it is left.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use futures::StreamExt;
use hay_common::disk::RealDisk;
use hay_common::ids::{ClusterId, MemberId};
use hay_common::limits::MIB;

use super::receive::ReceiveError;
use super::{read_parts, receive, safe_name};
use crate::snapshot::{SnapshotDir, Snapshots};
use crate::transport::{Envelope, FilePart, SnapshotPart};
use crate::types::SnapshotMeta;

fn begin() -> Envelope {
    let cluster = ClusterId::from_random(1);
    let (from, body) = (MemberId(1), Bytes::new());
    Envelope { cluster, group: "g".to_owned(), formation: None, from, to: None, body }
}

fn fill(state: &Path) -> std::io::Result<()> {
    fs::create_dir_all(state.join("deep/er"))?;
    fs::write(state.join("deep/er/large"), vec![7; 2 * MIB + 100])?;
    fs::write(state.join("exact"), vec![8; MIB])?;
    fs::write(state.join("empty"), [])?;
    fs::write(state.join("small"), b"small")
}

async fn sent(from: &Path) -> Vec<SnapshotPart> {
    let snapshots = Snapshots::open(from.to_owned(), RealDisk::shared()).unwrap();
    let published = snapshots.publish(&SnapshotMeta::default(), fill).unwrap();
    read_parts(begin(), SnapshotDir::Published(published)).map(Result::unwrap).collect().await
}

/// Takes `parts` in behind the first one; what is in the directory afterwards.
async fn arrive(parts: Vec<SnapshotPart>) -> Result<Vec<(String, usize)>, ReceiveError> {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = Snapshots::open(dir.path().to_owned(), RealDisk::shared()).unwrap();
    let parts = futures::stream::iter(parts.into_iter().skip(1).map(Ok)).boxed();
    let arrived = receive(snapshots.incoming().unwrap(), parts, |_| {}).await;
    let found = arrived.map(|arrived| {
        let list = ["deep/er/large", "empty", "exact", "small"];
        let length = |name: &str| fs::read(arrived.dir.path().join(name)).unwrap().len();
        list.map(|name| (name.to_owned(), length(name))).to_vec()
    });
    // The writing thread gives the directory up after its last part.
    for _ in 0..200 {
        if fs::read_dir(dir.path()).unwrap().next().is_none() {
            return found;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("something is left");
}

#[tokio::test]
async fn files_of_all_sizes_arrive_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let parts = sent(dir.path()).await;
    assert_eq!(parts.len(), 1 + 3 + 1 + 1 + 1 + 1);
    let found = arrive(parts).await.unwrap();
    let lengths: Vec<usize> = found.into_iter().map(|(_, length)| length).collect();
    assert_eq!(lengths, [2 * MIB + 100, 0, MIB, 5]);
}

#[tokio::test]
async fn whatever_is_missing_changed_or_moved_is_noticed_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let whole = sent(dir.path()).await;
    for cut in 1..whole.len() {
        let error = arrive(whole[..cut].to_vec()).await.unwrap_err();
        assert!(matches!(error, ReceiveError::Cut), "cut at {cut}: {error}");
    }
    for missing in 1..whole.len() - 1 {
        let mut parts = whole.clone();
        parts.remove(missing);
        arrive(parts).await.expect_err("a part is missing");
        let mut parts = whole.clone();
        parts.insert(missing, whole[missing].clone());
        arrive(parts).await.expect_err("a part came twice");
        if missing + 2 < whole.len() {
            let mut parts = whole.clone();
            parts.swap(missing, missing + 1);
            let error = arrive(parts).await;
            // Whole files may change places only if the checksum over all says so: it does not.
            error.expect_err("parts changed places");
        }
        let mut parts = whole.clone();
        let SnapshotPart::File(file) = &mut parts[missing] else { panic!() };
        let mut data = file.data.to_vec();
        data.push(1);
        *file = FilePart { data: data.into(), ..file.clone() };
        arrive(parts).await.expect_err("a part was changed");
    }
}

#[tokio::test]
async fn names_stay_below_the_directory() {
    for name in ["../up", "/etc/passwd", "a/../../b", "", "a//b", "./a", "a/", "a\0b", ".."] {
        assert_eq!(safe_name(name), None, "{name:?}");
        let (data, crc) = (Bytes::from_static(b"x"), crc32c::crc32c(b"x"));
        let file = FilePart { name: name.to_owned(), offset: 0, data, crc, last: true };
        let error = arrive(vec![SnapshotPart::Begin(begin()), SnapshotPart::File(file)]).await.unwrap_err();
        assert!(matches!(error, ReceiveError::Damaged(_)), "{name:?}: {error}");
    }
    assert!(safe_name("000012.sst").is_some() && safe_name("a/b.c").is_some());
}
