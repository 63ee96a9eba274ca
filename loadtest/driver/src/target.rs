//! What is measured: the floor, tidegate in its two integration types, peers, or a gateway that runs already. A target
//! is started fresh for each run, with a backend of its own, on loopback.

mod peers;
mod tidegate;
mod tls;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::process::Process;
use crate::scenario::{Feature, Scenario};
use tidegate::Variant;
use tls::Certificate;
pub(crate) use tls::ClientTls;

/// How long a target may take until it accepts.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(10);

/// A target as the command line names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Floor,
    /// tidegate with `AWS_PROXY`.
    Tidegate,
    /// tidegate with `HTTP_PROXY`.
    TidegateHttp,
    /// tidegate with `AWS_PROXY`, an access log to a file and metrics of each route.
    TidegateObserved,
    /// The gateway of `loadtest/peers/node`.
    Node,
    /// nginx with nchan, by `loadtest/peers/nchan`.
    Nchan,
    /// Pushpin, by `loadtest/peers/pushpin`.
    Pushpin,
    /// A gateway that somebody else has started.
    Attached(Attached),
}

/// Where a gateway is that the driver does not start. Its integrations lead to a backend at `backend`, which the driver
/// starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attached {
    pub(crate) address: SocketAddr,
    /// `/{stage}`.
    pub(crate) stage: String,
    /// Its process, if it is on this machine; without it there are no CPU and memory figures.
    pub(crate) pid: Option<i32>,
    pub(crate) backend: SocketAddr,
}

/// Where the programs are.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) tidegate: PathBuf,
    pub(crate) floor: PathBuf,
    pub(crate) peers: PathBuf,
}

/// How clients and posters reach a target. Shared by all of them.
pub(crate) struct Endpoints {
    /// Where clients connect, in turn.
    pub(crate) clients: Vec<SocketAddr>,
    pub(crate) posts: SocketAddr,
    /// Where its health is asked for, if it tells.
    pub(crate) health: Option<SocketAddr>,
    pub(crate) protocol: Protocol,
    pub(crate) tls: Option<ClientTls>,
}

/// How a target spells its URLs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// As tidegate; `stage` is `/{stage}`.
    Gateway {
        stage: String,
    },
    /// A client subscribes to its own channel; with `has_group` to that of all as well.
    Nchan {
        has_group: bool,
    },
    Pushpin,
}

impl Endpoints {
    /// `/{stage}` of a gateway.
    pub(crate) fn stage(&self) -> anyhow::Result<&str> {
        match &self.protocol {
            Protocol::Gateway { stage } => Ok(stage),
            Protocol::Nchan { .. } | Protocol::Pushpin => anyhow::bail!("it has no stages"),
        }
    }
}

/// A target that runs. Dropped, its processes are killed.
pub(crate) struct Target {
    pub(crate) endpoints: Arc<Endpoints>,
    /// The processes that are measured; none if they are not on this machine.
    pub(crate) pids: Vec<i32>,
    pub(crate) backend_pid: i32,
    processes: Vec<Process>,
    /// Keeps the pipes of all processes empty.
    _drains: JoinSet<()>,
    _files: TempDir,
}

/// What starting a target gives.
struct Started {
    processes: Vec<Process>,
    /// Processes that the target needs and that are not part of it, such as its store.
    helpers: Vec<Process>,
    clients: Vec<SocketAddr>,
    posts: SocketAddr,
    health: Option<SocketAddr>,
    protocol: Protocol,
}

/// What a target is started with.
struct Setting<'a> {
    scenario: &'a Scenario,
    programs: &'a Programs,
    backend: SocketAddr,
    certificate: Option<&'a Certificate>,
    /// A directory that lives as long as the target.
    directory: &'a Path,
}

impl Kind {
    /// Reads the name of a target that the driver starts.
    pub(crate) fn parse(name: &str) -> Result<Self, String> {
        let all = [
            Kind::Floor,
            Kind::Tidegate,
            Kind::TidegateHttp,
            Kind::TidegateObserved,
            Kind::Node,
            Kind::Nchan,
            Kind::Pushpin,
        ];
        let names = all.each_ref().map(Kind::name).join(", ");
        all.into_iter().find(|kind| kind.name() == name).ok_or_else(|| format!("`{name}` is none of {names}"))
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Kind::Floor => "floor",
            Kind::Tidegate => "tidegate",
            Kind::TidegateHttp => "tidegate-http",
            Kind::TidegateObserved => "tidegate-observed",
            Kind::Node => "node",
            Kind::Nchan => "nchan",
            Kind::Pushpin => "pushpin",
            Kind::Attached(_) => "attached",
        }
    }

    /// What it has. tidegate is asked, so that a scenario plays as soon as tidegate can.
    pub(crate) async fn features(&self, programs: &Programs) -> anyhow::Result<BTreeSet<Feature>> {
        Ok(match self {
            Kind::Floor => [Feature::Dispatch, Feature::Connect, Feature::Tls, Feature::Groups].into(),
            Kind::Tidegate | Kind::TidegateHttp | Kind::TidegateObserved => tidegate::features(programs).await?,
            Kind::Node => [Feature::Dispatch, Feature::Groups].into(),
            Kind::Attached(_) => [Feature::Dispatch].into(),
            Kind::Nchan => [Feature::Groups].into(),
            Kind::Pushpin => BTreeSet::new(),
        })
    }

    /// What it says of itself, for the report.
    pub(crate) async fn version(&self, programs: &Programs) -> anyhow::Result<String> {
        let (program, arguments): (&Path, &[&str]) = match self {
            Kind::Floor => (&programs.floor, &["--version"]),
            Kind::Tidegate | Kind::TidegateHttp | Kind::TidegateObserved => (&programs.tidegate, &["--version"]),
            Kind::Node | Kind::Nchan | Kind::Pushpin => return peers::version(self, programs).await,
            Kind::Attached(attached) => return Ok(attached.address.to_string()),
        };
        Ok(output(program, arguments).await?.trim().to_owned())
    }

    /// Starts the target and its backend for one scenario.
    pub(crate) async fn start(&self, scenario: &Scenario, programs: &Programs) -> anyhow::Result<Target> {
        let files = tempfile::tempdir()?;
        let certificate = scenario.needs(Feature::Tls).then(|| Certificate::write(files.path())).transpose()?;
        let listen = if let Kind::Attached(attached) = self { attached.backend } else { loopback(0) };
        let (backend, backend_address) = start_backend(listen, scenario.backend_delay_millis).await?;
        let setting = Setting {
            scenario,
            programs,
            backend: backend_address,
            certificate: certificate.as_ref(),
            directory: files.path(),
        };
        let started = match self {
            Kind::Floor => start_floor(&setting).await?,
            Kind::Tidegate => tidegate::start(&setting, Variant::AwsProxy).await?,
            Kind::TidegateHttp => tidegate::start(&setting, Variant::HttpProxy).await?,
            Kind::TidegateObserved => tidegate::start(&setting, Variant::Observed).await?,
            Kind::Node => peers::start_node(&setting).await?,
            Kind::Nchan => peers::start_nchan(&setting)?,
            Kind::Pushpin => peers::start_pushpin(&setting)?,
            Kind::Attached(attached) => Started {
                processes: Vec::new(),
                helpers: Vec::new(),
                clients: vec![attached.address],
                posts: attached.address,
                health: None,
                protocol: Protocol::Gateway { stage: attached.stage.clone() },
            },
        };
        let Started { mut processes, helpers, clients, posts, health, protocol } = started;
        let mut pids: Vec<_> = processes.iter().map(Process::pid).collect();
        if let Kind::Attached(Attached { pid, .. }) = self {
            pids.extend(*pid);
        }
        let backend_pid = backend.pid();
        processes.extend(helpers);
        processes.push(backend);
        let mut drains = JoinSet::new();
        for process in &mut processes {
            drains.spawn(process.drain_output());
        }
        for address in clients.iter().copied().chain([posts]) {
            wait_until_it_accepts(address).await.with_context(|| format!("{} at {address}", self.name()))?;
        }
        let tls = certificate.map(Certificate::into_client).transpose()?;
        Ok(Target {
            endpoints: Arc::new(Endpoints { clients, posts, health, protocol, tls }),
            pids,
            backend_pid,
            processes,
            _drains: drains,
            _files: files,
        })
    }
}

impl Target {
    /// Ends all processes, the backend last.
    pub(crate) async fn stop(self) {
        for process in self.processes {
            process.stop().await;
        }
    }
}

async fn start_backend(listen: SocketAddr, delay_millis: u64) -> anyhow::Result<(Process, SocketAddr)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("backend").arg("--listen").arg(listen.to_string());
    command.arg("--delay-millis").arg(delay_millis.to_string());
    let mut backend = Process::start("backend", command)?;
    let address = backend.first_line().await?.parse()?;
    Ok((backend, address))
}

async fn start_floor(setting: &Setting<'_>) -> anyhow::Result<Started> {
    let mut command = Command::new(&setting.programs.floor);
    command.arg("--backend").arg(format!("http://{}/raw", setting.backend));
    if setting.scenario.events {
        command.arg("--events");
    }
    if setting.scenario.needs(Feature::Groups) {
        command.arg("--bare");
    }
    if let Some(certificate) = setting.certificate {
        command.arg("--certificate").arg(&certificate.chain).arg("--private-key").arg(&certificate.private_key);
    }
    let mut floor = Process::start("floor", command)?;
    let address = floor.first_line().await?.parse()?;
    let protocol = Protocol::Gateway { stage: "/prod".to_owned() };
    Ok(Started {
        processes: vec![floor],
        helpers: Vec::new(),
        clients: vec![address],
        posts: address,
        health: None,
        protocol,
    })
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// An address for a program that cannot choose a free port itself.
fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind(loopback(0))?.local_addr()?)
}

async fn wait_until_it_accepts(address: SocketAddr) -> anyhow::Result<()> {
    timeout(LISTEN_TIMEOUT, async {
        while TcpStream::connect(address).await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .context("it does not accept connections")
}

/// What a program prints, on stdout or stderr.
async fn output(program: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program).args(arguments).output().await;
    let output = output.with_context(|| format!("could not start {}", program.display()))?;
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    Ok(String::from_utf8_lossy(&text).into_owned())
}
