use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_util::codec::{Decoder as _, LengthDelimitedCodec};

use super::frame::{FRAME_MAX_BYTES, delimit, delimiter};
use super::handshake::HANDSHAKE_FRAME_MAX_BYTES;

/// Bytes that a link reads at once, and about as many that it keeps for reading.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// A byte stream that is cut into frames.
#[derive(Debug)]
pub(super) struct FrameStream<S> {
    pub(super) io: S,
    delimiter: LengthDelimitedCodec,
    buffer: BytesMut,
}

/// The reason why no further frame comes.
#[derive(Debug, Error)]
pub(super) enum FrameStreamError {
    #[error("the connection was closed")]
    Closed,
    #[error("the connection failed")]
    Io(#[source] io::Error),
    #[error("a frame is larger than allowed")]
    TooLarge,
    #[error("the other side speaks TLS and this one does not; set `cluster.tls` on all nodes or on none")]
    Tls,
}

/// First bytes of a TLS record: of a handshake, and of an alert.
const TLS_RECORDS: [[u8; 2]; 2] = [[22, 3], [21, 3]];

impl<S: AsyncRead + AsyncWrite + Unpin> FrameStream<S> {
    /// Returns a stream on which the handshake is to come: until it is done, frames are small.
    pub(super) fn new(io: S) -> Self {
        FrameStream { io, delimiter: delimiter(HANDSHAKE_FRAME_MAX_BYTES), buffer: BytesMut::new() }
    }

    /// Allows frames of full size, because the handshake is done.
    pub(super) fn admit(&mut self) {
        self.delimiter.set_max_frame_length(FRAME_MAX_BYTES);
    }

    /// Returns the next frame that has been read as a whole, if there is one.
    pub(super) fn next_read(&mut self) -> Result<Option<Bytes>, FrameStreamError> {
        // A length can be wrong in only one way: it is too large.
        self.delimiter
            .decode(&mut self.buffer)
            .map(|frame| frame.map(BytesMut::freeze))
            .map_err(|_| FrameStreamError::TooLarge)
    }

    /// Reads the bytes that are there. Call it when [`FrameStream::next_read`] returns no more.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), FrameStreamError>> {
        if self.buffer.is_empty() && self.buffer.capacity() > 4 * READ_BUFFER_BYTES {
            // The memory of one large frame must not stay for the life of the link.
            self.buffer = BytesMut::new();
        }
        if self.buffer.capacity() - self.buffer.len() < READ_BUFFER_BYTES / 8 {
            self.buffer.reserve(READ_BUFFER_BYTES);
        }
        // The future holds no state, so it can be made anew at each poll.
        match ready!(pin!(self.io.read_buf(&mut self.buffer)).poll(cx)) {
            Ok(0) => Poll::Ready(Err(FrameStreamError::Closed)),
            Ok(_) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(FrameStreamError::Io(error))),
        }
    }

    /// Waits for the next frame of a handshake.
    pub(super) async fn receive(&mut self) -> Result<Bytes, FrameStreamError> {
        loop {
            match self.next_read() {
                Ok(Some(frame)) => return Ok(frame),
                Ok(None) => {}
                // Read as a length, these bytes would be hundreds of megabytes.
                Err(FrameStreamError::TooLarge) if TLS_RECORDS.iter().any(|begin| self.buffer.starts_with(begin)) => {
                    return Err(FrameStreamError::Tls);
                }
                Err(error) => return Err(error),
            }
            std::future::poll_fn(|cx| self.poll_handshake_read(cx)).await?;
        }
    }

    /// Reads bytes of a handshake. A stranger costs no more memory than the largest frame of a handshake.
    fn poll_handshake_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), FrameStreamError>> {
        self.buffer.reserve(HANDSHAKE_FRAME_MAX_BYTES);
        match ready!(pin!(self.io.read_buf(&mut self.buffer)).poll(cx)) {
            Ok(0) => Poll::Ready(Err(FrameStreamError::Closed)),
            Ok(_) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(FrameStreamError::Io(error))),
        }
    }

    /// Sends a frame of a handshake.
    pub(super) async fn send(&mut self, frame: &Bytes) -> Result<(), FrameStreamError> {
        let mut out = BytesMut::new();
        delimit(&mut out, |out| {
            out.extend_from_slice(frame);
            Bytes::new()
        });
        self.io.write_all(&out).await.map_err(FrameStreamError::Io)?;
        self.io.flush().await.map_err(FrameStreamError::Io)
    }
}
