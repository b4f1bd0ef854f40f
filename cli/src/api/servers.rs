//! The servers that may be asked: all do the same, and the one that answered last is asked first.

use std::sync::atomic::{AtomicUsize, Ordering};

use reqwest::Url;

/// At least one, as `http://HOST:PORT` without a slash at the end.
pub(super) struct Servers {
    addresses: Vec<String>,
    /// Any value is good.
    current: AtomicUsize,
}

impl Servers {
    pub(super) fn new(addresses: Vec<String>) -> Self {
        Self { addresses, current: AtomicUsize::new(0) }
    }

    /// The one to ask.
    pub(super) fn current(&self) -> &str {
        let at = self.current.load(Ordering::Relaxed) % self.addresses.len().max(1);
        self.addresses.get(at).map_or("", String::as_str)
    }

    /// The server of a request that failed: the next one is asked from now on, unless another request has moved on already.
    pub(super) fn leave(&self, request: &Url) {
        let is_asked =
            |address: &String| Url::parse(address).is_ok_and(|url| url.origin() == request.origin());
        if let Some(at) = self.addresses.iter().position(is_asked) {
            self.leave_at(at);
        }
    }

    /// The same for the one that is current, where the request's own address is not known any more.
    pub(super) fn leave_current(&self) {
        self.leave_at(self.current.load(Ordering::Relaxed) % self.addresses.len().max(1));
    }

    fn leave_at(&self, at: usize) {
        let next = (at + 1) % self.addresses.len().max(1);
        // Another request may have moved on already.
        let _ = self.current.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_fails_is_left_once_however_many_requests_it_fails() {
        let servers = Servers::new(vec!["http://a:1".to_owned(), "http://b".to_owned()]);
        let url = |text: &str| Url::parse(text).unwrap();
        assert_eq!(servers.current(), "http://a:1");
        servers.leave(&url("http://a:1/api/nfs/files/x"));
        servers.leave(&url("http://a:1/api/nfs/files/y"));
        assert_eq!(servers.current(), "http://b");
        servers.leave(&url("http://elsewhere/"));
        assert_eq!(servers.current(), "http://b");
        servers.leave(&url("http://b:80/z"));
        assert_eq!(servers.current(), "http://a:1", "the default port is the same server");
        servers.leave_current();
        assert_eq!(servers.current(), "http://b");
    }
}
