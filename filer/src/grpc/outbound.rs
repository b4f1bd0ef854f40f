//! From the filer's own types to the wire's messages.

use hay_common::error::Failure;
use hay_common::model::EntryInfo;
use hay_proto::convert::WireId;
use hay_proto::v1;

use crate::namespace::command::{Action, PutFile};
use crate::namespace::query::WhoIs;
use crate::schema::values::{Answer, Content, EntryRow};
use crate::server::core::Resolved;

/// What of a command makes the rest of its answer: the answer that is kept leaves out what the command says itself.
pub(super) enum Asked {
    /// A put: path and attributes.
    Put { path: String, content_type: Option<String>, user_metadata: Vec<(String, String)> },
    /// A directory.
    Directory { path: String },
    /// Anything else.
    Nothing,
}

impl Asked {
    pub fn of(action: &Action) -> Self {
        match action {
            Action::PutFile(put) => Self::put(put),
            Action::MakeDirectory(make) => Self::Directory { path: make.path.clone() },
            Action::AddReferences(_)
            | Action::AbandonManifest { .. }
            | Action::Delete(_)
            | Action::ReportDamaged { .. } => Self::Nothing,
        }
    }

    pub fn put(put: &PutFile) -> Self {
        Self::Put {
            path: put.path.clone(),
            content_type: put.content_type.clone(),
            user_metadata: put.user_metadata.clone(),
        }
    }
}

/// What a command gave.
pub(super) fn outcome(asked: Asked, result: Result<Answer, Failure>) -> v1::Outcome {
    let answer = match result {
        Ok(answer) => answer,
        Err(failure) => return v1::Outcome { failure: Some(failure.into()), ..Default::default() },
    };
    match (answer, asked) {
        (
            Answer::Put { id, created, content, modified_ms },
            Asked::Put { path, content_type, user_metadata },
        ) => {
            let row = EntryRow { content, ..EntryRow::directory(id, modified_ms) };
            let info = EntryInfo { content_type, user_metadata, ..row.into_info(path) };
            v1::Outcome { entry: Some(info.into()), created, ..Default::default() }
        }
        (Answer::Directory { id, created, modified_ms }, Asked::Directory { path }) => {
            let row = EntryRow { content: Content::Directory, ..EntryRow::directory(id, modified_ms) };
            v1::Outcome { entry: Some(row.into_info(path).into()), created, ..Default::default() }
        }
        (Answer::Deleted { removed, more }, _) => v1::Outcome { removed, more, ..Default::default() },
        (
            Answer::Added
            | Answer::Abandoned
            | Answer::Reported
            | Answer::Put { .. }
            | Answer::Directory { .. },
            _,
        ) => v1::Outcome::default(),
    }
}

/// An entry with chunks.
pub(super) fn resolved(resolved: Resolved) -> v1::Resolved {
    match resolved {
        Ok((entry, chunks)) => v1::Resolved {
            failure: None,
            entry: Some(entry.into()),
            chunks: chunks.into_iter().map(Into::into).collect(),
        },
        Err(failure) => v1::Resolved { failure: Some(failure.into()), ..Default::default() },
    }
}

/// Who is behind a token.
pub(super) fn whoami(who: WhoIs) -> v1::WhoamiReply {
    v1::WhoamiReply {
        principal: who.principal.principal.to_wire(),
        tenant: who.principal.tenant.to_wire(),
        tenant_name: who.tenant_name,
        administrator: who.principal.administrator,
    }
}
