//! Listings: order, pages, recursion.

use futures::{StreamExt, stream};

use crate::harness::{Api, etag_of, shared_server};

const TREE: &[&str] = &[
    "b",
    "a",
    "a.txt",
    "a-b",
    "ab",
    "d/one",
    "d/two",
    "d/deep/er/file",
    "d.x",
    "d-x/y",
    "d0",
    "z/",
    "Ü",
    "empty/",
];

async fn store(api: &Api, root: &str) {
    for path in TREE {
        api.put(&format!("{root}/{path}"), if path.ends_with('/') { "" } else { path }).await.ok();
    }
}

fn sorted(mut paths: Vec<String>) -> Vec<String> {
    paths.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    paths
}

#[tokio::test]
async fn http_listing_names_what_is_in_one_directory() {
    let server = shared_server();
    let api = server.api();
    store(&api, "listing").await;
    let page = api.list_page("listing", "").await.ok().json();
    assert!(page["next"].is_null(), "one page is all: {page}");
    let entries = page["entries"].as_array().unwrap().clone();
    let names: Vec<&str> =
        entries.iter().map(|e| e["name"].as_str().unwrap().trim_end_matches('/')).collect();
    let mut expected = vec!["b", "a", "a.txt", "a-b", "ab", "d", "d.x", "d-x", "d0", "z", "Ü", "empty"];
    expected.sort_unstable();
    let mut found = names.clone();
    found.sort_unstable();
    assert_eq!(found, expected);

    let of = |name: &str| {
        entries.iter().find(|e| e["name"].as_str().unwrap().trim_end_matches('/') == name).cloned().unwrap()
    };
    let file = of("a.txt");
    assert_eq!((file["type"].as_str(), file["size"].as_u64()), (Some("file"), Some(5)), "{file}");
    assert_eq!(file["path"], "listing/a.txt");
    let etag = etag_of(b"a.txt");
    assert_eq!(file["etag"].as_str().map(|e| e.trim_matches('"')), Some(etag.trim_matches('"')), "{file}");
    assert!(!file["modified"].is_null(), "{file}");
    assert!(file.get("content_type").is_some(), "{file}");
    let dir = of("d");
    assert_eq!(dir["type"], "directory", "{dir}");
    assert!(dir["etag"].is_null(), "{dir}");

    // With and without the slash at the end it is the same directory.
    let slashed = api.list_page("listing/", "").await.ok().json();
    assert_eq!(slashed["entries"], page["entries"]);
}

#[tokio::test]
async fn http_listing_goes_deep_in_the_order_of_bytes() {
    let server = shared_server();
    let api = server.api();
    store(&api, "listing-deep").await;
    let all = api.list_all("listing-deep", true, 1000).await;
    let files: Vec<String> = all.iter().filter(|(_, kind)| kind == "file").map(|(p, _)| p.clone()).collect();
    let expected: Vec<String> =
        TREE.iter().filter(|p| !p.ends_with('/')).map(|p| format!("listing-deep/{p}")).collect();
    assert_eq!(sorted(files.clone()), sorted(expected));
    let paths: Vec<String> = all.iter().map(|(p, _)| p.clone()).collect();
    assert_eq!(paths, sorted(paths.clone()), "sorted as bytes, so that listings are in S3's order");
    for dir in ["listing-deep/empty", "listing-deep/d/deep/er"] {
        let listed = all.iter().find(|(p, _)| p.trim_end_matches('/') == dir);
        assert_eq!(listed.map(|(_, k)| k.as_str()), Some("directory"), "{dir} is kept");
    }
}

#[tokio::test]
async fn http_listing_pages_of_any_size_make_the_same_whole() {
    let server = shared_server();
    let api = server.api();
    store(&api, "listing-pages").await;
    for recursive in [false, true] {
        let whole = api.list_all("listing-pages", recursive, 1000).await;
        for limit in 1..=whole.len() + 1 {
            assert_eq!(
                api.list_all("listing-pages", recursive, limit).await,
                whole,
                "limit={limit}, {recursive}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_listing_of_more_than_a_page() {
    let server = shared_server();
    let api = server.api();
    const COUNT: usize = 1_300;
    stream::iter(0..COUNT)
        .for_each_concurrent(32, |n| {
            let api = api.clone();
            async move {
                api.put(&format!("listing-many/f{n:05}"), format!("{n}")).await.ok();
            }
        })
        .await;
    let first = api.list_page("listing-many", "").await.ok().json();
    assert_eq!(first["entries"].as_array().unwrap().len(), 1_000, "the default page");
    assert!(first["next"].is_string());
    let all = api.list_all("listing-many", false, 700).await;
    let expected: Vec<String> = (0..COUNT).map(|n| format!("listing-many/f{n:05}")).collect();
    assert_eq!(all.into_iter().map(|(p, _)| p).collect::<Vec<_>>(), expected);

    // Removed at one blow, in more than one command.
    let removed =
        api.send(reqwest::Method::DELETE, "/api/nfs/files/listing-many/?recursive=true", &[], "").await;
    assert!(removed.is_success(), "{}: {}", removed.status, removed.text());
    assert_eq!(api.list_page("listing-many", "").await.status, 404);
    assert_eq!(api.get("listing-many/f00700").await.status, 404);
}

#[tokio::test]
async fn http_listing_refuses_parameters_that_it_cannot_use() {
    let server = shared_server();
    let api = server.api();
    api.put("listing-bad/x", "x").await.ok();
    for query in
        ["limit=abc", "limit=-1", "limit=1.5", "limit=99999999999999999999", "recursive=perhaps", "after=%00"]
    {
        let answer = api.list_page("listing-bad", query).await;
        assert_eq!(answer.status, 400, "{query}: {}", answer.text());
        assert_eq!(answer.error_code(), "invalid_argument", "{query}");
    }
    // Whether 0 and what is beyond the limit are refused or brought into it: no page is ever larger.
    for query in ["limit=0", "limit=10001", "limit=4294967295"] {
        let answer = api.list_page("listing-bad", query).await;
        assert!(matches!(answer.status, 200 | 400), "{query}: {}", answer.status);
    }
    let beyond = api.list_page("listing-bad", "after=zzzz").await.ok().json();
    assert!(beyond["entries"].as_array().unwrap().is_empty() && beyond["next"].is_null(), "{beyond}");
}
