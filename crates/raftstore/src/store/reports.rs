//! What the scheduler is told of the regions that are led here, and when: as soon as the leader knows what is committed,
//! at once when something has changed that the scheduler decides by, and now and then in any case.

use types::{PeerId, RegionId};

use super::{Output, Store};
use crate::{config::StoreConfig, peer::Peer, report::RegionReport};

/// What was said last, as far as a change of it is news.
#[derive(Debug, Default)]
pub(crate) struct Reported {
    /// In which term.
    term: u64,
    pending: Vec<PeerId>,
    down: Vec<PeerId>,
}

impl<A> Store<A> {
    /// A region was applied further, or has changed, as `changed` says: reports it if it is led here and that is news.
    pub(super) fn report_progress(&mut self, region_id: RegionId, changed: bool) {
        let Some(peer) = self.peers.get(&region_id) else { return };
        // Before an entry of its own term is applied, a leader may not know its own region.
        if !peer.leads() || peer.applied.term != peer.node.term() {
            return;
        }
        let begins = peer.reported.term != peer.applied.term;
        if begins {
            if peer.extent.is_due(&self.config.split) {
                self.grown.insert(region_id);
            }
            self.reporting.insert((self.phase(region_id), region_id));
        }
        if begins || changed {
            self.report(region_id);
        }
    }

    /// Reports what is due in this tick.
    pub(super) fn report_due(&mut self) {
        let phase = self.ticks % u64::from(self.config.report_ticks.max(1));
        let due = (phase, RegionId(0))..=(phase, RegionId(u64::MAX));
        let due: Vec<RegionId> = self.reporting.range(due).map(|(_, id)| *id).collect();
        for region_id in due {
            let leads = self.peers.get(&region_id).is_some_and(Peer::leads);
            match leads {
                true => self.report_progress(region_id, true),
                false => drop(self.reporting.remove(&(phase, region_id))),
            }
        }
    }

    /// Reports everything that is led here.
    pub(super) fn report_all(&mut self) {
        let led: Vec<RegionId> = self.reporting.iter().map(|(_, id)| *id).collect();
        for region_id in led {
            self.report_progress(region_id, true);
        }
    }

    /// In which of the ticks between two reports a region is reported: not all of them in the same.
    fn phase(&self, region_id: RegionId) -> u64 {
        region_id.0 % u64::from(self.config.report_ticks.max(1))
    }

    fn report(&mut self, region_id: RegionId) {
        let Some(peer) = self.peers.get_mut(&region_id) else { return };
        let pending: Vec<PeerId> = pending(&self.config, peer).collect();
        let down: Vec<(PeerId, u64)> = down(&self.config, peer).collect();
        let member = |id: PeerId| peer.find(id.0);
        let report = RegionReport {
            region: peer.region.clone(),
            leader: peer.member(),
            term: peer.node.term(),
            down_peers: down
                .iter()
                .filter_map(|(id, ticks)| member(*id).map(|peer| (peer, *ticks)))
                .collect(),
            pending_peers: pending.iter().filter_map(|id| member(*id)).collect(),
            approximate_size: peer.extent.size,
            approximate_keys: peer.extent.keys,
        };
        let down = down.into_iter().map(|(id, _)| id).collect();
        peer.reported = Reported { term: report.term, pending, down };
        self.out.push(Output::Report(Box::new(report)));
    }
}

/// Whether other members than said are pending or down now.
pub(super) fn has_news(config: &StoreConfig, peer: &Peer) -> bool {
    peer.reported.term == peer.node.term()
        && (!pending(config, peer).eq(peer.reported.pending.iter().copied())
            || !down(config, peer).map(|(id, _)| id).eq(peer.reported.down.iter().copied()))
}

/// The members that the log alone can't bring up to date, or that lack much of it.
fn pending<'a>(config: &StoreConfig, peer: &'a Peer) -> impl Iterator<Item = PeerId> + 'a {
    let (first, last) = (peer.node.first_index(), peer.node.last_index());
    let far = config.log_gc_entries;
    let lacks = move |member: &raft::PeerStatus| {
        member.kind == raft::ProgressKind::Snapshot
            || member.matched + 1 < first
            || member.matched.saturating_add(far) < last
    };
    peer.node.peers().filter(lacks).map(|member| PeerId(member.id))
}

/// The members that are silent for long, and for how many ticks.
fn down<'a>(config: &StoreConfig, peer: &'a Peer) -> impl Iterator<Item = (PeerId, u64)> + 'a {
    let patience = config.down_ticks;
    let silent = peer.node.peers().filter(move |member| patience <= member.silent_ticks);
    silent.map(|member| (PeerId(member.id), member.silent_ticks))
}
