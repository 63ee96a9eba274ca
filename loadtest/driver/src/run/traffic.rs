use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{CONNECTING, Run, deal, end, lanes};
use crate::client::{self, Client, Recipient, Sending};
use crate::pacer;
use crate::payload::Messages;
use crate::poster::{self, Each, Poster, Posting};

/// Reconnecting clients that are between connect and close at the same time.
const VISITORS: usize = 16;

impl Run<'_> {
    /// Messages, posts and reconnects at their rates, or as many as the target takes.
    pub(super) async fn traffic(&mut self) -> anyhow::Result<()> {
        let scenario = self.scenario;
        let mut sockets = self.connect_all(scenario.connections, CONNECTING).await?;
        let recipients = self.recipients(&mut sockets, scenario.posts()).await?;
        let (stop_posters, stop_clients) = (CancellationToken::new(), CancellationToken::new());

        let clients = match scenario.messages_per_second {
            _ if !scenario.dispatches() => {
                self.play_clients(sockets, &recipients, || Sending::Never, None, &stop_clients)
            }
            None => {
                let saturated = || Sending::Saturated { in_flight: scenario.in_flight };
                self.play_clients(sockets, &recipients, saturated, None, &stop_clients)
            }
            Some(per_second) => {
                let (pace, dues) = lanes(scenario.connections);
                let mut dues = dues.into_iter();
                let paced = || dues.next().map_or(Sending::Never, Sending::Paced);
                let clients = self.play_clients(sockets, &recipients, paced, None, &stop_clients);
                pacer::start(Arc::clone(&self.recorder), per_second, pace);
                clients
            }
        };
        let posters = match scenario.posts() {
            true => self.play_posters(&recipients, &stop_posters).await?,
            false => JoinSet::new(),
        };
        let visitors = self.play_visitors(&stop_posters);

        self.measure_load().await;

        end(&stop_posters, visitors).await?;
        end(&stop_posters, posters).await?;
        end(&stop_clients, clients).await?;
        self.note_latencies();
        Ok(())
    }

    pub(super) async fn play_posters(
        &self,
        recipients: &[Arc<Recipient>],
        stop: &CancellationToken,
    ) -> anyhow::Result<JoinSet<()>> {
        let hands = deal(recipients, self.scenario.posters);
        let (pace, dues) = lanes(hands.len());
        let mut posters = JoinSet::new();
        for (hand, dues) in hands.into_iter().zip(dues) {
            let poster = Poster::connect(Arc::clone(&self.target.endpoints)).await?;
            let posting = match self.scenario.posts_per_second {
                None => Posting::Saturated,
                Some(_) => Posting::Told(dues, Each::One),
            };
            let (recorder, posts) = (Arc::clone(&self.recorder), Arc::clone(&self.posts));
            posters.spawn(poster::run(poster, recorder, hand, posts, posting, stop.clone()));
        }
        if let Some(per_second) = self.scenario.posts_per_second {
            pacer::start(Arc::clone(&self.recorder), per_second, pace);
        }
        Ok(posters)
    }

    /// Clients that connect, send one message and leave.
    fn play_visitors(&self, stop: &CancellationToken) -> JoinSet<()> {
        let Some(per_second) = self.scenario.reconnects_per_second else { return JoinSet::new() };
        let (pace, dues) = lanes(VISITORS);
        let first = self.scenario.connections;
        let visitors = dues.into_iter().enumerate().map(|(lane, mut dues)| {
            let (endpoints, recorder) = (Arc::clone(&self.target.endpoints), Arc::clone(&self.recorder));
            let (posts, stop) = (Arc::clone(&self.posts), stop.clone());
            let (routes, bytes) = (self.scenario.routes, self.scenario.payload_bytes);
            async move {
                loop {
                    tokio::select! {
                        () = stop.cancelled() => return,
                        due = dues.recv() => if due.is_none() { return },
                    }
                    match client::connect(&endpoints, first + lane).await {
                        Ok(socket) => {
                            let client = Client {
                                socket,
                                recorder: Arc::clone(&recorder),
                                messages: Messages::new(first + lane, routes, bytes),
                                posts: Arc::clone(&posts),
                                recipient: Arc::default(),
                                delivered: None,
                            };
                            let leaves_at_once = CancellationToken::new();
                            leaves_at_once.cancel();
                            // It sends one message and leaves when that is answered.
                            client.run(Sending::Saturated { in_flight: 1 }, leaves_at_once).await;
                            recorder.note("reconnects");
                        }
                        Err(error) => recorder.error(format!("a client could not reconnect: {error:#}")),
                    }
                }
            }
        });
        let visitors = visitors.collect();
        pacer::start(Arc::clone(&self.recorder), per_second, pace);
        visitors
    }
}
