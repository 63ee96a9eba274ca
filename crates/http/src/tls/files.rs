use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::TlsError;
use tidegate_core::error_chain::chain;

/// Time between two looks at the files. A change takes effect when two looks in a row have found the same files, so
/// that a certificate is not used without its key.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Largest file that is read, in bytes.
const FILE_MAX_BYTES: u64 = 1024 * 1024;

/// The bytes of some files as they were at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Files(Vec<(PathBuf, Vec<u8>)>);

impl Files {
    /// Reads files. Blocks, which is acceptable because the files are small and local.
    pub(super) fn read<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Result<Self, TlsError> {
        let files = paths.into_iter().map(|path| match read(path) {
            Ok(bytes) => Ok((path.to_owned(), bytes)),
            Err(source) => Err(TlsError::Read { path: path.to_owned(), source }),
        });
        files.collect::<Result<_, _>>().map(Files)
    }

    /// Returns the bytes of the file at `path`.
    pub(super) fn get(&self, path: &Path) -> &[u8] {
        self.0.iter().find(|(known, _)| known == path).map_or(&[], |(_, bytes)| bytes)
    }

    /// Returns a hash of the bytes.
    pub(super) fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint_with(b"")
    }

    /// Returns a hash of the bytes and of `more`.
    pub(super) fn fingerprint_with(&self, more: &[u8]) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(more);
        for (_, bytes) in &self.0 {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        }
        hash.finalize().into()
    }
}

/// Calls `apply` whenever the files have changed, until `stop`. If `apply` fails, the error is logged and nothing
/// changes.
pub(super) async fn follow(
    paths: &[PathBuf],
    started: [u8; 32],
    stop: CancellationToken,
    apply: impl Fn(Files) -> Result<(), TlsError>,
) {
    let mut looks = interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut in_force = started;
    let mut last = Some(started);
    let mut settled = last;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = looks.tick() => {}
        }
        let paths = paths.to_vec();
        // Reading blocks. It is awaited, so the blocking task has an owner.
        let read = move || Files::read(paths.iter().map(PathBuf::as_path));
        let Ok(files) = tokio::task::spawn_blocking(read).await else { return };
        // Files that cannot be read count as a state of their own.
        let seen = files.as_ref().ok().map(Files::fingerprint);
        let is_settled = seen == last;
        last = seen;
        if !is_settled || seen == settled {
            continue;
        }
        settled = seen;
        if seen == Some(in_force) {
            continue;
        }
        match files.and_then(&apply) {
            Ok(()) => {
                in_force = seen.unwrap_or(in_force);
                info!("TLS certificates were reloaded");
            }
            Err(error) => error!(
                error = %chain(&error),
                "TLS certificates have changed and cannot be used; the old ones stay in force until they are corrected"
            ),
        }
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    use io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_MAX_BYTES {
        return Err(io::Error::other(format!("it is larger than {FILE_MAX_BYTES} bytes")));
    }
    Ok(bytes)
}
