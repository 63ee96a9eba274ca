use std::time::Duration;

use tokio::time::Instant;

use super::Closing;
use tidegate_core::limits::{KeepAliveSettings, LimitSettings};
use tidegate_http::transport::{LOOKS, Traffic, Watch};

/// The deadlines of one connection: the time of its next ping, and the time when it must be closed. It has no clock and
/// no socket: the session passes the time and its observations.
///
/// The session calls [`Deadlines::due`] again when the time that it last returned has come, so a busy connection never
/// resets a timer.
///
/// No client is closed while bytes move. Bytes that come from the client and bytes that its TCP acknowledges are signs
/// of life. The session must look at them ([`Due::Look`]) only before a deadline passes, so it never does so for an
/// idle or a healthy connection. Bytes written after a ping are no sign of life: the kernel of a stopped client accepts
/// them until its buffer is full.
#[derive(Debug)]
pub struct Deadlines {
    ping_interval: Option<Duration>,
    pong_timeout: Duration,
    idle_timeout: Option<Duration>,
    slow_client_timeout: Duration,
    expires: Option<Instant>,
    /// The deadline of the client's token. Boxed, because most clients have no token.
    token: Option<Box<TokenDeadline>>,
    next_ping: Option<Instant>,
    /// Time since which a pong is awaited, and the number of bytes that were read when the ping was sent. `None` once
    /// anything was read after it.
    unanswered: Option<(Instant, u64)>,
    last_data: Instant,
    /// Time since which neither the socket nor the client's TCP has accepted bytes, and the number of bytes that the
    /// socket had accepted by then.
    stalled: Option<(Instant, u64)>,
    /// The looks at the traffic. Boxed, because only a client that keeps the gateway waiting is looked at.
    looks: Option<Box<Looks>>,
}

/// The looks at the traffic of a client that keeps the gateway waiting.
#[derive(Debug)]
struct Looks {
    watch: Watch,
    /// Time until which an idle connection is kept because data are in transit. By then they must have moved.
    transfer_until: Option<Instant>,
}

/// The observations that a session makes of its socket.
#[derive(Clone, Copy, Debug)]
pub struct Observed {
    /// Bytes read from the socket so far.
    pub read: u64,
    /// Bytes written to the socket so far.
    pub written: u64,
    /// True if bytes wait to be written.
    pub writing: bool,
    /// True if the session reads its socket. It does not while it has its maximum of dispatches or unsent replies.
    pub reading: bool,
    /// True if a part of a message has come from the client.
    pub receiving: bool,
}

/// The expiry of the client's token, and its consequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenDeadline {
    pub expires: Instant,
    /// Time of the notice to the client, unless it was sent already.
    pub notice: Option<Instant>,
    /// The code with which the connection is closed at the expiry, if it is closed.
    pub close_code: Option<u16>,
}

/// The next action for a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// Wait `until` this time.
    Nothing { until: Instant },
    /// Send a ping, and call [`Deadlines::due`] again.
    Ping,
    /// Send the client the notice that its token expires, and call [`Deadlines::due`] again.
    TokenNotice,
    /// Measure the progress of the connection's bytes, report it with [`Deadlines::looked`], and call
    /// [`Deadlines::due`] again.
    Look,
    /// End the connection.
    Close(Closing),
}

/// Time for which a session without any deadline sleeps.
const NO_DEADLINE: Duration = Duration::from_secs(24 * 60 * 60);

/// Largest number of unacknowledged bytes that may be a ping alone. A ping is no data.
const PING_MAX_BYTES: u64 = 128;

impl Deadlines {
    /// Returns the deadlines of a connection that begins `now`. `jitter` in 0..1 spreads the first pings of clients
    /// that connected at the same moment.
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
            looks: None,
        }
    }

    /// Notes that data came in or went out, or that the client sent a ping of its own.
    pub fn data(&mut self, now: Instant) {
        self.last_data = now;
    }

    /// Sets the deadline of the client's first or fresh token. Call [`Deadlines::due`] after this.
    pub fn set_token(&mut self, token: Option<TokenDeadline>) {
        self.token = token.map(Box::new);
    }

    /// Returns the action that is due `now`. A stall must be reported when it begins: call this whenever `writing`
    /// turns true.
    pub fn due(&mut self, now: Instant, observed: Observed) -> Due {
        self.note(now, observed);
        if self.next_look(observed).is_some_and(|at| at <= now) {
            return Due::Look;
        }
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
                if self.unanswered.is_none() {
                    self.unanswered = Some((now, observed.read));
                    // Earlier looks say nothing about this ping.
                    self.looks = None;
                }
                return Due::Ping;
            }
        }
        let until = [
            self.next_look(observed),
            self.next_ping,
            self.expires,
            self.token.as_ref().and_then(|token| token.notice),
            self.token.as_ref().and_then(|token| token.close_code.map(|_| token.expires)),
            self.unanswered.map(|(since, _)| since + self.pong_timeout),
            self.idle_end(),
            self.stalled.map(|(since, _)| since + self.slow_client_timeout),
        ];
        Due::Nothing { until: until.into_iter().flatten().min().unwrap_or(now + NO_DEADLINE) }
    }

    /// Notes the result of a look. Call this right after [`Due::Look`], with the same `now`. If the kernel does not
    /// report the acknowledged bytes, `traffic` has the bytes that the socket has accepted instead.
    pub fn looked(&mut self, now: Instant, observed: Observed, traffic: Traffic) {
        let is_idle = self.idle_end().is_some_and(|end| end <= now);
        let Some(looks) = &mut self.looks else {
            let looks = Looks { watch: Watch::new(now, traffic, observed.writing), transfer_until: None };
            let looks = self.looks.insert(Box::new(looks));
            if is_idle && has_data_under_way(observed, traffic) {
                looks.transfer_until = Some(now + self.slow_client_timeout / LOOKS);
            }
            return;
        };
        let before = looks.watch.last();
        let is_newer = looks.watch.at() >= self.last_data;
        let moved = looks.watch.look(now, traffic, observed.writing);
        if (moved.came || moved.before_question)
            && let Some((since, _)) = &mut self.unanswered
        {
            *since = now;
        }
        if moved.taken
            && let Some((since, _)) = &mut self.stalled
        {
            *since = now;
        }
        if !is_idle {
            return;
        }
        let was_held = looks.transfer_until.take().is_some() && is_newer;
        let takes_data = moved.taken && before.unacknowledged > PING_MAX_BYTES;
        if is_newer && (takes_data || (moved.came && observed.receiving)) {
            self.last_data = now;
            // The next look shows if the transfer goes on.
            looks.transfer_until = Some(now);
        } else if !was_held && has_data_under_way(observed, traffic) {
            looks.transfer_until = Some(now + self.slow_client_timeout / LOOKS);
        }
    }

    /// Returns the time of the next look at the traffic, for the deadline that passes first.
    fn next_look(&self, observed: Observed) -> Option<Instant> {
        let watch = self.looks.as_ref().map(|looks| &looks.watch);
        let pong = self.unanswered.filter(|_| observed.reading);
        let pong = pong.and_then(|(since, _)| Watch::next_look(watch, since, self.pong_timeout));
        let stall = self.stalled.and_then(|(since, _)| Watch::next_look(watch, since, self.slow_client_timeout));
        let idle = self.idle_end().filter(|end| watch.is_none_or(|watch| watch.at() < *end));
        [pong, stall, idle].into_iter().flatten().min()
    }

    /// Returns the time when the connection is closed as idle unless data move before.
    fn idle_end(&self) -> Option<Instant> {
        let end = self.last_data + self.idle_timeout?;
        let transfer_until = self.looks.as_ref().and_then(|looks| looks.transfer_until);
        Some(transfer_until.map_or(end, |until| until.max(end)))
    }

    fn note(&mut self, now: Instant, observed: Observed) {
        self.stalled = match self.stalled {
            _ if !observed.writing => None,
            Some((since, written)) if written == observed.written => Some((since, written)),
            _ => Some((now, observed.written)),
        };
        if let Some((since, read)) = self.unanswered {
            if observed.read > read {
                self.unanswered = None;
            } else if !observed.reading {
                // The gateway itself does not read, so the pong may be waiting in the socket.
                self.unanswered = Some((now.max(since), read));
            }
        }
        let is_idle = self.idle_timeout.is_some_and(|timeout| self.last_data + timeout <= now);
        let is_awaited = self.unanswered.is_some() || self.stalled.is_some() || is_idle;
        if !is_awaited && self.looks.as_ref().is_some_and(|looks| !looks.is_of_transfer(self.last_data)) {
            self.looks = None;
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
        if self.idle_end().is_some_and(|end| now >= end) {
            return Some(Closing::idle());
        }
        self.expires.is_some_and(|at| now >= at).then(Closing::expired)
    }
}

impl Looks {
    /// Returns true if a transfer was in progress at the last look, and no complete message was sent or received since.
    fn is_of_transfer(&self, last_data: Instant) -> bool {
        self.transfer_until.is_some() && self.watch.at() >= last_data
    }
}

/// Returns true if data wait to be written, are not acknowledged, or have come in part.
fn has_data_under_way(observed: Observed, traffic: Traffic) -> bool {
    observed.writing || observed.receiving || traffic.unacknowledged > PING_MAX_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Observed = Observed { read: 0, written: 0, writing: false, reading: true, receiving: false };

    /// Returns the traffic with these numbers of bytes.
    fn traffic(acknowledged: u64, unacknowledged: u64, received: u64) -> Traffic {
        Traffic { acknowledged, unacknowledged, received }
    }

    fn deadlines(limits: &LimitSettings, start: Instant) -> Deadlines {
        Deadlines::new(limits, &KeepAliveSettings::default(), start, 1.0)
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Runs `deadlines` in steps of 100 ms as a session does, from second `from` to second `to`. `see` returns the
    /// observations and the traffic at each second; no ping is sent. Returns the closing of the connection and its
    /// second.
    fn run(
        deadlines: &mut Deadlines,
        start: Instant,
        (from, to): (u64, u64),
        see: impl Fn(f64) -> (Observed, Traffic),
    ) -> Option<(Closing, f64)> {
        for step in from * 10..=to * 10 {
            let (elapsed, now) = (step as f64 / 10.0, start + Duration::from_millis(step * 100));
            let (observed, traffic) = see(elapsed);
            loop {
                match deadlines.due(now, observed) {
                    Due::Look => deadlines.looked(now, observed, traffic),
                    Due::Nothing { until } => {
                        assert!(until > now, "it would repeat forever");
                        break;
                    }
                    Due::Ping | Due::TokenNotice => break,
                    Due::Close(closing) => return Some((closing, elapsed)),
                }
            }
        }
        None
    }

    #[test]
    fn a_silent_peer_is_pinged_and_then_dead() {
        let start = Instant::now();
        let mut deadlines = deadlines(&LimitSettings::default(), start);
        assert_eq!(deadlines.due(start, QUIET), Due::Nothing { until: start + seconds(30) });
        assert_eq!(deadlines.due(start + seconds(30), QUIET), Due::Ping);
        for look in [32_500, 35_000, 37_500, 40_000].map(|millis| start + Duration::from_millis(millis)) {
            let before = look - Duration::from_millis(1);
            assert_eq!(deadlines.due(before, QUIET), Due::Nothing { until: look });
            assert_eq!(deadlines.due(look, QUIET), Due::Look);
            // The ping has not been acknowledged, or was at once.
            deadlines.looked(look, QUIET, traffic(0, 2, 0));
        }
        assert_eq!(deadlines.due(start + seconds(40), QUIET), Due::Close(Closing::dead()));
    }

    #[test]
    fn a_peer_that_sends_anything_lives_on_and_is_not_looked_at() {
        let start = Instant::now();
        let mut deadlines = deadlines(&LimitSettings::default(), start);
        for minute in 0..10 {
            let ping = start + seconds(30 + 30 * minute);
            let before = Observed { read: 6 * minute, ..QUIET };
            assert_eq!(deadlines.due(ping, before), Due::Ping);
            let answered = Observed { read: 6 * (minute + 1), ..QUIET };
            assert_eq!(deadlines.due(ping + seconds(2), answered), Due::Nothing { until: ping + seconds(30) });
            assert!(deadlines.looks.is_none());
        }
    }

    #[test]
    fn a_peer_that_has_not_got_its_ping_yet_is_given_up_a_pong_timeout_after_its_tcp_took_the_last_of_it() {
        // A ping at 30 s lies behind a megabyte, of which 24 KB are taken in each second. Then the client is silent.
        let check = |taken_until: f64, pushed_until: f64, (earliest, latest): (f64, f64)| {
            let start = Instant::now();
            let mut deadlines = deadlines(&LimitSettings::default(), start);
            assert_eq!(deadlines.due(start + seconds(30), QUIET), Due::Ping);
            let end = run(&mut deadlines, start, (30, 200), |second| {
                let taken = ((second.min(taken_until) - 30.0) * 24_000.0) as u64;
                let written = 1_000_000 + ((second.min(pushed_until) - 30.0) * 10.0) as u64;
                (QUIET, traffic(taken.min(written), written.saturating_sub(taken), 0))
            });
            let (closing, second) = end.expect("it is given up");
            assert_eq!(closing, Closing::dead());
            assert!((earliest..=latest).contains(&second), "{second}");
        };
        // The network is cut at once, or while the client reads; a look is due every 2.5 s.
        check(30.0, 30.0, (40.0, 40.0));
        check(33.0, 30.0, (43.0, 45.5));
        check(47.0, 30.0, (57.0, 59.5));
        // The megabyte is taken by 71.7 s, and then the ping.
        check(999.0, 30.0, (81.7, 84.2));
        // Of what is pushed behind the ping the client's kernel takes more, which is no sign of life.
        check(999.0, 999.0, (81.7, 84.2));
    }

    #[test]
    fn a_process_that_stopped_is_dead_though_its_kernel_takes_what_is_pushed() {
        let start = Instant::now();
        let mut deadlines = deadlines(&LimitSettings::default(), start);
        assert_eq!(deadlines.due(start + seconds(30), QUIET), Due::Ping);
        let pushed = |second: f64| (QUIET, traffic((second * 100.0) as u64, 0, 0));
        assert_eq!(run(&mut deadlines, start, (30, 60), pushed), Some((Closing::dead(), 40.0)));
    }

    #[test]
    fn bytes_that_have_come_are_a_sign_of_life_before_they_can_be_read() {
        // As those of a TLS record that is not whole.
        let start = Instant::now();
        let mut deadlines = deadlines(&LimitSettings::default(), start);
        assert_eq!(deadlines.due(start + seconds(30), QUIET), Due::Ping);
        let coming = |second: f64| (QUIET, traffic(2, 0, (second.min(60.0) * 100.0) as u64));
        let (closing, second) = run(&mut deadlines, start, (30, 100), coming).unwrap();
        assert_eq!(closing, Closing::dead());
        assert!((70.0..=72.5).contains(&second), "{second}");
    }

    #[test]
    fn a_gateway_that_does_not_read_expects_no_pong() {
        let start = Instant::now();
        let mut deadlines = deadlines(&LimitSettings::default(), start);
        assert_eq!(deadlines.due(start + seconds(30), QUIET), Due::Ping);
        let not_reading = Observed { reading: false, ..QUIET };
        assert_eq!(deadlines.due(start + seconds(40), not_reading), Due::Nothing { until: start + seconds(50) });
        let dead = run(&mut deadlines, start, (45, 60), |_| (QUIET, traffic(2, 0, 0)));
        assert_eq!(dead, Some((Closing::dead(), 50.0)));
    }

    #[test]
    fn a_socket_that_takes_nothing_is_slow_and_one_that_takes_a_little_is_not() {
        let start = Instant::now();
        let mut deadlines = deadlines(&LimitSettings::default(), start);
        let stalled = Observed { writing: true, written: 100, ..QUIET };
        let moving = Observed { written: 101, ..stalled };
        let nothing = traffic(50, 50, 0);
        assert_eq!(run(&mut deadlines, start, (1, 10), |_| (stalled, nothing)), None);
        assert_eq!(run(&mut deadlines, start, (11, 30), |_| (moving, nothing)), Some((Closing::slow(), 21.0)));
    }

    #[test]
    fn a_client_whose_tcp_takes_bytes_is_not_slow_though_its_socket_takes_none() {
        let start = Instant::now();
        let mut deadlines = deadlines(&LimitSettings::default(), start);
        let stalled = Observed { writing: true, written: 4_000_000, ..QUIET };
        let (closing, second) = run(&mut deadlines, start, (1, 100), |second| {
            let taken = (second.min(50.0) * 24_000.0) as u64;
            (stalled, traffic(taken, 4_000_000 - taken, (second * 100.0) as u64))
        })
        .unwrap();
        assert_eq!(closing, Closing::slow(), "it sends, but reads no longer");
        assert!((60.0..=62.5).contains(&second), "{second}");
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
        let _ = deadlines.due(start + seconds(30), QUIET);
        let answered = Observed { read: 6, ..QUIET };
        let idle = run(&mut deadlines, start, (31, 60), |_| (answered, traffic(2, 0, 6)));
        assert_eq!(idle, Some((Closing::idle(), 39.0)));
        deadlines.data(start + seconds(39));
        let old = run(&mut deadlines, start, (40, 60), |second| {
            let read = if second < 45.0 { 6 } else { 12 };
            (Observed { read, ..QUIET }, traffic(4, 0, read))
        });
        assert_eq!(old, Some((Closing::expired(), 50.0)));
    }

    #[test]
    fn a_connection_is_not_idle_while_a_message_moves_in_either_direction() {
        let limits = LimitSettings { idle_timeout_seconds: 5, ..LimitSettings::default() };
        let check = |what: &str, see: &dyn Fn(f64) -> (Observed, Traffic), (earliest, latest): (f64, f64)| {
            let start = Instant::now();
            let mut deadlines = Deadlines::new(
                &limits,
                &KeepAliveSettings { ping_interval_seconds: 0, ..KeepAliveSettings::default() },
                start,
                1.0,
            );
            let (closing, second) = run(&mut deadlines, start, (0, 100), see).expect(what);
            assert_eq!(closing, Closing::idle(), "{what}");
            assert!((earliest..=latest).contains(&second), "{what}: {second}");
        };
        let receiving = Observed { receiving: true, ..QUIET };
        check("nothing moves", &|_| (QUIET, traffic(9, 0, 9)), (5.0, 5.0));
        check("pings and pongs alone", &|second| (QUIET, traffic(second as u64, 2, second as u64)), (5.0, 5.0));
        check(
            "what is written is read until 20 s",
            &|second| {
                let taken = (second.min(20.0) * 1000.0) as u64;
                (QUIET, traffic(taken, 20_000 - taken, 0))
            },
            (25.0, 27.5),
        );
        check(
            "a message comes until 20 s",
            &|second| (receiving, traffic(0, 0, (second.min(20.0) * 1000.0) as u64)),
            (25.0, 27.5),
        );
        check("a message stops half-way", &|_| (receiving, traffic(0, 0, 500)), (7.5, 7.5));
        check("what is written is not taken", &|_| (QUIET, traffic(0, 500, 0)), (7.5, 7.5));
    }
}
