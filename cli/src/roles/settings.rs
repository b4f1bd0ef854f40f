//! The file of `--config`: its values become the defaults of the flags of the same names, so that flags and environment
//! go before it, and every value is read by the same parser wherever it stands.

use std::path::{Path, PathBuf};

use clap::{ArgAction, ArgMatches, Command};
use toml::{Table, Value};

/// Larger than any such file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A file of settings that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Not there, or not readable.
    #[error("the settings {} can't be read: {source}", .path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No TOML.
    #[error("the settings {} are not understood: {source}", .path.display())]
    NotToml {
        /// Which file.
        path: PathBuf,
        /// Where.
        source: Box<toml::de::Error>,
    },
    /// A name that is no flag.
    #[error("{}: there is no setting {name:?} of `hay {role}`; see `hay help {role}`", .path.display())]
    Unknown {
        /// Which file.
        path: PathBuf,
        /// Which setting.
        name: String,
        /// Of which command.
        role: String,
    },
    /// A name that stands twice, as with `-` and with `_`.
    #[error("{}: {name:?} stands there twice", .path.display())]
    Twice {
        /// Which file.
        path: PathBuf,
        /// Which setting.
        name: String,
    },
    /// A list where there can be one value.
    #[error("{}: {name:?} takes one value, not {count}", .path.display())]
    Several {
        /// Which file.
        path: PathBuf,
        /// Which setting.
        name: String,
        /// How many stand there.
        count: usize,
    },
    /// Neither text nor number, switch or list of these.
    #[error("{}: {name:?} must be text, a number, true or false, or a list of text", .path.display())]
    Shape {
        /// Which file.
        path: PathBuf,
        /// Which setting.
        name: String,
    },
}

/// `command`, with the values of the file that its subcommand names as the defaults of that subcommand. `arguments`: the
/// process's own.
///
/// # Errors
/// See [`SettingsError`]. What else is wrong with the arguments is left to the caller's own parsing.
pub fn with_settings(command: Command, arguments: &[std::ffi::OsString]) -> Result<Command, SettingsError> {
    let lenient = command.clone().ignore_errors(true).try_get_matches_from(arguments);
    let Some((role, path)) = lenient.ok().as_ref().and_then(named_file) else { return Ok(command) };
    let table = read(&path)?;
    let Some(known) = command.find_subcommand(&role) else { return Ok(command) };
    let mut defaults: Vec<(String, Vec<String>)> = Vec::new();
    for (name, value) in table {
        let id = name.replace('-', "_");
        let argument = known.get_arguments().find(|argument| argument.get_id() == id.as_str());
        let Some(argument) = argument.filter(|_| id != "config") else {
            return Err(SettingsError::Unknown { path, name, role });
        };
        if defaults.iter().any(|(earlier, _)| *earlier == id) {
            return Err(SettingsError::Twice { path, name });
        }
        let Some(values) = texts(&value) else { return Err(SettingsError::Shape { path, name }) };
        let takes_many = matches!(argument.get_action(), ArgAction::Append);
        if values.len() > 1 && !takes_many {
            return Err(SettingsError::Several { path, name, count: values.len() });
        }
        defaults.push((id, values));
    }
    Ok(command.mut_subcommand(role, |sub| {
        defaults.into_iter().fold(sub, |sub, (id, values)| {
            sub.mut_arg(id, |argument| argument.required(false).default_values(values))
        })
    }))
}

/// The role and its `--config`, from wherever that came.
fn named_file(matches: &ArgMatches) -> Option<(String, PathBuf)> {
    let (role, flags) = matches.subcommand()?;
    let path = flags.try_get_one::<PathBuf>("config").ok().flatten()?;
    Some((role.to_owned(), path.clone()))
}

fn read(path: &Path) -> Result<Table, SettingsError> {
    let io = |source| SettingsError::Io { path: path.to_owned(), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(io)?;
    let read = std::io::Read::read_to_string(&mut std::io::Read::take(file, FILE_BYTES_MAX + 1), &mut text);
    if read.map_err(io)? as u64 > FILE_BYTES_MAX {
        return Err(io(std::io::Error::other("it is too long for settings")));
    }
    text.parse::<Table>()
        .map_err(|source| SettingsError::NotToml { path: path.to_owned(), source: Box::new(source) })
}

/// A value as it would be typed.
fn texts(value: &Value) -> Option<Vec<String>> {
    let one = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Boolean(switch) => Some(switch.to_string()),
        _ => None,
    };
    match value {
        Value::Array(list) => list.iter().map(one).collect(),
        value => one(value).map(|text| vec![text]),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, FromArgMatches};

    use super::*;
    use crate::flags::{Cli, Command as Typed};
    use crate::roles::GatewayArgs;

    fn parse(file: &str, flags: &[&str]) -> Result<GatewayArgs, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gateway.toml");
        std::fs::write(&path, file).unwrap();
        let mut arguments: Vec<_> = ["hay", "gateway", "--config"].map(Into::into).to_vec();
        arguments.push(path.into());
        arguments.extend(flags.iter().map(Into::into));
        let command = with_settings(Cli::command(), &arguments).map_err(|e| e.to_string())?;
        let matches = command.try_get_matches_from(arguments).map_err(|e| e.to_string())?;
        match Cli::from_arg_matches(&matches).map_err(|e| e.to_string())?.command {
            Typed::Gateway(args) => Ok(args),
            other => panic!("{other:?}"),
        }
    }

    const WHOLE: &str = r#"
        cluster_key = "/etc/haystore/cluster.key"
        masters = ["a:1", "b:2"]
        filers = "c:3"
        insecure-no-tls = true
        workers = 3
    "#;

    #[test]
    fn the_file_stands_in_for_flags() {
        let args = parse(WHOLE, &[]).unwrap();
        assert_eq!(args.masters, ["a:1", "b:2"]);
        assert_eq!(args.filers, ["c:3"]);
        assert_eq!((args.process.insecure_no_tls, args.process.workers), (true, 3));
        let args = parse(WHOLE, &["--masters", "d:4,e:5", "--workers", "1"]).unwrap();
        assert_eq!((args.masters.len(), args.process.workers), (2, 1));
    }

    #[test]
    fn what_can_not_be_used_is_named() {
        assert!(parse("mastres = [\"a:1\"]", &[]).unwrap_err().contains("mastres"));
        assert!(parse("masters = 1.5", &[]).unwrap_err().contains("masters"));
        assert!(parse("masters = [", &[]).unwrap_err().contains("not understood"));
        assert!(parse("config = \"x\"", &[]).unwrap_err().contains("config"));
        assert!(parse("aside-dir = [\"a\", \"b\"]", &[]).unwrap_err().contains("one value, not 2"));
        assert!(parse("aside-dir = \"a\"\naside_dir = \"b\"", &[]).unwrap_err().contains("twice"));
        let lacking = parse("masters = [\"a:1\"]", &[]).unwrap_err();
        assert!(lacking.contains("--filers"), "{lacking}");
        assert!(parse("workers = \"many\"\n", &[]).unwrap_err().contains("many"));
    }
}
