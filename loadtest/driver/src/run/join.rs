use std::sync::Arc;

use anyhow::Context as _;
use http::Method;
use serde_json::json;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::group::JOINING;
use super::{CONNECTING, Run, end};
use crate::client::Sending;
use crate::poster::Poster;
use crate::process::{cpu_ms_of, usage};

impl Run<'_> {
    /// All clients join groups by calls for many at once, and leave them. The warm-up is the time in which what calls
    /// needed may be freed before memory is looked at.
    pub(super) async fn join(&mut self) -> anyhow::Result<()> {
        let (scenario, pids) = (self.scenario, self.target.pids.clone());
        let mut sockets = self.connect_all(scenario.connections, CONNECTING).await?;
        let recipients = self.recipients(&mut sockets, true).await?;
        let stop = CancellationToken::new();
        // They answer pings.
        let clients = self.play_clients(sockets, &recipients, || Sending::Never, None, &stop);
        let ids: Vec<&str> = recipients.iter().map(|recipient| &*recipient.id).collect();
        let bodies: Vec<_> = ids.chunks(JOINING).map(|ids| json!({ "connections": ids }).to_string()).collect();
        let mut poster = Poster::connect(Arc::clone(&self.target.endpoints)).await?;
        sleep(scenario.warmup()).await;
        let before = usage(&pids);

        let memberships = (scenario.connections * scenario.groups) as f64;
        self.recorder.begin();
        let (began, cpu_ms) = (Instant::now(), cpu_ms_of(&pids));
        self.change_all(&mut poster, &Method::PUT, &bodies).await?;
        let (seconds, joins_cpu_ms) = (began.elapsed().as_secs_f64(), cpu_ms_of(&pids) - cpu_ms);
        self.recorder.end();
        self.note("operations_per_second", memberships / seconds);
        sleep(scenario.warmup()).await;
        let joined = usage(&pids);
        for group in 0..scenario.groups {
            let answer = poster.call_json(Method::GET, &format!("@groups/group-{group}"), String::new()).await?;
            if answer["connections"] != scenario.connections {
                self.recorder.error(format!("a group has {} members", answer["connections"]));
            }
        }

        let cpu_ms = cpu_ms_of(&pids);
        self.change_all(&mut poster, &Method::DELETE, &bodies).await?;
        let leaves_cpu_ms = cpu_ms_of(&pids) - cpu_ms;
        sleep(scenario.warmup()).await;
        let left = usage(&pids);
        if !pids.is_empty() {
            let grown = joined.rss_kib as f64 - before.rss_kib as f64;
            self.note("join_bytes_each", grown * 1024.0 / memberships);
            self.note("cpu_ms_per_1000", joins_cpu_ms / memberships * 1000.0);
            self.note("leave_cpu_ms_per_1000", leaves_cpu_ms / memberships * 1000.0);
            self.note("memory_left_percent", (left.rss_kib as f64 - before.rss_kib as f64) / grown * 100.0);
            self.note("rss_mib", joined.rss_kib as f64 / 1024.0);
        }
        end(&stop, clients).await
    }

    /// Has all clients join or leave all groups; each call must have changed all that it named.
    async fn change_all(&self, poster: &mut Poster, method: &Method, bodies: &[String]) -> anyhow::Result<()> {
        for group in 0..self.scenario.groups {
            let mut changed = 0;
            for body in bodies {
                let path = format!("@groups/group-{group}/connections");
                let answer = poster.call_json(method.clone(), &path, body.clone()).await?;
                changed += answer["changed"].as_u64().context("the answer does not say what it has changed")?;
            }
            if changed != self.scenario.connections as u64 {
                self.recorder.error(format!("{method} has changed {changed} of {}", self.scenario.connections));
            }
        }
        Ok(())
    }
}
