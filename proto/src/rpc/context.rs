//! What travels beside a request: its id, and how many inner calls it made.

use std::fmt;
use std::future::Future;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use hay_common::random::Random;

tokio::task_local! {
    static CURRENT: RequestContext;
}

/// The id of one request from outside, the same in all inner calls that it causes: 16 hex characters in text.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId(pub u64);

impl RequestId {
    /// A new one.
    pub fn from_random(random: &dyn Random) -> Self {
        Self(random.u64())
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not 16 hex characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a request id is 16 hex characters")]
pub struct ParseRequestIdError;

impl FromStr for RequestId {
    type Err = ParseRequestIdError;

    fn from_str(text: &str) -> Result<Self, ParseRequestIdError> {
        if text.len() != 16 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(ParseRequestIdError);
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| ParseRequestIdError)
    }
}

/// One request's id and its count of inner calls. Clones share the count: a task that works for the same request
/// runs in a clone's [`RequestContext::scope`].
#[derive(Debug, Clone)]
pub struct RequestContext {
    id: RequestId,
    calls: Arc<AtomicU32>,
}

impl RequestContext {
    /// A request that has made no inner call yet.
    pub fn new(id: RequestId) -> Self {
        Self { id, calls: Arc::new(AtomicU32::new(0)) }
    }

    /// The request that the running task works for, where it is known.
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }

    /// Which request.
    pub fn id(&self) -> RequestId {
        self.id
    }

    /// Inner calls that clients have made so far in this request's scope.
    pub fn calls(&self) -> u32 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Runs `future` for this request: client layers forward the id and count their calls.
    pub fn scope<F: Future>(self, future: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(self, future)
    }

    /// Counts one inner call of the running task's request.
    pub(crate) fn count_call() {
        let _ = CURRENT.try_with(|context| context.calls.fetch_add(1, Ordering::Relaxed));
    }
}

/// Runs `future` as part of the request `id`.
pub fn with_request_id<F: Future>(id: RequestId, future: F) -> impl Future<Output = F::Output> {
    RequestContext::new(id).scope(future)
}

/// The id of the request that the running task works for, in handlers too, by either binding.
pub fn request_id() -> Option<RequestId> {
    CURRENT.try_with(|context| context.id).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_from_its_text() {
        let id = RequestId(0xfe);
        assert_eq!(id.to_string(), "00000000000000fe");
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "fe", "00000000000000fg", "+0000000000000fe", "00000000000000fe0"] {
            assert!(bad.parse::<RequestId>().is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_task_of_the_same_request_shares_its_count() {
        let context = RequestContext::new(RequestId(7));
        let counted = context.clone();
        context
            .clone()
            .scope(async {
                RequestContext::count_call();
                assert_eq!(request_id(), Some(RequestId(7)));
                let inner = RequestContext::current().unwrap();
                tokio::spawn(inner.scope(async { RequestContext::count_call() })).await.unwrap();
            })
            .await;
        assert_eq!(counted.calls(), 2);
        assert_eq!(request_id(), None);
    }
}
