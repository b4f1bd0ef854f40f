//! What is told of a cluster of which parts don't answer.

use http_body_util::BodyExt;
use serde_json::Value;

use super::*;
use crate::routes::status::cluster_status;

#[tokio::test]
async fn a_part_that_does_not_answer_is_named_and_the_rest_is_told() {
    let inner = Inner::default();
    inner.0.lock().administrator = true;
    let app = app(&inner);
    assert!(cluster_status(&app, &caller()).await.is_err(), "neither masters nor filer say anything");
    inner.0.lock().filer_status = Some(hay_proto::v1::FilerStatusReply {
        cluster: Bytes::from_static(&[1; 16]),
        ready: true,
        ..Default::default()
    });
    let reply = cluster_status(&app, &caller()).await.unwrap();
    let body = reply.into_body().collect().await.unwrap().to_bytes();
    let status: Value = serde_json::from_slice(&body).unwrap();
    assert!(
        status["filer"].is_object() && status["masters"].is_null() && status["nodes"].is_null(),
        "{status}"
    );
    let roles: Vec<&str> =
        status["not_ready"].as_array().unwrap().iter().filter_map(|part| part["role"].as_str()).collect();
    assert_eq!((status["ready"].as_bool(), roles), (Some(false), vec!["master"]));
}
