//! What others may know of a peer without asking it: where its region lies, who leads, and whether reads need no round.
//!
//! A **lease** lets a reader on any thread answer by itself. It takes a snapshot of the engine *first* and looks at the
//! lease *afterwards*: if the lease holds then, nobody else can have acknowledged a write before the snapshot. Four
//! things end it beside time: the peer leads no more, or hands over; an entry of its term is not applied yet (it may lie
//! behind what an earlier leader has acknowledged); a split that it has proposed is not applied yet (another store may
//! be further, and the new region's leader may acknowledge writes to keys that are the region's here); followers have
//! asked for reads in its term, and something committed is not applied yet (one of them may have applied and shown it).

use std::sync::Arc;

use raft::Lease as CoreLease;
use types::{
    Peer as Member, PeerId, Region, RegionEpoch,
    marks::{mutant, sometimes},
};

use super::Peer;
use crate::store::Output;

/// What others may know of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerView {
    /// The region as it is applied.
    pub region: Arc<Region>,
    /// The peer on this store.
    pub peer_id: PeerId,
    /// Who leads, if that is known; also if it is this peer.
    pub leader: Option<Member>,
    /// Whether reads may be answered from what is applied.
    pub lease: Lease,
    /// The term in which it leads, once it has applied an entry of it, and with it everything of earlier terms. Who decides
    /// a write by looking at what is applied proposes it for this term.
    pub leads_in: Option<u64>,
}

/// Until when reads need no round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lease {
    /// They need one.
    #[default]
    None,
    /// A quorum has promised not to vote for an election timeout from the beginning of this tick of the store on, or
    /// from later.
    Since(u64),
    /// For as long as the view stands: there is nobody else.
    Alone,
}

/// What was said last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    epoch: RegionEpoch,
    leader: Option<Member>,
    term: u64,
    leads_in: Option<u64>,
    has_lease: bool,
    lease: Lease,
}

impl Peer {
    /// Says what has changed of the view, if anything has. `ticks` are those of the store.
    pub(crate) fn publish<A>(&mut self, ticks: u64, out: &mut Vec<Output<A>>) {
        if !self.is_initialised() {
            return;
        }
        let lease = self.lease(ticks);
        let said = Said {
            epoch: self.region.epoch,
            leader: self.find(self.node.role().leader),
            term: self.node.term(),
            leads_in: self.leads_in(),
            has_lease: lease != Lease::None,
            lease,
        };
        if said == self.said {
            return;
        }
        // A lease that is renewed says nothing new of anything else.
        if (Said { lease: Lease::None, ..said }) == (Said { lease: Lease::None, ..self.said }) {
            out.push(Output::Lease { region_id: self.region_id(), lease });
        } else {
            let region = Arc::new(self.region.clone());
            let view = PeerView {
                region,
                peer_id: self.id,
                leader: said.leader,
                lease,
                leads_in: said.leads_in,
            };
            out.push(Output::View(Box::new(view)));
        }
        self.said = said;
    }

    fn leads_in(&self) -> Option<u64> {
        let term = self.node.term();
        let leads = self.leads() && !self.is_removed && self.installing.is_none();
        (leads && self.applied.term == term).then_some(term)
    }

    fn lease(&self, ticks: u64) -> Lease {
        let is_behind =
            self.applied.term != self.node.term() || self.applied.index < self.splitting;
        // A follower may have shown what is not applied here.
        let shows_less = self.node.serves_followers()
            && self.applied.index < self.node.committed()
            && !mutant!("lease_behind_followers");
        if shows_less {
            sometimes!("store: there is no lease because followers may have shown more");
        }
        if is_behind || shows_less || self.is_removed || self.installing.is_some() {
            return Lease::None;
        }
        match self.node.lease() {
            CoreLease::None => Lease::None,
            CoreLease::Ticks(ago) => Lease::Since(ticks.saturating_sub(ago)),
            CoreLease::Alone => Lease::Alone,
        }
    }
}
