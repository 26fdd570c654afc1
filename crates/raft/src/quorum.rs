//! The arithmetic of majorities, single and joint. A group without voters never agrees.

use types::marks::mutant;

use crate::membership::ConfState;

/// Groups up to this size are counted without an allocation.
const STACK: usize = 16;

/// How a vote stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Won,
    Lost,
    Open,
}

/// The largest value that a quorum has reached, given what each voter has; in a joint state, a quorum of both sets.
pub(crate) fn reached(conf: &ConfState, value: impl Fn(u64) -> u64) -> u64 {
    let incoming = if mutant!("learner_counts_in_quorum") {
        majority_reached(&conf.members(), &value)
    } else {
        majority_reached(&conf.voters, &value)
    };
    if !conf.is_joint() || mutant!("joint_needs_one_majority_only") {
        return incoming;
    }
    incoming.min(majority_reached(&conf.voters_outgoing, &value))
}

/// Whether a quorum is `true`.
pub(crate) fn agree(conf: &ConfState, value: impl Fn(u64) -> bool) -> bool {
    reached(conf, |id| value(id).into()) == 1
}

/// How the votes stand: `Some(true)` for, `Some(false)` against, `None` not heard of.
pub(crate) fn tally(conf: &ConfState, vote: impl Fn(u64) -> Option<bool>) -> Outcome {
    if agree(conf, |id| vote(id) == Some(true)) {
        Outcome::Won
    } else if agree(conf, |id| vote(id) != Some(false)) {
        Outcome::Open
    } else {
        Outcome::Lost
    }
}

fn majority_reached(voters: &[u64], value: impl Fn(u64) -> u64) -> u64 {
    let pick = |values: &mut [u64]| {
        values.sort_unstable();
        // n / 2 of n are below, so more than half have at least this.
        values[(values.len() - 1) / 2]
    };
    match voters.len() {
        0 => 0,
        n if n <= STACK => {
            let mut values = [0; STACK];
            for (slot, &id) in values.iter_mut().zip(voters) {
                *slot = value(id);
            }
            pick(&mut values[..n])
        }
        _ => pick(&mut voters.iter().map(|&id| value(id)).collect::<Vec<_>>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(voters: &[u64], outgoing: &[u64]) -> ConfState {
        ConfState {
            voters: voters.to_vec(),
            voters_outgoing: outgoing.to_vec(),
            ..ConfState::default()
        }
    }

    #[test]
    fn a_majority_is_more_than_half() {
        for n in 1..=20u64 {
            let voters: Vec<u64> = (1..=n).collect();
            let group = conf(&voters, &[]);
            for have in 0..=n {
                let all = reached(&group, |id| if id <= have { 7 } else { 3 });
                assert_eq!(all, if n < 2 * have { 7 } else { 3 }, "{have} of {n}");
            }
        }
    }

    #[test]
    fn a_joint_group_needs_both_majorities() {
        let group = conf(&[1, 2, 3], &[3, 4, 5]);
        let agree_of = |ids: &[u64]| agree(&group, |id| ids.contains(&id));
        assert!(agree_of(&[1, 3, 4]) && agree_of(&[1, 2, 4, 5]));
        assert!(!agree_of(&[1, 2, 3]) && !agree_of(&[3, 4, 5]) && !agree_of(&[1, 2, 4]));
        assert_eq!(tally(&group, |id| Some(id <= 3)), Outcome::Lost);
        assert_eq!(tally(&group, |id| (id <= 3).then_some(true)), Outcome::Open);
    }

    #[test]
    fn nobody_agrees_for_a_group_without_voters() {
        assert!(!agree(&conf(&[], &[]), |_| true));
        assert_eq!(tally(&conf(&[], &[]), |_| Some(true)), Outcome::Lost);
        assert_eq!(reached(&conf(&[], &[]), |_| 9), 0);
    }
}
