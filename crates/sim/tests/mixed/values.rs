//! Entries, changes of the members, members and snapshots: what both kinds have, in two spellings.
//!
//! Ours is the one that is compared. There and back again gives the same value; that is what [`tests`] holds.

use bytes::Bytes;
use protobuf::Message as _;
use raft::{
    ConfChange, ConfChangeKind, ConfChangeSingle, ConfState, Entry, EntryKind, HardState, Snapshot,
    SnapshotMeta, Transition,
};
use raft_rs::eraftpb as pb;

pub(crate) fn entry_to_theirs(entry: &Entry) -> pb::Entry {
    let (entry_type, data) = match entry.kind {
        EntryKind::Normal => (pb::EntryType::EntryNormal, entry.data.clone()),
        EntryKind::ConfChange => {
            let change = ConfChange::decode(&entry.data).expect("a change is in the log");
            let bytes = change_to_theirs(&change).write_to_bytes().expect("a change has bytes");
            (pb::EntryType::EntryConfChangeV2, bytes.into())
        }
    };
    pb::Entry { entry_type, term: entry.term, index: entry.index, data, ..Default::default() }
}

pub(crate) fn entry_to_ours(entry: &pb::Entry) -> Entry {
    let change = match entry.entry_type {
        pb::EntryType::EntryNormal => None,
        pb::EntryType::EntryConfChangeV2 => {
            let mut change = pb::ConfChangeV2::default();
            change.merge_from_bytes(&entry.data).expect("a change is in the log");
            Some(change_to_ours(&change))
        }
        // The older spelling of a single step.
        pb::EntryType::EntryConfChange => {
            let mut change = pb::ConfChange::default();
            change.merge_from_bytes(&entry.data).expect("a change is in the log");
            Some(ConfChange {
                transition: Transition::Auto,
                changes: vec![single_to_ours(change.change_type, change.node_id)],
                context: change.context.clone(),
            })
        }
    };
    let (kind, data) = match change {
        Some(change) => (EntryKind::ConfChange, change.encode()),
        None => (EntryKind::Normal, entry.data.clone()),
    };
    Entry { term: entry.term, index: entry.index, kind, data }
}

pub(crate) fn change_to_theirs(change: &ConfChange) -> pb::ConfChangeV2 {
    let transition = match change.transition {
        // Ours leaves a joint state whatever the transition of an empty change is; theirs would enter one.
        _ if change.changes.is_empty() => pb::ConfChangeTransition::Auto,
        Transition::Auto => pb::ConfChangeTransition::Auto,
        Transition::JointImplicit => pb::ConfChangeTransition::Implicit,
        Transition::JointExplicit => pb::ConfChangeTransition::Explicit,
    };
    let single = |single: &ConfChangeSingle| pb::ConfChangeSingle {
        change_type: kind_to_theirs(single.kind),
        node_id: single.id,
        ..Default::default()
    };
    let changes: Vec<_> = change.changes.iter().map(single).collect();
    let context = change.context.clone();
    pb::ConfChangeV2 { transition, changes: changes.into(), context, ..Default::default() }
}

/// The older spelling, if the change is a single step.
pub(crate) fn change_to_their_first(change: &ConfChange) -> Option<pb::ConfChange> {
    match (change.transition, change.changes.as_slice()) {
        (Transition::Auto, [single]) => Some(pb::ConfChange {
            change_type: kind_to_theirs(single.kind),
            node_id: single.id,
            context: change.context.clone(),
            ..Default::default()
        }),
        _ => None,
    }
}

pub(crate) fn change_to_ours(change: &pb::ConfChangeV2) -> ConfChange {
    ConfChange {
        transition: match change.transition {
            pb::ConfChangeTransition::Auto => Transition::Auto,
            pb::ConfChangeTransition::Implicit => Transition::JointImplicit,
            pb::ConfChangeTransition::Explicit => Transition::JointExplicit,
        },
        changes: change
            .changes
            .iter()
            .map(|single| single_to_ours(single.change_type, single.node_id))
            .collect(),
        context: change.context.clone(),
    }
}

fn kind_to_theirs(kind: ConfChangeKind) -> pb::ConfChangeType {
    match kind {
        ConfChangeKind::AddVoter => pb::ConfChangeType::AddNode,
        ConfChangeKind::AddLearner => pb::ConfChangeType::AddLearnerNode,
        ConfChangeKind::Remove => pb::ConfChangeType::RemoveNode,
    }
}

fn single_to_ours(kind: pb::ConfChangeType, id: u64) -> ConfChangeSingle {
    let kind = match kind {
        pb::ConfChangeType::AddNode => ConfChangeKind::AddVoter,
        pb::ConfChangeType::AddLearnerNode => ConfChangeKind::AddLearner,
        pb::ConfChangeType::RemoveNode => ConfChangeKind::Remove,
    };
    ConfChangeSingle { kind, id }
}

pub(crate) fn conf_to_theirs(conf: &ConfState) -> pb::ConfState {
    pb::ConfState {
        voters: conf.voters.clone(),
        learners: conf.learners.clone(),
        voters_outgoing: conf.voters_outgoing.clone(),
        learners_next: conf.learners_next.clone(),
        auto_leave: conf.auto_leave,
        ..Default::default()
    }
}

pub(crate) fn conf_to_ours(conf: &pb::ConfState) -> ConfState {
    // Theirs come out of hash sets.
    let sorted = |ids: &[u64]| {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids
    };
    ConfState {
        voters: sorted(&conf.voters),
        voters_outgoing: sorted(&conf.voters_outgoing),
        learners: sorted(&conf.learners),
        learners_next: sorted(&conf.learners_next),
        auto_leave: conf.auto_leave,
    }
}

pub(crate) fn snapshot_to_theirs(snapshot: &Snapshot) -> pb::Snapshot {
    let mut theirs = pb::Snapshot { data: snapshot.data.clone(), ..Default::default() };
    let meta = theirs.mut_metadata();
    meta.set_conf_state(conf_to_theirs(&snapshot.meta.conf));
    meta.index = snapshot.meta.index;
    meta.term = snapshot.meta.term;
    theirs
}

pub(crate) fn snapshot_to_ours(snapshot: &pb::Snapshot) -> Snapshot {
    let meta = snapshot.get_metadata();
    Snapshot {
        meta: SnapshotMeta {
            index: meta.index,
            term: meta.term,
            conf: conf_to_ours(meta.get_conf_state()),
        },
        data: snapshot.data.clone(),
    }
}

pub(crate) fn hard_state_to_theirs(state: HardState) -> pb::HardState {
    let HardState { term, vote, commit } = state;
    pb::HardState { term, vote, commit, ..Default::default() }
}

pub(crate) fn hard_state_to_ours(state: &pb::HardState) -> HardState {
    HardState { term: state.term, vote: state.vote, commit: state.commit }
}

/// The bytes of a number: proposals, contexts and states are numbers here.
pub(crate) fn number_to_bytes(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

pub(crate) fn bytes_to_number(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes.try_into().expect("a number has eight bytes"))
}

mod tests {
    use super::*;

    #[test]
    fn there_and_back_again_is_the_same_value() {
        let single = |kind, id| ConfChangeSingle { kind, id };
        let changes = [
            ConfChange::leave(),
            ConfChange::single(ConfChangeKind::Remove, 3),
            ConfChange {
                transition: Transition::JointImplicit,
                changes: vec![
                    single(ConfChangeKind::AddVoter, 4),
                    single(ConfChangeKind::AddLearner, 2),
                ],
                context: Bytes::from_static(b"why"),
            },
            ConfChange {
                transition: Transition::JointExplicit,
                changes: vec![single(ConfChangeKind::Remove, 1)],
                context: Bytes::new(),
            },
        ];
        for change in &changes {
            assert_eq!(change_to_ours(&change_to_theirs(change)), *change);
            let kind = EntryKind::ConfChange;
            let entry = Entry { term: 3, index: 7, kind, data: change.encode() };
            assert_eq!(entry_to_ours(&entry_to_theirs(&entry)), entry);
        }
        let data = Bytes::from_static(b"data");
        let entry = Entry { term: 2, index: 6, kind: EntryKind::Normal, data: data.clone() };
        assert_eq!(entry_to_ours(&entry_to_theirs(&entry)), entry);
        let conf = ConfState {
            voters: vec![1, 2, 4],
            voters_outgoing: vec![1, 2, 3],
            learners: vec![5],
            learners_next: vec![3],
            auto_leave: true,
        };
        let snapshot = Snapshot { meta: SnapshotMeta { index: 9, term: 4, conf }, data };
        assert_eq!(snapshot_to_ours(&snapshot_to_theirs(&snapshot)), snapshot);
    }

    #[test]
    fn leaving_a_joint_state_by_itself_is_an_empty_entry_of_theirs() {
        let entry = pb::Entry {
            entry_type: pb::EntryType::EntryConfChangeV2,
            term: 2,
            index: 8,
            ..Default::default()
        };
        let ours = entry_to_ours(&entry);
        assert_eq!(ConfChange::decode(&ours.data), Ok(ConfChange::leave()));
        assert_eq!(entry_to_theirs(&ours), entry);
    }

    #[test]
    fn the_older_spelling_of_a_single_step_is_the_same_change() {
        let change = ConfChange::single(ConfChangeKind::AddLearner, 5);
        let first = change_to_their_first(&change).unwrap();
        let entry = pb::Entry {
            entry_type: pb::EntryType::EntryConfChange,
            term: 2,
            index: 8,
            data: first.write_to_bytes().unwrap().into(),
            ..Default::default()
        };
        assert_eq!(entry_to_ours(&entry).data, change.encode());
        assert_eq!(change_to_their_first(&ConfChange::leave()), None);
    }
}
