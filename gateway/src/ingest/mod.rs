//! Bodies on their way in: received, cut into chunks, hashed, stored, and made visible in one commit.

pub(crate) mod body;
pub(crate) mod chunk;
pub(crate) mod finish;
pub(crate) mod large;
pub(crate) mod store;

use hay_client::filer::{Attributes, Condition, Idempotency, NewIds, PutFile};
use hay_common::ids::ContentHash;

use crate::request::attributes::WrittenAttributes;
use crate::request::conditions::{Conditions, Tags};
use crate::request::idempotency::Fingerprint;

/// A PUT as its headers ask for it.
pub(crate) struct PutAsk {
    pub(crate) path: String,
    pub(crate) condition: Condition,
    pub(crate) attributes: WrittenAttributes,
    pub(crate) idempotency_key: Option<String>,
    /// SHA-256 of the whole body, where the client announced one.
    pub(crate) digest: Option<[u8; 32]>,
    pub(crate) ids: NewIds,
}

impl PutAsk {
    /// The command that commits it.
    pub(crate) fn command(&self, content_hash: ContentHash) -> PutFile {
        let idempotency = self
            .idempotency_key
            .as_ref()
            .map(|key| Idempotency { key: key.clone(), fingerprint: self.fingerprint(content_hash) });
        PutFile {
            path: self.path.clone(),
            condition: self.condition.clone(),
            attributes: self.attributes(),
            ids: self.ids,
            idempotency,
        }
    }

    /// What is asked for before the content is known. Under an `Idempotency-Key` the condition waits for the commit:
    /// a retry must not fail on what its own first try has done.
    pub(crate) fn opening(&self) -> PutFile {
        let condition = match self.idempotency_key {
            Some(_) => Condition::default(),
            None => self.condition.clone(),
        };
        PutFile {
            path: self.path.clone(),
            condition,
            attributes: self.attributes(),
            ids: self.ids,
            idempotency: None,
        }
    }

    fn attributes(&self) -> Attributes {
        Attributes {
            content_type: self.attributes.content_type.clone(),
            user_metadata: self.attributes.user_metadata.clone(),
        }
    }

    fn fingerprint(&self, content_hash: ContentHash) -> [u8; 32] {
        let mut print = condition_print(Fingerprint::of("PUT").with(self.path.as_bytes()), &self.condition);
        print = match &self.attributes.content_type {
            Some(kind) => print.with(b"typed").with(kind.as_bytes()),
            None => print.with(b"untyped"),
        };
        for (name, value) in &self.attributes.user_metadata {
            print = print.with(name.as_bytes()).with(value.as_bytes());
        }
        print.with(&content_hash.0).finish()
    }
}

/// Adds a condition to a fingerprint.
pub(crate) fn condition_print(mut print: Fingerprint, condition: &Condition) -> Fingerprint {
    print = print.with(&[u8::from(condition.if_match_any), u8::from(condition.if_none_match_any)]);
    for (name, hashes) in [(b"m", &condition.if_match), (b"n", &condition.if_none_match)] {
        for hash in hashes {
            print = print.with(name).with(&hash.0);
        }
    }
    print
}

/// The condition of a write as the filer takes it.
pub(crate) fn write_condition(conditions: &Conditions) -> Condition {
    let listed = |tags: &Tags| match tags {
        Tags::Listed(hashes) => hashes.clone(),
        Tags::Absent | Tags::Any => Vec::new(),
    };
    Condition {
        if_match: listed(&conditions.if_match),
        if_match_any: conditions.if_match == Tags::Any,
        if_none_match: listed(&conditions.if_none_match),
        if_none_match_any: conditions.if_none_match == Tags::Any,
    }
}
