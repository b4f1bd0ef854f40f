//! The checks that are the same for every service: who may call, for how long, how much at once.
//!
//! They use one unary method of each service, its ping, which a test core answers through its [`Control`].

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hay_common::error::{ErrorCode, Failure};
use hay_common::ids::ClusterId;
use hay_common::limits::{CLOCK_SKEW_MAX, CREDENTIAL_TTL};
use tonic::{Request, Status};

use super::control::{Control, until};
use super::stage::{Caller, Cluster, NOW_MS};
use crate::rpc::credential::ClusterKey;
use crate::rpc::{MESSAGE_BYTES_MAX, RequestContext, RequestId, Role, set_timeout, to_failure};

/// What the shared checks need of a service.
pub trait Subject: Send + Sync + 'static {
    /// A role that may send the ping.
    const FRIEND: Role;
    /// A role that may not.
    const STRANGER: Role;

    fn control(&self) -> &Control;
    fn cluster(&self) -> &Cluster;
    /// Sends the ping as `caller`; with `timeout` where there is one.
    fn ping(
        &self,
        caller: Caller,
        timeout: Option<Duration>,
    ) -> impl Future<Output = Result<(), Status>> + Send;
}

pub fn request<T>(message: T, timeout: Option<Duration>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(timeout) = timeout {
        set_timeout(&mut request, timeout);
    }
    request
}

#[track_caller]
fn code(result: Result<(), Status>) -> ErrorCode {
    to_failure(&result.unwrap_err()).code
}

/// Calls at once that the shared checks expect of the guard.
pub const CALLS_MAX: usize = 8;

pub async fn check<S: Subject>(subject: Arc<S>) {
    authenticates(&*subject).await;
    knows_its_caller(&*subject).await;
    carries_failures(&*subject).await;
    keeps_deadlines(&*subject).await;
    refuses_oversized_replies(&*subject).await;
    refuses_overload(subject).await;
}

async fn authenticates<S: Subject>(subject: &S) {
    let key = &subject.cluster().key;
    let peer = Cluster::peer(S::FRIEND);
    let reached = || subject.control().entered.load(Ordering::SeqCst);
    let before = reached();
    assert_eq!(code(subject.ping(Caller::Role(S::STRANGER), None).await), ErrorCode::Forbidden);
    assert_eq!(code(subject.ping(Caller::Nobody, None).await), ErrorCode::CredentialRefused);
    let skew_ms = CLOCK_SKEW_MAX.as_millis() as u64;
    let good_ms = CREDENTIAL_TTL.as_millis() as u64 + skew_ms;
    let mut changed = key.mint(peer, NOW_MS);
    // The byte of the role.
    changed[1] ^= 6;
    let other_key = ClusterKey::from_seed(key.cluster(), &[2; 32]).unwrap();
    let other_cluster = ClusterKey::from_seed(ClusterId::from_random(9), &[1; 32]).unwrap();
    for (why, token) in [
        ("expired", key.mint(peer, NOW_MS - good_ms)),
        ("from the future", key.mint(peer, NOW_MS + skew_ms + 1)),
        ("another role written in", changed),
        ("another key", other_key.mint(peer, NOW_MS)),
        ("another cluster", other_cluster.mint(peer, NOW_MS)),
        ("not a credential", b"hello".to_vec()),
    ] {
        let refused = code(subject.ping(Caller::Token(token), None).await);
        assert_eq!(refused, ErrorCode::CredentialRefused, "{why}");
    }
    let stranger = key.mint(Cluster::peer(S::STRANGER), NOW_MS);
    assert_eq!(code(subject.ping(Caller::Token(stranger), None).await), ErrorCode::Forbidden);
    assert_eq!(reached(), before, "no handler ran for any of these");

    subject.ping(Caller::Role(S::FRIEND), None).await.unwrap();
    subject.ping(Caller::Token(key.mint(peer, NOW_MS)), None).await.unwrap();
    assert_eq!(reached(), before + 2);
}

async fn knows_its_caller<S: Subject>(subject: &S) {
    let context = RequestContext::new(RequestId(0xabc));
    let ping = subject.ping(Caller::Role(S::FRIEND), None);
    context.clone().scope(ping).await.unwrap();
    let seen = subject.control().seen.lock().unwrap();
    assert_eq!(seen, (Cluster::peer(S::FRIEND), Some(RequestId(0xabc))));
    assert_eq!(context.calls(), 1);
}

async fn carries_failures<S: Subject>(subject: &S) {
    for code in
        [ErrorCode::StaleEpoch, ErrorCode::PreconditionFailed, ErrorCode::StorageFull, ErrorCode::Internal]
    {
        let failure = Failure::new(code, "volume 7: because “so”");
        *subject.control().failure.lock() = Some(failure.clone());
        let status = subject.ping(Caller::Role(S::FRIEND), None).await.unwrap_err();
        assert_eq!(to_failure(&status), failure);
    }
}

async fn keeps_deadlines<S: Subject>(subject: &S) {
    subject.control().hang();
    let short = Some(Duration::from_millis(50));
    assert_eq!(code(subject.ping(Caller::Role(S::FRIEND), short).await), ErrorCode::DeadlineExceeded);
    subject.control().release();
    subject.ping(Caller::Role(S::FRIEND), None).await.unwrap();
}

async fn refuses_oversized_replies<S: Subject>(subject: &S) {
    let bytes = &subject.control().reply_bytes;
    bytes.store(MESSAGE_BYTES_MAX - 1024, Ordering::SeqCst);
    subject.ping(Caller::Role(S::FRIEND), None).await.unwrap();
    bytes.store(MESSAGE_BYTES_MAX + 1, Ordering::SeqCst);
    assert_eq!(code(subject.ping(Caller::Role(S::FRIEND), None).await), ErrorCode::TooLarge);
    bytes.store(0, Ordering::SeqCst);
}

async fn refuses_overload<S: Subject>(subject: Arc<S>) {
    let before = subject.control().entered.load(Ordering::SeqCst);
    subject.control().hang();
    let hanging: Vec<_> = (0..CALLS_MAX)
        .map(|_| {
            let subject = subject.clone();
            tokio::spawn(async move { subject.ping(Caller::Role(S::FRIEND), None).await })
        })
        .collect();
    until("the calls in work", async || {
        subject.control().entered.load(Ordering::SeqCst) == before + CALLS_MAX
    })
    .await;
    assert_eq!(code(subject.ping(Caller::Role(S::FRIEND), None).await), ErrorCode::Overloaded);
    // Who may not call learns nothing of the load.
    assert_eq!(code(subject.ping(Caller::Role(S::STRANGER), None).await), ErrorCode::Forbidden);
    subject.control().release();
    for call in hanging {
        call.await.unwrap().unwrap();
    }
    // All places were given back, those of refused calls too.
    for _ in 0..CALLS_MAX * 3 {
        subject.ping(Caller::Role(S::FRIEND), None).await.unwrap();
    }
}
