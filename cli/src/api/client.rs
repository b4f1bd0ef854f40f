//! Requests with their retries. Every method may be repeated safely: reads change nothing, and writes carry an
//! `Idempotency-Key` that stays the same over the tries, so that a write whose answer was lost acts once.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hay_common::ids::ContentHash;
use hay_common::limits;
use hay_common::random::SharedRandom;
use hay_common::retry::RetryPolicy;
use http::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, IF_NONE_MATCH, LAST_MODIFIED,
};
use http::{Method, StatusCode};
use reqwest::{RequestBuilder, Response};

use super::answer::{EntryType, Listing, Stat};
use super::body::PieceBody;
use super::error::ApiError;
use super::routes;
use super::servers::Servers;
use crate::config::Target;
use crate::remote::RemotePath;

/// Bytes of an error body that are looked at.
pub const ERROR_BYTES_MAX: usize = 64 << 10;
/// Bytes of a JSON answer: a page of 10,000 entries with the longest paths and attributes.
const JSON_BYTES_MAX: usize = 64 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Answers without a stream come within this time; a recursive delete works through a batch.
const SMALL_TIMEOUT: Duration = Duration::from_secs(120);
/// A whole body on its way may take as long as at this rate: what is slower, the server gives up itself.
const SENT_BYTES_PER_SECOND_MIN: u64 = 4 << 10;
/// How long sent bytes may stay unacknowledged before the connection counts as lost.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(60);
const RETRIES: RetryPolicy = RetryPolicy {
    attempts_max: 6,
    pause_first: Duration::from_millis(100),
    pause_max: Duration::from_secs(3),
};

const META_PREFIX: &str = "x-haystore-meta-";
const IDEMPOTENCY_KEY: &str = "idempotency-key";
const TYPE: &str = "x-haystore-type";

/// A connection pool to one server, or to several that do the same, as one principal. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    http: reqwest::Client,
    target: Target,
    servers: Arc<Servers>,
    random: SharedRandom,
    /// How long a server that has a request may say nothing, and take nothing of a body that is there.
    patience: Duration,
}

/// The bytes of a PUT.
pub enum PutBody {
    /// In memory: may be sent again.
    Whole(Bytes),
    /// As they come: the one who fills it decides whether there is another try.
    Pieces(PieceBody),
}

/// What a PUT left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The content hash that the server computed.
    pub etag: Option<ContentHash>,
}

impl Client {
    /// A client of `target`. Opens no connection yet.
    ///
    /// # Errors
    /// When the TLS set-up of the machine is unusable.
    pub fn new(target: Target, random: SharedRandom) -> Result<Self, ApiError> {
        // ring is the one provider; that it is installed already is fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .http1_only()
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .tcp_keepalive(Duration::from_secs(15))
            .tcp_user_timeout(TCP_USER_TIMEOUT)
            .pool_idle_timeout(Duration::from_secs(20))
            // A redirect would carry the token to wherever it points.
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("hay/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| ApiError::Connection {
                server: target.servers.join(", "),
                cause: causes(&error),
            })?;
        let servers = Arc::new(Servers::new(target.servers.clone()));
        Ok(Self { inner: Arc::new(Inner { http, target, servers, random, patience: SMALL_TIMEOUT }) })
    }

    /// The same with less patience.
    #[cfg(test)]
    pub(crate) fn with_patience(self, patience: Duration) -> Self {
        let Inner { http, target, servers, random, .. } = self.inner.as_ref();
        let (servers, random) = (servers.clone(), random.clone());
        let inner = Inner { http: http.clone(), target: target.clone(), servers, random, patience };
        Self { inner: Arc::new(inner) }
    }

    /// The address of the server that is asked.
    pub fn server(&self) -> &str {
        self.inner.servers.current()
    }

    /// Whom it talks to, and as whom.
    pub fn target(&self) -> &Target {
        &self.inner.target
    }

    /// Randomness for names and keys.
    pub fn random(&self) -> &SharedRandom {
        &self.inner.random
    }

    /// A request with the token on it.
    pub(super) fn request(&self, method: Method, route: &str) -> RequestBuilder {
        let token = format!("Bearer {}", self.inner.target.token.reveal());
        let mut value = http::HeaderValue::try_from(token).unwrap_or(http::HeaderValue::from_static(""));
        value.set_sensitive(true);
        self.inner.http.request(method, format!("{}{route}", self.server())).header(AUTHORIZATION, value)
    }

    /// Sends, and turns an error status into an error.
    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Response, ApiError> {
        let response = request.send().await.map_err(|error| self.lost(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            self.inner.servers.leave(response.url());
        }
        let body = self.body(response, ERROR_BYTES_MAX).await.unwrap_or_default();
        Err(ApiError::from_body(status.as_u16(), &body))
    }

    /// Sends, and waits for the head of the answer only so long: the rest of it may be a large file.
    pub(super) async fn send_soon(&self, request: RequestBuilder) -> Result<Response, ApiError> {
        self.within(self.inner.patience, self.send(request)).await
    }

    async fn within<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, ApiError> {
        tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(self.silent()))
    }

    fn silent(&self) -> ApiError {
        self.broken("it does not answer".into())
    }

    /// The server that is asked can't be relied on: the next one is asked from now on.
    pub(super) fn broken(&self, cause: String) -> ApiError {
        let server = self.server().to_owned();
        self.inner.servers.leave_current();
        ApiError::Connection { server, cause }
    }

    /// A connection that broke: the next server is asked from now on.
    pub(super) fn lost(&self, error: &reqwest::Error) -> ApiError {
        let server = self.server().to_owned();
        match error.url() {
            Some(url) => self.inner.servers.leave(url),
            None => self.inner.servers.leave_current(),
        }
        ApiError::Connection { server, cause: causes(error) }
    }

    async fn body(&self, mut response: Response, bytes_max: usize) -> Result<Vec<u8>, ApiError> {
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| self.lost(&error))? {
            if body.len() + piece.len() > bytes_max {
                return Err(ApiError::Answer {
                    what: self.server().to_owned(),
                    cause: format!("a body of more than {bytes_max} bytes"),
                });
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }

    /// Runs `once` until it succeeds, fails for good, or the tries are used up.
    pub async fn with_retries<T, F>(&self, mut once: impl FnMut() -> F) -> Result<T, ApiError>
    where
        F: Future<Output = Result<T, ApiError>>,
    {
        let mut attempt = 0;
        loop {
            let error = match once().await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            attempt += 1;
            if !self.pause(&error, attempt).await {
                return Err(error);
            }
        }
    }

    /// Waits before try number `attempt`; says whether there is to be one.
    pub async fn pause(&self, error: &ApiError, attempt: u32) -> bool {
        if !error.is_transient() {
            return false;
        }
        match RETRIES.pause(attempt, self.inner.random.as_ref()) {
            Some(pause) => {
                tokio::time::sleep(pause).await;
                true
            }
            None => false,
        }
    }

    /// A new key under which a write acts once.
    pub fn idempotency_key(&self) -> String {
        format!("{:032x}", self.inner.random.u128())
    }

    async fn json<T: serde::de::DeserializeOwned>(&self, method: Method, route: &str) -> Result<T, ApiError> {
        self.with_retries(|| async {
            let request = self.request(method.clone(), route).timeout(SMALL_TIMEOUT);
            let response = self.send(request).await?;
            let body = self.body(response, JSON_BYTES_MAX).await?;
            serde_json::from_slice(&body)
                .map_err(|error| ApiError::Answer { what: route.to_owned(), cause: error.to_string() })
        })
        .await
    }

    /// One try of storing a file.
    ///
    /// # Errors
    /// What the server or the connection says; [`ApiError::is_transient`] tells whether to try again.
    pub async fn put_once(
        &self,
        path: &RemotePath,
        key: &str,
        content_type: Option<&str>,
        body: PutBody,
    ) -> Result<Stored, ApiError> {
        let mut request = self.request(Method::PUT, &routes::file(path)).header(IDEMPOTENCY_KEY, key);
        if let Some(content_type) = content_type {
            request = request.header(CONTENT_TYPE, content_type);
        }
        let is_empty = match &body {
            PutBody::Whole(bytes) => bytes.is_empty(),
            PutBody::Pieces(pieces) => pieces.left() == Some(0),
        };
        if is_empty {
            // An empty body goes without a length unless it is given one, and a server can't tell that from a
            // forgotten one.
            request = request.header(CONTENT_LENGTH, "0");
        }
        let patience = self.inner.patience;
        let response = match body {
            PutBody::Whole(bytes) => {
                let sending = Duration::from_secs(bytes.len() as u64 / SENT_BYTES_PER_SECOND_MIN);
                self.within(patience + sending, self.send(request.body(bytes))).await?
            }
            // No limit on the whole: as long as pieces go, it goes on.
            PutBody::Pieces(pieces) => {
                let pace = pieces.pace();
                tokio::select! {
                    sent = self.send(request.body(reqwest::Body::wrap(pieces))) => sent?,
                    () = pace.stalled(patience) => return Err(self.silent()),
                }
            }
        };
        Ok(Stored { etag: etag_of(response.headers()) })
    }

    /// Makes a directory; one that is there is fine.
    ///
    /// # Errors
    /// What the server or the connection says, after the retries.
    pub async fn make_directory(&self, path: &RemotePath) -> Result<(), ApiError> {
        self.put_directory(path, false).await
    }

    /// Makes a directory that is not there yet.
    ///
    /// # Errors
    /// `is_directory` (or `not_directory`, for a file) where something is there, and what the server or the connection
    /// says, after the retries.
    pub async fn make_new_directory(&self, path: &RemotePath) -> Result<(), ApiError> {
        self.put_directory(path, true).await
    }

    async fn put_directory(&self, path: &RemotePath, only_new: bool) -> Result<(), ApiError> {
        let key = self.idempotency_key();
        let route = routes::file(&path.as_directory());
        self.with_retries(|| async {
            let mut request = self.request(Method::PUT, &route).header(IDEMPOTENCY_KEY, &key);
            if only_new {
                request = request.header(IF_NONE_MATCH, "*");
            }
            self.send(request.header(CONTENT_LENGTH, "0").timeout(SMALL_TIMEOUT)).await.map(drop)
        })
        .await
    }

    /// Removes a file or directory, with all that is in it if `recursive`. Says how many entries went, where the
    /// server tells.
    ///
    /// # Errors
    /// What the server or the connection says, after the retries.
    pub async fn remove(&self, path: &RemotePath, recursive: bool) -> Result<Option<u64>, ApiError> {
        let key = self.idempotency_key();
        let route = routes::removal(path, recursive);
        let body = self
            .with_retries(|| async {
                let request = self.request(Method::DELETE, &route).header(IDEMPOTENCY_KEY, &key);
                // The answer to a recursive one comes when all is gone.
                let patience = self.inner.patience * if recursive { 30 } else { 1 };
                let removing = async { self.body(self.send(request).await?, ERROR_BYTES_MAX).await };
                self.within(patience, removing).await
            })
            .await?;
        let answer: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
        Ok(answer.and_then(|answer| answer.get("removed")?.as_u64()))
    }

    /// What is at a path.
    ///
    /// # Errors
    /// What the server or the connection says, after the retries.
    pub async fn stat(&self, path: &RemotePath) -> Result<Stat, ApiError> {
        let route = routes::file(path);
        self.with_retries(|| async {
            let response = self.send(self.request(Method::HEAD, &route).timeout(SMALL_TIMEOUT)).await?;
            Ok(stat_of(path, response.headers()))
        })
        .await
    }

    /// One page of a listing.
    ///
    /// # Errors
    /// What the server or the connection says, after the retries.
    pub async fn list(
        &self,
        directory: &RemotePath,
        recursive: bool,
        after: Option<&str>,
    ) -> Result<Listing, ApiError> {
        self.json(Method::GET, &routes::list(directory, recursive, limits::LIST_PAGE_DEFAULT, after)).await
    }

    /// The state of the cluster.
    ///
    /// # Errors
    /// What the server or the connection says, after the retries.
    pub async fn cluster(&self) -> Result<serde_json::Value, ApiError> {
        self.json(Method::GET, routes::CLUSTER).await
    }

    /// A page of volumes, after the one with id `after`.
    ///
    /// # Errors
    /// What the server or the connection says, after the retries.
    pub async fn volumes(&self, after: u64) -> Result<serde_json::Value, ApiError> {
        let route = format!("{}?after={after}&limit={}", routes::VOLUMES, limits::LIST_PAGE_DEFAULT);
        self.json(Method::GET, &route).await
    }

    /// One volume.
    ///
    /// # Errors
    /// What the server or the connection says, after the retries.
    pub async fn volume(&self, id: u32) -> Result<serde_json::Value, ApiError> {
        self.json(Method::GET, &format!("{}/{id}", routes::VOLUMES)).await
    }

    /// Begins to repair a volume, or says what would be done.
    ///
    /// # Errors
    /// What the server or the connection says, after the retries.
    pub async fn volume_repair(&self, id: u32, dry_run: bool) -> Result<serde_json::Value, ApiError> {
        self.json(Method::POST, &format!("{}/{id}/repair?dry_run={dry_run}", routes::VOLUMES)).await
    }

    /// Adds or removes a master, or says what that would do.
    ///
    /// # Errors
    /// What the server or the connection says, after the retries.
    pub async fn masters_change(
        &self,
        change: &str,
        name: &str,
        dry_run: bool,
    ) -> Result<serde_json::Value, ApiError> {
        self.json(Method::POST, &routes::masters(change, name, dry_run)).await
    }

    /// Bytes and objects of the tenant.
    ///
    /// # Errors
    /// What the server or the connection says, after the retries.
    pub async fn usage(&self) -> Result<serde_json::Value, ApiError> {
        self.json(Method::GET, routes::USAGE).await
    }

    /// Whether every role can do its work, asked once. An error says why not.
    ///
    /// # Errors
    /// What the server or the connection says.
    pub async fn ready(&self) -> Result<(), ApiError> {
        self.send(self.request(Method::GET, routes::READY).timeout(CONNECT_TIMEOUT)).await.map(drop)
    }

    /// The figures of another process of the cluster, on its operations port.
    ///
    /// # Errors
    /// What the connection says.
    pub async fn metrics_at(&self, operations: SocketAddr) -> Result<String, ApiError> {
        // Without the token: it is nothing to a port that asks for none.
        let request = self.inner.http.get(format!("http://{operations}{}", routes::METRICS));
        let response = self.send(request.timeout(CONNECT_TIMEOUT)).await?;
        let body = self.body(response, JSON_BYTES_MAX).await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// The figures of `/metrics`, asked once.
    ///
    /// # Errors
    /// What the server or the connection says.
    pub async fn metrics(&self) -> Result<String, ApiError> {
        let response = self.send(self.request(Method::GET, routes::METRICS).timeout(SMALL_TIMEOUT)).await?;
        let body = self.body(response, JSON_BYTES_MAX).await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }
}

/// An error with its causes: reqwest's own text is "error sending request".
fn causes(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    if error.is_timeout() { "it took too long".to_owned() } else { cause.to_string() }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// The content hash in an `ETag`.
pub(super) fn etag_of(headers: &HeaderMap) -> Option<ContentHash> {
    let quoted = text(headers, ETAG.as_str())?;
    quoted.trim().strip_prefix('"')?.strip_suffix('"')?.parse().ok()
}

fn stat_of(path: &RemotePath, headers: &HeaderMap) -> Stat {
    let directory = text(headers, TYPE) == Some("directory");
    let metadata: BTreeMap<String, String> = headers
        .iter()
        .filter_map(|(name, value)| {
            let name = name.as_str().strip_prefix(META_PREFIX)?;
            Some((name.to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        })
        .collect();
    Stat {
        path: format!("/{}", path.as_str()),
        kind: if directory { EntryType::Directory } else { EntryType::File },
        size: text(headers, CONTENT_LENGTH.as_str()).and_then(|v| v.parse().ok()).filter(|_| !directory),
        etag: etag_of(headers).map(|hash| hash.to_string()),
        modified: text(headers, LAST_MODIFIED.as_str()).map(str::to_owned),
        content_type: text(headers, CONTENT_TYPE.as_str()).map(str::to_owned).filter(|_| !directory),
        metadata,
    }
}
