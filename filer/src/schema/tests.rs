//! Golden bytes: what stands here is on people's disks.

use hay_common::ids::{
    ContentHash, Cookie, CopyId, EntryId, ManifestId, PrincipalId, SessionId, TenantId, VolumeId,
};
use hay_common::model::{Chunk, Codec, Copy, CopyState, Location};
use proptest::prelude::*;

use super::keys::{self, Family};
use super::values::*;
use crate::namespace::command::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

const T: &str = "11111111111141119111111111111111";
const M: &str = "2222222222224222a222222222222222";

fn tenant() -> TenantId {
    TenantId::from_random(0x1111_1111_1111_1111_1111_1111_1111_1111)
}

fn manifest() -> ManifestId {
    ManifestId::from_random(0x2222_2222_2222_2222_2222_2222_2222_2222)
}

fn bits<T>(from: impl Fn(u128) -> T) -> T {
    from(0x2222_2222_2222_2222_2222_2222_2222_2222)
}

#[test]
fn golden_keys() {
    let hash = ContentHash([0xab; 32]);
    let h = "ab".repeat(32);
    let copy = bits(CopyId::from_random);
    let session = bits(SessionId::from_random);
    let principal = bits(PrincipalId::from_random);
    let ms = 0x0102_0304_0506;
    let time = "0000010203040506";
    for (key, expected) in [
        (keys::format(), "01".to_owned()),
        (keys::applied(), "02".to_owned()),
        (keys::log_time(), "03".to_owned()),
        (keys::counters(), "04".to_owned()),
        (keys::tenant(tenant()), format!("10{T}")),
        (keys::tenant_name("default"), "1164656661756c74".to_owned()),
        (keys::token(&TokenHash([0xab; 32])), format!("12{h}")),
        (keys::usage(tenant()), format!("13{T}")),
        (keys::entry(tenant(), b""), format!("20{T}")),
        (keys::entry(tenant(), b"a/b"), format!("20{T}612f62")),
        (keys::own(tenant(), &hash), format!("21{T}{h}")),
        (keys::copy(&hash, copy), format!("22{h}{M}")),
        (keys::holder(copy, tenant()), format!("23{M}{T}")),
        (keys::manifest(tenant(), manifest()), format!("24{T}{M}")),
        (keys::refs(tenant(), manifest(), 258), format!("25{T}{M}00000102")),
        (keys::manifest_expiry(ms, tenant(), manifest()), format!("26{time}{T}{M}")),
        (keys::drain_queue(ms, tenant(), manifest()), format!("27{time}{T}{M}")),
        (keys::delete_queue(ms, &hash, copy), format!("28{time}{h}{M}")),
        (keys::session(session), format!("30{M}")),
        (keys::session_expiry(ms, session), format!("31{time}{M}")),
        (keys::answer(session, 7), format!("32{M}0000000000000007")),
        (keys::idempotency(principal, "k"), format!("33{M}6b")),
        (keys::idempotency_expiry(ms, principal, "k"), format!("34{time}{M}6b")),
    ] {
        assert_eq!(hex(&key), expected);
    }
}

#[test]
fn keys_read_back() {
    assert_eq!(keys::entry_path(&keys::entry(tenant(), b"a/b")), b"a/b");
    assert_eq!(keys::refs_first(&keys::refs(tenant(), manifest(), 77)), Some(77));
    assert_eq!(
        keys::timed_manifest(&keys::drain_queue(5, tenant(), manifest())),
        Some((tenant(), manifest()))
    );
    let session = bits(SessionId::from_random);
    assert_eq!(keys::expiring_session(&keys::session_expiry(5, session)), Some(session));
    let principal = bits(PrincipalId::from_random);
    let expiry = keys::idempotency_expiry(5, principal, "key");
    assert_eq!(keys::expiring_idempotency(&expiry), Some(keys::idempotency(principal, "key")));
    assert_eq!(keys::under(vec![1, 0xff, 0xff]), vec![1, 0xff, 0xff]..vec![2]);
    assert_eq!(keys::until(Family::DrainQueue, 5).end, keys::until(Family::DrainQueue, 5).end);
    assert!(keys::until(Family::DrainQueue, 5).contains(&keys::drain_queue(5, tenant(), manifest())));
    assert!(!keys::until(Family::DrainQueue, 5).contains(&keys::drain_queue(6, tenant(), manifest())));
}

fn a_copy() -> Copy {
    Copy {
        id: bits(CopyId::from_random),
        location: Location::Volume { volume: VolumeId(3), cookie: Cookie(0xdead_beef) },
        codec: Codec::PLAIN,
        stored_bytes: 300,
        state: CopyState::Live,
    }
}

fn an_entry() -> EntryRow {
    EntryRow {
        id: bits(EntryId::from_random),
        version: None,
        delete_marker: false,
        content: Content::Chunk(Chunk { hash: ContentHash([0xab; 32]), size: 300 }),
        modified_ms: 1_700_000_000_000,
        attributes: vec![
            Attribute::ContentType("text/plain".into()),
            Attribute::UserMetadata(vec![("k".into(), "v".into())]),
            Attribute::EntityTag { protocol: "s3".into(), value: "e".into() },
            Attribute::Checksum { algorithm: "crc32c".into(), digest: vec![1, 2, 3, 4] },
        ],
    }
}

fn check<R: Row + PartialEq + std::fmt::Debug>(row: R, expected: &str) {
    let bytes = row.encode();
    assert_eq!(hex(&bytes), expected, "{}", R::NAME);
    assert_eq!(R::decode(&bytes).unwrap(), row);
    for cut in 0..bytes.len() {
        assert!(R::decode(&bytes[..cut]).is_err(), "{} cut at {cut}", R::NAME);
    }
    let mut newer = bytes.clone();
    newer[0] = R::VERSION + 1;
    let error = DecodeRowError::NewerVersion { row: R::NAME, found: R::VERSION + 1, known: R::VERSION };
    assert_eq!(R::decode(&newer), Err(error));
    let mut longer = bytes;
    longer.push(0);
    assert!(R::decode(&longer).is_err(), "{} with something behind it", R::NAME);
}

#[test]
fn golden_values() {
    let h = "ab".repeat(32);
    check(FormatRow { version: 1 }, "0101");
    check(LogTimeRow { ms: 1_700_000_000_000 }, "0180d095ffbc31");
    check(TenantRow { name: "default".into(), created_ms: 5 }, "010764656661756c7405");
    check(TenantNameRow { tenant: tenant() }, &format!("0110{T}"));
    check(
        TokenRow {
            principal: bits(PrincipalId::from_random),
            tenant: tenant(),
            administrator: true,
            access: Access::Write,
        },
        &format!("0110{M}10{T}0101"),
    );
    check(UsageRow { logical_bytes: 300, files: 2, directories: 1 }, "01ac020201");
    check(
        Counters {
            contents_owned: 1,
            references: 2,
            copies: 3,
            copy_bytes: 300,
            delete_queue: 5,
            manifests_unpublished: 6,
            manifests_published: 7,
            manifests_draining: 8,
            sessions: 9,
        },
        "01010203ac020506070809",
    );
    check(OwnRow { references: 2, size: 300, copy: bits(CopyId::from_random) }, &format!("0102ac0210{M}"));
    check(CopyRow { copy: a_copy(), key: None }, &format!("0110{M}0003effdb6f50d00ac020000"));
    for (state, number) in [(CopyState::Condemned, "01"), (CopyState::Damaged, "02")] {
        let row = CopyRow { copy: Copy { state, ..a_copy() }, key: None };
        check(row, &format!("0110{M}0003effdb6f50d00ac02{number}00"));
    }
    check(
        an_entry(),
        "01102222222222224222a222222222222222000002\
         ababababababababababababababababababababababababababababababababac0280d095ffbc31\
         04000a746578742f706c61696e0101016b017602027333016503066372633332630401020304",
    );
    check(
        ManifestRow { state: ManifestState::Unpublished { expires_ms: 5, chunks: 2, bytes: 300 } },
        "01000502ac02",
    );
    check(
        ManifestRow {
            state: ManifestState::Published {
                entries: 1,
                root: ContentHash([0xab; 32]),
                chunk_count: 2,
                size: 300,
            },
        },
        &format!("010101{h}02ac02"),
    );
    check(ManifestRow { state: ManifestState::Draining }, "0102");
    check(
        RefsRow { offset: 300, chunks: vec![Chunk { hash: ContentHash([0xab; 32]), size: 300 }] },
        &format!("01ac0201{h}ac02"),
    );
    check(SessionRow { expires_ms: 5, highest: 300, used_ms: 4 }, "0205ac0204");
    // As version 1 was.
    let old = SessionRow::decode(&[1, 0x80, 0xb8, 0x99, 0x29, 0xac, 0x02]).unwrap();
    assert_eq!(old, SessionRow { expires_ms: 86_400_000, highest: 300, used_ms: 0 });
    assert!(SessionRow::decode(&[1, 5]).is_err());
    check(Mark, "01");
    check(Answer::Added, "0101");
    check(Answer::Reported, "0105");
    check(Answer::Deleted { removed: 300, more: true }, "0104ac0201");
    let answer = Answer::Put {
        id: bits(EntryId::from_random),
        created: true,
        content: Content::Manifest {
            id: manifest(),
            root: ContentHash([0xab; 32]),
            chunk_count: 2,
            size: 300,
        },
        modified_ms: 5,
    };
    check(answer, &format!("010010{M}010310{M}{h}02ac0205"));
    check(
        IdempotencyRow { fingerprint: [0xab; 32], expires_ms: 5, answer: Answer::Abandoned },
        &format!("01{h}0502"),
    );
}

#[test]
fn golden_commands() {
    let client = |action| {
        let command = ClientCommand {
            token: TokenHash([0xab; 32]),
            session: bits(SessionId::from_random),
            sequence: 7,
            action,
        };
        Proposal { wall_ms: 5, op: Op::Client(command) }
    };
    let h = "ab".repeat(32);
    let head = format!("010500{h}10{M}07");
    let wanted =
        ChunkRef { chunk: Chunk { hash: ContentHash([0xab; 32]), size: 300 }, new_copy: Some(a_copy()) };
    let chunk = format!("{h}ac020110{M}0003effdb6f50d00ac0200");
    let put = PutFile {
        path: "a/b".into(),
        condition: Condition { if_none_match_any: true, ..Condition::default() },
        content_type: Some("t".into()),
        user_metadata: vec![("k".into(), "v".into())],
        entry_id: bits(EntryId::from_random),
        directory_seed: 300,
        content: NewContent::Chunk(wanted),
        idempotency: Some(Idempotency { key: "i".into(), fingerprint: [0xab; 32] }),
    };
    check(
        client(Action::PutFile(put)),
        &format!("{head}0003612f6200000001010174010 16b017610{M}ac0201{chunk}010169{h}").replace(' ', ""),
    );
    let add =
        AddReferences { manifest: manifest(), first_number: 64, first_offset: 300, chunks: vec![wanted] };
    check(client(Action::AddReferences(add)), &format!("{head}0110{M}40ac0201{chunk}"));
    check(client(Action::AbandonManifest { manifest: manifest() }), &format!("{head}0210{M}"));
    let make = MakeDirectory {
        path: "a/".into(),
        entry_id: bits(EntryId::from_random),
        directory_seed: 300,
        exist_ok: true,
        idempotency: None,
    };
    check(client(Action::MakeDirectory(make)), &format!("{head}0302612f10{M}ac020100"));
    let delete =
        Delete { path: "a".into(), condition: Condition::default(), recursive: true, idempotency: None };
    check(client(Action::Delete(delete)), &format!("{head}040161000000000100"));
    let report = Action::ReportDamaged { hash: ContentHash([0xab; 32]), copy: bits(CopyId::from_random) };
    check(client(report), &format!("{head}05{h}10{M}"));
    let sessions = vec![bits(SessionId::from_random)];
    check(Proposal { wall_ms: 5, op: Op::OpenSessions { sessions } }, &format!("0105010110{M}"));
    check(Proposal { wall_ms: 5, op: Op::Tick }, "010502");
    check(Proposal { wall_ms: 5, op: Op::Drain }, "010503");
    check(Proposal { wall_ms: 5, op: Op::Expire }, "010504");
}

#[test]
fn the_hash_of_nothing() {
    assert_eq!(EMPTY_HASH, hay_common::manifest::content_hash(&[]));
}

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
        let _ = (EntryRow::decode(&bytes), RefsRow::decode(&bytes), Proposal::decode(&bytes), Reply::decode(&bytes));
        let _ = (keys::refs_first(&bytes), keys::timed_manifest(&bytes), keys::expiring_session(&bytes));
        let _ = (keys::entry_path(&bytes), keys::expiring_idempotency(&bytes), keys::is_hot(&bytes));
    }
}
