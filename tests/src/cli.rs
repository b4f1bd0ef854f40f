//! The commands as a user types them: output, JSON, exit codes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::harness::{Ran, Server, etag_of, hay, hay_binary, hay_with_input, shared_server};

/// Runs a command against `server` by its credentials file.
fn run(server: &Server, args: &[&str]) -> Ran {
    hay(args, &[("HAY_CREDENTIALS", server.credentials().to_str().unwrap())])
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// All commands, found by walking the help as a user would.
fn commands() -> Vec<Vec<String>> {
    let mut found = vec![vec![]];
    let mut open: Vec<Vec<String>> = vec![vec![]];
    while let Some(prefix) = open.pop() {
        let mut args: Vec<&str> = prefix.iter().map(String::as_str).collect();
        args.push("--help");
        let help = hay(&args, &[]).ok().text();
        let Some((_, list)) = help.split_once("Commands:\n") else { continue };
        for line in list.lines().take_while(|l| !l.trim().is_empty()) {
            // A command stands two columns in; its description may go on further right.
            let Some(name) = line.strip_prefix("  ").filter(|l| !l.starts_with(' ')) else { continue };
            let name = name.split_whitespace().next().unwrap().to_owned();
            if name != "help" {
                let mut command = prefix.clone();
                command.push(name);
                found.push(command.clone());
                open.push(command);
            }
        }
    }
    found
}

#[test]
fn cli_help_of_every_command_teaches() {
    let commands = commands();
    for wanted in ["server", "put", "get", "ls", "cat", "rm", "stat", "bench"] {
        assert!(commands.iter().any(|c| c == &[wanted]), "no command {wanted}");
    }
    for wanted in [["cluster", "status"], ["volume", "list"], ["volume", "show"]] {
        assert!(commands.iter().any(|c| c == &wanted), "no command {wanted:?}");
    }
    for command in commands {
        let mut args: Vec<&str> = command.iter().map(String::as_str).collect();
        args.push("--help");
        let ran = hay(&args, &[]).ok();
        assert!(ran.text().contains("Usage:") && ran.text().len() > 100, "{}: {}", ran.shown, ran.text());
        assert!(ran.stderr.is_empty(), "{}: {}", ran.shown, ran.stderr);
    }
    let version = hay(&["--version"], &[]).ok().text();
    assert!(version.starts_with("hay ") && version.contains('.'), "{version}");
}

#[test]
fn cli_mistakes_end_with_2_and_a_way_out() {
    for args in [
        &["frobnicate"][..],
        &["put"],
        &["put", "only-one"],
        &["ls", "--no-such-flag"],
        &["get", "-j", "0", "/x"],
        &["volume", "show", "seven"],
        &["server", "--http", "nowhere"],
        &["completions", "no-such-shell"],
    ] {
        let ran = hay(args, &[]).fails_naming(&[]);
        assert_eq!(ran.code, Some(2), "{}: {}", ran.shown, ran.stderr);
        assert!(!ran.stderr.trim().is_empty() && ran.stdout.is_empty(), "{}", ran.shown);
    }
}

#[test]
fn cli_put_get_cat_ls_stat_rm_of_one_file() {
    let server = shared_server();
    let dir = tempfile::tempdir().unwrap();
    let (source, back) = (dir.path().join("notes.txt"), dir.path().join("back.txt"));
    fs::write(&source, "some notes").unwrap();

    run(&server, &["put", text(&source), "/cli/one/notes.txt"]).ok();
    run(&server, &["put", text(&source), "/cli/one/into/"]).ok();
    run(&server, &["put", "--content-type", "text/plain", text(&source), "/cli/one/typed"]).ok();

    run(&server, &["get", "/cli/one/notes.txt", text(&back)]).ok();
    assert_eq!(fs::read_to_string(&back).unwrap(), "some notes");
    run(&server, &["get", "/cli/one/into/notes.txt", text(dir.path())]).ok();
    assert_eq!(run(&server, &["get", "/cli/one/notes.txt", "-"]).ok().text(), "some notes");
    assert_eq!(
        run(&server, &["cat", "/cli/one/notes.txt", "/cli/one/typed"]).ok().text(),
        "some notessome notes"
    );

    let listed = run(&server, &["ls", "/cli/one"]).ok().text();
    for name in ["notes.txt", "into", "typed"] {
        assert!(listed.contains(name), "{listed}");
    }
    let deep = run(&server, &["ls", "-r", "/cli/one"]).ok().text();
    assert!(deep.contains("into/notes.txt"), "{deep}");
    let long = run(&server, &["ls", "-l", "/cli/one"]).ok().text();
    assert!(long.contains("10"), "sizes are shown: {long}");

    let stat = run(&server, &["stat", "/cli/one/typed"]).ok().text();
    assert!(stat.contains("text/plain") && stat.contains(etag_of(b"some notes").trim_matches('"')), "{stat}");

    run(&server, &["rm", "/cli/one/notes.txt"]).ok();
    let gone = run(&server, &["cat", "/cli/one/notes.txt"]).fails_naming(&["notes.txt"]);
    assert_eq!(gone.code, Some(3));
    assert_eq!(run(&server, &["rm", "/cli/one/notes.txt"]).code, Some(3));
    assert_eq!(run(&server, &["stat", "/cli/one/notes.txt"]).code, Some(3));
    assert_eq!(run(&server, &["ls", "/cli/one/nothing"]).code, Some(3));
    assert_eq!(run(&server, &["get", "/cli/one/nothing", text(&back)]).code, Some(3));
    assert_eq!(fs::read_to_string(&back).unwrap(), "some notes", "a failed get leaves the old file alone");
}

#[test]
fn cli_pipes_bytes_through_stdin_and_stdout() {
    let server = shared_server();
    let credentials = server.credentials();
    let env = [("HAY_CREDENTIALS", text(&credentials))];
    let bytes = crate::harness::Pattern::new(crate::harness::seed(), 9_000_001).bytes();
    hay_with_input(&["put", "-", "/cli/pipe"], &env, &bytes).ok();
    let back = hay(&["cat", "/cli/pipe"], &env).ok();
    assert!(back.stdout == bytes, "{} bytes came back", back.stdout.len());
    assert!(back.stderr.is_empty(), "{}", back.stderr);
    hay_with_input(&["put", "-", "/cli/pipe-empty"], &env, b"").ok();
    assert!(hay(&["cat", "/cli/pipe-empty"], &env).ok().stdout.is_empty());
}

#[test]
fn cli_json_stands_alone_on_stdout() {
    let server = shared_server();
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("folder/sub")).unwrap();
    fs::write(dir.path().join("folder/a"), "a").unwrap();
    fs::write(dir.path().join("folder/sub/b"), "bb").unwrap();
    let folder = dir.path().join("folder");
    let back = dir.path().join("back");

    let put = run(&server, &["put", "-r", "--json", text(&folder), "/cli/json"]).ok().json();
    assert_eq!(put["files"].as_u64(), Some(2), "{put}");
    assert_eq!(put["bytes"].as_u64(), Some(3), "{put}");
    let get = run(&server, &["--json", "get", "-r", "/cli/json", text(&back)]).ok().json();
    assert_eq!(get["files"].as_u64(), Some(2), "{get}");
    let ls = run(&server, &["ls", "-r", "--json", "/cli/json"]).ok().json();
    let paths: Vec<&str> =
        ls["entries"].as_array().unwrap().iter().filter_map(|e| e["path"].as_str()).collect();
    assert!(paths.contains(&"cli/json/sub/b"), "{paths:?}");
    let stat = run(&server, &["stat", "--json", "/cli/json/a"]).ok().json();
    assert_eq!(stat["size"].as_u64(), Some(1), "{stat}");
    for args in [
        &["cluster", "status", "--json"][..],
        &["volume", "list", "--json"],
        &["usage", "--json"],
        &["rm", "-r", "--dry-run", "--json", "/cli/json"],
        &["put", "--json", text(&folder.join("a")), "/cli/json/again"],
        &["mkdir", "--json", "/cli/json/dir"],
        &["diff", "-r", "--json", text(&back), "/cli/json/sub"],
    ] {
        run(&server, args).json();
    }
    let volumes = run(&server, &["volume", "list", "--json"]).ok().json();
    let id = volumes["volumes"][0]["id"].as_u64().unwrap_or_else(|| panic!("{volumes}")).to_string();
    run(&server, &["volume", "show", &id, "--json"]).ok().json();
    assert_eq!(run(&server, &["volume", "show", "4000000000"]).code, Some(3));

    // An error is JSON too, with the code that the exit code stands for.
    let missing = run(&server, &["stat", "--json", "/cli/json/missing"]);
    assert_eq!((missing.code, missing.json()["error"]["code"].as_str()), (Some(3), Some("not_found")));
    run(&server, &["rm", "-r", "--yes", "--json", "/cli/json"]).ok().json();
}

#[test]
fn cli_rm_asks_and_shows_before_it_destroys() {
    let server = shared_server();
    let credentials = server.credentials();
    let env = [("HAY_CREDENTIALS", text(&credentials))];
    for name in ["a", "sub/b", "sub/c"] {
        hay_with_input(&["put", "-", &format!("/cli/rm/{name}")], &env, b"x").ok();
    }
    let dry = run(&server, &["rm", "-r", "--dry-run", "/cli/rm"]).ok();
    for name in ["cli/rm/a", "cli/rm/sub/b", "cli/rm/sub/c"] {
        assert!(dry.text().contains(name), "{}", dry.text());
    }
    // Without a terminal to ask on, nothing goes without --yes.
    run(&server, &["rm", "-r", "/cli/rm"]).fails_naming(&["--yes"]);
    run(&server, &["rm", "/cli/rm"]).fails_naming(&[]);
    assert_eq!(run(&server, &["cat", "/cli/rm/sub/c"]).ok().text(), "x", "all is still there");
    run(&server, &["rm", "-r", "--yes", "/cli/rm"]).ok();
    assert_eq!(run(&server, &["ls", "/cli/rm"]).code, Some(3));
}

#[test]
fn cli_folders_with_links_and_mistakes_are_counted() {
    let server = shared_server();
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("folder");
    fs::create_dir_all(folder.join("empty")).unwrap();
    fs::write(folder.join("file"), "x").unwrap();
    fs::write(dir.path().join("outside"), "outside").unwrap();
    std::os::unix::fs::symlink("../outside", folder.join("link")).unwrap();
    let put = run(&server, &["put", "-r", "--json", text(&folder), "/cli/links"]).ok().json();
    assert_eq!(put["files"].as_u64(), Some(1), "{put}");
    assert_eq!(put["skipped"]["symlinks"].as_u64(), Some(1), "the link is counted: {put}");
    assert_eq!(run(&server, &["cat", "/cli/links/link"]).code, Some(3));
    run(&server, &["put", "-r", "--follow", text(&folder), "/cli/followed"]).ok();
    assert_eq!(run(&server, &["cat", "/cli/followed/link"]).ok().text(), "outside");
    let back = dir.path().join("back");
    run(&server, &["get", "-r", "/cli/links", text(&back)]).ok();
    assert!(back.join("empty").is_dir(), "empty directories are kept");
    assert!(!back.join("link").exists());

    // A folder without -r, a file with it, nothing at all.
    run(&server, &["put", text(&folder), "/cli/folder"]).fails_naming(&["-r"]);
    run(&server, &["put", text(&dir.path().join("missing")), "/cli/x"]).fails_naming(&["missing"]);
    run(&server, &["get", "/cli/links", text(&dir.path().join("x"))]).fails_naming(&["-r"]);
}

#[test]
fn cli_diff_finds_what_differs() {
    let server = shared_server();
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("folder");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("same"), "same").unwrap();
    fs::write(folder.join("other"), "one").unwrap();
    run(&server, &["put", "-r", text(&folder), "/cli/diff"]).ok();
    run(&server, &["diff", "-r", text(&folder), "/cli/diff"]).ok();
    fs::write(folder.join("other"), "two").unwrap();
    fs::write(folder.join("only-here"), "x").unwrap();
    let ran = run(&server, &["diff", "-r", text(&folder), "/cli/diff"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(
        ran.text().contains("other") && ran.text().contains("only-here") && !ran.text().contains("same\n")
    );
}

#[test]
fn cli_says_who_is_not_there_and_who_is_not_let_in() {
    let server = shared_server();
    let credentials = server.credentials();
    // A port that nobody listens on: bound and let go.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{free}");
    let gone =
        hay(&["ls", "/"], &[("HAY_SERVER", &url), ("HAY_TOKEN", "hay_x")]).fails_naming(&[&free.to_string()]);
    assert_eq!(gone.code, Some(5));
    let denied =
        hay(&["ls", "/"], &[("HAY_SERVER", &server.url()), ("HAY_TOKEN", "hay_wrong")]).fails_naming(&[]);
    assert_eq!(denied.code, Some(4));
    assert!(!denied.stderr.contains("hay_wrong"), "the token is shown: {}", denied.stderr);
    let told = hay(&["ls", "/"], &[("HAY_SERVER", "not a url"), ("HAY_TOKEN", "hay_x")]).fails_naming(&[]);
    assert_eq!(told.code, Some(2));

    // A token that everybody can read is not used.
    let dir = tempfile::tempdir().unwrap();
    let open = dir.path().join("credentials.toml");
    fs::copy(&credentials, &open).unwrap();
    for mode in [0o644, 0o640, 0o604, 0o666] {
        fs::set_permissions(&open, fs::Permissions::from_mode(mode)).unwrap();
        let ran =
            hay(&["ls", "/", "--credentials", text(&open)], &[]).fails_naming(&["chmod 600", text(&open)]);
        assert_eq!(ran.code, Some(2), "{mode:o}");
        assert!(!ran.stderr.contains(server.token()));
    }
    fs::set_permissions(&open, fs::Permissions::from_mode(0o600)).unwrap();
    hay(&["ls", "/", "--credentials", text(&open)], &[]).ok();

    fs::write(&open, format!("token = \"{}\"\nserver = 7\n", server.token())).unwrap();
    let ran = hay(&["ls", "/", "--credentials", text(&open)], &[]).fails_naming(&[text(&open)]);
    assert!(!ran.stderr.contains(server.token()), "the file's token is shown: {}", ran.stderr);
    let missing = dir.path().join("missing.toml");
    hay(&["ls", "/", "--credentials", text(&missing)], &[]).fails_naming(&[text(&missing)]);
}

#[test]
fn cli_get_never_leaves_its_target() {
    let server = shared_server();
    let dir = tempfile::tempdir().unwrap();
    let credentials = server.credentials();
    let env = [("HAY_CREDENTIALS", text(&credentials))];
    hay_with_input(&["put", "-", "/cli/escape/d/inner"], &env, b"theirs").ok();
    // Where a directory should come, the user has a link to somewhere else.
    let target = dir.path().join("target");
    let elsewhere = dir.path().join("elsewhere");
    fs::create_dir_all(&target).unwrap();
    fs::create_dir_all(&elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, target.join("d")).unwrap();
    let ran = run(&server, &["get", "-r", "/cli/escape", text(&target)]);
    let followed = elsewhere.join("inner").exists();
    assert!(!followed, "get -r wrote through a link out of its target (exit code {:?})", ran.code);
}

#[test]
fn cli_waits_for_a_server_and_gives_up() {
    let server = shared_server();
    run(&server, &["wait", "--timeout", "30s"]).ok();
    let dir = tempfile::tempdir().unwrap();
    let nowhere = dir.path().join("credentials.toml");
    hay(&["wait", "--timeout", "1s", "--credentials", text(&nowhere)], &[]).fails_naming(&[]);
}

#[test]
fn cli_completions_of_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = hay(&["completions", shell], &[]).ok().text();
        assert!(script.contains("hay") && script.len() > 1_000, "{shell}");
    }
}

#[test]
fn cli_a_closed_pipe_is_no_panic() {
    let server = shared_server();
    let credentials = server.credentials();
    for n in 0..50 {
        hay_with_input(
            &["put", "-", &format!("/cli/pipe-many/{n}")],
            &[("HAY_CREDENTIALS", text(&credentials))],
            b"x",
        )
        .ok();
    }
    let script = format!("'{}' ls -r / | head -n 1", hay_binary().display());
    let output = std::process::Command::new("sh")
        .args(["-c", &script])
        .env("HAY_CREDENTIALS", &credentials)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!stderr.contains("panicked"), "{stderr}");
}

#[test]
fn cli_a_cluster_key_is_made_by_a_bare_name_and_refused_where_others_can_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let in_dir = |args: &[&str]| {
        let output =
            std::process::Command::new(hay_binary()).args(args).current_dir(dir.path()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(in_dir(&["cluster", "new-key", "cluster.key"]).0, Some(0));
    let key = dir.path().join("cluster.key");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let (code, stderr) = in_dir(&["cluster", "new-key", "cluster.key"]);
    assert!(code == Some(1) && stderr.contains("already"), "{code:?} {stderr}");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let (code, stderr) =
        in_dir(&["master", "--dir", "m", "--cluster-key", "cluster.key", "--listen", "127.0.0.1:0"]);
    assert!(code == Some(1) && stderr.contains("chmod 600 cluster.key"), "{code:?} {stderr}");
    assert!(!dir.path().join("m").exists(), "nothing was begun");
}
