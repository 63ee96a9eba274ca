//! The floor: the smallest honest gateway on tidegate's libraries. What tidegate costs is quoted as a ratio to it.
//!
//! It does what no gateway of this contract can leave out, and nothing else:
//!
//! - one hyper HTTP/1 listener, for upgrades and for `POST /{stage}/@connections/{id}`;
//! - one task and one mailbox for each connection, all connections in one map;
//! - a message is parsed once for its route key and posted to the backend as it came, with four headers, through
//!   hyper-util's pool; what the backend answers is the reply;
//! - a post is answered with 200 once its frame is written, with 410 if there is no such connection;
//! - with `--bare`, a post to a group is a loop over all sockets that writes a ready frame to each, and nothing more;
//! - two workers, jemalloc with tidegate's settings, read buffers of 4 KiB.
//!
//! It has no authorizer, limits, keep-alive, deadlines, metrics or logs, and builds no event: tidegate's `HTTP_PROXY`
//! is the nearest to it, `AWS_PROXY` does more.

mod bare;
mod connection;
mod server;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use anyhow::Context as _;
use bytes::Bytes;
use clap::Parser;
use dashmap::DashMap;
use http::Uri;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::bare::Sinks;
use crate::connection::Post;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// As many as the machine of the measurements has cores.
const WORKERS: usize = 2;

/// The smallest honest gateway, for measurements only: it checks nothing.
#[derive(Parser)]
#[command(name = "tidegate-floor", version)]
struct Arguments {
    /// Where it listens; port 0 takes any free one. The address that was taken is the first line on stdout.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,

    /// Where messages go.
    #[arg(long, value_name = "URL")]
    backend: Uri,

    /// Tells the backend of connects and disconnects too.
    #[arg(long)]
    events: bool,

    /// Is a bare loop: `POST /{stage}/@groups/{any}` writes one ready frame to all sockets, one after the other, and
    /// nothing else is sent.
    #[arg(long)]
    bare: bool,

    /// Certificate chain for TLS, PEM.
    #[arg(long, requires = "private_key")]
    certificate: Option<PathBuf>,

    /// Private key for TLS, PEM.
    #[arg(long, requires = "certificate")]
    private_key: Option<PathBuf>,
}

/// What every task of the floor shares.
struct Floor {
    mailboxes: DashMap<u64, mpsc::Sender<Post>>,
    next_id: AtomicU64,
    client: Client<HttpConnector, Full<Bytes>>,
    backend: Uri,
    events: bool,
    /// Sockets that a bare loop writes to.
    bare: Option<Sinks>,
    tasks: TaskTracker,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build()?;
    runtime.block_on(async {
        let tls = match (&arguments.certificate, &arguments.private_key) {
            (Some(certificate), Some(private_key)) => {
                Some(server::tls(certificate, private_key).context("could not read the certificate or its key")?)
            }
            _ => None,
        };
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let floor = Arc::new(Floor {
            mailboxes: DashMap::new(),
            next_id: AtomicU64::new(1),
            client: Client::builder(TokioExecutor::new()).build(connector),
            backend: arguments.backend,
            events: arguments.events,
            bare: arguments.bare.then(Sinks::default),
            tasks: TaskTracker::new(),
        });
        server::serve(floor, arguments.listen, tls).await
    })
}
