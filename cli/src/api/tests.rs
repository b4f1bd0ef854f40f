//! The client against a server that loses connections, answers late, early and wrongly.

use std::time::Duration;

use bytes::Bytes;
use hay_common::error::ErrorCode;
use tokio::sync::mpsc;

use super::scripted::{Act, answer, play};
use super::{ApiError, Client, EntryType, Fetched, Piece, PieceBody, PutBody};
use crate::files::content_hash;
use crate::remote::RemotePath;

fn path() -> RemotePath {
    RemotePath::parse("/a/b c").unwrap()
}

fn etag(bytes: &[u8]) -> String {
    format!("etag: \"{}\"\r\n", content_hash(bytes))
}

async fn fetch(client: &Client) -> (Result<Fetched, ApiError>, Vec<u8>) {
    let (tx, mut rx) = mpsc::channel(64);
    let fetched = client.fetch(&path(), &tx).await;
    drop(tx);
    let mut bytes = Vec::new();
    while let Some(piece) = rx.recv().await {
        bytes.extend_from_slice(&piece);
    }
    (fetched, bytes)
}

/// An answer that promises `whole` and brings the first `cut` bytes.
fn cut_short(whole: &[u8], cut: usize) -> Vec<u8> {
    let mut bytes = answer("200 OK", &etag(whole), whole);
    bytes.truncate(bytes.len() - whole.len() + cut);
    bytes
}

fn rest(whole: &[u8], from: usize, tag: &[u8]) -> Vec<u8> {
    let range = format!("{}content-range: bytes {from}-{}/{}\r\n", etag(tag), whole.len() - 1, whole.len());
    answer("206 Partial Content", &range, &whole[from..])
}

#[tokio::test]
async fn a_download_goes_on_where_it_broke() {
    let whole = b"hello, wide world".as_slice();
    let script = vec![
        Act::Hang,
        Act::Answer(cut_short(whole, 5)),
        Act::Answer(answer("503 Service Unavailable", "", b"")),
        Act::Answer(rest(whole, 5, whole)),
    ];
    let (client, log) = play(script).await;
    let (fetched, bytes) = fetch(&client).await;
    assert_eq!(fetched.unwrap(), Fetched { etag: content_hash(whole), size: whole.len() as u64 });
    assert_eq!(bytes, whole);
    let log = log.lock();
    assert_eq!(log[3].header("range"), Some("bytes=5-"));
    assert_eq!(log[3].header("if-match"), Some(format!("\"{}\"", content_hash(whole)).as_str()));
    assert_eq!(log[1].header("range"), None);
    assert_eq!(log[0].header("authorization"), Some("Bearer hay_test"));
    assert!(log[0].head.starts_with("GET /api/nfs/files/a/b%20c HTTP/1.1\r\n"), "{}", log[0].head);
}

#[tokio::test]
async fn a_file_that_was_replaced_in_between_is_no_mixture() {
    let whole = b"hello, wide world".as_slice();
    for second in [
        rest(whole, 5, b"another file"),
        answer("412 Precondition Failed", "", br#"{"error":{"code":"precondition_failed","message":"m"}}"#),
    ] {
        let (client, _) = play(vec![Act::Answer(cut_short(whole, 5)), Act::Answer(second)]).await;
        let (fetched, bytes) = fetch(&client).await;
        assert!(matches!(fetched, Err(ApiError::Changed { .. })), "{fetched:?}");
        assert_eq!(bytes, b"hello", "nothing of the other file came");
    }
}

#[tokio::test]
async fn a_whole_answer_to_a_range_is_not_taken_for_the_rest() {
    let whole = b"hello, wide world".as_slice();
    let script = vec![Act::Answer(cut_short(whole, 5)), Act::Answer(answer("200 OK", &etag(whole), whole))];
    let (client, _) = play(script).await;
    let (fetched, bytes) = fetch(&client).await;
    assert!(matches!(fetched, Err(ApiError::Answer { .. })), "{fetched:?}");
    assert_eq!(bytes, b"hello");
}

#[tokio::test]
async fn a_write_is_repeated_under_the_same_key() {
    let stored = answer("201 Created", &etag(b"abc"), b"");
    let script =
        vec![Act::Hang, Act::Answer(answer("503 Service Unavailable", "", b"")), Act::Answer(stored)];
    let (client, log) = play(script).await;
    let key = client.idempotency_key();
    let body = Bytes::from_static(b"abc");
    let path = path();
    let put = client.with_retries(|| client.put_once(&path, &key, None, PutBody::Whole(body.clone()))).await;
    assert_eq!(put.unwrap().etag, Some(content_hash(b"abc")));
    let log = log.lock();
    assert_eq!(log.len(), 3);
    for asked in log.iter() {
        assert_eq!(
            (asked.header("idempotency-key"), asked.body.as_slice()),
            (Some(key.as_str()), &b"abc"[..])
        );
    }
    assert_ne!(client.idempotency_key(), key);
}

#[tokio::test]
async fn what_will_not_pass_is_not_repeated() {
    for (status, code) in [
        ("507 Insufficient Storage", ErrorCode::StorageFull),
        ("404 Not Found", ErrorCode::NotFound),
        ("401 Unauthorized", ErrorCode::Unauthenticated),
    ] {
        let body = format!(r#"{{"error":{{"code":"{code}","message":"as told"}}}}"#);
        let (client, log) = play(vec![Act::Answer(answer(status, "", body.as_bytes())), Act::Hang]).await;
        let error = client.stat(&path()).await.unwrap_err();
        // HEAD has no body that counts; the status says enough.
        assert_eq!(error.code(), Some(code), "{error:?}");
        assert_eq!(log.lock().len(), 1, "{code}");
    }
}

/// Each of these waited for ever.
#[tokio::test]
async fn a_server_that_never_answers_is_given_up() {
    const PATIENCE: Duration = Duration::from_millis(50);
    let silent = || async { play((0..6).map(|_| Act::Silence).collect()).await.0.with_patience(PATIENCE) };
    let unreachable = |error: ApiError| assert!(matches!(error, ApiError::Connection { .. }), "{error:?}");
    let client = silent().await;
    unreachable(fetch(&client).await.0.unwrap_err());
    let client = silent().await;
    unreachable(client.remove(&path(), false).await.unwrap_err());
    let client = silent().await;
    let body = PutBody::Whole(Bytes::from_static(b"abc"));
    unreachable(client.put_once(&path(), "key", None, body).await.unwrap_err());
    let (tx, rx) = mpsc::channel(2);
    tx.send(Ok(Piece::Data(Bytes::from_static(b"abc")))).await.unwrap();
    tx.send(Ok(Piece::End)).await.unwrap();
    let body = PutBody::Pieces(PieceBody::new(rx, Some(3)));
    unreachable(client.put_once(&path(), "key", None, body).await.unwrap_err());
}

#[tokio::test]
async fn tries_come_to_an_end() {
    let (client, log) = play((0..20).map(|_| Act::Hang).collect()).await;
    let error = client.remove(&path(), false).await.unwrap_err();
    assert!(matches!(error, ApiError::Connection { .. }), "{error:?}");
    assert_eq!(log.lock().len(), 6);
}

#[tokio::test]
async fn listings_and_heads_are_understood() {
    let page = br#"{"entries":[{"name":"b","path":"a/b","type":"file","size":3,"etag":"\"00\"",
        "modified":"2026-01-31T08:15:30.123Z","content_type":null}],"next":"b"}"#;
    let head = "x-haystore-type: file\r\netag: \"x\"\r\nx-haystore-meta-colour: blue\r\ncontent-type: text/plain\r\n";
    let script = vec![Act::Answer(answer("200 OK", "", page)), Act::Answer(answer("200 OK", head, b""))];
    let (client, log) = play(script).await;
    let listing = client.list(&RemotePath::parse("a/").unwrap(), true, Some("x y")).await.unwrap();
    assert_eq!((listing.entries[0].size, listing.entries[0].etag.as_deref()), (3, Some("00")));
    assert_eq!(listing.next.as_deref(), Some("b"));
    let stat = client.stat(&path()).await.unwrap();
    assert_eq!((stat.kind, stat.metadata["colour"].as_str()), (EntryType::File, "blue"));
    assert!(log.lock()[0].head.contains("after=x%20y"), "{}", log.lock()[0].head);
}
