//! A cluster of real processes on loopback, with a network between them that can be cut.

mod process;
mod proxy;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hay_client::group::{Members, masters};
use hay_client::master::MasterClient;
use hay_common::clock::SystemClock;
use hay_common::disk::RealDisk;
use hay_common::ids::NodeId;
use hay_common::random::SystemRandom;
use hay_proto::rpc::credential::ClusterKey;
use hay_proto::rpc::{Credentials, Peer, Role};
use serde_json::Value;

use super::{Api, Endpoint, eventually, eventually_async, failure, free_address, hay};
pub use process::Process;
pub use proxy::{Link, Network, Way};

/// A start of many processes on two cores, with elections and first volumes.
pub const START_WITHIN: Duration = Duration::from_secs(90);

/// What a cluster is made of.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub masters: usize,
    pub volume_servers: usize,
    pub gateways: usize,
    pub replicas: usize,
}

impl Shape {
    /// The one of `make cluster`.
    pub const USUAL: Self = Self { masters: 3, volume_servers: 3, gateways: 2, replicas: 2 };
}

/// A running cluster. Everything that it started is killed when it is dropped.
pub struct Cluster {
    pub network: Network,
    processes: Vec<Process>,
    gateways: Vec<SocketAddr>,
    token: String,
    /// The masters as their clients are given them.
    masters: Vec<String>,
    dir: PathBuf,
    _temporary: tempfile::TempDir,
}

/// Where a process listens, and by which address it is called.
struct Place {
    listen: SocketAddr,
    called: SocketAddr,
}

impl Cluster {
    /// Up and ready.
    pub async fn start(shape: Shape) -> Self {
        failure::remember_why();
        let temporary = tempfile::Builder::new().prefix("hay-cluster-").tempdir().unwrap();
        let dir = temporary.path().to_owned();
        let key = dir.join("cluster.key");
        hay(&["cluster", "new-key", key.to_str().unwrap()], &[]).ok();
        let network = Network::new();
        let place = |name: &str| {
            let listen = free_address();
            Place { listen, called: network.port(name, listen) }
        };
        let named = |role: &str, count: usize| -> Vec<(String, Place)> {
            (1..=count).map(|n| format!("{role}-{n}")).map(|name| (name.clone(), place(&name))).collect()
        };
        let masters = named("master", shape.masters);
        let volume_servers = named("volume-server", shape.volume_servers);
        let filers = named("filer", 1);
        let gateways: Vec<SocketAddr> = (0..shape.gateways).map(|_| free_address()).collect();
        let at = |list: &[(String, Place)]| {
            list.iter().map(|(_, place)| place.called.to_string()).collect::<Vec<_>>().join(",")
        };
        let (at_masters, at_filers) = (at(&masters), at(&filers));

        let masters_at = masters.iter().map(|(_, place)| place.called.to_string()).collect();
        let mut line = Vec::new();
        for (name, place) in &masters {
            let mut args = service("master", &dir, name, place);
            args.extend(["--replicas".into(), shape.replicas.to_string()]);
            if shape.masters > 1 {
                args.extend(["--peers".into(), at_masters.clone()]);
            }
            line.push((name.clone(), args));
        }
        for (name, place) in &volume_servers {
            let mut args = service("volume-server", &dir, name, place);
            args.extend(["--masters".into(), at_masters.clone(), "--rack".into(), name.clone()]);
            line.push((name.clone(), args));
        }
        for (name, place) in &filers {
            let mut args = service("filer", &dir, name, place);
            args.extend(["--gateway".into(), format!("http://{}", gateways[0])]);
            line.push((name.clone(), args));
        }
        for (n, http) in gateways.iter().enumerate() {
            let name = format!("gateway-{}", n + 1);
            let (http, aside) = (http.to_string(), dir.join(&name).display().to_string());
            let mut args = vec!["gateway", "--http", &http, "--aside-dir", &aside];
            args.extend(["--masters", &at_masters, "--filers", &at_filers]);
            let args = args.into_iter().map(str::to_owned).collect();
            line.push((name, args));
        }
        let processes = line
            .into_iter()
            .map(|(name, mut args)| {
                let operations = free_address();
                args.extend(["--cluster-key".into(), key.to_str().unwrap().to_owned()]);
                args.extend(["--operations".into(), operations.to_string()]);
                Process::new(&name, args, operations, dir.join(format!("{name}.log")))
            })
            .collect();
        let mut cluster = Self {
            network,
            processes,
            gateways,
            token: String::new(),
            masters: masters_at,
            dir,
            _temporary: temporary,
        };
        cluster.start_all();
        cluster.token = eventually("the filer has written the credentials", START_WITHIN, || {
            let path = cluster.dir.join("filer-1/credentials.toml");
            let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
            let line = text.lines().find_map(|l| l.strip_prefix("token = ")).ok_or("no token")?;
            Ok(line.trim_matches('"').to_owned())
        });
        cluster.wait_ready().await;
        cluster
    }

    /// Starts whatever does not run.
    pub fn start_all(&mut self) {
        for process in &mut self.processes {
            if !process.is_running() {
                let pid = process.start();
                self.network.runs(&process.name, pid);
            }
        }
    }

    /// Starts one process that does not run.
    pub fn start_one(&mut self, name: &str) {
        let pid = self.process(name).start();
        self.network.runs(name, pid);
    }

    /// Removes the directory of a process that does not run.
    pub fn wipe(&mut self, name: &str) {
        assert!(!self.process(name).is_running(), "{name} runs");
        std::fs::remove_dir_all(self.dir.join(name)).unwrap();
    }

    /// Waits until a process that was started says that it does its part.
    pub async fn wait_up(&mut self, name: &str) {
        let api = Api::new(&format!("http://{}", self.process(name).operations), None);
        eventually_async(&format!("{name} is up"), START_WITHIN, || async {
            let asked = api.try_send(reqwest::Method::GET, "/readyz", &[], "").await;
            let answer = asked.map_err(|e| e.to_string())?;
            if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
        })
        .await;
    }

    /// Waits until every gateway says that all can work.
    pub async fn wait_ready(&mut self) {
        for n in 0..self.gateways.len() {
            let api = self.api(n);
            for process in &mut self.processes {
                process.check();
            }
            eventually_async("a gateway is ready", START_WITHIN, || async {
                let asked = api.try_send(reqwest::Method::GET, "/readyz", &[], "").await;
                let answer = asked.map_err(|e| e.to_string())?;
                if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
            })
            .await;
        }
    }

    /// Waits until the masters hear every volume server, and no volume is being made: one that goes away then leaves
    /// enough of the others.
    pub async fn wait_whole(&mut self) {
        self.wait_ready().await;
        let servers = self.names("volume-server").len();
        eventually("every volume server is heard", START_WITHIN, || {
            let status = self.status();
            let alive =
                status["nodes"].as_array().into_iter().flatten().filter(|n| n["alive"] == true).count();
            let creating = status["volumes"]["creating"].as_u64();
            if alive == servers && creating == Some(0) { Ok(()) } else { Err(status.to_string()) }
        });
    }

    /// A process by its name, as in `volume-server-2`.
    pub fn process(&mut self, name: &str) -> &mut Process {
        self.processes
            .iter_mut()
            .find(|process| process.name == name)
            .unwrap_or_else(|| panic!("there is no {name}"))
    }

    /// The names of all processes of a role, or of all.
    pub fn names(&self, role: &str) -> Vec<String> {
        self.processes.iter().map(|p| p.name.clone()).filter(|name| name.starts_with(role)).collect()
    }

    /// Kills everything at once.
    pub fn kill_all(&mut self) {
        self.processes.iter().filter(|p| p.is_running()).for_each(Process::kill_at_once);
        self.processes.iter_mut().for_each(Process::kill);
    }

    /// Cuts a process off from all others, or only `there`: from those whose names begin so.
    pub fn cut_off(&self, name: &str, there: &str, link: Link) {
        for other in self.processes.iter().filter(|p| p.name.starts_with(there) && p.name != name) {
            self.network.set(name, &other.name, link);
            self.network.set(&other.name, name, link);
        }
    }

    /// A client of gateway number `n`, from 0; the numbers go round.
    pub fn api(&self, n: usize) -> Api {
        Api::new(&self.url(n), Some(&self.token))
    }

    /// Clients of all gateways.
    pub fn apis(&self) -> Vec<Api> {
        (0..self.gateways.len()).map(|n| self.api(n)).collect()
    }

    /// Gateway number `n` as a process.
    pub fn endpoint(&mut self, n: usize) -> Endpoint {
        let (http, token) = (self.gateways[n % self.gateways.len()], self.token.clone());
        let pid = self.process(&format!("gateway-{}", n % self.gateways.len() + 1)).pid();
        Endpoint { http, token, pid }
    }

    /// The masters as a gateway sees them that has just started.
    pub fn master_client(&self) -> MasterClient {
        let key = ClusterKey::load(&RealDisk, &self.dir.join("cluster.key")).unwrap().unwrap();
        let (clock, random) = (SystemClock::shared(), SystemRandom::shared().unwrap());
        let peer = Peer { role: Role::Gateway, node: NodeId::from_random(random.u128()) };
        let credentials = Credentials::new(Arc::new(key), peer, clock.clone());
        let members = Members::at(&self.masters).unwrap();
        MasterClient::start(masters(members, &credentials, clock.clone(), random.clone()), clock, random)
    }

    /// The name of the master that others call by `address`.
    pub fn master_at(&self, address: &str) -> String {
        let number =
            self.masters.iter().position(|known| known == address).expect("a master of this cluster");
        format!("master-{}", number + 1)
    }

    /// What `hay` needs to use any gateway.
    pub fn environment(&self) -> [(&'static str, String); 2] {
        let urls: Vec<String> = (0..self.gateways.len()).map(|n| self.url(n)).collect();
        [("HAY_SERVER", urls.join(",")), ("HAY_TOKEN", self.token.clone())]
    }

    /// The address of gateway number `n`.
    pub fn url(&self, n: usize) -> String {
        format!("http://{}", self.gateways[n % self.gateways.len()])
    }

    /// What `hay cluster status --json` shows.
    pub fn status(&self) -> Value {
        hay(&["--server", &self.url(0), "--token", &self.token, "--json", "cluster", "status"], &[])
            .ok()
            .json()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        failure::show(self.processes.iter().map(|process| (process.name.as_str(), process.log_file())));
    }
}

fn service(role: &str, dir: &Path, name: &str, place: &Place) -> Vec<String> {
    let dir = dir.join(name);
    let (listen, called) = (place.listen.to_string(), place.called.to_string());
    [role, "--dir", dir.to_str().unwrap(), "--listen", &listen, "--advertise", &called]
        .map(str::to_owned)
        .to_vec()
}
