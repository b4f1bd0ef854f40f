//! `hay cluster new-key`.

use std::path::Path;

use hay_common::disk::RealDisk;
use hay_common::random::SystemRandom;
use hay_proto::rpc::credential::ClusterKey;

use crate::output::Output;
use crate::stop::{Exit, Stop};

/// Makes the key of a new cluster. Never over a file that is there: it may be the only copy of a cluster's key.
pub fn new_cluster_key(file: &Path, out: Output) -> Result<Exit, Stop> {
    let disk = RealDisk::shared();
    let there = disk.file_len(file).map_err(|error| Stop::local(format!("{}: {error}", file.display())))?;
    if there.is_some() {
        return Err(Stop::local(format!("{} is there already and is left as it is", file.display())));
    }
    let random = SystemRandom::shared()
        .map_err(|error| Stop::local(format!("the system gives no randomness: {error}")))?;
    let key = ClusterKey::load_or_create(disk.as_ref(), file, random.as_ref())
        .map_err(|error| Stop::local(format!("{:#}", anyhow::Error::new(error))))?;
    if out.json() {
        let made = serde_json::json!({ "cluster": key.cluster().to_string(), "file": file });
        out.value(&made)?;
    } else {
        out.line(format_args!("{}: the key of cluster {}", file.display(), key.cluster()))?;
    }
    Ok(Exit::Ok)
}
