use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::TlsError;

/// Largest file that is read, in bytes.
const FILE_MAX_BYTES: u64 = 1024 * 1024;

/// The bytes of some files as they were at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Files(Vec<(PathBuf, Vec<u8>)>);

impl Files {
    /// Reads files. It blocks: they are small and local.
    pub(super) fn read<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Result<Self, TlsError> {
        let files = paths.into_iter().map(|path| match read(path) {
            Ok(bytes) => Ok((path.to_owned(), bytes)),
            Err(source) => Err(TlsError::Read { path: path.to_owned(), source }),
        });
        files.collect::<Result<_, _>>().map(Files)
    }

    /// The bytes of one of them.
    pub(super) fn get(&self, path: &Path) -> &[u8] {
        self.0.iter().find(|(known, _)| known == path).map_or(&[], |(_, bytes)| bytes)
    }

    /// Tells these bytes from all others.
    pub(super) fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint_with(b"")
    }

    /// As [`Files::fingerprint`], of something more.
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

fn read(path: &Path) -> io::Result<Vec<u8>> {
    use io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_MAX_BYTES {
        return Err(io::Error::other(format!("it is larger than {FILE_MAX_BYTES} bytes")));
    }
    Ok(bytes)
}
