//! The HTTP interface as a well-behaved client uses it.

use std::sync::Once;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Body, Method};
use serde_json::Value;

/// No single request of the tests takes longer.
const PATIENCE: Duration = Duration::from_secs(600);

/// A client with or without a token.
#[derive(Clone)]
pub struct Api {
    client: reqwest::Client,
    base: String,
    token: Option<String>,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }

    pub fn etag(&self) -> String {
        self.header("etag").unwrap_or_else(|| panic!("no ETag in {:?}", self.headers)).to_owned()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("no JSON ({e}): {:?}", self.text()))
    }

    /// The stable code of a JSON error, or what came instead of one.
    pub fn error_code(&self) -> String {
        serde_json::from_slice::<Value>(&self.body)
            .ok()
            .and_then(|v| v["error"]["code"].as_str().map(str::to_owned))
            .unwrap_or_else(|| {
                format!("no JSON error but {:?}", self.text().chars().take(200).collect::<String>())
            })
    }

    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Fails the test unless it succeeded.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert!(self.is_success(), "status {}: {}", self.status, self.error_code());
        self
    }

    /// Fails the test unless it is this error.
    #[track_caller]
    pub fn refused(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.error_code().as_str()), (status, code), "{}", self.text());
    }
}

impl Api {
    pub fn new(base: &str, token: Option<&str>) -> Self {
        static PROVIDER: Once = Once::new();
        PROVIDER.call_once(|| {
            // Another test may have been first: one provider is as good as the other, it is the same.
            let _ = rustls::crypto::ring::default_provider().install_default();
        });
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        Self { client, base: base.to_owned(), token: token.map(str::to_owned) }
    }

    /// The same, over HTTP/2 on one connection.
    pub fn over_http2(&self) -> Self {
        let builder = reqwest::Client::builder().no_proxy().timeout(PATIENCE).http2_prior_knowledge();
        Self { client: builder.build().unwrap(), ..self.clone() }
    }

    /// The same server with another token, or none.
    pub fn with_token(&self, token: Option<&str>) -> Self {
        Self { token: token.map(str::to_owned), ..self.clone() }
    }

    /// Any request; `path` begins with a slash and is already encoded.
    pub async fn try_send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> reqwest::Result<Answer> {
        let mut all = HeaderMap::new();
        for (name, value) in headers {
            all.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            );
        }
        let body = body.into();
        if method == Method::PUT && body.as_bytes().is_some_and(<[u8]>::is_empty) {
            // The library announces no body at all then, which the server can't tell from one that was forgotten.
            all.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        let mut request = self.client.request(method, format!("{}{path}", self.base)).headers(all).body(body);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Ok(Answer { status, headers, body: answer.bytes().await? })
    }

    /// As [`Api::try_send`], where an answer must come.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        self.try_send(method.clone(), path, headers, body)
            .await
            .unwrap_or_else(|e| panic!("{method} {path}: no answer: {e:?}"))
    }

    /// The URL path of a stored path.
    fn file(path: &str) -> String {
        format!("/api/nfs/files/{}", encode_path(path))
    }

    pub async fn put(&self, path: &str, body: impl Into<Body>) -> Answer {
        self.put_with(path, &[], body).await
    }

    pub async fn put_with(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        self.send(Method::PUT, &Self::file(path), headers, body).await
    }

    pub async fn try_put(&self, path: &str, body: impl Into<Body>) -> reqwest::Result<Answer> {
        self.try_send(Method::PUT, &Self::file(path), &[], body).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.get_with(path, &[]).await
    }

    pub async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(Method::GET, &Self::file(path), headers, "").await
    }

    pub async fn try_get(&self, path: &str) -> reqwest::Result<Answer> {
        self.try_send(Method::GET, &Self::file(path), &[], "").await
    }

    pub async fn head(&self, path: &str) -> Answer {
        self.send(Method::HEAD, &Self::file(path), &[], "").await
    }

    pub async fn head_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(Method::HEAD, &Self::file(path), headers, "").await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.delete_with(path, &[]).await
    }

    pub async fn delete_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(Method::DELETE, &Self::file(path), headers, "").await
    }

    pub async fn try_delete(&self, path: &str) -> reqwest::Result<Answer> {
        self.try_send(Method::DELETE, &Self::file(path), &[], "").await
    }

    /// A body that is read as it comes; for what is larger than memory should hold.
    pub async fn get_streaming(&self, path: &str) -> reqwest::Result<reqwest::Response> {
        let mut request = self.client.get(format!("{}{}", self.base, Self::file(path)));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        request.send().await
    }

    /// One page of a listing. `query` without the question mark.
    pub async fn list_page(&self, dir: &str, query: &str) -> Answer {
        let path = format!("/api/nfs/list/{}?{query}", encode_path(dir));
        self.send(Method::GET, path.trim_end_matches('?'), &[], "").await
    }

    /// All pages of a listing, as (path, type).
    pub async fn list_all(&self, dir: &str, recursive: bool, limit: usize) -> Vec<(String, String)> {
        let mut all = Vec::new();
        let mut after = String::new();
        loop {
            let query = format!("recursive={recursive}&limit={limit}{after}");
            let page = self.list_page(dir, &query).await.ok().json();
            let entries = page["entries"].as_array().expect("entries is a list").clone();
            assert!(entries.len() <= limit, "a page of {} with limit={limit}", entries.len());
            for entry in &entries {
                all.push((text_of(entry, "path"), text_of(entry, "type")));
            }
            match page["next"].as_str() {
                Some(next) => after = format!("&after={}", encode_all(next)),
                None => return all,
            }
            assert!(all.len() < 1_000_000, "the listing of {dir:?} never ends");
        }
    }

    /// `/api/nfs/cluster/status`.
    pub async fn status(&self) -> Value {
        self.send(Method::GET, "/api/nfs/cluster/status", &[], "").await.ok().json()
    }
}

fn text_of(entry: &Value, field: &str) -> String {
    entry[field].as_str().unwrap_or_else(|| panic!("no {field} in {entry}")).to_owned()
}

/// Percent-encodes everything but unreserved characters and slashes.
pub fn encode_path(path: &str) -> String {
    path.split('/').map(encode_all).collect::<Vec<_>>().join("/")
}

fn encode_all(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}
