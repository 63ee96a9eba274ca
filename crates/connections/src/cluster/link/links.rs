use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::handle::{Link, LinkLoad};
use super::handshake::{Introduction, Refusal};
use super::handshake_io::NodeIdentity;
use super::renewal::{RenewalRequest, RenewalRequests};
use super::strangers::Strangers;
use crate::cluster::Membership;
use crate::cluster::recent_nodes::remember;
use crate::redis_client::NodeKey;
use tidegate_core::id::NodeId;
use tidegate_core::lock::lock;
use tidegate_core::secret::Secret;
use tidegate_http::tls::PeerTls;
use tidegate_telemetry::LinkMetrics;

/// Most renewals for peers that wait at once. One more is refused, and the peer asks again.
const RENEWALS_MAX: usize = 256;

/// Most nodes that said goodbye, and most whose link was lost, that are remembered. Beyond it the oldest is forgotten;
/// by then the table of members knows of it.
const DEPARTED_MAX: usize = 4096;

/// All links of this node: at most one to each peer.
///
/// Each node of a pair dials when it has no link, so two handshakes may run at once. A dialler checks again before it
/// proves itself, and from then on it is committed. A committed node with the lower id refuses the dial of the other,
/// and one with the higher id accepts it. So one of the two dials fails before it has carried anything.
///
/// A peer that proves itself has no link to this node at that moment. A link to it that was here before it was
/// challenged is therefore stale: it is stopped, and nothing that it still holds is acted on.
#[derive(Debug)]
pub struct Links {
    identity: ArcSwap<NodeIdentity>,
    /// The queue of renewals that peers ask for, and its receiver until a task takes it.
    renewals: mpsc::Sender<RenewalRequest>,
    renewals_wanted: Mutex<Option<RenewalRequests>>,
    lease: Duration,
    pub(super) membership: Arc<Membership>,
    pub(super) metrics: LinkMetrics,
    slots: RwLock<Slots>,
    /// Notified whenever a slot changes.
    changed: watch::Sender<()>,
    serial: AtomicU64,
    /// Cancelled when this node leaves: it dials and accepts nothing any more.
    pub(super) leaving: CancellationToken,
    /// Connections whose handshake is not finished yet.
    pub(super) strangers: Arc<Strangers>,
    /// TLS of the links, if they are encrypted.
    pub(super) tls: Option<Arc<PeerTls>>,
}

#[derive(Debug, Default)]
struct Slots {
    by_node: HashMap<NodeId, Slot>,
    departed: HashMap<NodeId, Instant>,
    /// Addresses of nodes that were linked and that the table has not named yet.
    met: HashMap<NodeId, String>,
    /// Nodes whose link was lost without a goodbye and that have no new one, and the time of the loss.
    lost: HashMap<NodeId, Instant>,
}

/// The state between this node and one other.
#[derive(Debug, Default)]
struct Slot {
    link: Option<Arc<Link>>,
    committed: bool,
    dials_failed: u32,
    error: Option<String>,
}

/// Another node, as operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerView {
    pub node: NodeId,
    pub advertise: String,
    pub version: String,
    pub link: PeerLink,
}

/// The state of the link to another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerLink {
    Linked {
        since: Instant,
        protocol: u16,
        dialled: bool,
        load: LinkLoad,
    },
    NotLinked {
        dials_failed: u32,
        error: Option<String>,
    },
    /// The node is dead, or it said goodbye.
    Gone,
}

impl Links {
    /// Returns no links yet. `advertise` is the address at which peers reach this node.
    pub fn new(
        node: NodeId,
        advertise: String,
        secret: Secret,
        lease: Duration,
        tls: Option<Arc<PeerTls>>,
        membership: Arc<Membership>,
        metrics: LinkMetrics,
    ) -> Arc<Self> {
        Self::with_identity(NodeIdentity::new(node, advertise, secret), lease, tls, membership, metrics)
    }

    pub(super) fn with_identity(
        identity: NodeIdentity,
        lease: Duration,
        tls: Option<Arc<PeerTls>>,
        membership: Arc<Membership>,
        metrics: LinkMetrics,
    ) -> Arc<Self> {
        let (renewals, wanted) = mpsc::channel(RENEWALS_MAX);
        Arc::new(Links {
            identity: ArcSwap::from_pointee(identity),
            renewals,
            renewals_wanted: Mutex::new(Some(wanted)),
            lease,
            membership,
            metrics,
            slots: RwLock::default(),
            changed: watch::Sender::new(()),
            serial: AtomicU64::new(0),
            leaving: CancellationToken::new(),
            strangers: Arc::default(),
            tls,
        })
    }

    /// Returns the id of this node.
    pub fn node(&self) -> NodeId {
        self.identity.load().introduction.node
    }

    pub(super) fn identity(&self) -> Arc<NodeIdentity> {
        self.identity.load_full()
    }

    /// Gives this node another id: the links of the old one end, and peers are dialled anew.
    pub(in crate::cluster) fn rename(&self, node: NodeId) {
        let mut identity = NodeIdentity::clone(&self.identity());
        identity.introduction.node = node;
        self.identity.store(Arc::new(identity));
        self.all().iter().for_each(|link| link.stop());
    }

    /// Returns the addresses of all other nodes that are known and have not left, including those that are known only
    /// by a link. One that was condemned is among them: it may be back at its address under an id that is not known
    /// yet.
    pub(in crate::cluster) fn addresses(&self) -> Vec<String> {
        let (table, mut slots) = (self.membership.table(), self.write());
        slots.met.retain(|node, _| !table.members.contains_key(node) && !table.departed.contains_key(node));
        let members = table.members.values().map(|member| (member.node, &member.advertise));
        let known = members.chain(slots.met.iter().map(|(node, advertise)| (*node, advertise)));
        let others = known.filter(|(node, _)| *node != self.node() && !slots.departed.contains_key(node));
        others.map(|(_, advertise)| advertise.clone()).collect()
    }

    /// Returns the renewals that peers ask for which do not reach Redis, to the one task that does them. Later calls
    /// return `None`.
    pub fn renewals(&self) -> Option<RenewalRequests> {
        lock(&self.renewals_wanted).take()
    }

    /// Returns the lease `L`, from which the times of links follow.
    pub fn lease(&self) -> Duration {
        self.lease
    }

    /// Returns the link to `node`, if there is one.
    pub fn get(&self, node: &NodeId) -> Option<Arc<Link>> {
        self.read().by_node.get(node)?.link.clone()
    }

    /// Returns all links.
    pub fn all(&self) -> Vec<Arc<Link>> {
        self.read().by_node.values().filter_map(|slot| slot.link.clone()).collect()
    }

    /// Returns the nodes whose link was lost without a goodbye and that have no new one, and since when.
    pub fn lost(&self) -> Vec<(NodeId, Instant)> {
        self.read().lost.iter().map(|(node, since)| (*node, *since)).collect()
    }

    /// Waits for a link to `node`, for at most `within`.
    pub async fn linked(&self, node: &NodeId, within: Duration) -> Option<Arc<Link>> {
        self.wait(Instant::now() + within, || self.get(node)).await
    }

    /// Waits until every living member has been dialled, successfully or not, for at most `within`. A node does so
    /// before it is ready, so that all others know of it.
    pub async fn announced(&self, within: Duration) {
        let all_dialled = || {
            let (table, slots) = (self.membership.table(), self.read());
            let is_dialled =
                |node| slots.by_node.get(node).is_some_and(|slot| slot.link.is_some() || slot.dials_failed > 0);
            let mut living = table.members.values().filter(|member| member.lease_alive && member.node != self.node());
            living.all(|member| is_dialled(&member.node) || slots.departed.contains_key(&member.node)).then_some(())
        };
        self.wait(Instant::now() + within, all_dialled).await;
    }

    /// Waits until the link to `node` is over.
    pub(super) async fn unlinked(&self, node: &NodeId) {
        let mut changed = self.changed.subscribe();
        // This cannot fail: the sender is part of `self`.
        while self.get(node).is_some() && changed.changed().await.is_ok() {}
    }

    async fn wait<T>(&self, until: Instant, look: impl Fn() -> Option<T>) -> Option<T> {
        // Subscribed before the first look, so that no change is missed in between.
        let mut changed = self.changed.subscribe();
        loop {
            if let Some(found) = look() {
                return Some(found);
            }
            timeout_at(until, changed.changed()).await.ok()?.ok()?;
        }
    }

    /// Returns true if `node` said goodbye.
    pub fn has_departed(&self, node: &NodeId) -> bool {
        self.read().departed.contains_key(node)
    }

    /// Returns all other nodes that are known, and the state of the link to each.
    pub fn peers(&self) -> Vec<PeerView> {
        let (table, slots) = (self.membership.table(), self.read());
        let linked = slots.by_node.iter().filter_map(|(node, slot)| Some((*node, slot.link.as_ref()?)));
        let mut peers: Vec<PeerView> = linked
            .map(|(node, link)| PeerView {
                node,
                advertise: link.peer.advertise.clone(),
                version: link.peer.version.clone(),
                link: PeerLink::Linked {
                    since: link.since,
                    protocol: link.protocol,
                    dialled: link.dialled,
                    load: link.load(),
                },
            })
            .collect();
        for member in table.members.values().filter(|member| member.node != self.node()) {
            let slot = slots.by_node.get(&member.node);
            if slot.is_some_and(|slot| slot.link.is_some()) {
                continue;
            }
            let is_gone = matches!(member.key, NodeKey::Dead { .. }) || slots.departed.contains_key(&member.node);
            let link = if is_gone {
                PeerLink::Gone
            } else {
                let (dials_failed, error) = slot.map_or((0, None), |slot| (slot.dials_failed, slot.error.clone()));
                PeerLink::NotLinked { dials_failed, error }
            };
            let (advertise, version) = (member.advertise.clone(), member.version.clone());
            peers.push(PeerView { node: member.node, advertise, version, link });
        }
        peers.sort_by_key(|peer| peer.node);
        peers
    }

    /// Says goodbye on every link, once every call is answered, and waits until all links are over, for at most
    /// `within`; those that are left are stopped. Call it when no connection of this node is left.
    pub async fn leave(&self, within: Duration) {
        self.leaving.cancel();
        self.read().by_node.values().filter_map(|slot| slot.link.as_ref()).for_each(|link| link.leave());
        let none_left = || self.read().by_node.values().all(|slot| slot.link.is_none()).then_some(());
        if self.wait(Instant::now() + within, none_left).await.is_none() {
            self.read().by_node.values().filter_map(|slot| slot.link.as_ref()).for_each(|link| link.stop());
        }
    }

    /// Ends the link to `node`, which is dead.
    pub(super) fn stop(&self, node: &NodeId) {
        if let Some(link) = self.get(node) {
            link.stop();
        }
    }

    /// Notes that dialling `node` failed with `error`. Returns the number of failures in a row.
    pub(super) fn dial_failed(&self, node: NodeId, error: String) -> u32 {
        let failed = {
            let mut slots = self.write();
            let slot = slots.by_node.entry(node).or_default();
            slot.dials_failed = slot.dials_failed.saturating_add(1);
            slot.error = Some(error);
            slot.dials_failed
        };
        self.changed.send_replace(());
        failed
    }

    /// Forgets `node`, which is no member any more, unless it is linked.
    pub(super) fn forget(&self, node: &NodeId) {
        let mut slots = self.write();
        if slots.by_node.get(node).is_some_and(|slot| slot.link.is_none() && !slot.committed) {
            slots.by_node.remove(node);
        }
    }

    /// Checks a dialler that says that it is `node`. Returns the serial of the link that is there already, if there is
    /// one.
    pub(super) fn expect(&self, node: &NodeId) -> Result<Option<u64>, Refusal> {
        self.may_link(node)?;
        Ok(self.get(node).map(|link| link.serial))
    }

    fn may_link(&self, node: &NodeId) -> Result<(), Refusal> {
        if *node == self.node() {
            return Err(Refusal::OwnId);
        }
        if self.leaving.is_cancelled() {
            return Err(Refusal::Leaving);
        }
        let table = self.membership.table();
        let is_dead = matches!(table.members.get(node), Some(member) if matches!(member.key, NodeKey::Dead { .. }));
        if is_dead || table.departed.contains_key(node) || self.has_departed(node) {
            return Err(Refusal::Departed);
        }
        Ok(())
    }

    /// Accepts a dialler that has proved itself. `expected` is what [`Links::expect`] returned before.
    pub(super) fn accepted(
        self: &Arc<Self>,
        peer: Introduction,
        protocol: u16,
        expected: Option<u64>,
    ) -> Result<RegisteredLink, Refusal> {
        self.may_link(&peer.node)?;
        let wins = self.node() < peer.node;
        self.register(peer, protocol, false, |slot| {
            let is_newer = slot.link.as_ref().is_some_and(|link| expected != Some(link.serial));
            if is_newer || (slot.committed && wins) { Err(Refusal::Linked) } else { Ok(()) }
        })
    }

    /// Commits this node to prove itself to `node`, which it has dialled.
    pub(super) fn commit(self: &Arc<Self>, node: NodeId) -> Result<Commitment, Refusal> {
        self.may_link(&node)?;
        let mut slots = self.write();
        let slot = slots.by_node.entry(node).or_default();
        if slot.link.is_some() {
            return Err(Refusal::Linked);
        }
        slot.committed = true;
        Ok(Commitment { links: Arc::clone(self), node })
    }

    /// Puts a new link into its slot, in place of the one that is there, if `check` allows it.
    fn register(
        self: &Arc<Self>,
        peer: Introduction,
        protocol: u16,
        dialled: bool,
        check: impl FnOnce(&Slot) -> Result<(), Refusal>,
    ) -> Result<RegisteredLink, Refusal> {
        let node = peer.node;
        let link = Link::new(peer, protocol, dialled, self.serial.fetch_add(1, Ordering::Relaxed));
        let replaced = {
            // Checked and replaced under one lock: of two handshakes with one peer, the later sees what the earlier
            // did.
            let mut slots = self.write();
            let slot = slots.by_node.entry(node).or_default();
            check(slot)?;
            slot.dials_failed = 0;
            slot.error = None;
            let replaced = slot.link.replace(Arc::clone(&link));
            if slots.met.len() < DEPARTED_MAX {
                slots.met.insert(node, link.peer.advertise.clone());
            }
            slots.lost.remove(&node);
            replaced
        };
        // Stopped before the driver of the new link begins, and before the peer knows that there is a new link: so
        // nothing of the old link is acted on after anything of the new one.
        if let Some(replaced) = replaced {
            replaced.stop();
        }
        // [`Links::leave`] cancels first and then walks over the slots. If its walk came before this link was in its
        // slot, the cancellation is seen here.
        if self.leaving.is_cancelled() {
            link.leave();
        }
        self.metrics.opened();
        self.changed.send_replace(());
        Ok(RegisteredLink { links: Arc::clone(self), link, is_over: false })
    }

    fn unregister(&self, link: &Link, said_goodbye: bool) {
        {
            let mut slots = self.write();
            if said_goodbye {
                slots.met.remove(&link.peer.node);
                remember(&mut slots.departed, DEPARTED_MAX, link.peer.node, Instant::now());
            }
            let is_current = |slot: &Slot| slot.link.as_ref().is_some_and(|current| current.serial == link.serial);
            if let Entry::Occupied(mut slot) = slots.by_node.entry(link.peer.node)
                && is_current(slot.get())
            {
                slot.get_mut().link = None;
                // A node that dialled and is no member leaves nothing behind.
                if !slot.get().committed {
                    slot.remove();
                }
                if !said_goodbye {
                    remember(&mut slots.lost, DEPARTED_MAX, link.peer.node, Instant::now());
                }
            }
        }
        self.metrics.closed();
        self.changed.send_replace(());
    }

    fn read(&self) -> RwLockReadGuard<'_, Slots> {
        self.slots.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Slots> {
        self.slots.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The commitment of a dialler that is about to prove itself, or has done so. Dropping it ends the commitment, whether
/// the dial became a link or failed.
pub(super) struct Commitment {
    links: Arc<Links>,
    node: NodeId,
}

impl Commitment {
    /// Registers the link: the other node has proved itself too.
    pub(super) fn dialled(self, peer: Introduction, protocol: u16) -> Result<RegisteredLink, Refusal> {
        self.links.register(peer, protocol, true, |_| Ok(()))
    }
}

impl Drop for Commitment {
    fn drop(&mut self) {
        if let Some(slot) = self.links.write().by_node.get_mut(&self.node) {
            slot.committed = false;
        }
    }
}

/// A link that others can find. Dropping it ends the link.
#[derive(Debug)]
pub(super) struct RegisteredLink {
    links: Arc<Links>,
    link: Arc<Link>,
    is_over: bool,
}

impl RegisteredLink {
    pub(super) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    pub(super) fn renewals(&self) -> &mpsc::Sender<RenewalRequest> {
        &self.links.renewals
    }

    /// Ends the link: it cannot be found any more, and its calls get their answers. `left` is the last call that was
    /// sent as a whole.
    pub(super) fn ended(&mut self, left: u64, said_goodbye: bool) {
        if !std::mem::replace(&mut self.is_over, true) {
            self.links.unregister(&self.link, said_goodbye);
            self.link.end(left, said_goodbye);
        }
    }
}

impl Drop for RegisteredLink {
    fn drop(&mut self) {
        // The driver was cancelled: any frame may have left.
        self.ended(u64::MAX, false);
    }
}
