//! From the command line to an action, and from its end to an exit code.

use std::ffi::OsString;
use std::future::Future;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};
use hay_common::clock::{SharedClock, SystemClock};
use hay_common::random::{SharedRandom, SystemRandom};

use crate::api::Client;
use crate::config::{self, Sources, Token};
use crate::flags::{Cli, ClusterCommand, Command, Global, VolumeCommand};
use crate::output::Output;
use crate::roles::SettingsError;
use crate::stop::{Exit, Stop};
use crate::{admin, bench, files, roles, server};

/// What every action is handed.
pub struct Context {
    /// The server.
    pub client: Client,
    /// stdout and stderr.
    pub out: Output,
    /// Time.
    pub clock: SharedClock,
}

/// Runs the process's own command line.
pub fn main() -> ExitCode {
    let cli = match parse(std::env::args_os().collect()) {
        Ok(cli) => cli,
        Err(error) => {
            Output::new(false).note(format_args!("hay: {error}"));
            return ExitCode::from(Exit::Usage as u8);
        }
    };
    let out = Output::new(cli.global.json);
    let exit = match run(cli, out) {
        Ok(exit) => exit,
        Err(stop) => {
            report(out, &stop);
            stop.exit
        }
    };
    ExitCode::from(exit as u8)
}

/// clap prints help and usage errors itself and ends with 0 or 2.
fn parse(arguments: Vec<OsString>) -> Result<Cli, SettingsError> {
    let command = roles::with_settings(Cli::command(), &arguments)?;
    let matches = command.get_matches_from(arguments);
    Ok(Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit()))
}

fn report(out: Output, stop: &Stop) {
    if stop.message.is_empty() {
        return;
    }
    out.note(format_args!("hay: {}", stop.message));
    if out.json() {
        let error = serde_json::json!({ "error": { "code": stop.code, "message": stop.message } });
        // The exit code says it in any case.
        let _ = out.value(&error);
    }
}

fn run(cli: Cli, out: Output) -> Result<Exit, Stop> {
    let global = cli.global;
    match cli.command {
        Command::Server(args) => role(server::run(args)),
        Command::Master(args) => role(roles::run_master(args)),
        Command::VolumeServer(args) => role(roles::run_volume_server(args)),
        Command::Filer(args) => role(roles::run_filer(args)),
        Command::Gateway(args) => role(roles::run_gateway(args)),
        Command::Completions(args) => completions(args.shell),
        Command::BenchFloor(args) => bench::run_floor(args, SystemClock::shared()),
        Command::Wait(args) => {
            let sources = sources(&global);
            block_on(admin::wait(args, sources, random()?, out, SystemClock::shared()))
        }
        Command::Bench(args) => bench::run(args, context(&global, out)?),
        Command::Put(args) => block_on(files::put(args, context(&global, out)?)),
        Command::Get(args) => block_on(files::get(args, context(&global, out)?)),
        Command::Cat(args) => block_on(files::cat(args, context(&global, out)?)),
        Command::Ls(args) => block_on(files::list(args, context(&global, out)?)),
        Command::Stat(args) => block_on(files::stat(args, context(&global, out)?)),
        Command::Rm(args) => block_on(files::remove(args, context(&global, out)?)),
        Command::Mkdir(args) => block_on(files::make_directory(args, context(&global, out)?)),
        Command::Diff(args) => block_on(files::diff(args, context(&global, out)?)),
        Command::Usage => block_on(admin::usage(context(&global, out)?)),
        Command::Cluster(ClusterCommand::Status) => block_on(admin::cluster_status(context(&global, out)?)),
        Command::Cluster(ClusterCommand::Members) => block_on(admin::cluster_members(context(&global, out)?)),
        Command::Cluster(ClusterCommand::AddMaster { master, dry_run }) => {
            block_on(admin::add_master(&master, dry_run, context(&global, out)?))
        }
        Command::Cluster(ClusterCommand::RemoveMaster { master, dry_run, yes }) => {
            block_on(admin::remove_master(&master, dry_run, yes, context(&global, out)?))
        }
        Command::Cluster(ClusterCommand::NewKey { file }) => admin::new_cluster_key(&file, out),
        Command::Volume(VolumeCommand::List) => block_on(admin::volume_list(context(&global, out)?)),
        Command::Volume(VolumeCommand::Show { id }) => {
            block_on(admin::volume_show(id, context(&global, out)?))
        }
        Command::Volume(VolumeCommand::Repair { id, dry_run }) => {
            block_on(admin::volume_repair(id, dry_run, context(&global, out)?))
        }
    }
}

fn role(ended: anyhow::Result<()>) -> Result<Exit, Stop> {
    ended.map(|()| Exit::Ok).map_err(|error| Stop::local(format!("{error:#}")))
}

fn completions(shell: clap_complete::Shell) -> Result<Exit, Stop> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "hay", &mut script);
    std::io::Write::write_all(&mut std::io::stdout().lock(), &script)?;
    Ok(Exit::Ok)
}

fn random() -> Result<SharedRandom, Stop> {
    SystemRandom::shared().map_err(|error| Stop::local(format!("the system gives no randomness: {error}")))
}

fn sources(global: &Global) -> Sources {
    Sources {
        server: global.server.clone(),
        token: global.token.as_deref().map(Token::new),
        credentials: global.credentials.clone(),
    }
}

fn context(global: &Global, out: Output) -> Result<Context, Stop> {
    let target = config::resolve(&sources(global), std::path::Path::new("."))?;
    for server in target.servers.iter().filter(|server| config::is_exposed(server)) {
        out.note(format_args!("hay: warning: the token goes to {server} without TLS"));
    }
    let client = Client::new(target, random()?)?;
    Ok(Context { client, out, clock: SystemClock::shared() })
}

fn block_on(action: impl Future<Output = Result<Exit, Stop>>) -> Result<Exit, Stop> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Stop::local(format!("threads can't be started: {error}")))?;
    let ended = runtime.block_on(action);
    // Blocking readers that nobody waits for must not hold the exit up.
    runtime.shutdown_background();
    ended
}
