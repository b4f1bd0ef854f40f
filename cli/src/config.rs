//! From flags, environment and credentials file to a server and a token.
//!
//! A token from a file goes only to the server that the file names, unless the file was named too: a mistyped
//! `--server` must not be handed somebody's token.

use std::fmt;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Where the credentials of a server that was started in the current directory are.
pub const DEFAULT_CREDENTIALS: &str = "data/credentials.toml";
/// A credentials file is two lines.
const CREDENTIALS_BYTES_MAX: u64 = 64 << 10;

/// A bearer token. Shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A token, without the white space around it.
    pub fn new(text: &str) -> Self {
        Self(text.trim().to_owned())
    }

    /// The secret itself, for the `Authorization` header only.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Why there is no usable server and token.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Neither flags nor environment nor a file.
    #[error(
        "no server and token: set HAY_SERVER and HAY_TOKEN, or name the file that `hay server --dir DIR` wrote, \
         as in --credentials DIR/credentials.toml (looked for ./{DEFAULT_CREDENTIALS})"
    )]
    Nothing,
    /// A server but no token for it.
    #[error(
        "no token for {server}: set HAY_TOKEN, or name its credentials file with --credentials \
         (the token of ./{DEFAULT_CREDENTIALS} is for {file_server} and goes nowhere else)"
    )]
    OtherServer {
        /// The one that was asked for.
        server: String,
        /// The one that the file names.
        file_server: String,
    },
    /// A server but no token.
    #[error("no token for {0}: set HAY_TOKEN, or name its credentials file with --credentials")]
    NoToken(String),
    /// A file that was named does not exist.
    #[error("the credentials file {} does not exist; `hay server --dir DIR` writes DIR/credentials.toml", .0.display())]
    Missing(PathBuf),
    /// Others can read the file.
    #[error(
        "the credentials file {} can be read by others (mode {mode:04o}): run `chmod 600 {}`", .path.display(), .path.display()
    )]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It can't be read.
    #[error("the credentials file {} can't be read: {source}", .path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not what it should be. The parser's own message quotes the file, and is left out for that.
    #[error("the credentials file {} needs two lines, server = \"http://…\" and token = \"…\"", .0.display())]
    Malformed(PathBuf),
    /// Not a usable address.
    #[error("{0:?} is not a server's address: write http://HOST:PORT or https://HOST:PORT")]
    BadServer(String),
    /// Not a usable token.
    #[error("the token holds characters that no token has")]
    BadToken,
}

impl ConfigError {
    /// Whether waiting for a server's first start can mend it.
    pub fn may_appear(&self) -> bool {
        matches!(self, Self::Nothing | Self::Missing(_) | Self::Malformed(_))
    }
}

/// What the command line and the environment say.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// `--server` or `HAY_SERVER`.
    pub server: Option<String>,
    /// `--token` or `HAY_TOKEN`.
    pub token: Option<Token>,
    /// `--credentials` or `HAY_CREDENTIALS`.
    pub credentials: Option<PathBuf>,
}

/// Whom to talk to, and as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// `http://HOST:PORT`, without a slash at the end: one, or several that do the same.
    pub servers: Vec<String>,
    /// The bearer token.
    pub token: Token,
    /// The file that was read, if any.
    pub credentials: Option<PathBuf>,
}

#[derive(Deserialize)]
struct CredentialsFile {
    server: String,
    token: String,
}

/// Decides on server and token. `directory` is where the default file is looked for.
///
/// # Errors
/// Names what is missing or unusable, and the way out.
pub fn resolve(sources: &Sources, directory: &Path) -> Result<Target, ConfigError> {
    if let (Some(server), Some(token)) = (&sources.server, &sources.token) {
        return target(server, token.clone(), None);
    }
    let (path, named) = match &sources.credentials {
        Some(path) => (path.clone(), true),
        None => (directory.join(DEFAULT_CREDENTIALS), false),
    };
    let file = match read_credentials(&path) {
        Ok(file) => file,
        Err(ConfigError::Missing(_)) if !named => {
            return Err(sources.server.clone().map_or(ConfigError::Nothing, ConfigError::NoToken));
        }
        Err(error) => return Err(error),
    };
    let server = sources.server.as_ref().unwrap_or(&file.server);
    match &sources.token {
        Some(token) => target(server, token.clone(), Some(path)),
        None if named || are_all_in(server, &file.server) => {
            target(server, Token::new(&file.token), Some(path))
        }
        None => Err(ConfigError::OtherServer { server: server.clone(), file_server: file.server }),
    }
}

/// The addresses of a list with commas.
fn addresses(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(|address| address.trim().trim_end_matches('/'))
}

fn are_all_in(asked: &str, named: &str) -> bool {
    addresses(asked).all(|a| addresses(named).any(|b| a.eq_ignore_ascii_case(b)))
}

fn checked(address: &str) -> Result<String, ConfigError> {
    let bad = || ConfigError::BadServer(address.to_owned());
    let url = reqwest::Url::parse(address).map_err(|_| bad())?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() || url.path() != "/" {
        return Err(bad());
    }
    Ok(address.to_owned())
}

fn target(servers: &str, token: Token, credentials: Option<PathBuf>) -> Result<Target, ConfigError> {
    let servers = addresses(servers).map(checked).collect::<Result<_, _>>()?;
    if token.reveal().is_empty() || !token.reveal().bytes().all(|b| b.is_ascii_graphic()) {
        return Err(ConfigError::BadToken);
    }
    Ok(Target { servers, token, credentials })
}

fn read_credentials(path: &Path) -> Result<CredentialsFile, ConfigError> {
    let unreadable = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::NotFound => ConfigError::Missing(path.to_owned()),
        _ => ConfigError::Unreadable { path: path.to_owned(), source },
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    // The open file is asked, not the path: nobody can swap it in between.
    let mode = file.metadata().map_err(unreadable)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(ConfigError::Exposed { path: path.to_owned(), mode });
    }
    let mut text = String::new();
    file.take(CREDENTIALS_BYTES_MAX).read_to_string(&mut text).map_err(unreadable)?;
    toml::from_str(&text).map_err(|_| ConfigError::Malformed(path.to_owned()))
}

/// Whether a token would cross a network in the clear.
pub fn is_exposed(server: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(server) else { return false };
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let loopback =
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    url.scheme() == "http" && !loopback
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn write(dir: &Path, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    const GOOD: &str = "server = \"http://127.0.0.1:8080\"\ntoken = \"hay_secret\"\n";

    #[test]
    fn flags_win_and_read_no_file() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), DEFAULT_CREDENTIALS, "damaged", 0o600);
        let sources = Sources {
            server: Some("http://h:1/".into()),
            token: Some(Token::new(" t ")),
            ..Sources::default()
        };
        let target = resolve(&sources, dir.path()).unwrap();
        assert_eq!(
            (target.servers.as_slice(), target.token.reveal()),
            (["http://h:1".to_owned()].as_slice(), "t")
        );
        assert_eq!(target.credentials, None);
    }

    #[test]
    fn the_file_of_the_current_directory_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = write(dir.path(), DEFAULT_CREDENTIALS, GOOD, 0o600);
        let target = resolve(&Sources::default(), dir.path()).unwrap();
        assert_eq!(target.token.reveal(), "hay_secret");
        assert_eq!(target.credentials, Some(path));
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for mode in [0o644, 0o640, 0o606, 0o660] {
            let path = write(dir.path(), "c.toml", GOOD, mode);
            let sources = Sources { credentials: Some(path), ..Sources::default() };
            let error = resolve(&sources, dir.path()).unwrap_err();
            assert!(matches!(error, ConfigError::Exposed { mode: m, .. } if m == mode), "{error}");
            assert!(error.to_string().contains("chmod 600") && !error.to_string().contains("hay_secret"));
        }
    }

    #[test]
    fn a_found_token_goes_to_no_other_server() {
        let dir = tempfile::tempdir().unwrap();
        let path = write(dir.path(), DEFAULT_CREDENTIALS, GOOD, 0o600);
        let other = Sources { server: Some("http://elsewhere:8080".into()), ..Sources::default() };
        assert!(matches!(resolve(&other, dir.path()), Err(ConfigError::OtherServer { .. })));
        let same = Sources { server: Some("HTTP://127.0.0.1:8080/".into()), ..Sources::default() };
        assert!(resolve(&same, dir.path()).is_ok());
        let path_of_two = write(dir.path(), "two.toml", &GOOD.replace(":8080", ":8080, http://b:1"), 0o600);
        let file = read_credentials(&path_of_two).unwrap();
        assert!(
            are_all_in("http://b:1/", &file.server) && !are_all_in("http://b:1,http://c:1", &file.server)
        );
        let named = Sources { credentials: Some(path), ..other };
        assert_eq!(resolve(&named, dir.path()).unwrap().servers, ["http://elsewhere:8080"]);
    }

    #[test]
    fn what_is_missing_or_wrong_is_said_without_the_secret() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(resolve(&Sources::default(), dir.path()), Err(ConfigError::Nothing)));
        let named = Sources { credentials: Some(dir.path().join("no")), ..Sources::default() };
        assert!(matches!(resolve(&named, dir.path()), Err(ConfigError::Missing(_))));
        let path = write(dir.path(), "m.toml", "token = \"hay_secret", 0o600);
        let malformed = Sources { credentials: Some(path), ..Sources::default() };
        let error = resolve(&malformed, dir.path()).unwrap_err();
        assert!(matches!(error, ConfigError::Malformed(_)) && !error.to_string().contains("hay_secret"));
        let server =
            Sources { server: Some("ftp://h".into()), token: Some(Token::new("t")), ..Sources::default() };
        assert!(matches!(resolve(&server, dir.path()), Err(ConfigError::BadServer(_))));
    }

    #[test]
    fn a_token_never_shows_itself() {
        assert_eq!(format!("{:?}", Token::new("hay_secret")), "Token(…)");
    }

    #[test]
    fn only_plain_http_beyond_loopback_is_exposed() {
        assert!(is_exposed("http://files.example:8080"));
        assert!(is_exposed("http://10.0.0.1"));
        for server in ["http://127.0.0.1:1", "http://localhost", "http://[::1]:1", "https://files.example"] {
            assert!(!is_exposed(server), "{server}");
        }
    }
}
