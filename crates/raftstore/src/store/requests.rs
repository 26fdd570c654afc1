//! What clients and the scheduler want of a region.

use types::{
    Bytes, Peer as Member, PeerId, PeerRole, Region, RegionEpoch, RegionError, RegionId, StoreId,
};

use super::{Output, Response, Store, Token};
use crate::{command::SplitChild, peer::propose::Refusal};

/// A request and where its sender believes the region to be.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its answer comes as [`Output::Reply`], or [`Output::Read`], with this.
    pub token: Token,
    /// The region.
    pub region_id: RegionId,
    /// The region's epoch as the sender knows it.
    pub epoch: RegionEpoch,
    /// The store that is meant; 0: whichever.
    pub store_id: StoreId,
    /// What is wanted.
    pub kind: RequestKind,
}

/// What is wanted.
#[derive(Clone, Debug)]
pub enum RequestKind {
    /// Carry out a command. Refused while the disk is full.
    Write {
        /// The smallest key that it concerns, in stored form.
        first: Bytes,
        /// The largest one.
        last: Bytes,
        /// The command.
        command: Bytes,
    },
    /// Carry out a command that only deletes: it is taken though the disk is full.
    Free {
        /// The smallest key that it concerns, in stored form.
        first: Bytes,
        /// The largest one.
        last: Bytes,
        /// The command.
        command: Bytes,
    },
    /// Carry out a command that was decided by looking at what this peer had applied while it led in a term: refused with
    /// `NotLeader` if it does not lead in that term any more, since others may have written in between.
    WriteIn {
        /// The term ([`PeerView::leads_in`](crate::PeerView::leads_in)).
        term: u64,
        /// It only removes: taken while the disk is full as well.
        frees: bool,
        /// The smallest key that it concerns, in stored form.
        first: Bytes,
        /// The largest one.
        last: Bytes,
        /// The command.
        command: Bytes,
    },
    /// Let a read see everything that was written before.
    Read {
        /// Whether a follower may answer, after it has asked the leader.
        replica_read: bool,
    },
    /// Cut the region.
    Split {
        /// The new regions, in the order of their keys.
        children: Vec<SplitChild>,
    },
    /// Cut the region into halves, at a key that is yet to be found: it comes as [`Output::AskSplit`].
    SplitHalf,
    /// Have all replicas hashed and compared: it shows as [`Output::Inconsistent`] if they differ.
    CheckConsistency,
    /// Give these members these roles; none: they leave. One: a single step; several: through a joint state.
    ChangeMembers {
        /// Roles and members.
        changes: Vec<(Option<PeerRole>, Member)>,
    },
    /// Hand the leadership over.
    TransferLeader {
        /// To this peer.
        to: PeerId,
    },
}

impl<A> Store<A> {
    pub(super) fn on_request(&mut self, request: Request) {
        let Request { token, region_id, epoch, store_id, kind } = request;
        let refuse = |out: &mut Vec<Output<A>>, error| {
            out.push(Output::Reply { token, result: Err(error) });
        };
        let own = self.config.store_id;
        if !store_id.is_none() && store_id != own {
            let error = RegionError::StoreNotMatch { request: store_id, actual: own };
            return refuse(&mut self.out, error);
        }
        let Some(peer) = self.peers.get_mut(&region_id).filter(|peer| peer.is_initialised()) else {
            return refuse(&mut self.out, RegionError::RegionNotFound { region: region_id });
        };
        // Who follows only says who leads.
        let wakes = peer.leads() || matches!(kind, RequestKind::Read { replica_read: true });
        let taken = match kind {
            // Who follows applies whatever is committed; its own disk stops it if it has to.
            RequestKind::Write { .. } | RequestKind::WriteIn { frees: false, .. }
                if self.is_disk_full && peer.leads() =>
            {
                let (store, region) = (own, region_id);
                Err(RegionError::DiskFull { store, region }.into())
            }
            RequestKind::Write { first, last, command }
            | RequestKind::Free { first, last, command } => {
                peer.write(epoch.version, (&first, &last), command, token)
            }
            RequestKind::WriteIn { term, first, last, command, .. } => peer
                .check_leads_in(term)
                .and_then(|()| peer.write(epoch.version, (&first, &last), command, token)),
            RequestKind::Read { replica_read } => peer.read(epoch.version, token, replica_read),
            RequestKind::Split { children } => peer.split(epoch, children, token),
            RequestKind::SplitHalf => peer.check_leads().map(|()| {
                self.out.push(Output::Reply { token, result: Ok(Response::Begun) });
                self.split_half(region_id);
            }),
            RequestKind::CheckConsistency => peer.check_leads().map(|()| {
                peer.compute_hash();
                self.out.push(Output::Reply { token, result: Ok(Response::Begun) });
            }),
            RequestKind::ChangeMembers { changes } => peer.change_members(epoch, &changes, token),
            RequestKind::TransferLeader { to } => peer.transfer_leader(to).map(|()| {
                self.out.push(Output::Reply { token, result: Ok(Response::Begun) });
            }),
        };
        match wakes {
            true => self.wake(region_id),
            false => drop(self.dirty.insert(region_id)),
        }
        match taken {
            Ok(()) => {}
            Err(Refusal::Error(error)) => refuse(&mut self.out, error),
            Err(Refusal::Epoch) => {
                let regions = self.regions_since(region_id, epoch.version);
                refuse(&mut self.out, RegionError::EpochNotMatch { regions });
            }
        }
    }

    /// What has come of a region since `version`: it, and as many of its neighbours to the right as there were splits.
    fn regions_since(&self, region_id: RegionId, version: u64) -> Vec<Region> {
        let Some(peer) = self.peers.get(&region_id) else { return Vec::new() };
        let mut regions = vec![peer.region.clone()];
        let splits = peer.region.epoch.version.saturating_sub(version);
        for _ in 0..splits {
            let end = regions.last().map(|region| region.range.end.clone()).unwrap_or_default();
            let next = self.ranges.get(&end).filter(|_| !end.is_empty());
            let Some(next) = next.and_then(|id| self.peers.get(id)) else { break };
            regions.push(next.region.clone());
        }
        regions
    }
}
