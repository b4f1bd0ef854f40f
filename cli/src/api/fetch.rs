//! Reading a file whole, over lost connections: what came is kept, and the rest is asked for by range, on the
//! condition that the file is still the same.

use std::time::Duration;

use bytes::Bytes;
use hay_common::ids::ContentHash;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, IF_MATCH, RANGE};
use http::{Method, StatusCode};
use reqwest::Response;
use tokio::sync::mpsc;

use super::client::{Client, etag_of};
use super::error::ApiError;
use super::routes;
use crate::remote::RemotePath;

/// Pieces between the connection and whoever takes them; a piece is what one read of the socket gave.
pub const PIECES_IN_FLIGHT: usize = 16;
/// A stream that brings nothing for this long is lost.
const STALL_MAX: Duration = Duration::from_secs(60);

/// A file that came whole, as far as its length goes. Whether the bytes are right is for the taker to verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fetched {
    /// What the bytes must hash to.
    pub etag: ContentHash,
    /// How many they were.
    pub size: u64,
}

struct Progress {
    etag: Option<ContentHash>,
    size: Option<u64>,
    done: u64,
}

impl Client {
    /// Sends the bytes of a file into `pieces`.
    ///
    /// # Errors
    /// What the server or the connection says, after the retries; `Changed` where the file was replaced between
    /// two tries; `Cancelled` where the receiver is gone.
    pub async fn fetch(&self, path: &RemotePath, pieces: &mpsc::Sender<Bytes>) -> Result<Fetched, ApiError> {
        let mut progress = Progress { etag: None, size: None, done: 0 };
        let mut attempt = 0;
        loop {
            let before = progress.done;
            let error = match self.fetch_rest(path, pieces, &mut progress).await {
                Ok(fetched) => return Ok(fetched),
                Err(error) => error,
            };
            // Tries that bring the file forward don't use the allowance up.
            attempt = if progress.done > before { 1 } else { attempt + 1 };
            if !self.pause(&error, attempt).await {
                return Err(error);
            }
        }
    }

    async fn fetch_rest(
        &self,
        path: &RemotePath,
        pieces: &mpsc::Sender<Bytes>,
        progress: &mut Progress,
    ) -> Result<Fetched, ApiError> {
        let mut request = self.request(Method::GET, &routes::file(path));
        if let Some(etag) = progress.etag {
            request = request.header(IF_MATCH, format!("\"{etag}\""));
        }
        if progress.done > 0 {
            request = request.header(RANGE, format!("bytes={}-", progress.done));
        }
        let resumed = progress.done > 0;
        let mut response = match self.send_soon(request).await {
            Err(error)
                if resumed && error.code() == Some(hay_common::error::ErrorCode::PreconditionFailed) =>
            {
                return Err(ApiError::Changed { what: path.shown() });
            }
            other => other?,
        };
        let (etag, size) = check_head(path, &response, progress)?;
        progress.etag = Some(etag);
        progress.size = Some(size);
        while progress.done < size {
            let next = tokio::time::timeout(STALL_MAX, response.chunk())
                .await
                .map_err(|_| self.broken("the stream stalled".into()))?;
            let piece = next.map_err(|error| self.lost(&error))?.ok_or_else(|| {
                self.broken(format!("{} ended after {} of {size} bytes", path.shown(), progress.done))
            })?;
            progress.done += piece.len() as u64;
            if progress.done > size {
                return Err(odd(path, "more bytes than announced"));
            }
            pieces.send(piece).await.map_err(|_| ApiError::Cancelled)?;
        }
        // Reads the end of the body, so that the connection can be used again.
        let _ = response.chunk().await;
        Ok(Fetched { etag, size })
    }
}

fn odd(path: &RemotePath, cause: &str) -> ApiError {
    ApiError::Answer { what: format!("GET {}", path.shown()), cause: cause.to_owned() }
}

fn check_head(
    path: &RemotePath,
    response: &Response,
    progress: &Progress,
) -> Result<(ContentHash, u64), ApiError> {
    let headers = response.headers();
    let etag = etag_of(headers).ok_or_else(|| odd(path, "it has no ETag that is a content hash"))?;
    if progress.etag.is_some_and(|before| before != etag) {
        return Err(ApiError::Changed { what: path.shown() });
    }
    let length: Option<u64> =
        headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok());
    let length = length.ok_or_else(|| odd(path, "it has no Content-Length"))?;
    let expected = if progress.done > 0 { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    if response.status() != expected {
        return Err(odd(path, &format!("status {} instead of {expected}", response.status())));
    }
    if progress.done > 0 {
        let start = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if !start.starts_with(&format!("bytes {}-", progress.done)) {
            return Err(odd(path, "its Content-Range does not begin where it was asked to"));
        }
    }
    let size = progress.done + length;
    if progress.size.is_some_and(|before| before != size) {
        return Err(odd(path, "its length differs from before under the same ETag"));
    }
    Ok((etag, size))
}
