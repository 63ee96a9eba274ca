use std::path::{Path, PathBuf};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{Gateway, open_files};
use crate::config;
use tidegate_core::error_chain::chain;

/// Runs `tidegate serve`: the gateway, until a signal stops it.
///
/// # Errors
/// Returns a text for the user if the configuration has problems, or if the gateway could not start.
pub async fn serve(path: PathBuf) -> Result<(), String> {
    let loaded = load(&path)?;
    for warning in &loaded.warnings {
        warn!("{}", warning.in_file(&path));
    }
    open_files::raise_limit();
    // Signals are caught from here on, so that one during start-up is not lost.
    let mut signals = Signals::new().map_err(|error| format!("could not listen for signals: {error}"))?;
    let mut gateway = Gateway::builder(loaded.config).start().await.map_err(|error| chain(&error).to_string())?;
    while let Received::Reload = signals.next().await {
        gateway.reopen_logs();
        reload(&mut gateway, &path);
    }
    let hurry = CancellationToken::new();
    let drained = gateway.drain(hurry.clone());
    tokio::pin!(drained);
    loop {
        tokio::select! {
            () = &mut drained => return Ok(()),
            Received::Stop = signals.next() => hurry.cancel(),
        }
    }
}

fn load(path: &Path) -> Result<config::Loaded, String> {
    config::load_file(path, &|name| std::env::var(name).ok()).map_err(|error| chain(&error).to_string())
}

/// Reloads the configuration. A file with problems changes nothing, and its problems are logged.
fn reload(gateway: &mut Gateway, path: &Path) {
    let loaded = match load(path) {
        Ok(loaded) => loaded,
        Err(problems) => {
            gateway.reload_refused();
            return error!("could not reload the configuration; the old one stays in force: {problems}");
        }
    };
    for warning in &loaded.warnings {
        warn!("{}", warning.in_file(path));
    }
    match gateway.reload(loaded.config) {
        Ok(()) => info!("the configuration was reloaded"),
        Err(problems) => error!(?problems, "could not reload the configuration; the old one stays in force"),
    }
}

/// The signals that the process handles.
pub(super) struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

pub(super) enum Received {
    Reload,
    Stop,
}

impl Signals {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Signals {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    pub(super) async fn next(&mut self) -> Received {
        tokio::select! {
            _ = self.hangup.recv() => Received::Reload,
            _ = self.terminate.recv() => Received::Stop,
            _ = self.interrupt.recv() => Received::Stop,
        }
    }
}
