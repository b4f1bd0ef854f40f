//! Whose directory it is.

use std::io;
use std::path::Path;

use hay_common::disk::Disk;
use hay_common::ids::{ClusterId, MemberId};
use serde::{Deserialize, Serialize};

use crate::config::GroupConfig;
use crate::envelope::Kind;
use crate::error::StartError;

const KIND: Kind = Kind { magic: *b"hayGroup", version: 1 };

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    cluster: ClusterId,
    group: String,
    member: MemberId,
}

impl Identity {
    fn describe(&self) -> String {
        format!("member {} of group {} of cluster {}", self.member, self.group, self.cluster)
    }
}

/// Whose directory it is: marks a new one as the wanted member's, or as one that `draw` gives; refuses another's.
pub(crate) fn check(
    disk: &dyn Disk,
    config: &GroupConfig,
    draw: impl FnOnce() -> MemberId,
) -> Result<MemberId, StartError> {
    let path = config.dir.join("identity");
    let found = KIND.read::<Identity>(disk, &path)?;
    let member = config.member.or(found.as_ref().map(|found| found.member)).unwrap_or_else(draw);
    let wanted = Identity { cluster: config.cluster, group: config.name.clone(), member };
    match found {
        Some(found) if found == wanted => Ok(member),
        Some(found) => Err(StartError::Foreign { path, found: found.describe(), wanted: wanted.describe() }),
        None => {
            refuse_foreign_files(disk, &config.dir)?;
            KIND.publish(disk, &path, &wanted).map_err(|source| StartError::Io {
                what: "can't write",
                path,
                source,
            })?;
            Ok(member)
        }
    }
}

/// A directory without an identity must be empty: a log whose identity file was lost is no new member.
fn refuse_foreign_files(disk: &dyn Disk, dir: &Path) -> Result<(), StartError> {
    let names = disk.read_dir(dir).map_err(|source: io::Error| StartError::Io {
        what: "can't list",
        path: dir.to_owned(),
        source,
    })?;
    let ours = |name: &Path| name == Path::new("lock") || name == Path::new("identity.new");
    match names.iter().find(|name| !ours(name)) {
        None => Ok(()),
        Some(name) => Err(StartError::Corrupt {
            path: dir.to_owned(),
            what: format!("it holds {} but no identity file", name.display()),
        }),
    }
}
