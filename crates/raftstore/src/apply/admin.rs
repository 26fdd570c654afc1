//! Changes of regions: members, splits, logs.

use raft::{ConfChange, ConfChangeKind, ConfChangeSingle};
use types::{KeyRange, Peer, PeerId, Region, RegionEpoch, TimeStamp, marks::mutant};

use crate::{
    apply::{AppliedRegion, Applier, Effect, Machine, Outcome},
    command::{AdminCommand, EpochAndPeers, SplitChild, refuse_split},
    error::{Error, Result},
    hash::HashJob,
    state::{self, ApplyState, PeerState, RegionState, role_of},
};

impl<M: Machine> Applier<M> {
    pub(super) fn apply_admin(
        &mut self,
        known: &mut AppliedRegion,
        epoch: RegionEpoch,
        command: AdminCommand,
        effects: &mut Vec<Effect>,
        index: u64,
    ) -> Result<Outcome<M::Answer>> {
        match command {
            AdminCommand::Split { .. } if epoch != known.region.epoch => Ok(Outcome::EpochNotMatch),
            AdminCommand::Split { children } => self.split(known, &children, effects),
            AdminCommand::CompactLog { index } => {
                effects.push(Effect::CompactLog { index: index.min(known.applied.index) });
                Ok(Outcome::Changed(Vec::new()))
            }
            AdminCommand::ComputeHash => {
                // Everything before this entry, and nothing else of this region.
                state::put_apply_state(&mut self.batch, known.region.id, known.applied);
                self.flush()?;
                let (region, snapshot) = (known.region.clone(), self.engine.snapshot()?);
                effects.push(Effect::Hash(HashJob { region, index, snapshot }));
                Ok(Outcome::Changed(Vec::new()))
            }
            AdminCommand::VerifyHash { index, hash } => {
                effects.push(Effect::VerifyHash { index, hash });
                Ok(Outcome::Changed(Vec::new()))
            }
        }
    }

    /// The region keeps the keys before the first split key; each child begins as a group of its own whose members
    /// are where those of the region are.
    fn split(
        &mut self,
        known: &mut AppliedRegion,
        children: &[SplitChild],
        effects: &mut Vec<Effect>,
    ) -> Result<Outcome<M::Answer>> {
        let before = known.region.clone();
        if let Some(reason) = refuse_split(&before.range, before.peers.len(), children) {
            return Ok(Outcome::Refused(reason));
        }
        let version = before.epoch.version + children.len() as u64;
        let epoch = RegionEpoch { version, ..before.epoch };
        let ends = children[1..].iter().map(|child| &child.start).chain([&before.range.end]);
        let mut regions = vec![Region {
            range: KeyRange::new(before.range.start.clone(), children[0].start.clone()),
            epoch,
            ..before.clone()
        }];
        for (child, end) in children.iter().zip(ends) {
            let successor = |(peer, id): (&Peer, &PeerId)| Peer { id: *id, ..*peer };
            regions.push(Region {
                id: child.region_id,
                range: KeyRange::new(child.start.clone(), end.clone()),
                epoch,
                peers: before.peers.iter().zip(&child.peer_ids).map(successor).collect(),
            });
        }
        known.region = regions[0].clone();
        self.put_region(&regions[0]);
        let store =
            before.peers.iter().find(|peer| peer.id == known.peer_id).map(|peer| peer.store_id);
        for region in &regions[1..] {
            let Some(own) = store.and_then(|store| region.peer_on(store)) else { continue };
            self.put_region(region);
            state::put_apply_state(&mut self.batch, region.id, ApplyState::FIRST);
            if known.safe_point != TimeStamp::ZERO {
                state::put_safe_point(&mut self.batch, region.id, known.safe_point);
            }
            let child =
                AppliedRegion::new(region.clone(), own.id, ApplyState::FIRST, known.safe_point);
            self.regions.insert(region.id, child);
        }
        effects.push(Effect::Split { regions: regions.clone() });
        Ok(Outcome::Changed(regions))
    }

    pub(super) fn change_members(
        &mut self,
        known: &mut AppliedRegion,
        change: ConfChange,
        effects: &mut Vec<Effect>,
    ) -> Result<Outcome<M::Answer>> {
        let region_id = known.region.id;
        let said = match change.context.is_empty() {
            // The leader leaves a joint state by itself.
            true => EpochAndPeers { epoch: known.region.epoch, peers: Vec::new() },
            false => EpochAndPeers::decode(&change.context)
                .map_err(|error| Error::damaged(region_id, error))?,
        };
        let refused = |outcome, effects: &mut Vec<Effect>| {
            let nobody = ConfChangeSingle { kind: ConfChangeKind::AddVoter, id: 0 };
            let change = ConfChange { changes: vec![nobody], ..ConfChange::default() };
            effects.push(Effect::Members { change, region: known.region.clone() });
            Ok(outcome)
        };
        if said.epoch != known.region.epoch {
            return refused(Outcome::EpochNotMatch, effects);
        }
        let conf = match known.conf.after(&change) {
            Ok(conf) => conf,
            Err(reason) => return refused(Outcome::Refused(reason), effects),
        };
        let mut peers = Vec::new();
        let mut changed = 0;
        let old = known.region.peers.iter();
        let new = said.peers.iter().filter(|new| old.clone().all(|old| old.id != new.id));
        for peer in old.clone().chain(new) {
            let is_new = old.clone().all(|old| old.id != peer.id);
            match role_of(&conf, peer.id.0) {
                Some(role) => {
                    changed += u64::from(is_new || role != peer.role);
                    peers.push(Peer { role, ..*peer });
                }
                None => changed += u64::from(!is_new),
            }
        }
        let mut stores: Vec<_> = peers.iter().map(|peer| peer.store_id).collect();
        stores.sort_unstable();
        stores.dedup();
        if stores.len() != peers.len() {
            return refused(Outcome::Refused("a store has one peer of a region"), effects);
        }
        if peers.len() != conf.members().len() {
            return refused(Outcome::Refused("a new member says where it is"), effects);
        }
        // The tombstone remembers who lived here.
        let old_own = known.region.peers.iter().find(|peer| peer.id == known.peer_id).copied();
        known.conf = conf;
        known.region.peers = peers;
        known.region.epoch.conf_ver += changed;
        let region = known.region.clone();
        if region.peers.iter().any(|peer| peer.id == known.peer_id) {
            self.put_region(&region);
        } else if mutant!("tombstone_is_written_late") {
            known.is_removed = true;
        } else {
            // In the same batch, so that no restart brings the peer back (tikv#1262).
            known.is_removed = true;
            let mut gone = region.clone();
            gone.peers.extend(old_own);
            let state = RegionState { state: PeerState::Tombstone, region: gone };
            state::put_region_state(&mut self.batch, &state);
        }
        effects.push(Effect::Members { change, region: region.clone() });
        Ok(Outcome::Changed(vec![region]))
    }

    fn put_region(&mut self, region: &Region) {
        let state = RegionState { state: PeerState::Normal, region: region.clone() };
        state::put_region_state(&mut self.batch, &state);
    }
}
