use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::ledger::{Entry, EventType, Ledger, Push};
use crate::{LIMIT, Session};

/// The wording of a problem with a connection that is still open.
const LIVES: &str = "a connection that lives";

/// All that the backend was told of one connection.
#[derive(Default)]
struct Account<'a> {
    connects: Vec<&'a Entry>,
    messages: Vec<&'a Entry>,
    disconnects: Vec<&'a Entry>,
}

impl Ledger {
    /// Waits until each connection that the backend took has its `$disconnect`, but for the living, and then proves:
    ///
    /// - connects and disconnects pair up one to one, by connection id and by event id;
    /// - none of the living, or of those that the backend refused, has a `$disconnect`;
    /// - a `$disconnect` began after everything else of its connection was answered, and nothing came after it;
    /// - no push was written after it, and none after a 410, which no living connection got.
    pub async fn balances(&self, living: &HashSet<String>) {
        let end = Instant::now() + LIMIT;
        loop {
            let problems = self.problems(living);
            if problems.is_empty() {
                return;
            }
            let first = &problems[..problems.len().min(20)];
            assert!(Instant::now() < end, "{} problems, such as {first:#?}", problems.len());
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Proves that the backend was told of no end of these, and that nobody was answered 410 for them.
    pub fn holds_alive(&self, living: &HashSet<String>) {
        let problems = self.problems(living);
        let lies: Vec<_> = problems.iter().filter(|problem| problem.contains(LIVES)).collect();
        assert!(lies.is_empty(), "{lies:#?}");
    }

    /// Returns the problems now. Missing disconnects may still come; anything else stays wrong.
    pub fn problems(&self, living: &HashSet<String>) -> Vec<String> {
        let book = self.book.lock().unwrap();
        let mut accounts: HashMap<&str, Account<'_>> = HashMap::new();
        let mut owners: HashMap<&str, &str> = HashMap::new();
        let mut problems = Vec::new();
        for call in &book.calls {
            let account = accounts.entry(&call.connection_id).or_default();
            match call.event_type {
                EventType::Connect => account.connects.push(call),
                EventType::Message => account.messages.push(call),
                EventType::Disconnect => account.disconnects.push(call),
            }
            let owner = owners.entry(&call.event_id).or_insert(&call.connection_id);
            if *owner != call.connection_id {
                problems.push(format!("{owner} and {} share event {}", call.connection_id, call.event_id));
            }
        }
        for (id, account) in &accounts {
            if let Err(problem) = account.check(living.contains(*id)) {
                problems.push(format!("{id}: {problem}"));
            }
        }
        // A 410 is right before the answer to `$connect` has reached the gateway: what counts is one for a connection that
        // has shown itself open.
        let mut open: HashMap<&str, Instant> = HashMap::new();
        let messages = book.calls.iter().filter(|call| call.event_type == EventType::Message);
        let shown = messages.map(|call| (call.connection_id.as_str(), call.begun));
        let written = book.pushes.iter().filter(|push| push.status == Some(200));
        for (id, since) in shown.chain(written.clone().map(|push| (push.connection_id.as_str(), push.ended))) {
            let known = open.entry(id).or_insert(since);
            *known = since.min(*known);
        }
        let mut gone: HashMap<&str, Instant> = HashMap::new();
        for push in book.pushes.iter().filter(|push| push.status == Some(410)) {
            let id = push.connection_id.as_str();
            if open.get(id).is_some_and(|since| push.begun > *since) {
                let ended = gone.entry(id).or_insert(push.ended);
                *ended = push.ended.min(*ended);
                if living.contains(id) {
                    problems.push(format!("{id}: 410 for {LIVES}"));
                }
            }
        }
        for push in written {
            let id = push.connection_id.as_str();
            let told = accounts.get(id).and_then(|account| account.disconnects.first()).map(|call| call.begun);
            for (what, end) in [("its $disconnect", told), ("a 410", gone.get(id).copied())] {
                if end.is_some_and(|end| push.begun > end) {
                    problems.push(format!("{id}: a push was written after {what}"));
                }
            }
        }
        problems
    }

    /// Proves that what was pushed and what clients received is the same:
    ///
    /// - what was answered 200 was received; what was received was answered 200, or nobody knew;
    /// - every session received what was for one connection alone, each text once;
    /// - what was answered 200 before another push began was received before it.
    pub fn pushes_arrived(&self, sessions: &[Session]) {
        let pushes = self.pushes();
        let by_text: HashMap<&str, &Push> = pushes.iter().map(|push| (push.text.as_str(), push)).collect();
        let mut received: HashSet<&str> = HashSet::new();
        for session in sessions {
            let (mut connection, mut begun) = (None, None::<Instant>);
            for text in &session.received {
                let push = by_text.get(text.as_str()).unwrap_or_else(|| panic!("nobody pushed {text:?}"));
                assert!(received.insert(text), "{text:?} came twice");
                assert!(matches!(push.status, Some(200 | 424) | None), "{push:?} was received");
                assert_eq!(*connection.get_or_insert(&push.connection_id), &push.connection_id, "of another client");
                // What nobody knew of may be on its way still.
                let is_in_order = push.status != Some(200) || begun.is_none_or(|begun| push.ended >= begun);
                assert!(is_in_order, "{push:?} came out of order");
                begun = begun.max(Some(push.begun));
            }
        }
        let lost: Vec<&Push> =
            pushes.iter().filter(|push| push.status == Some(200) && !received.contains(&*push.text)).collect();
        assert!(lost.is_empty(), "{} of {} pushes were answered 200 and lost: {lost:#?}", lost.len(), pushes.len());
    }
}

impl Account<'_> {
    fn check(&self, lives: bool) -> Result<(), String> {
        let [connect] = self.connects[..] else { return Err(format!("{} connects", self.connects.len())) };
        let Some(first) = self.disconnects.first() else {
            return match connect.answered {
                _ if lives => Ok(()),
                Some((200, _)) => Err("no $disconnect".to_owned()),
                Some(_) => Ok(()),
                None => Err("no $disconnect, and its connect had no answer".to_owned()),
            };
        };
        if lives {
            return Err(format!("a $disconnect for {LIVES}: {first:?}"));
        }
        if matches!(connect.answered, Some((status, _)) if status != 200) {
            return Err(format!("a $disconnect although it was refused: {connect:?}"));
        }
        if let Some(other) = self.disconnects.iter().find(|call| call.event_id != first.event_id) {
            return Err(format!("two $disconnect events: {first:?} and {other:?}"));
        }
        if first.event_id == connect.event_id || self.messages.iter().any(|call| call.event_id == first.event_id) {
            return Err(format!("the id of its $disconnect is another event's: {first:?}"));
        }
        if first.attempt != 1 || !self.disconnects.is_sorted_by_key(|call| call.attempt) {
            return Err(format!(
                "attempts are {:?}",
                self.disconnects.iter().map(|call| call.attempt).collect::<Vec<_>>()
            ));
        }
        if !self.disconnects.iter().any(|call| matches!(call.answered, Some((200, _)))) {
            return Err("its $disconnect was not taken yet".to_owned());
        }
        for call in [connect].into_iter().chain(self.messages.iter().copied()) {
            if call.begun > first.begun || matches!(call.answered, Some((_, answered)) if answered > first.begun) {
                return Err(format!("after its $disconnect came, or was still under way, {call:?}"));
            }
        }
        Ok(())
    }
}
