//! `Idempotency-Key`: a retry after a lost answer acts once.

use futures::future::join_all;

use crate::harness::{Server, etag_of, heavy, shared_server};

const KEY: &str = "idempotency-key";

#[tokio::test]
async fn http_idempotency_a_repeated_put_acts_once() {
    let server = shared_server();
    let api = server.api();
    for (n, content) in [b"small".to_vec(), vec![9u8; 17 << 20]].into_iter().enumerate() {
        let (path, key) = (format!("idempotency/put-{n}"), format!("put-key-{n}"));
        let first = api.put_with(&path, &[(KEY, &key)], content.clone()).await.ok();
        api.put(&path, "written in between").await.ok();
        let again = api.put_with(&path, &[(KEY, &key)], content.clone()).await.ok();
        assert_eq!((again.status, again.etag()), (first.status, etag_of(&content)), "the first answer again");
        assert_eq!(api.get(&path).await.body, "written in between", "the retry did nothing");
    }
}

#[tokio::test]
async fn http_idempotency_a_repeated_put_with_a_condition_succeeds_again() {
    let server = shared_server();
    let api = server.api();
    let headers: &[(&str, &str)] = &[(KEY, "create-once"), ("if-none-match", "*")];
    let first = api.put_with("idempotency/create", headers, "x").await.ok();
    let again = api.put_with("idempotency/create", headers, "x").await;
    assert_eq!(again.status, first.status, "its own success is no conflict: {}", again.text());
    api.put_with("idempotency/create", &[("if-none-match", "*")], "x")
        .await
        .refused(412, "precondition_failed");
}

#[tokio::test]
async fn http_idempotency_a_repeated_delete_acts_once() {
    let server = shared_server();
    let api = server.api();
    api.put("idempotency/delete", "old").await.ok();
    let first = api.delete_with("idempotency/delete", &[(KEY, "delete-key")]).await.ok();
    api.put("idempotency/delete", "new").await.ok();
    let again = api.delete_with("idempotency/delete", &[(KEY, "delete-key")]).await;
    assert_eq!(again.status, first.status, "{}", again.text());
    assert_eq!(api.get("idempotency/delete").await.body, "new", "the retry removed nothing");
    api.delete("idempotency/delete").await.ok();
}

#[tokio::test]
async fn http_idempotency_the_same_key_for_another_request_is_refused() {
    let server = shared_server();
    let api = server.api();
    let key: &[(&str, &str)] = &[(KEY, "conflict-key")];
    api.put_with("idempotency/conflict", key, "one").await.ok();
    api.put_with("idempotency/conflict", key, "two").await.refused(422, "idempotency_conflict");
    api.put_with("idempotency/elsewhere", key, "one").await.refused(422, "idempotency_conflict");
    api.delete_with("idempotency/conflict", key).await.refused(422, "idempotency_conflict");
    let typed: &[(&str, &str)] = &[(KEY, "conflict-key"), ("content-type", "text/x-other")];
    api.put_with("idempotency/conflict", typed, "one").await.refused(422, "idempotency_conflict");
    assert_eq!(api.get("idempotency/conflict").await.body, "one");
    assert_eq!(api.get("idempotency/elsewhere").await.status, 404);
}

#[tokio::test]
async fn http_idempotency_keys_have_a_limit() {
    let server = shared_server();
    let api = server.api();
    api.put_with("idempotency/limit", &[(KEY, &"k".repeat(128))], "x").await.ok();
    let long = api.put_with("idempotency/limit-2", &[(KEY, &"k".repeat(129))], "x").await;
    long.refused(400, "invalid_argument");
    assert_eq!(api.get("idempotency/limit-2").await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_idempotency_at_the_same_time_acts_once() {
    let server = shared_server();
    let api = server.api();
    for round in 0..5 {
        let path = format!("idempotency/race-{round}");
        let key = format!("race-{round}");
        let all = join_all((0..8).map(|_| {
            let (api, path, key) = (api.clone(), path.clone(), key.clone());
            async move {
                let headers: &[(&str, &str)] = &[(KEY, &key), ("if-none-match", "*")];
                api.put_with(&path, headers, "same").await
            }
        }))
        .await;
        for answer in all {
            // One acts, the others hear of its success; who comes while it acts may be told to come again.
            assert!(answer.is_success() || answer.status == 503, "{}: {}", answer.status, answer.text());
        }
        assert_eq!(api.get(&path).await.body, "same");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_idempotency_outlives_a_crash() {
    let _turn = heavy().await;
    let mut server = Server::start();
    let api = server.api();
    api.put_with("file", &[(KEY, "before the crash")], "first").await.ok();
    api.put("gone", "x").await.ok();
    api.delete_with("gone", &[(KEY, "delete before")]).await.ok();
    server.restart();
    let api = server.api();
    api.put("file", "second").await.ok();
    api.put("gone", "back").await.ok();
    api.put_with("file", &[(KEY, "before the crash")], "first").await.ok();
    api.delete_with("gone", &[(KEY, "delete before")]).await.ok();
    assert_eq!(api.get("file").await.body, "second", "a retry after a restart acts once");
    assert_eq!(api.get("gone").await.body, "back", "a retry after a restart acts once");
}
