use std::sync::atomic::Ordering;

use hay_common::clock::ManualClock;
use hay_common::ids::EntryId;
use hay_common::limits::SESSIONS_PER_CLIENT;
use hay_common::random::SeededRandom;
use hay_proto::convert::WireId;

use super::*;
use crate::testing::{FakeFiler, Fate};

const TOKEN: TokenHash = TokenHash([4; 32]);

fn world() -> (Arc<FakeFiler>, Arc<ManualClock>, FilerClient) {
    let filer = FakeFiler::new();
    let clock = ManualClock::at(1000);
    let client = FilerClient::new(filer.served(), clock.clone(), SeededRandom::shared(7));
    (filer, clock, client)
}

fn put_file(path: &str) -> PutFile {
    let ids = NewIds { entry: EntryId::from_random(1), directories: 2 };
    PutFile {
        path: path.to_owned(),
        condition: Condition::default(),
        attributes: Attributes::default(),
        ids,
        idempotency: None,
    }
}

fn delete(path: &str) -> Delete {
    Delete { path: path.to_owned(), condition: Condition::default(), recursive: false, idempotency: None }
}

fn fates(filer: &FakeFiler, fates: &[Fate]) {
    filer.fates.lock().extend(fates);
}

fn expired(filer: &FakeFiler) {
    filer.sessions.lock().clear();
}

#[tokio::test]
async fn one_grant_serves_all_who_wait_and_every_command_has_a_name_of_its_own() {
    let (filer, _, client) = world();
    let sessions = futures::future::join_all((0..64).map(|_| client.session())).await;
    let mut tickets: Vec<_> = sessions.into_iter().map(|session| session.unwrap().ticket()).collect();
    assert_eq!(filer.grants.load(Ordering::SeqCst), 1);
    assert_eq!(filer.sessions.lock().len(), 1, "it stays open for a day: no more than are used");
    tickets.sort_by_key(|ticket| (ticket.session, ticket.sequence));
    tickets.dedup();
    assert_eq!(tickets.len(), 64);
    assert!(tickets.iter().all(|ticket| ticket.sequence >= 1));
}

#[tokio::test]
async fn further_sessions_come_with_those_who_hold_them() {
    let (filer, _, client) = world();
    let mut held = Vec::new();
    for _ in 0..512 {
        held.push(client.session().await.unwrap());
    }
    assert_eq!(filer.sessions.lock().len(), 1);
    *filer.failure.lock() = Some(ErrorCode::Overloaded);
    held.push(client.session().await.unwrap());
    assert_eq!(filer.sessions.lock().len(), 1, "the one that is there goes on being shared");
    *filer.failure.lock() = None;
    for _ in 0..4096 {
        held.push(client.session().await.unwrap());
    }
    assert_eq!(filer.sessions.lock().len(), SESSIONS_PER_CLIENT);
    let mut tickets: Vec<_> = held.drain(..).map(|session| session.ticket()).collect();
    tickets.sort_by_key(|ticket| (ticket.session, ticket.sequence));
    tickets.dedup();
    assert_eq!(tickets.len(), 513 + 4096);
    client.session().await.unwrap();
    assert_eq!(filer.sessions.lock().len(), SESSIONS_PER_CLIENT);
}

#[tokio::test]
async fn sessions_are_replaced_at_half_their_life_and_outlive_a_filer_that_is_away() {
    let (filer, clock, client) = world();
    let first = client.session().await.unwrap().id();
    clock.advance(Duration::from_secs(29));
    client.session().await.unwrap();
    assert_eq!(filer.grants.load(Ordering::SeqCst), 1);
    clock.advance(Duration::from_secs(1));
    let second = client.session().await.unwrap().id();
    assert_eq!(filer.grants.load(Ordering::SeqCst), 2);
    assert_ne!(first, second);

    clock.advance(Duration::from_secs(40));
    *filer.failure.lock() = Some(ErrorCode::Unavailable);
    client.session().await.unwrap();
    clock.advance(Duration::from_secs(20));
    assert_eq!(
        client.session().await.unwrap_err().code,
        ErrorCode::Unavailable,
        "none without a life is given out"
    );
}

#[tokio::test]
async fn a_command_acts_once_however_often_its_answer_is_lost() {
    let (filer, _, client) = world();
    let session = client.session().await.unwrap();
    fates(&filer, &[Fate::AnswerLost, Fate::Lost, Fate::AnswerLost]);
    let put = client.put(TOKEN, &session, put_file("a"), Content::Empty).await.unwrap();
    assert!(put.created);
    fates(&filer, &[Fate::AnswerLost]);
    assert_eq!(client.delete(TOKEN, delete("b")).await.unwrap(), Deleted { removed: 1, more: false });
    assert_eq!(*filer.applied.lock(), ["a", "b"]);
}

#[tokio::test]
async fn a_damaged_copy_is_reported_once_by_name() {
    let (filer, _, client) = world();
    fates(&filer, &[Fate::AnswerLost]);
    client.report_damaged(TOKEN, ContentHash([3; 32]), CopyId::from_random(9)).await.unwrap();
    let named = [&[3; 32][..], &CopyId::from_random(9).to_wire()].concat();
    assert_eq!(*filer.applied.lock(), [named]);
}

#[tokio::test]
async fn repeating_ends() {
    let (filer, _, client) = world();
    let session = client.session().await.unwrap();
    fates(&filer, &[Fate::Lost; 100]);
    let failure = client.put(TOKEN, &session, put_file("a"), Content::Empty).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::Unavailable);
    assert_eq!(filer.fates.lock().len(), 96);
}

#[tokio::test]
async fn a_refusal_after_a_lost_answer_says_only_that_it_is_not_known() {
    let (filer, _, client) = world();
    for code in [ErrorCode::SequencePassed, ErrorCode::SessionExpired] {
        fates(&filer, &[Fate::AnswerLost, Fate::Refused(code)]);
        let failure = client.delete(TOKEN, delete("a")).await.unwrap_err();
        assert_eq!(failure.code, ErrorCode::Unavailable, "{code}");
    }
    assert_eq!(*filer.applied.lock(), ["a", "a"], "neither was sent under a second name");
}

#[tokio::test]
async fn what_relies_on_no_copy_takes_another_session_by_itself() {
    let (filer, _, client) = world();
    client.session().await.unwrap();
    expired(&filer);
    client.delete(TOKEN, delete("a")).await.unwrap();
    assert_eq!(*filer.applied.lock(), ["a"]);
}

#[tokio::test]
async fn what_relies_on_copies_says_that_its_session_is_over() {
    let (filer, _, client) = world();
    let session = client.session().await.unwrap();
    expired(&filer);
    let failure = client.put(TOKEN, &session, put_file("a"), Content::Empty).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::SessionExpired);
    let failure = client.begin(TOKEN, &session, &put_file("a"), None, None).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::SessionExpired);
    assert!(filer.applied.lock().is_empty());
    // Those that were granted with the dead one are given out no more.
    let session = client.session().await.unwrap();
    client.put(TOKEN, &session, put_file("b"), Content::Empty).await.unwrap();
}

#[tokio::test]
async fn reads_are_repeated_and_answers_checked() {
    let (filer, _, client) = world();
    assert!(client.whoami(TOKEN).await.unwrap().principal.administrator);
    let hash = ContentHash([1; 32]);
    assert_eq!(client.find_own(TOKEN, &[hash]).await.unwrap(), [true]);
    assert_eq!(client.find_own(TOKEN, &[hash, hash]).await.unwrap_err().code, ErrorCode::Internal);
    let resolve = Resolve { path: "a".into(), offset: 0, chunks: 1, suffix: None };
    assert_eq!(client.resolve(TOKEN, resolve.clone()).await.unwrap_err().code, ErrorCode::Internal);
    let list = List { directory: String::new(), recursive: false, limit: 10, after: Some("b".into()) };
    assert!(client.list(TOKEN, list).await.unwrap().more);

    *filer.failure.lock() = Some(ErrorCode::NotLeader);
    let before = filer.calls.load(Ordering::SeqCst);
    assert_eq!(client.resolve(TOKEN, resolve.clone()).await.unwrap_err().code, ErrorCode::NotLeader);
    assert_eq!(filer.calls.load(Ordering::SeqCst), before + 4);
    *filer.failure.lock() = Some(ErrorCode::NotFound);
    assert_eq!(client.resolve(TOKEN, resolve).await.unwrap_err().code, ErrorCode::NotFound);
    assert_eq!(filer.calls.load(Ordering::SeqCst), before + 5);
}

fn assert_send<T: Send>(_: &T) {}

/// Handlers run on any worker: every method's future must be `Send`.
#[expect(dead_code, reason = "compiled, never run")]
fn futures_are_send(client: &FilerClient, session: &Session, put: &PutFile, resolve: Resolve) {
    assert_send(&client.session());
    assert_send(&client.whoami(TOKEN));
    assert_send(&client.begin(TOKEN, session, put, None, None));
    assert_send(&client.put(TOKEN, session, put.clone(), Content::Empty));
    assert_send(&client.find_own(TOKEN, &[]));
    assert_send(&client.read_manifest(TOKEN, ManifestId::from_random(1), 0, 1));
    assert_send(&client.resolve(TOKEN, resolve));
}
