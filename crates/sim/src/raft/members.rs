//! The operator of a group: changes its members, replaces who has lost a disk, and knows what the group survives.

use std::collections::BTreeSet;

use raft::{ConfChange, ConfChangeKind, ConfChangeSingle, ConfState, Transition};
use runtime::Rng;

use crate::rng::{index, pick, shuffle};

/// Draws a change that an operator might want to make to `conf`.
///
/// `others` are peers that run and are no members; `lost` are peers that will never come back. While a member is lost,
/// nothing else is changed than that: somebody who removes the healthy ones of a wounded group kills it.
pub(crate) fn draw_change(
    rng: &mut Rng,
    conf: &ConfState,
    others: &[u64],
    lost: &BTreeSet<u64>,
) -> Option<ConfChange> {
    if conf.is_joint() {
        // One that leaves by itself is told so again now and then: the core has to refuse what comes too late.
        return (!conf.auto_leave || rng.chance(0.1)).then(ConfChange::leave);
    }
    let mut changes = Vec::new();
    let mut gone: Vec<u64> =
        conf.members().into_iter().filter(|peer| lost.contains(peer)).collect();
    if let Some(peer) = gone.pop() {
        changes.push(ConfChangeSingle { kind: ConfChangeKind::Remove, id: peer });
        // Its successor comes with the same step, or later.
        if let Some(other) = others.first().filter(|_| rng.chance(0.5)) {
            let kind = *pick(rng, &[ConfChangeKind::AddVoter, ConfChangeKind::AddLearner]);
            changes.push(ConfChangeSingle { kind, id: *other });
        }
    } else if rng.chance(0.1) && !others.is_empty() {
        // Everybody is replaced: old and new voters have nobody in common.
        let remove = |id: &u64| ConfChangeSingle { kind: ConfChangeKind::Remove, id: *id };
        let add = |id: &u64| ConfChangeSingle { kind: ConfChangeKind::AddVoter, id: *id };
        changes.extend(conf.voters.iter().map(remove));
        changes.extend(others.iter().map(add));
    } else {
        let mut peers = [conf.members(), others.to_vec()].concat();
        shuffle(rng, &mut peers);
        let count = *pick(rng, &[1, 1, 2, 3]);
        for &id in peers.iter().take(count) {
            let kinds: &[ConfChangeKind] = match conf.contains(id) {
                true if conf.is_learner(id) => &[ConfChangeKind::AddVoter, ConfChangeKind::Remove],
                true => &[ConfChangeKind::AddLearner, ConfChangeKind::Remove],
                false => &[ConfChangeKind::AddVoter, ConfChangeKind::AddLearner],
            };
            changes.push(ConfChangeSingle { kind: kinds[index(rng, kinds.len())], id });
        }
    }
    let transition = *pick(
        rng,
        &[Transition::Auto, Transition::Auto, Transition::JointImplicit, Transition::JointExplicit],
    );
    let change = ConfChange { transition, changes, context: bytes::Bytes::new() };
    // A group must keep somebody who votes and is alive.
    let after = conf.after(&change).ok()?;
    after.voters.iter().any(|peer| !lost.contains(peer)).then_some(change)
}

/// Whether a group with these members goes on when `peer` loses its disk. Its vote and what it acknowledged are gone;
/// with three voters the others have a quorum, and every quorum of theirs has met every quorum of before.
pub(crate) fn survives_loss(conf: &ConfState, peer: u64) -> bool {
    !conf.is_voter(peer) || (!conf.is_joint() && conf.voters.len() >= 3)
}

/// Peers that make a quorum of `conf`, drawn at random, without those in `lost`. Everybody who is not lost, if the
/// members are about to change.
pub(crate) fn draw_core(
    rng: &mut Rng,
    conf: &ConfState,
    lost: &BTreeSet<u64>,
    is_changing: bool,
) -> Vec<u64> {
    let mut alive: Vec<u64> =
        conf.members().into_iter().filter(|peer| !lost.contains(peer)).collect();
    if is_changing || conf.is_joint() || rng.chance(0.2) {
        return alive;
    }
    alive.retain(|peer| conf.is_voter(*peer));
    shuffle(rng, &mut alive);
    alive.truncate(conf.voters.len() / 2 + 1);
    alive
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_possible_and_every_kind_is_drawn() {
        let mut rng = Rng::new(1);
        let mut conf = ConfState::of_voters([1, 2, 3]);
        conf.learners = vec![4];
        let (mut joint, mut single) = (0, 0);
        for _ in 0..500 {
            let change = draw_change(&mut rng, &conf, &[5, 6], &BTreeSet::new());
            let Some(change) = change else { continue };
            assert!(conf.after(&change).is_ok());
            match change.is_joint() {
                true => joint += 1,
                false => single += 1,
            }
        }
        assert!(joint > 100 && single > 100);
    }

    #[test]
    fn a_lost_member_is_removed_before_anything_else() {
        let mut rng = Rng::new(1);
        let conf = ConfState::of_voters([1, 2, 3]);
        for _ in 0..100 {
            let change = draw_change(&mut rng, &conf, &[5], &BTreeSet::from([2])).unwrap();
            let after = conf.after(&change).unwrap();
            assert!([1, 3].iter().all(|peer| after.is_voter(*peer)));
            assert!(!after.voters.contains(&2));
        }
    }

    #[test]
    fn two_voters_do_not_survive_a_loss_and_learners_may_go() {
        let mut conf = ConfState::of_voters([1, 2]);
        conf.learners = vec![3];
        assert!(!survives_loss(&conf, 1) && survives_loss(&conf, 3));
        assert!(survives_loss(&ConfState::of_voters([1, 2, 3]), 1));
    }

    #[test]
    fn a_core_is_a_quorum_of_the_living() {
        let mut rng = Rng::new(1);
        let conf = ConfState::of_voters([1, 2, 3, 4, 5]);
        for _ in 0..100 {
            let core = draw_core(&mut rng, &conf, &BTreeSet::from([1, 2]), false);
            assert!(core.len() >= 3 && core.iter().all(|peer| *peer > 2));
        }
    }
}
