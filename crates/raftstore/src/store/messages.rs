//! Messages of other stores: which peer they are for, and who begins or ends because of them.
//!
//! A store believes who knows the region's members better. A sender that is behind is told that it is gone, if it is;
//! a peer that hears that it is gone, from somebody who knows later members, destroys itself. A peer that hears of a
//! region for the first time begins without members. It takes no entries before a snapshot has told it who they are, but
//! it votes: after a split, most members of a new region may have got past it by a snapshot of the old one, and whoever
//! has the new region needs their votes. What such a peer has promised lies in the log and stays there, so that it is
//! kept by whoever lives there next.

use raft::MessageBody as RaftBody;
use types::{
    KeyRange, Peer as Member, PeerId, PeerRole, Region, RegionEpoch, RegionId,
    marks::{mutant, sometimes},
};

use super::{Output, Store};
use crate::{
    error::{Error, Result},
    message::{MessageBody, StoreMessage},
    peer::{Peer, ready::is_from_leader},
    snapshot::Descriptor,
    state::{self, ApplyState, PeerState},
};

impl<A> Store<A> {
    pub(super) fn on_message(&mut self, message: StoreMessage) -> Result<()> {
        let region_id = message.region_id;
        if message.to.store_id != self.config.store_id {
            return Ok(());
        }
        self.sleepers.hear(message.from.store_id, self.ticks);
        if self.destroying.contains_key(&region_id) {
            return Ok(());
        }
        let (raft, range) = match message.body {
            MessageBody::Gone { region } => {
                self.wake(region_id);
                self.on_gone(message.from.id, message.to.id, &region);
                return Ok(());
            }
            MessageBody::AmIMember => {
                self.wake(region_id);
                self.on_am_i_member(&message)?;
                return Ok(());
            }
            MessageBody::Ping => return Ok(()),
            MessageBody::Sleep { term, index } => {
                self.on_sleep(&message, term, index);
                return Ok(());
            }
            MessageBody::Wake => {
                self.wake(region_id);
                // A removed peer that slept meanwhile says nothing else before its next doze is over.
                self.on_am_i_member(&message)?;
                return Ok(());
            }
            MessageBody::Raft { message: ref raft, ref range } => (raft.clone(), range.clone()),
        };
        if let Some(peer) = self.peers.get(&region_id) {
            if message.to.id < peer.id {
                // For somebody who lived here before.
                self.tell_gone(&message);
                return Ok(());
            }
            if peer.id < message.to.id {
                // Who lives here was removed, and somebody new was added on this store.
                if message.epoch.conf_ver <= peer.region.epoch.conf_ver && peer.is_initialised() {
                    return Ok(());
                }
                self.destroy(region_id);
                if self.destroying.contains_key(&region_id) {
                    return Ok(());
                }
            }
        }
        if !self.peers.contains_key(&region_id) && !self.begin_peer(&message, &raft.body, &range)? {
            return Ok(());
        }
        let Some(peer) = self.peers.get(&region_id) else { return Ok(()) };
        let knows = &peer.region;
        let is_member = knows.peers.iter().any(|member| member.id == message.from.id);
        if message.epoch.conf_ver < knows.epoch.conf_ver && !is_member {
            self.tell_gone(&message);
            return Ok(());
        }
        if let RaftBody::Snapshot(snapshot) = &raft.body
            && !self.accepts_snapshot(region_id, &snapshot.data, message.to.id.0)?
        {
            return Ok(());
        }
        let Some(peer) = self.peers.get_mut(&region_id) else { return Ok(()) };
        if !is_member {
            peer.addresses.insert(message.from.id, message.from);
        }
        peer.spoken_to_in = peer.spoken_to_in.max(message.epoch.conf_ver);
        // A learner that is removed goes on believing in its last leader: silence is what tells.
        if is_from_leader(&raft.body) && peer.node.term() <= raft.term {
            peer.leaderless = 0;
        }
        let (idle, sleeps) = (peer.idle, peer.sleeps_under.is_some());
        let beats =
            matches!(raft.body, RaftBody::Heartbeat { .. } | RaftBody::HeartbeatResponse { .. });
        // The answer to a heartbeat may come when the leader sleeps already.
        let is_late = sleeps && matches!(raft.body, RaftBody::HeartbeatResponse { .. });
        match peer.node.step(raft) {
            Ok(()) => {}
            Err(error) if error.class() == types::ErrorClass::Fatal => {
                return Err(Error::Raft { region: region_id, error });
            }
            // What makes no sense is dropped, as if it had been lost.
            Err(_) => {}
        }
        if is_late {
            self.dirty.insert(region_id);
            return Ok(());
        }
        self.wake(region_id);
        if beats && let Some(peer) = self.peers.get_mut(&region_id) {
            // That the leader is there is nothing to do.
            peer.idle = idle;
        }
        Ok(())
    }

    /// Begins a peer for a region that is not here, if the message says that there should be one.
    fn begin_peer(
        &mut self,
        message: &StoreMessage,
        body: &RaftBody,
        range: &KeyRange,
    ) -> Result<bool> {
        let region_id = message.region_id;
        let snapshot = self.engine.snapshot()?;
        if let Some(found) = state::region_state(&*snapshot, region_id)? {
            let known = &found.region;
            if found.state != PeerState::Tombstone {
                // A split has made it, and the applier has not said so yet.
                self.keep_early(message);
                return Ok(false);
            }
            // A removed peer must not come back. Its id is never used again, and later ones are larger.
            let gone = known.peer_on(self.config.store_id);
            if gone.is_some_and(|gone| message.to.id <= gone.id) {
                sometimes!("store: a message to a removed peer is refused");
                let is_member = known.peers.iter().any(|peer| peer.id == message.from.id);
                if message.epoch.conf_ver < known.epoch.conf_ver && !is_member {
                    self.send_gone(message, known.clone());
                }
                return Ok(false);
            }
        }
        if message.epoch != RegionEpoch::default() && self.overlaps(range, region_id) {
            // It will come by a split that is not applied here yet.
            if matches!(body, RaftBody::Snapshot(_)) {
                sometimes!("store: a snapshot comes before the split that makes its region");
            }
            self.keep_early(message);
            return Ok(false);
        }
        let asks = matches!(body, RaftBody::Vote { .. } | RaftBody::PreVote { .. });
        if !is_from_leader(body) && !asks {
            return Ok(false);
        }
        let region = Region { id: region_id, ..Region::default() };
        let rng = self.rng.fork();
        let nothing = ApplyState::default();
        let peer = Peer::new(&self.config, self.log.clone(), message.to.id, region, nothing, rng)?;
        self.peers.insert(region_id, peer);
        self.wake(region_id);
        Ok(true)
    }

    /// Keeps the first vote of a region that is about to come.
    fn keep_early(&mut self, message: &StoreMessage) {
        let MessageBody::Raft { message: raft, .. } = &message.body else { return };
        if matches!(raft.body, RaftBody::Vote { .. } | RaftBody::PreVote { .. }) {
            if self.config.early_messages_max <= self.early.len() {
                self.early.pop_front();
            }
            sometimes!("store: an early message is kept");
            self.early.push_back(message.clone());
        }
    }

    /// Whether a snapshot may be installed: it is for this peer, and no other region of this store has its keys, or might
    /// have them again after a crash. One that is refused comes again.
    fn accepts_snapshot(&self, region_id: RegionId, data: &[u8], to: u64) -> Result<bool> {
        let descriptor =
            Descriptor::decode(data).map_err(|error| Error::damaged(region_id, error))?;
        let region = &descriptor.region;
        let is_member = region.peers.iter().any(|peer| peer.id.0 == to);
        let installing = self.peers.values().filter(|peer| peer.installing.is_some()).count();
        if self.config.snapshots_receiving_max <= installing {
            return Ok(false);
        }
        let is_installing =
            self.peers.get(&region_id).is_some_and(|peer| peer.installing.is_some());
        let installs_there = self.peers.values().any(|peer| {
            peer.region_id() != region_id
                && peer
                    .installing
                    .as_ref()
                    .is_some_and(|other| !other.region.range.intersect(&region.range).is_empty())
        });
        let overlaps = self.overlaps(&region.range, region_id);
        if overlaps {
            sometimes!("store: a snapshot is refused because its keys are another region's");
        }
        // A crash must not bring those back who had these keys before: their entries would be applied again.
        let destroying = self.destroying.values().map(|destroying| &destroying.range);
        let mut before = destroying.chain(&self.unsettled);
        let comes_back = before.any(|range| !range.intersect(&region.range).is_empty())
            && !mutant!("overlap_is_not_checked");
        let comes_back = comes_back && !mutant!("snapshot_before_its_range_is_settled");
        if comes_back {
            sometimes!("store: a snapshot is refused because who had its keys may come back");
        }
        Ok(is_member && !is_installing && !installs_there && !overlaps && !comes_back)
    }

    /// A peer here was removed, as somebody says who knows the members `region` has since.
    ///
    /// A voter does not believe a learner: of those who vote, nobody may know it yet (the learner heard it from a leader
    /// that removes itself), and then they need this peer's vote. It asks those who vote.
    fn on_gone(&mut self, from: PeerId, peer_id: PeerId, region: &Region) {
        let Some(peer) = self.peers.get_mut(&region.id) else { return };
        let is_later = peer.region.epoch.conf_ver < region.epoch.conf_ver;
        let is_member = region.peers.iter().any(|member| member.id == peer_id);
        if peer.id != peer_id || !is_later || is_member || peer.installing.is_some() {
            return;
        }
        let learner = |member: &&Member| member.role == PeerRole::Learner;
        let is_told_by_learner = region.peers.iter().filter(learner).any(|peer| peer.id == from);
        if is_told_by_learner && peer.member().role != PeerRole::Learner {
            let voters = region.peers.iter().filter(|member| !learner(member));
            peer.addresses.extend(voters.map(|member| (member.id, *member)));
            self.ask_membership(region.id);
            return;
        }
        sometimes!("store: a peer learns that it is gone");
        self.go(region);
    }

    /// The scheduler knows a region, and the peer here has heard of no leader: it goes, if its leaders went on without it.
    ///
    /// Members have an order. Who removed this peer told the scheduler after that was applied, and so durable, where it
    /// led. A peer without data has no members to compare: it was spoken to as one when they were `spoken_to_in`, so that
    /// later ones without it have removed it.
    pub(super) fn on_region_known(&mut self, region: &Region) {
        let Some(peer) = self.peers.get(&region.id) else { return };
        let known = peer.region.epoch.conf_ver.max(peer.spoken_to_in);
        let is_member = region.peers.iter().any(|member| member.id == peer.id);
        if known == 0 || region.epoch.conf_ver <= known || is_member || peer.installing.is_some() {
            return;
        }
        sometimes!("store: a peer learns from the scheduler that it is gone");
        self.go(region);
    }

    /// The peer of a region was removed: `region` is how it is since.
    fn go(&mut self, region: &Region) {
        let Some(peer) = self.peers.get_mut(&region.id) else { return };
        // The tombstone remembers since when, and who the members elsewhere are since: it may be asked by one of them.
        // Of this store it remembers who goes (`destroy`). Who knew nothing of the region leaves none.
        if peer.is_initialised() {
            let store = self.config.store_id;
            let elsewhere = region.peers.iter().filter(|member| member.store_id != store);
            peer.region.epoch.conf_ver = region.epoch.conf_ver;
            peer.region.peers = elsewhere.copied().collect();
        }
        self.destroy(region.id);
    }

    /// Somebody hears of no leader. Who lives here knows, or who did: a tombstone remembers the members of its time.
    fn on_am_i_member(&mut self, message: &StoreMessage) -> Result<()> {
        if self.peers.contains_key(&message.region_id) {
            self.tell_gone(message);
            return Ok(());
        }
        let snapshot = self.engine.snapshot()?;
        if let Some(found) = state::region_state(&*snapshot, message.region_id)? {
            let is_member = found.region.peers.iter().any(|peer| peer.id == message.from.id);
            if message.epoch.conf_ver < found.region.epoch.conf_ver && !is_member {
                self.send_gone(message, found.region);
            }
        }
        Ok(())
    }

    /// Asks the members of a region whether this store's peer still is one, and the scheduler, should none of them be left.
    pub(super) fn ask_membership(&mut self, region_id: RegionId) {
        if mutant!("nobody_asks_whether_it_is_a_member") {
            return;
        }
        let Some(peer) = self.peers.get(&region_id) else { return };
        sometimes!("store: a peer asks whether it is a member");
        let others = peer.region.peers.iter().chain(peer.addresses.values());
        for to in others.filter(|member| member.id != peer.id) {
            self.out.push(peer.say(*to, MessageBody::AmIMember));
        }
        self.out.push(Output::AskRegion { region_id });
    }

    /// Tells a sender that it is no member any more.
    fn tell_gone(&mut self, message: &StoreMessage) {
        let Some(peer) = self.peers.get(&message.region_id) else { return };
        let region = peer.region.clone();
        let is_member = region.peers.iter().any(|peer| peer.id == message.from.id);
        if peer.is_initialised() && message.epoch.conf_ver < region.epoch.conf_ver && !is_member {
            self.send_gone(message, region);
        }
    }

    fn send_gone(&mut self, message: &StoreMessage, region: Region) {
        self.out.push(Output::Send(Box::new(StoreMessage {
            region_id: message.region_id,
            from: message.to,
            to: message.from,
            epoch: region.epoch,
            body: MessageBody::Gone { region },
        })));
    }
}
