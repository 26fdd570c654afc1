//! Round trips of all variants, and what is refused.

use proptest::{collection::vec, option, prelude::*};

use super::*;
use crate::transport::tests::messages::{append, heartbeat};

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn range() -> impl Strategy<Value = KeyRange> {
    (bytes(), bytes()).prop_map(|(start, end)| KeyRange { start, end })
}

fn any_peer() -> impl Strategy<Value = Peer> {
    (any::<u64>(), any::<u64>(), 0..4u8).prop_map(|(id, store, role)| Peer {
        id: PeerId(id),
        store_id: StoreId(store),
        role: PeerRole::from_byte(role).unwrap(),
    })
}

fn epoch() -> impl Strategy<Value = RegionEpoch> {
    (any::<u64>(), any::<u64>()).prop_map(|(conf_ver, version)| RegionEpoch { conf_ver, version })
}

fn region() -> impl Strategy<Value = Region> {
    (any::<u64>(), range(), epoch(), vec(any_peer(), 0..5))
        .prop_map(|(id, range, epoch, peers)| Region { id: RegionId(id), range, epoch, peers })
}

fn entry() -> impl Strategy<Value = Entry> {
    let kind = prop_oneof![Just(EntryKind::Normal), Just(EntryKind::ConfChange)];
    (any::<u64>(), any::<u64>(), kind, bytes()).prop_map(|(term, index, kind, data)| Entry {
        term,
        index,
        kind,
        data,
    })
}

fn snapshot() -> impl Strategy<Value = Snapshot> {
    let ids = || vec(any::<u64>(), 0..4);
    let conf = (ids(), ids(), ids(), ids(), any::<bool>()).prop_map(
        |(voters, voters_outgoing, learners, learners_next, auto_leave)| ConfState {
            voters,
            voters_outgoing,
            learners,
            learners_next,
            auto_leave,
        },
    );
    (any::<u64>(), any::<u64>(), conf, bytes()).prop_map(|(index, term, conf, data)| Snapshot {
        meta: SnapshotMeta { index, term, conf },
        data,
    })
}

/// Every variant. A new one does not compile in `to_wire`; it belongs here too ([`every_variant_is_drawn`]).
fn raft_body() -> impl Strategy<Value = MessageBody> {
    let numbers = || (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>());
    let hint = (any::<u64>(), any::<u64>()).prop_map(|(index, term)| RejectHint { index, term });
    prop_oneof![
        (any::<u64>(), any::<u64>(), vec(entry(), 0..5), any::<u64>()).prop_map(
            |(index, log_term, entries, commit)| MessageBody::Append {
                index,
                log_term,
                entries,
                commit
            }
        ),
        (any::<u64>(), any::<u64>(), option::of(hint)).prop_map(|(index, commit, reject)| {
            MessageBody::AppendResponse { index, commit, reject }
        }),
        (numbers(), any::<bool>()).prop_map(
            |((last_index, last_term, commit, commit_term), transfer)| MessageBody::Vote {
                last_index,
                last_term,
                commit,
                commit_term,
                transfer
            }
        ),
        any::<bool>().prop_map(|granted| MessageBody::VoteResponse { granted }),
        numbers().prop_map(|(last_index, last_term, commit, commit_term)| MessageBody::PreVote {
            last_index,
            last_term,
            commit,
            commit_term
        }),
        any::<bool>().prop_map(|granted| MessageBody::PreVoteResponse { granted }),
        (any::<u64>(), any::<u64>())
            .prop_map(|(index, term)| MessageBody::Committed { index, term }),
        (any::<u64>(), any::<u64>())
            .prop_map(|(commit, round)| MessageBody::Heartbeat { commit, round }),
        any::<u64>().prop_map(|round| MessageBody::HeartbeatResponse { round }),
        snapshot().prop_map(|snapshot| MessageBody::Snapshot(Box::new(snapshot))),
        Just(MessageBody::TimeoutNow),
        any::<u64>().prop_map(|target| MessageBody::TransferLeader { target }),
        any::<u64>().prop_map(|id| MessageBody::ReadIndex { id }),
        (any::<u64>(), option::of(any::<u64>()))
            .prop_map(|(id, index)| MessageBody::ReadIndexResponse { id, index }),
    ]
}

fn any_message() -> impl Strategy<Value = StoreMessage> {
    let raft = (any::<u64>(), any::<u64>(), any::<u64>(), raft_body())
        .prop_map(|(from, to, term, body)| Message { from, to, term, body });
    let body = prop_oneof![
        1 => Just(StoreBody::AmIMember),
        1 => Just(StoreBody::Wake),
        1 => Just(StoreBody::Ping),
        1 => (any::<u64>(), any::<u64>())
            .prop_map(|(term, index)| StoreBody::Sleep { term, index }),
        1 => region().prop_map(|region| StoreBody::Gone { region }),
        14 => (raft, range()).prop_map(|(message, range)| StoreBody::Raft { message, range }),
    ];
    (any::<u64>(), any_peer(), any_peer(), epoch(), body).prop_map(
        |(region_id, from, to, epoch, body)| StoreMessage {
            region_id: RegionId(region_id),
            from,
            to,
            epoch,
            body,
        },
    )
}

fn payload(messages: &[StoreMessage]) -> Bytes {
    let mut payload = Vec::new();
    messages.iter().cloned().for_each(|message| put(message, &mut payload));
    payload.into()
}

proptest! {
    #[test]
    fn messages_come_out_as_they_went_in(sent in vec(any_message(), 0..8)) {
        prop_assert_eq!(messages(payload(&sent)).unwrap(), sent.clone());
        for one in sent {
            let alone = Bytes::from(to_wire(one.clone()).encode_to_vec());
            prop_assert_eq!(message(alone).unwrap(), one);
        }
    }

    #[test]
    fn the_weight_is_at_least_what_a_message_takes(message in any_message()) {
        prop_assert!(payload(std::slice::from_ref(&message)).len() <= weight(&message));
    }

    #[test]
    fn garbage_is_an_error_and_no_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _ = messages(Bytes::from(bytes.clone()));
        let _ = message(Bytes::from(bytes));
    }

    #[test]
    fn damage_is_an_error_or_another_message_and_no_panic(
        sent in vec(any_message(), 1..4),
        at in any::<prop::sample::Index>(),
        flip in 1..=255u8,
    ) {
        let whole = payload(&sent);
        let mut bytes = whole.to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let _ = messages(Bytes::from(bytes.clone()));
        prop_assert!(check(&bytes, crc32c::crc32c(&whole)).is_err());
        let _ = messages(whole.slice(..at));
    }
}

#[test]
fn every_variant_is_drawn() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let drawn: std::collections::BTreeSet<&str> =
        (0..1000).map(|_| raft_body().new_tree(&mut runner).unwrap().current().name()).collect();
    assert_eq!(drawn.len(), 14);
}

/// Whether the data of the first message's entry lie in the payload after `sent` has been received.
fn stays_in_payload(sent: &[StoreMessage]) -> bool {
    let payload = payload(sent);
    let received = messages(payload.clone()).unwrap();
    assert_eq!(received, sent);
    let StoreBody::Raft { message, .. } = &received[0].body else { panic!("it is a Raft message") };
    let MessageBody::Append { entries, .. } = &message.body else { panic!("it is an append") };
    payload.as_ptr_range().contains(&entries[0].data.as_ptr())
}

#[test]
fn entries_stay_in_their_payload_if_they_are_most_of_it() {
    let large = append(1, StoreId(2), Bytes::from(vec![7; 10_000]));
    let small = append(1, StoreId(2), Bytes::from(vec![7; 300]));
    let beats = |count| (0..count).map(|region| heartbeat(region, StoreId(2)));
    assert!(stays_in_payload(std::slice::from_ref(&large)));
    assert!(stays_in_payload(&vec![small.clone(); 100]));
    assert!(!stays_in_payload(std::slice::from_ref(&small)), "the buffer is larger than it");
    let many: Vec<StoreMessage> = [large].into_iter().chain(beats(1000)).collect();
    assert!(!stays_in_payload(&many));
    let many: Vec<StoreMessage> = [small].into_iter().chain(beats(1000)).collect();
    assert!(!stays_in_payload(&many));
}

#[test]
fn what_no_store_says_is_refused() {
    let good = || {
        to_wire(StoreMessage {
            region_id: RegionId(1),
            from: Peer::default(),
            to: Peer::default(),
            epoch: RegionEpoch::FIRST,
            body: StoreBody::Gone {
                region: Region { peers: vec![Peer::default()], ..Region::default() },
            },
        })
    };
    #[track_caller]
    fn assert_refused(message: wire::StoreMessage, what: &'static str) {
        assert_eq!(from_wire(message), Err(WireError::Invalid(what)));
    }
    let with = |spoil: fn(&mut wire::StoreMessage)| {
        let mut message = good();
        spoil(&mut message);
        message
    };
    assert!(from_wire(good()).is_ok());
    assert_refused(wire::StoreMessage::default(), "body of a message");
    assert_refused(with(|message| message.from_role = 4), "role of a peer");
    assert_refused(with(|message| message.to_role = -1), "role of a peer");
    assert_refused(
        with(|message| message.body = Some(store_message::Body::Gone(wire::Gone::default()))),
        "region",
    );
    assert_refused(
        with(|message| {
            message.body = Some(store_message::Body::Raft(wire::RaftMessage::default()));
        }),
        "body of a Raft message",
    );
    let raft = |body| {
        let mut message = good();
        let raft = wire::RaftMessage { body: Some(body), ..wire::RaftMessage::default() };
        message.body = Some(store_message::Body::Raft(raft));
        message
    };
    let append = |entry| {
        raft_message::Body::Append(wire::Append { entries: vec![entry], ..wire::Append::default() })
    };
    let kind = wire::Entry { kind: 2, ..wire::Entry::default() };
    assert_refused(raft(append(kind)), "kind of an entry");
    let data = Bytes::from(vec![0; limits::ENTRY_BYTES_MAX + 1]);
    let large = wire::Entry { data, ..wire::Entry::default() };
    assert_refused(raft(append(large)), "length of an entry");
    let snapshot = raft_message::Body::Snapshot(wire::RaftSnapshot::default());
    assert_refused(raft(snapshot), "members of a snapshot");
    let mut region = good();
    if let Some(store_message::Body::Gone(gone)) = &mut region.body {
        gone.region.as_mut().unwrap().peers[0].role = -1;
    }
    assert_refused(region, "role of a peer");
}
