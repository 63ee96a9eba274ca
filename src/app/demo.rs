use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::serve::{Received, Signals};
use super::{Gateway, open_files};
use crate::config;
use tidegate_core::error_chain::chain;

/// Longest time that the demo waits until its output is read.
const PRINT_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs `tidegate demo`: the gateway, a sample chat backend and a chat page on 127.0.0.1. The last line on stdout is
/// the page's URL.
///
/// # Errors
/// Returns a text for the user if a port is taken, or if the configuration of the demo has problems.
pub async fn demo(port: u16) -> Result<(), String> {
    open_files::raise_limit();
    let mut signals = Signals::new().map_err(|error| format!("could not listen for signals: {error}"))?;
    let backend = TcpListener::bind(loopback(0)).await.map_err(|error| format!("could not open a port: {error}"))?;
    let backend_port = backend.local_addr().map_err(|error| format!("could not open a port: {error}"))?.port();
    let internal_port = internal_port(port).await;
    let environment = |name: &str| match name {
        "TIDEGATE_DEMO_PORT" => Some(port.to_string()),
        "TIDEGATE_DEMO_INTERNAL_PORT" => Some(internal_port.to_string()),
        "TIDEGATE_DEMO_BACKEND_PORT" => Some(backend_port.to_string()),
        _ => None,
    };
    let config = config::load(config::DEMO_YAML, &environment).map_err(|problems| {
        let file = Path::new("config/demo.yaml");
        problems.iter().map(|problem| problem.in_file(file).to_string()).collect::<Vec<_>>().join("\n")
    })?;
    let gateway = Gateway::builder(config).start().await.map_err(|error| chain(&error).to_string())?;

    let (stop_backend, tasks) = (CancellationToken::new(), TaskTracker::new());
    let websocket_url = format!("ws://{}/prod", gateway.public_address());
    let backend = tidegate_demo::serve(backend, vec![websocket_url.clone()], stop_backend.clone(), tasks.clone());
    let backend = tasks.spawn(backend);
    print(format!(
        "gateway    {websocket_url}\noperators  http://{}/metrics\nchat page  open it in two tabs; Ctrl-C ends the \
         demo\nhttp://127.0.0.1:{backend_port}/\n",
        gateway.internal_address()
    ))
    .await;

    while let Received::Reload = signals.next().await {}
    let hurry = CancellationToken::new();
    let drained = gateway.drain(hurry.clone());
    tokio::pin!(drained);
    loop {
        tokio::select! {
            () = &mut drained => break,
            Received::Stop = signals.next() => hurry.cancel(),
        }
    }
    stop_backend.cancel();
    match backend.await {
        Ok(Ok(())) | Err(_) => Ok(()),
        Ok(Err(error)) => Err(chain(&error).to_string()),
    }
}

/// Runs `tidegate demo --gateway URL`: the sample chat backend and the chat page on 127.0.0.1, for gateways that run
/// already. The last line on stdout is the page's URL; `?node=2` connects to the second gateway.
///
/// # Errors
/// Returns a text for the user if the port is taken, or if a URL is not that of a gateway.
pub async fn demo_chat(port: u16, gateways: Vec<String>) -> Result<(), String> {
    let mut signals = Signals::new().map_err(|error| format!("could not listen for signals: {error}"))?;
    let listener = TcpListener::bind(loopback(port)).await;
    let listener = listener.map_err(|error| format!("could not open port {port}: {error}"))?;
    let address = listener.local_addr().map_err(|error| format!("could not open port {port}: {error}"))?;
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let chat = tidegate_demo::serve(listener, gateways, stop.clone(), tasks.clone());
    print(format!("http://{address}/\n")).await;
    let told_to_stop = async {
        while let Received::Reload = signals.next().await {}
        stop.cancel();
    };
    let (served, ()) = tokio::select! {
        // The chat ends by itself only if it could not start.
        served = chat => (served, ()),
        () = told_to_stop => (Ok(()), ()),
    };
    tasks.close();
    tasks.wait().await;
    served.map_err(|error| chain(&error).to_string())
}

/// Writes to stdout on a thread that may block. Goes on after [`PRINT_TIMEOUT`] if nothing reads stdout.
async fn print(text: String) {
    let printing = spawn_blocking(move || {
        let mut stdout = io::stdout().lock();
        // An error is ignored, because there may be no reader.
        let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    });
    let _ = timeout(PRINT_TIMEOUT, printing).await;
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Returns the port after the public one if it is free, so that it can be guessed; otherwise 0, which takes any free
/// port.
async fn internal_port(port: u16) -> u16 {
    match port.checked_add(1) {
        Some(next) if port != 0 && TcpListener::bind(loopback(next)).await.is_ok() => next,
        _ => 0,
    }
}
