use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Sink as _, Stream as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout_at;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message, Utf8Bytes};

use super::outbox::Queued;
use super::socket_stream::SocketStream;
use super::{Closing, Observed, Outbox};
use tidegate_core::data_type::DataType;
use tidegate_http::transport::{Connection, Patience, Traffic};

/// Size of the read buffer of an idle connection. A larger buffer is zeroed anew at each read, and every connection
/// pays for it.
const READ_BUFFER_BYTES: usize = 2 * 1024;

/// Most bytes of control frames that wait for a blocked socket; pongs beyond them are not sent.
const CONTROL_BUFFER_BYTES: usize = 2 * 1024;

/// Most pieces in one vectored write: two for each frame.
const WRITE_SLICES: usize = 64;

/// Longest time to write a close frame while no bytes move, and longest time in all. Both are short, because
/// `$disconnect` waits for it.
const CLOSE_WRITE_TIMEOUT: Duration = Duration::from_secs(2);
const CLOSE_WRITE_MAX: Duration = Duration::from_secs(10);

/// Longest time for the client to answer a close frame and to close its side while no bytes move, and longest time if
/// it still reads earlier frames, or still sends a message that it had begun.
const CLOSE_ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
const CLOSE_ANSWER_MAX: Duration = Duration::from_secs(60);

/// Most bytes that a client may still send after a close frame before it is cut off.
const LINGER_BYTES: u64 = 4 * 1024 * 1024;

/// The limits of one socket.
#[derive(Clone, Copy, Debug)]
pub struct SocketSettings {
    pub message_max_bytes: usize,
    pub frame_max_bytes: usize,
}

/// An event from the client.
#[derive(Debug)]
pub enum Incoming {
    Text(Utf8Bytes),
    Binary(Bytes),
    /// A ping; its pong is queued already.
    Ping,
    Pong,
    /// The end: nothing more comes. [`Socket::close`] sends the close frame, if the client can still receive it.
    End(Closing),
}

/// A WebSocket after its handshake, and the outbox that is written to it.
///
/// Data frames go from their shared bytes to the socket without a copy, several in one system call.
#[derive(Debug)]
pub struct Socket<S> {
    websocket: WebSocketStream<SocketStream<S>>,
    outbox: Arc<Outbox>,
    sending: VecDeque<Queued>,
    /// Number of bytes of `sending` that the stream has accepted.
    accepted: usize,
    /// Set when a ping was handed to the library and may not be written yet.
    control: bool,
    frames_sent: u64,
    /// Number of bytes that had been read when the client last sent a complete message or control frame.
    read_whole: u64,
}

impl<S: Connection> Socket<S> {
    /// Takes over a stream after the handshake. `already_read` are bytes that were read behind it.
    pub async fn new(io: S, already_read: Bytes, outbox: Arc<Outbox>, settings: SocketSettings) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_write_buffer_size(CONTROL_BUFFER_BYTES)
            .max_message_size(Some(settings.message_max_bytes))
            .max_frame_size(Some(settings.frame_max_bytes));
        let stream = SocketStream::new(io);
        let websocket = if already_read.is_empty() {
            WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await
        } else {
            WebSocketStream::from_partially_read(stream, already_read.into(), Role::Server, Some(config)).await
        };
        Socket {
            websocket,
            outbox,
            sending: VecDeque::new(),
            accepted: 0,
            control: false,
            frames_sent: 0,
            read_whole: 0,
        }
    }

    /// Returns what [`super::Deadlines`] needs to know.
    pub fn observe(&self, reading: bool) -> Observed {
        let stream = self.websocket.get_ref();
        Observed {
            read: stream.read,
            written: stream.written,
            writing: !self.sending.is_empty() || self.control || stream.owed,
            reading,
            receiving: stream.read > self.read_whole,
        }
    }

    /// Returns the progress of the connection's bytes. If the kernel does not report it, these are the bytes that the
    /// socket has accepted and returned.
    pub fn traffic(&self) -> Traffic {
        let stream = self.websocket.get_ref();
        let own = Traffic { acknowledged: stream.written, unacknowledged: 0, received: stream.read };
        stream.below().traffic().unwrap_or(own)
    }

    /// Returns the number of data frames that were written as a whole so far.
    pub fn frames_sent(&self) -> u64 {
        self.frames_sent
    }

    /// Returns the next event from the client.
    pub fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Incoming> {
        loop {
            let incoming = match ready!(Pin::new(&mut self.websocket).poll_next(cx)) {
                Some(Ok(Message::Text(text))) => Incoming::Text(text),
                Some(Ok(Message::Binary(bytes))) => Incoming::Binary(bytes),
                Some(Ok(Message::Ping(_))) => Incoming::Ping,
                Some(Ok(Message::Pong(_))) => Incoming::Pong,
                Some(Ok(Message::Close(frame))) => {
                    let frame = frame.as_ref().map(|frame| (u16::from(frame.code), frame.reason.as_str()));
                    Incoming::End(Closing::by_client(frame))
                }
                // The library never returns raw frames when it reads.
                Some(Ok(Message::Frame(_))) => continue,
                Some(Err(error)) => Incoming::End(end_of(&error)),
                None => Incoming::End(Closing::lost()),
            };
            self.read_whole = self.websocket.get_ref().read;
            return Poll::Ready(incoming);
        }
    }

    /// Writes the frames of the outbox. Ready only when the connection must end: a close was requested and all earlier
    /// frames are written, or the socket failed.
    pub fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Closing> {
        match ready!(self.poll_send_all(cx)) {
            Ok(closing) => Poll::Ready(closing),
            Err(_) => Poll::Ready(Closing::lost()),
        }
    }

    fn poll_send_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Closing>> {
        loop {
            if !self.sending.is_empty() {
                ready!(self.poll_send_frames(cx))?;
            }
            if self.control || self.websocket.get_ref().owed {
                ready!(self.poll_flush_control(cx))?;
            }
            if let Some(closing) = ready!(self.outbox.poll_take(cx, &mut self.sending)) {
                return Poll::Ready(Ok(closing));
            }
        }
    }

    /// Writes all of `sending`, and notifies each poster when its frame is written.
    fn poll_send_frames(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.websocket.get_ref().held && self.websocket.get_ref().owed {
            // Half a control frame is written: the rest goes first.
            ready!(self.poll_flush_control(cx))?;
        }
        self.websocket.get_mut().held = true;
        loop {
            if self.accepted > 0 {
                // A TLS stream may hold back what it has accepted; only flushed bytes count as written.
                ready!(Pin::new(self.websocket.get_mut().io()).poll_flush(cx))?;
                self.settle();
            }
            if self.sending.is_empty() {
                break;
            }
            let written = ready!(self.poll_write_frames(cx))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.accepted += written;
            self.websocket.get_mut().written += written as u64;
        }
        // An idle connection keeps no buffer.
        self.sending = VecDeque::new();
        self.websocket.get_mut().held = false;
        Poll::Ready(Ok(()))
    }

    fn poll_write_frames(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut headers = [FrameHeader::default(); WRITE_SLICES / 2];
        for (header, queued) in headers.iter_mut().zip(&self.sending) {
            *header = FrameHeader::new(queued);
        }
        let mut slices = [IoSlice::new(&[]); WRITE_SLICES];
        let mut count = 0;
        let mut skip = self.accepted;
        for (header, queued) in headers.iter().zip(&self.sending) {
            for piece in [header.bytes(), &queued.frame.data] {
                let rest = &piece[skip.min(piece.len())..];
                skip -= piece.len() - rest.len();
                if !rest.is_empty() {
                    slices[count] = IoSlice::new(rest);
                    count += 1;
                }
            }
        }
        Pin::new(self.websocket.get_mut().io()).poll_write_vectored(cx, &slices[..count])
    }

    /// Removes the frames that are in the socket as a whole.
    fn settle(&mut self) {
        while let Some(queued) = self.sending.front() {
            let length = FrameHeader::new(queued).bytes().len() + queued.frame.data.len();
            if self.accepted < length {
                return;
            }
            self.accepted -= length;
            if let Some(queued) = self.sending.pop_front() {
                self.frames_sent += 1;
                self.outbox.release(queued.cost);
                queued.written();
            }
        }
    }

    fn poll_flush_control(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.websocket).poll_flush(cx)).map_err(io::Error::other)?;
        self.control = false;
        Poll::Ready(Ok(()))
    }

    /// Queues a ping. The next [`Socket::poll_send`] writes it.
    pub fn ping(&mut self) {
        // The control buffer is full only if the socket is blocked: the frames that wait there do as well as a ping.
        let _ = Pin::new(&mut self.websocket).start_send(Message::Ping(Bytes::new()));
        self.control = true;
    }

    /// Sends the client the close frame, if it can still receive one. Afterwards nothing is written, and the posters of
    /// queued frames are notified that these were not written.
    pub async fn close(&mut self, closing: &Closing) {
        self.outbox.end();
        if !closing.can_be_notified() {
            self.sending = VecDeque::new();
            return;
        }
        if closing.is_cut() {
            self.sending = VecDeque::new();
            if self.accepted > 0 {
                // Half a frame is written, and the rest of it may not follow.
                return;
            }
            self.websocket.get_mut().held = false;
        }
        // If the client has sent a close frame itself, this only writes the answer that the library has prepared.
        let frame = CloseFrame { code: closing.code.into(), reason: (&*closing.reason).into() };
        let mut frame = Some(Message::Close(closing.has_code().then_some(frame)));
        let mut patience = Patience::new(CLOSE_WRITE_TIMEOUT, CLOSE_WRITE_MAX);
        while let Some(at) = patience.next_look() {
            if timeout_at(at, poll_fn(|cx| self.poll_close(cx, &mut frame))).await.is_ok() {
                break;
            }
            patience.look(self.traffic(), false);
        }
        self.sending = VecDeque::new();
    }

    fn poll_close(&mut self, cx: &mut Context<'_>, frame: &mut Option<Message>) -> Poll<io::Result<()>> {
        if !self.sending.is_empty() {
            // A frame that is half written must be finished first.
            ready!(self.poll_send_frames(cx))?;
        }
        if frame.is_some() {
            ready!(Pin::new(&mut self.websocket).poll_ready(cx)).map_err(io::Error::other)?;
        }
        if let Some(frame) = frame.take() {
            Pin::new(&mut self.websocket).start_send(frame).map_err(io::Error::other)?;
        }
        Pin::new(&mut self.websocket).poll_flush(cx).map_err(io::Error::other)
    }

    /// Gives the client time to read the close frame and to answer it. Closing a socket with unread input would reset
    /// the connection, and the client could lose the close frame and everything before it that it has not read yet.
    pub async fn linger(mut self, closing: &Closing) {
        if !closing.can_be_notified() {
            return;
        }
        let limit = self.websocket.get_ref().read + LINGER_BYTES;
        let mut patience = Patience::new(CLOSE_ANSWER_TIMEOUT, CLOSE_ANSWER_MAX);
        while let Some(at) = patience.next_look() {
            if timeout_at(at, self.read_end(limit)).await.is_ok() {
                return;
            }
            patience.look(self.traffic(), self.observe(true).receiving);
        }
    }

    /// Reads until the client has closed its side, or until `limit` bytes were read in all. Cancel-safe: it may be
    /// dropped and called again.
    async fn read_end(&mut self, limit: u64) {
        while let Some(Ok(_)) = self.websocket.next().await {
            self.read_whole = self.websocket.get_ref().read;
            if self.read_whole > limit {
                return;
            }
        }
        // The server closes first (RFC 6455, section 7.1.1).
        let stream = self.websocket.get_mut();
        let _ = stream.io().shutdown().await;
        let mut rest = [0; 1024];
        while stream.read < limit && matches!(stream.read(&mut rest).await, Ok(1..)) {}
    }
}

/// Returns the reason why reading ended without a close frame.
fn end_of(error: &tungstenite::Error) -> Closing {
    use tungstenite::error::ProtocolError;
    match error {
        tungstenite::Error::Capacity(_) => Closing::too_big(),
        tungstenite::Error::Utf8(_) => Closing::not_utf8(),
        tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Closing::lost(),
        tungstenite::Error::Protocol(_) => Closing::protocol(),
        _ => Closing::lost(),
    }
}

/// Header of an unmasked, final frame (RFC 6455, section 5.2).
#[derive(Clone, Copy, Default)]
struct FrameHeader {
    bytes: [u8; 10],
    length: u8,
}

impl FrameHeader {
    fn new(queued: &Queued) -> Self {
        const FINAL: u8 = 0x80;
        let opcode = match queued.frame.data_type {
            DataType::Text => 0x1,
            DataType::Binary => 0x2,
        };
        let mut bytes = [0; 10];
        bytes[0] = FINAL | opcode;
        let payload = queued.frame.data.len();
        let length = match (u8::try_from(payload), u16::try_from(payload)) {
            (Ok(small @ ..=125), _) => {
                bytes[1] = small;
                2
            }
            (_, Ok(medium)) => {
                bytes[1] = 126;
                bytes[2..4].copy_from_slice(&medium.to_be_bytes());
                4
            }
            _ => {
                bytes[1] = 127;
                bytes[2..].copy_from_slice(&(payload as u64).to_be_bytes());
                10
            }
        };
        FrameHeader { bytes, length }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}
