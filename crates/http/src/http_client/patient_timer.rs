use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};
use hyper_util::rt::TokioTimer;
use tokio::time::sleep_until;

use crate::transport::{Ends, Watch};

/// The timer of one HTTP/2 connection. hyper uses it to decide when the answer to a ping is overdue. That time does not
/// run while bytes arrive, nor while the backend's TCP still acknowledges what was written before the ping.
#[derive(Clone, Debug)]
pub(super) struct PatientTimer {
    /// Ends of the TCP connection. With `None` the kernel has no figures for it, and time always runs.
    pub(super) ends: Option<Ends>,
    /// Longest time for the answer to a ping. A longer sleep is not for a ping, and is an ordinary one.
    pub(super) ping_timeout: Duration,
}

impl Timer for PatientTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        match self.ends {
            Some(ends) if deadline <= self.now() + self.ping_timeout => {
                Box::pin(PatientSleep::new(ends, tokio::time::Instant::from_std(deadline)))
            }
            Some(_) | None => TokioTimer::new().sleep_until(deadline),
        }
    }

    fn now(&self) -> Instant {
        TokioTimer::new().now()
    }
}

/// A sleep that ends when nothing has moved on a connection for `timeout`.
struct PatientSleep {
    ends: Ends,
    since: tokio::time::Instant,
    timeout: Duration,
    watch: Option<Watch>,
    sleep: Pin<Box<tokio::time::Sleep>>,
}

impl PatientSleep {
    fn new(ends: Ends, deadline: tokio::time::Instant) -> Self {
        let now = tokio::time::Instant::now();
        let timeout = deadline.saturating_duration_since(now);
        let first = Watch::next_look(None, now, timeout).unwrap_or(deadline);
        PatientSleep { ends, since: now, timeout, watch: None, sleep: Box::pin(sleep_until(first)) }
    }

    /// Looks at the traffic of the connection. Returns the time of the next look, or `None` if the sleep is over.
    fn look(&mut self) -> Option<tokio::time::Instant> {
        let now = tokio::time::Instant::now();
        // Without figures, nothing moves.
        let traffic = self.ends.traffic().unwrap_or_default();
        match &mut self.watch {
            None => self.watch = Some(Watch::new(now, traffic, false)),
            Some(watch) => {
                let moved = watch.look(now, traffic, false);
                if moved.came || moved.before_question {
                    self.since = now;
                }
            }
        }
        Watch::next_look(self.watch.as_ref(), self.since, self.timeout)
    }
}

impl Future for PatientSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            match self.look() {
                Some(at) => self.sleep.as_mut().reset(at),
                None => return Poll::Ready(()),
            }
        }
    }
}

impl Sleep for PatientSleep {}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpSocket};
    use tokio_util::task::TaskTracker;

    use super::*;

    const PING_TIMEOUT: Duration = Duration::from_secs(2);

    #[tokio::test]
    async fn a_ping_is_not_overdue_while_the_backend_takes_what_was_written_before_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let slow = TcpSocket::new_v4().unwrap();
        slow.set_recv_buffer_size(4096).unwrap();
        let (slow, accepted) = tokio::join!(slow.connect(listener.local_addr().unwrap()), listener.accept());
        let (mut slow, mut stream) = (slow.unwrap(), accepted.unwrap().0);
        let timer = PatientTimer { ends: Ends::of(&stream), ping_timeout: PING_TIMEOUT };

        let written = 500_000;
        stream.write_all(&vec![7; written]).await.unwrap();
        let tasks = TaskTracker::new();
        let reading = tasks.spawn(async move {
            let (mut left, mut piece) = (written, [0; 4096]);
            while left > 0 {
                left -= slow.read(&mut piece).await.unwrap();
                tokio::time::sleep(Duration::from_millis(40)).await;
            }
            slow
        });
        let begun = Instant::now();
        let mut overdue = timer.sleep(PING_TIMEOUT);
        let slow = tokio::select! {
            () = &mut overdue => panic!("overdue after {:?}", begun.elapsed()),
            slow = reading => slow.unwrap(),
        };
        assert!(begun.elapsed() > PING_TIMEOUT, "it read for long enough");
        // Everything is read, and no answer comes.
        overdue.await;
        drop(slow);
    }

    #[tokio::test]
    async fn what_is_no_ping_and_what_nobody_can_tell_of_ends_in_time() {
        let nowhere = "127.0.0.1:1".parse().unwrap();
        let ends = Some(Ends { local: nowhere, remote: nowhere });
        for (ends, duration) in [(None, PING_TIMEOUT), (ends, PING_TIMEOUT), (ends, PING_TIMEOUT * 2)] {
            let begun = Instant::now();
            PatientTimer { ends, ping_timeout: PING_TIMEOUT }.sleep(duration).await;
            assert!(begun.elapsed() >= duration);
        }
    }
}
