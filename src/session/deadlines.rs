use std::time::Duration;

use tokio::time::Instant;

use super::Closing;
use crate::limits::{KeepAliveSettings, LimitSettings};

/// When something is due on one connection: a ping, or its end. Pure: the session tells it what it sees.
///
/// It is asked lazily, when its last answer has come true, so a busy connection never resets a timer.
#[derive(Debug)]
pub struct Deadlines {
    ping_interval: Option<Duration>,
    pong_timeout: Duration,
    idle_timeout: Option<Duration>,
    slow_client_timeout: Duration,
    expires: Option<Instant>,
    /// Boxed: most clients come without one.
    token: Option<Box<TokenDeadline>>,
    next_ping: Option<Instant>,
    /// When the last ping was sent and what had been read by then; none once anything was read since.
    unanswered: Option<(Instant, u64)>,
    last_data: Instant,
    /// Since when the socket has taken nothing, and what it had taken by then.
    stalled: Option<(Instant, u64)>,
}

/// What the session sees of its socket.
#[derive(Clone, Copy, Debug)]
pub struct Observed {
    /// Bytes read from the socket so far.
    pub read: u64,
    /// Bytes written to the socket so far.
    pub written: u64,
    /// Something waits to be written.
    pub writing: bool,
    /// The session reads its socket; it does not while it has as many dispatches or unsent replies as it may.
    pub reading: bool,
}

/// When the client's token expires, and what happens then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenDeadline {
    pub expires: Instant,
    /// When the client is told, unless that has happened.
    pub notice: Option<Instant>,
    /// The code that the connection is closed with, if it is closed.
    pub close_code: Option<u16>,
}

/// What is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing before then.
    Nothing { until: Instant },
    /// Send a ping, and ask again.
    Ping,
    /// Tell the client that its token expires, and ask again.
    TokenNotice,
    /// End the connection.
    Close(Closing),
}

/// How long a session without any deadline sleeps.
const NO_DEADLINE: Duration = Duration::from_secs(24 * 60 * 60);

impl Deadlines {
    /// Deadlines of a connection that begins `now`. `jitter` in 0..1 spreads the first pings of clients that came at
    /// the same moment.
    pub fn new(limits: &LimitSettings, keep_alive: &KeepAliveSettings, now: Instant, jitter: f64) -> Self {
        let ping_interval = keep_alive.ping_interval();
        Deadlines {
            ping_interval,
            pong_timeout: keep_alive.pong_timeout(),
            idle_timeout: limits.idle_timeout(),
            slow_client_timeout: limits.slow_client_timeout(),
            expires: limits.connection_duration().map(|duration| now + duration),
            token: None,
            next_ping: ping_interval.map(|interval| now + interval.mul_f64(0.5 + jitter / 2.0)),
            unanswered: None,
            last_data: now,
            stalled: None,
        }
    }

    /// Data went in or out, or the client sent a ping of its own.
    pub fn data(&mut self, now: Instant) {
        self.last_data = now;
    }

    /// The client came with a token, or brought a fresh one. Ask what is due after this.
    pub fn set_token(&mut self, token: Option<TokenDeadline>) {
        self.token = token.map(Box::new);
    }

    /// What is due `now`. A stall must be reported when it begins: call this whenever `writing` turns true.
    pub fn due(&mut self, now: Instant, observed: Observed) -> Due {
        self.note_stall(now, observed);
        if let Some(closing) = self.expired(now, observed) {
            return Due::Close(closing);
        }
        if let Some(token) = &mut self.token
            && token.notice.is_some_and(|at| at <= now)
        {
            token.notice = None;
            return Due::TokenNotice;
        }
        if self.next_ping.is_some_and(|at| at <= now) {
            self.next_ping = self.ping_interval.map(|interval| now + interval);
            // A ping that cannot be written would only pile up behind what stalls.
            if self.stalled.is_none() {
                self.unanswered.get_or_insert((now, observed.read));
                return Due::Ping;
            }
        }
        let until = [
            self.next_ping,
            self.expires,
            self.token.as_ref().and_then(|token| token.notice),
            self.token.as_ref().and_then(|token| token.close_code.map(|_| token.expires)),
            self.unanswered.map(|(since, _)| since + self.pong_timeout),
            self.idle_timeout.map(|timeout| self.last_data + timeout),
            self.stalled.map(|(since, _)| since + self.slow_client_timeout),
        ];
        Due::Nothing { until: until.into_iter().flatten().min().unwrap_or(now + NO_DEADLINE) }
    }

    fn note_stall(&mut self, now: Instant, observed: Observed) {
        self.stalled = match self.stalled {
            _ if !observed.writing => None,
            Some((since, written)) if written == observed.written => Some((since, written)),
            _ => Some((now, observed.written)),
        };
        if let Some((since, read)) = self.unanswered {
            if observed.read > read {
                self.unanswered = None;
            } else if !observed.reading {
                // The gateway itself does not read: the answer may well be waiting in the socket.
                self.unanswered = Some((now.max(since), read));
            }
        }
    }

    fn expired(&self, now: Instant, observed: Observed) -> Option<Closing> {
        let passed = |since: Instant, timeout: Duration| now >= since + timeout;
        if self.stalled.is_some_and(|(since, _)| passed(since, self.slow_client_timeout)) {
            return Some(Closing::slow());
        }
        if observed.reading && self.unanswered.is_some_and(|(since, _)| passed(since, self.pong_timeout)) {
            return Some(Closing::dead());
        }
        if let Some(TokenDeadline { expires, close_code: Some(code), .. }) = self.token.as_deref().copied()
            && now >= expires
        {
            return Some(Closing::token_expired(code));
        }
        if self.idle_timeout.is_some_and(|timeout| passed(self.last_data, timeout)) {
            return Some(Closing::idle());
        }
        self.expires.is_some_and(|at| now >= at).then(Closing::expired)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Observed = Observed { read: 0, written: 0, writing: false, reading: true };

    fn deadlines(limits: &LimitSettings, start: Instant) -> Deadlines {
        Deadlines::new(limits, &KeepAliveSettings::default(), start, 1.0)
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_silent_peer_is_pinged_and_then_dead() {
        let start = Instant::now();
        let mut deadlines = deadlines(&LimitSettings::default(), start);
        assert_eq!(deadlines.due(start, QUIET), Due::Nothing { until: start + seconds(30) });
        assert_eq!(deadlines.due(start + seconds(30), QUIET), Due::Ping);
        assert_eq!(deadlines.due(start + seconds(30), QUIET), Due::Nothing { until: start + seconds(40) });
        assert_eq!(deadlines.due(start + seconds(40), QUIET), Due::Close(Closing::dead()));
    }

    #[test]
    fn a_peer_that_sends_anything_lives_on() {
        let start = Instant::now();
        let mut deadlines = deadlines(&LimitSettings::default(), start);
        assert_eq!(deadlines.due(start + seconds(30), QUIET), Due::Ping);
        let answered = Observed { read: 6, ..QUIET };
        assert_eq!(deadlines.due(start + seconds(40), answered), Due::Nothing { until: start + seconds(60) });
    }

    #[test]
    fn a_gateway_that_does_not_read_expects_no_pong() {
        let start = Instant::now();
        let mut deadlines = deadlines(&LimitSettings::default(), start);
        assert_eq!(deadlines.due(start + seconds(30), QUIET), Due::Ping);
        let not_reading = Observed { reading: false, ..QUIET };
        assert_eq!(deadlines.due(start + seconds(40), not_reading), Due::Nothing { until: start + seconds(50) });
        assert_eq!(deadlines.due(start + seconds(45), QUIET), Due::Nothing { until: start + seconds(50) });
        assert_eq!(deadlines.due(start + seconds(50), QUIET), Due::Close(Closing::dead()));
    }

    #[test]
    fn a_socket_that_takes_nothing_is_slow_and_one_that_takes_a_little_is_not() {
        let start = Instant::now();
        let mut deadlines = deadlines(&LimitSettings::default(), start);
        let stalled = Observed { writing: true, written: 100, ..QUIET };
        assert_eq!(deadlines.due(start + seconds(1), stalled), Due::Nothing { until: start + seconds(11) });
        let moving = Observed { written: 101, ..stalled };
        assert_eq!(deadlines.due(start + seconds(11), moving), Due::Nothing { until: start + seconds(21) });
        assert_eq!(deadlines.due(start + seconds(21), moving), Due::Close(Closing::slow()));
    }

    #[test]
    fn a_token_is_given_notice_and_then_closes_its_connection_unless_another_comes() {
        let start = Instant::now();
        let mut deadlines = deadlines(&LimitSettings::default(), start);
        let token = |expires: u64, notice: Option<u64>, close_code: Option<u16>| TokenDeadline {
            expires: start + seconds(expires),
            notice: notice.map(|notice| start + seconds(notice)),
            close_code,
        };
        deadlines.set_token(Some(token(20, Some(15), Some(4401))));
        assert_eq!(deadlines.due(start, QUIET), Due::Nothing { until: start + seconds(15) });
        assert_eq!(deadlines.due(start + seconds(15), QUIET), Due::TokenNotice);
        assert_eq!(deadlines.due(start + seconds(15), QUIET), Due::Nothing { until: start + seconds(20) });
        deadlines.set_token(Some(token(25, None, Some(4401))));
        assert_eq!(deadlines.due(start + seconds(20), QUIET), Due::Nothing { until: start + seconds(25) });
        assert_eq!(deadlines.due(start + seconds(25), QUIET), Due::Close(Closing::token_expired(4401)));
        deadlines.set_token(Some(token(25, Some(25), None)));
        assert_eq!(deadlines.due(start + seconds(25), QUIET), Due::TokenNotice);
        assert_eq!(deadlines.due(start + seconds(25), QUIET), Due::Nothing { until: start + seconds(30) });
    }

    #[test]
    fn idle_time_counts_from_the_last_data_and_age_from_the_start() {
        let start = Instant::now();
        let limits =
            LimitSettings { idle_timeout_seconds: 20, connection_duration_seconds: 50, ..LimitSettings::default() };
        let mut deadlines = deadlines(&limits, start);
        deadlines.data(start + seconds(19));
        assert_eq!(deadlines.due(start + seconds(20), QUIET), Due::Nothing { until: start + seconds(30) });
        assert_eq!(deadlines.due(start + seconds(39), QUIET), Due::Close(Closing::idle()));
        deadlines.data(start + seconds(39));
        let pinged = Observed { read: 6, ..QUIET };
        let _ = deadlines.due(start + seconds(40), pinged);
        let answered = Observed { read: 12, ..QUIET };
        assert_eq!(deadlines.due(start + seconds(50), answered), Due::Close(Closing::expired()));
    }
}
