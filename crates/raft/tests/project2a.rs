//! The course's project 2A, test by test: names, inputs and expected values are the course's.
//!
//! Where it looks at fields and messages between the inputs, [`CourseNode`] syncs and sends at once. It also takes
//! what no correct peer sends, of which the course has some: a vote of the node for itself, say.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod course;

use std::collections::BTreeSet;

use raft::{MemStorage, Message, MessageBody, RoleKind, testing::course::CourseNode};

use course::*;

/// Brings a node into a state.
type Prepare = fn(&mut CourseNode);
/// Voters and their answers.
type Votes = &'static [(u64, bool)];

/// 2AA: election.
mod project2aa {
    use super::*;
    use raft::testing::course::Network;

    fn update_term_from_message(prepare: impl Fn(&mut CourseNode)) {
        let mut r = node(&ids(3));
        prepare(&mut r);
        r.step(2, 2, append(0, 0, vec![], 0)).unwrap();
        assert_eq!((r.node.term(), r.role()), (2, RoleKind::Follower));
    }

    #[test]
    fn test_follower_update_term_from_message_2aa() {
        update_term_from_message(|r| r.become_follower(1, 2));
    }

    #[test]
    fn test_candidate_update_term_from_message_2aa() {
        update_term_from_message(|r| r.become_candidate());
    }

    #[test]
    fn test_leader_update_term_from_message_2aa() {
        update_term_from_message(|r| {
            r.become_candidate();
            r.become_leader();
        });
    }

    #[test]
    fn test_start_as_follower_2aa() {
        assert_eq!(node(&ids(3)).role(), RoleKind::Follower);
    }

    #[test]
    fn test_leader_bcast_beat_2aa() {
        let mut r = node(&ids(3));
        r.become_candidate();
        r.become_leader();
        r.propose(b"").unwrap();
        r.read_messages();
        r.tick();
        let body = MessageBody::Heartbeat { commit: 0, round: 1 };
        let beat = |to| Message { from: 1, to, term: 1, body: body.clone() };
        assert_eq!(r.read_messages(), [beat(2), beat(3)]);
    }

    fn non_leader_start_election(prepare: impl Fn(&mut CourseNode)) {
        let mut r = node(&ids(3));
        prepare(&mut r);
        for _ in 1..20 {
            r.tick();
        }
        assert_eq!((r.node.term(), r.role()), (2, RoleKind::Candidate));
        assert_eq!(r.node.status().vote, 1);
        let ask = |to| Message { from: 1, to, term: 2, body: vote(0, 0) };
        assert_eq!(r.read_messages(), [ask(2), ask(3)]);
    }

    #[test]
    fn test_follower_start_election_2aa() {
        non_leader_start_election(|r| r.become_follower(1, 2));
    }

    #[test]
    fn test_candidate_start_new_election_2aa() {
        non_leader_start_election(|r| r.become_candidate());
    }

    #[test]
    fn test_leader_election_in_one_round_rpc_2aa() {
        let cases: [(u64, Votes, RoleKind); 10] = [
            (1, &[], RoleKind::Leader),
            (3, &[(2, true), (3, true)], RoleKind::Leader),
            (3, &[(2, true)], RoleKind::Leader),
            (5, &[(2, true), (3, true), (4, true), (5, true)], RoleKind::Leader),
            (5, &[(2, true), (3, true), (4, true)], RoleKind::Leader),
            (5, &[(2, true), (3, true)], RoleKind::Leader),
            (3, &[], RoleKind::Candidate),
            (5, &[(2, true)], RoleKind::Candidate),
            (5, &[(2, false), (3, false)], RoleKind::Candidate),
            (5, &[], RoleKind::Candidate),
        ];
        for (at, (size, votes, role)) in cases.into_iter().enumerate() {
            let mut r = node(&ids(size));
            r.hup();
            for &(id, granted) in votes {
                r.step(id, r.node.term(), MessageBody::VoteResponse { granted }).unwrap();
            }
            assert_eq!((r.role(), r.node.term()), (role, 1), "case {at}");
        }
    }

    #[test]
    fn test_follower_vote_2aa() {
        let cases = [
            (NONE, 1, false),
            (NONE, 2, false),
            (1, 1, false),
            (2, 2, false),
            (1, 2, true),
            (2, 1, true),
        ];
        for (at, (voted_for, candidate, is_refused)) in cases.into_iter().enumerate() {
            let mut r = node(&ids(3));
            r.set_term(1);
            r.set_vote(voted_for);
            r.step(candidate, 1, vote(0, 0)).unwrap();
            let body = MessageBody::VoteResponse { granted: !is_refused };
            let answer = Message { from: 1, to: candidate, term: 1, body };
            assert_eq!(r.read_messages(), [answer], "case {at}");
        }
    }

    #[test]
    fn test_candidate_fallback_2aa() {
        for term in [1, 2] {
            let mut r = node(&ids(3));
            r.hup();
            assert_eq!(r.role(), RoleKind::Candidate);
            r.step(2, term, append(0, 0, vec![], 0)).unwrap();
            assert_eq!((r.role(), r.node.term()), (RoleKind::Follower, term));
        }
    }

    fn non_leader_election_timeout_randomized(prepare: impl Fn(&mut CourseNode)) {
        let mut r = node(&ids(3));
        let mut timeouts = BTreeSet::new();
        for _ in 0..500 {
            prepare(&mut r);
            let mut time = 0;
            while r.read_messages().is_empty() {
                r.tick();
                time += 1;
            }
            timeouts.insert(time);
        }
        assert!((11..20).all(|time| timeouts.contains(&time)), "{timeouts:?}");
    }

    #[test]
    fn test_follower_election_timeout_randomized_2aa() {
        non_leader_election_timeout_randomized(|r| r.become_follower(r.node.term() + 1, 2));
    }

    #[test]
    fn test_candidate_election_timeout_randomized_2aa() {
        non_leader_election_timeout_randomized(|r| r.become_candidate());
    }

    fn non_leaders_election_timeout_nonconflict(prepare: impl Fn(&mut CourseNode)) {
        let mut nodes: Vec<CourseNode> = ids(5)
            .into_iter()
            .map(|id| CourseNode::new(id, &ids(5), 10, 1, MemStorage::new([])))
            .collect();
        let mut conflicts = 0;
        for _ in 0..1000 {
            nodes.iter_mut().for_each(&prepare);
            let mut expired = 0;
            while expired == 0 {
                for r in &mut nodes {
                    r.tick();
                    expired += u32::from(!r.read_messages().is_empty());
                }
            }
            conflicts += u32::from(1 < expired);
        }
        assert!(conflicts <= 300, "{conflicts} of 1000");
    }

    #[test]
    fn test_followers_election_timeout_nonconflict_2aa() {
        non_leaders_election_timeout_nonconflict(|r| r.become_follower(r.node.term() + 1, NONE));
    }

    #[test]
    fn test_candidates_election_timeout_nonconflict_2aa() {
        non_leaders_election_timeout_nonconflict(|r| r.become_candidate());
    }

    #[test]
    fn test_leader_election_2aa() {
        let cases: [(&[bool], RoleKind); 5] = [
            (&[true, true, true], RoleKind::Leader),
            (&[true, true, false], RoleKind::Leader),
            (&[true, false, false], RoleKind::Candidate),
            (&[true, false, false, true], RoleKind::Candidate),
            (&[true, false, false, true, true], RoleKind::Leader),
        ];
        for (at, (is_node, role)) in cases.into_iter().enumerate() {
            let mut network = Network::new(is_node);
            network.at(1, CourseNode::hup);
            let r = network.node(1);
            assert_eq!((r.role(), r.node.term()), (role, 1), "case {at}");
        }
    }

    #[test]
    fn test_leader_cycle_2aa() {
        let mut network = Network::new(&[true; 3]);
        for candidate in 1..=3 {
            network.at(candidate, CourseNode::hup);
            for (&id, r) in &network.nodes {
                let role = if id == candidate { RoleKind::Leader } else { RoleKind::Follower };
                assert_eq!(r.role(), role, "node {id} after the campaign of {candidate}");
            }
        }
    }

    #[test]
    fn test_vote_from_any_state_2aa() {
        let states: [Prepare; 3] = [
            |r| r.become_follower(1, 3),
            |r| r.become_candidate(),
            |r| {
                r.become_candidate();
                r.become_leader();
            },
        ];
        for prepare in states {
            let mut r = node(&ids(3));
            r.set_term(1);
            prepare(&mut r);
            r.read_messages();
            let term = r.node.term() + 1;
            r.step(2, term, vote(42, term)).unwrap();
            let messages = r.read_messages();
            assert_eq!(messages.len(), 1);
            assert_eq!(messages[0].body, MessageBody::VoteResponse { granted: true });
            assert_eq!((r.role(), r.node.term()), (RoleKind::Follower, term));
            assert_eq!(r.node.status().vote, 2);
        }
    }

    #[test]
    fn test_single_node_candidate_2aa() {
        let mut network = Network::new(&[true]);
        network.at(1, CourseNode::hup);
        assert_eq!(network.node(1).role(), RoleKind::Leader);
    }

    fn candidate_reset_term(leader_says: MessageBody) {
        let mut network = Network::new(&[true; 3]);
        network.at(1, CourseNode::hup);
        for (id, role) in [(1, RoleKind::Leader), (2, RoleKind::Follower), (3, RoleKind::Follower)]
        {
            assert_eq!(network.node(id).role(), role);
        }
        network.isolate(3);
        network.at(2, CourseNode::hup);
        network.at(1, CourseNode::hup);
        assert_eq!(network.node(1).role(), RoleKind::Leader);
        assert_eq!(network.node(2).role(), RoleKind::Follower);
        while network.node(3).role() != RoleKind::Candidate {
            network.node(3).tick();
        }
        network.recover();
        let term = network.node(1).node.term();
        network.send(1, 3, term, leader_says);
        assert_eq!(network.node(3).role(), RoleKind::Follower);
        assert_eq!(network.node(3).node.term(), network.node(1).node.term());
    }

    #[test]
    fn test_candidate_reset_term_message_type_msg_heartbeat_2aa() {
        candidate_reset_term(MessageBody::Heartbeat { commit: 0, round: 0 });
    }

    #[test]
    fn test_candidate_reset_term_message_type_msg_append_2aa() {
        candidate_reset_term(append(0, 0, vec![], 0));
    }

    /// Three followers in term 1, of which the first is elected then.
    fn elected_in_term_2() -> Network {
        let mut network = Network::new(&[true; 3]);
        for r in network.nodes.values_mut() {
            r.become_follower(1, NONE);
        }
        network.at(1, CourseNode::hup);
        network
    }

    /// The candidate's own requests raise the leader's term; so does its answer to a heartbeat when they are lost.
    #[test]
    fn test_disruptive_follower_2aa() {
        disruptive_follower(false);
        disruptive_follower(true);
    }

    fn disruptive_follower(loses_requests: bool) {
        let mut network = elected_in_term_2();
        for (id, role) in [(1, RoleKind::Leader), (2, RoleKind::Follower), (3, RoleKind::Follower)]
        {
            assert_eq!(network.node(id).role(), role);
        }
        while network.node(3).role() != RoleKind::Candidate {
            network.node(3).tick();
        }
        for (id, role, term) in
            [(1, RoleKind::Leader, 2), (2, RoleKind::Follower, 2), (3, RoleKind::Candidate, 3)]
        {
            let r = network.node(id);
            assert_eq!((r.role(), r.node.term()), (role, term), "node {id}");
        }
        if loses_requests {
            network.node(3).read_messages();
        }
        network.send(1, 3, 2, MessageBody::Heartbeat { commit: 0, round: 0 });
        let r = network.node(1);
        assert_eq!((r.role(), r.node.term()), (RoleKind::Follower, 3));
    }

    #[test]
    fn test_recv_message_type_msg_beat_2aa() {
        let cases: [(Prepare, usize); 3] = [
            (
                |r| {
                    r.become_candidate();
                    r.become_leader();
                },
                2,
            ),
            (|r| r.become_candidate(), 0),
            (|_| {}, 0),
        ];
        for (at, (prepare, count)) in cases.into_iter().enumerate() {
            let mut r = CourseNode::new(1, &ids(3), 10, 1, storage(&entries(&[0, 1])));
            prepare(&mut r);
            r.read_messages();
            r.beat();
            let messages = r.read_messages();
            assert_eq!(messages.len(), count, "case {at}");
            assert!(messages.iter().all(|m| matches!(m.body, MessageBody::Heartbeat { .. })));
        }
    }

    #[test]
    fn test_campaign_while_leader_2aa() {
        let mut r = CourseNode::new(1, &[1], 5, 1, MemStorage::new([]));
        assert_eq!(r.role(), RoleKind::Follower);
        r.hup();
        assert_eq!(r.role(), RoleKind::Leader);
        let term = r.node.term();
        r.hup();
        assert_eq!((r.role(), r.node.term()), (RoleKind::Leader, term));
    }

    #[test]
    fn test_split_vote_2aa() {
        let mut network = elected_in_term_2();
        network.isolate(1);
        network.node(2).hup();
        network.node(3).hup();
        network.deliver(&[2, 3]);
        for id in [2, 3] {
            let r = network.node(id);
            assert_eq!((r.role(), r.node.term()), (RoleKind::Candidate, 3), "node {id}");
        }
        network.at(2, CourseNode::hup);
        for (id, role) in [(2, RoleKind::Leader), (3, RoleKind::Follower)] {
            let r = network.node(id);
            assert_eq!((r.role(), r.node.term()), (role, 4), "node {id}");
        }
    }
}

/// 2AB: replication.
mod project2ab {
    use super::*;
    use raft::testing::course::Network;

    fn leader(size: u64) -> CourseNode {
        let mut r = node(&ids(size));
        r.become_candidate();
        r.become_leader();
        commit_no_op(&mut r);
        r
    }

    fn assert_same_logs(network: &Network, committed: u64, expected: &[raft::Entry]) {
        for (id, r) in &network.nodes {
            assert_eq!((r.committed(), r.log()), (committed, expected.to_vec()), "node {id}");
        }
    }

    #[test]
    fn test_leader_start_replication_2ab() {
        let mut r = leader(3);
        let last = r.last_index();
        r.propose(b"some data").unwrap();
        assert_eq!((r.last_index(), r.committed()), (last + 1, last));
        let new = data(1, last + 1, b"some data");
        let body = append(last, 1, vec![new.clone()], last);
        let to = |to| Message { from: 1, to, term: 1, body: body.clone() };
        assert_eq!(r.read_messages(), [to(2), to(3)]);
        assert_eq!(r.unstable_entries(), [new]);
    }

    #[test]
    fn test_leader_commit_entry_2ab() {
        let mut r = leader(3);
        let last = r.last_index();
        r.propose(b"some data").unwrap();
        for message in r.read_messages() {
            accept(&mut r, &message);
        }
        assert_eq!(r.committed(), last + 1);
        assert_eq!(r.next_entries(), [data(1, last + 1, b"some data")]);
        let messages = r.read_messages();
        assert_eq!(messages.iter().map(|message| message.to).collect::<Vec<_>>(), [2, 3]);
        for message in messages {
            let MessageBody::Append { commit, .. } = message.body else { panic!("{message:?}") };
            assert_eq!(commit, last + 1);
        }
    }

    #[test]
    fn test_leader_acknowledge_commit_2ab() {
        let cases: [(u64, &[u64], bool); 9] = [
            (1, &[], true),
            (3, &[], false),
            (3, &[2], true),
            (3, &[2, 3], true),
            (5, &[], false),
            (5, &[2], false),
            (5, &[2, 3], true),
            (5, &[2, 3, 4], true),
            (5, &[2, 3, 4, 5], true),
        ];
        for (at, (size, acceptors, is_committed)) in cases.into_iter().enumerate() {
            let mut r = leader(size);
            let last = r.last_index();
            r.propose(b"some data").unwrap();
            for message in r.read_messages() {
                if acceptors.contains(&message.to) {
                    accept(&mut r, &message);
                }
            }
            assert_eq!(last < r.committed(), is_committed, "case {at}");
        }
    }

    #[test]
    fn test_leader_commit_preceding_entries_2ab() {
        for terms in [&[][..], &[2], &[1, 2], &[1]] {
            let mut r = CourseNode::new(1, &ids(3), 10, 1, storage(&entries(terms)));
            r.set_term(2);
            r.become_candidate();
            r.become_leader();
            r.propose(b"some data").unwrap();
            // The first append waits for its answer before the second is sent.
            for _ in 0..2 {
                for message in r.read_messages() {
                    accept(&mut r, &message);
                }
            }
            let last = terms.len() as u64;
            let mut expected = entries(terms);
            expected.extend([entry(3, last + 1), data(3, last + 2, b"some data")]);
            assert_eq!(r.next_entries(), expected);
        }
    }

    #[test]
    fn test_follower_commit_entry_2ab() {
        let (one, two): (&'static [u8], &'static [u8]) = (b"some data", b"some data2");
        let cases = [
            (vec![data(1, 1, one)], 1),
            (vec![data(1, 1, one), data(1, 2, two)], 2),
            (vec![data(1, 1, two), data(1, 2, one)], 2),
            (vec![data(1, 1, one), data(1, 2, two)], 1),
        ];
        for (entries, commit) in cases {
            let mut r = node(&ids(3));
            r.become_follower(1, 2);
            r.step(2, 1, append(0, 0, entries.clone(), commit)).unwrap();
            assert_eq!(r.committed(), commit);
            assert_eq!(r.next_entries(), entries[..commit as usize]);
        }
    }

    #[test]
    fn test_follower_check_message_type_msg_append_2ab() {
        let cases = [(0, 0, false), (1, 1, false), (2, 2, false), (1, 2, true), (3, 3, true)];
        for (at, (term, index, is_rejected_there)) in cases.into_iter().enumerate() {
            let mut r = CourseNode::new(1, &ids(3), 10, 1, storage(&entries(&[1, 2])));
            r.set_committed(1);
            r.become_follower(2, 2);
            r.read_messages();
            r.step(2, 2, append(index, term, vec![], 0)).unwrap();
            let messages = r.read_messages();
            assert_eq!((messages.len(), messages[0].term), (1, 2), "case {at}");
            assert_eq!(is_rejected(&messages[0]), is_rejected_there, "case {at}");
        }
    }

    #[test]
    fn test_follower_append_entries_2ab() {
        let cases = [
            ((2, 2), 3, vec![entry(3, 3)], vec![1, 2, 3], vec![entry(3, 3)]),
            (
                (1, 1),
                4,
                vec![entry(3, 2), entry(4, 3)],
                vec![1, 3, 4],
                vec![entry(3, 2), entry(4, 3)],
            ),
            ((0, 0), 2, vec![entry(1, 1)], vec![1, 2], vec![]),
            ((0, 0), 3, vec![entry(3, 1)], vec![3], vec![entry(3, 1)]),
        ];
        for (at, ((index, log_term), term, sent, log, unstable)) in cases.into_iter().enumerate() {
            let mut r = CourseNode::new(1, &ids(3), 10, 1, storage(&entries(&[1, 2])));
            r.become_follower(2, 2);
            r.step(2, term, append(index, log_term, sent, 0)).unwrap();
            assert_eq!(r.log(), entries(&log), "case {at}");
            assert_eq!(r.unstable_entries(), unstable, "case {at}");
        }
    }

    #[test]
    fn test_leader_sync_follower_log_2ab() {
        let leaders = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6];
        let followers: [&[u64]; 6] = [
            &[1, 1, 1, 4, 4, 5, 5, 6, 6],
            &[1, 1, 1, 4],
            &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
            &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
            &[1, 1, 1, 4, 4, 4, 4],
            &[1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
        ];
        for (at, terms) in followers.into_iter().enumerate() {
            let mut lead = CourseNode::new(1, &ids(3), 10, 1, storage(&entries(&leaders)));
            lead.set_term(8);
            lead.set_committed(lead.last_index());
            let mut follower = CourseNode::new(2, &ids(3), 10, 1, storage(&entries(terms)));
            follower.set_term(7);
            let mut network = Network::of([lead, follower]);
            network.at(1, CourseNode::hup);
            // Node 3 is a hole; its vote is given here.
            network.send(3, 1, 9, MessageBody::VoteResponse { granted: true });
            network.at(1, |lead| {
                lead.propose(b"").unwrap();
            });
            let lead = network.node(1).log_state();
            assert_eq!(network.node(2).log_state(), lead, "case {at}");
        }
    }

    #[test]
    fn test_vote_request_2ab() {
        for (terms, term) in [(&[1][..], 2), (&[1, 2], 3)] {
            let mut r = node(&ids(3));
            r.step(2, term - 1, append(0, 0, entries(terms), 0)).unwrap();
            r.read_messages();
            while r.role() != RoleKind::Candidate {
                r.tick();
            }
            let last = terms.len() as u64;
            let ask = |to| Message { from: 1, to, term, body: vote(last, terms[terms.len() - 1]) };
            assert_eq!(r.read_messages(), [ask(2), ask(3)]);
        }
    }

    #[test]
    fn test_voter_2ab() {
        let cases: [(&[u64], u64, u64, bool); 9] = [
            (&[1], 1, 1, false),
            (&[1], 1, 2, false),
            (&[1, 1], 1, 1, true),
            (&[1], 2, 1, false),
            (&[1], 2, 2, false),
            (&[1, 1], 2, 1, false),
            (&[2], 1, 1, true),
            (&[2], 1, 2, true),
            (&[2, 1], 1, 1, true),
        ];
        for (at, (terms, last_term, last_index, is_refused)) in cases.into_iter().enumerate() {
            let mut r = CourseNode::new(1, &ids(2), 10, 1, storage(&entries(terms)));
            r.step(2, 3, vote(last_index, last_term)).unwrap();
            let messages = r.read_messages();
            assert_eq!(messages.len(), 1, "case {at}");
            assert_eq!(is_rejected(&messages[0]), is_refused, "case {at}");
        }
    }

    #[test]
    fn test_leader_only_commits_log_from_current_term_2ab() {
        for (index, commit) in [(1, 0), (2, 0), (3, 3)] {
            let mut r = CourseNode::new(1, &ids(2), 10, 1, storage(&entries(&[1, 2])));
            r.set_term(2);
            r.become_candidate();
            r.become_leader();
            r.read_messages();
            r.propose(b"").unwrap();
            r.step(2, r.node.term(), has(index)).unwrap();
            assert_eq!(r.committed(), commit);
        }
    }

    #[test]
    fn test_progress_leader_2ab() {
        let mut r = CourseNode::new(1, &ids(2), 5, 1, MemStorage::new([]));
        r.become_candidate();
        r.become_leader();
        for matched in 1..=5 {
            assert_eq!(r.progress(1), Some((matched, matched + 1)));
            r.propose(b"foo").unwrap();
        }
    }

    #[test]
    fn test_leader_election_overwrite_newer_logs_2ab() {
        let with_log = |id, term| CourseNode::new(id, &ids(5), 5, 1, storage(&entries(&[term])));
        let voted = |id| {
            let mut storage = MemStorage::new([]);
            storage.set_hard_state(raft::HardState { term: 2, vote: 3, commit: 0 });
            CourseNode::new(id, &ids(5), 5, 1, storage)
        };
        let mut network =
            Network::of([with_log(1, 1), with_log(2, 1), with_log(3, 2), voted(4), voted(5)]);
        network.at(1, CourseNode::hup);
        let r = network.node(1);
        assert_eq!((r.role(), r.node.term()), (RoleKind::Follower, 2));
        network.at(1, CourseNode::hup);
        let r = network.node(1);
        assert_eq!((r.role(), r.node.term()), (RoleKind::Leader, 3));
        for r in network.nodes.values() {
            assert_eq!(r.log(), entries(&[1, 3]));
        }
    }

    #[test]
    fn test_log_replication_2ab() {
        let propose = |network: &mut Network, id| {
            network.at(id, |r| {
                r.propose(b"somedata").unwrap();
            });
        };
        let check = |mut network: Network, committed, proposals: usize| {
            for r in network.nodes.values_mut() {
                assert_eq!(r.committed(), committed);
                let entries = r.next_entries();
                let data: Vec<_> = entries.iter().filter(|entry| !entry.data.is_empty()).collect();
                assert_eq!(data.len(), proposals);
                assert!(data.iter().all(|entry| &entry.data[..] == b"somedata"));
            }
        };
        let mut network = Network::new(&[true; 3]);
        network.at(1, CourseNode::hup);
        propose(&mut network, 1);
        check(network, 2, 1);

        let mut network = Network::new(&[true; 3]);
        network.at(1, CourseNode::hup);
        propose(&mut network, 1);
        network.at(2, CourseNode::hup);
        propose(&mut network, 2);
        check(network, 4, 2);
    }

    #[test]
    fn test_single_node_commit_2ab() {
        let mut network = Network::new(&[true]);
        network.at(1, CourseNode::hup);
        for _ in 0..2 {
            network.at(1, |r| {
                r.propose(b"some data").unwrap();
            });
        }
        assert_eq!(network.node(1).committed(), 3);
    }

    #[test]
    fn test_commit_without_new_term_entry_2ab() {
        let mut network = Network::new(&[true; 5]);
        network.at(1, CourseNode::hup);
        for id in 3..=5 {
            network.cut(1, id);
        }
        for _ in 0..2 {
            network.at(1, |r| {
                r.propose(b"some data").unwrap();
            });
        }
        assert_eq!(network.node(1).committed(), 1);
        network.recover();
        network.at(2, CourseNode::hup);
        assert_eq!(network.node(1).committed(), 4);
    }

    #[test]
    fn test_commit_with_heartbeat_2ab() {
        let mut network = Network::new(&[true; 5]);
        network.at(1, CourseNode::hup);
        network.isolate(5);
        for _ in 0..2 {
            network.at(1, |r| {
                r.propose(b"some data").unwrap();
            });
        }
        assert_eq!(network.node(5).committed(), 1);
        network.recover();
        network.at(1, CourseNode::beat);
        assert_eq!(network.node(5).committed(), 3);
    }

    #[test]
    fn test_dueling_candidates_2ab() {
        let mut network = Network::new(&[true; 3]);
        network.cut(1, 3);
        network.at(1, CourseNode::hup);
        network.at(3, CourseNode::hup);
        assert_eq!(network.node(1).role(), RoleKind::Leader);
        assert_eq!(network.node(3).role(), RoleKind::Candidate);
        network.recover();
        network.at(3, CourseNode::hup);
        for (id, committed, terms) in [(1, 1, &[1][..]), (2, 1, &[1]), (3, 0, &[])] {
            let r = network.node(id);
            assert_eq!((r.role(), r.node.term()), (RoleKind::Follower, 2), "node {id}");
            assert_eq!((r.committed(), r.log()), (committed, entries(terms)), "node {id}");
        }
    }

    #[test]
    fn test_candidate_concede_2ab() {
        let mut network = Network::new(&[true; 3]);
        network.isolate(1);
        network.at(1, CourseNode::hup);
        network.at(3, CourseNode::hup);
        network.recover();
        network.at(3, CourseNode::beat);
        network.at(3, |r| {
            r.propose(b"force follower").unwrap();
        });
        network.at(3, CourseNode::beat);
        let r = network.node(1);
        assert_eq!((r.role(), r.node.term()), (RoleKind::Follower, 1));
        assert_same_logs(&network, 2, &[entry(1, 1), data(1, 2, b"force follower")]);
    }

    #[test]
    fn test_old_messages_2ab() {
        let mut network = Network::new(&[true; 3]);
        for id in [1, 2, 1] {
            network.at(id, CourseNode::hup);
        }
        network.send(2, 1, 2, append(0, 0, vec![entry(2, 3)], 0));
        network.at(1, |r| {
            r.propose(b"somedata").unwrap();
        });
        let log = [entry(1, 1), entry(2, 2), entry(3, 3), data(3, 4, b"somedata")];
        assert_same_logs(&network, 4, &log);
    }

    #[test]
    fn test_proposal_2ab() {
        let cases: [(&[bool], bool); 5] = [
            (&[true, true, true], true),
            (&[true, true, false], true),
            (&[true, false, false], false),
            (&[true, false, false, true], false),
            (&[true, false, false, true, true], true),
        ];
        for (is_node, succeeds) in cases {
            let mut network = Network::new(is_node);
            network.at(1, CourseNode::hup);
            network.at(1, |r| assert_eq!(r.propose(b"somedata").is_ok(), succeeds));
            match succeeds {
                true => assert_same_logs(&network, 2, &[entry(1, 1), data(1, 2, b"somedata")]),
                false => assert_same_logs(&network, 0, &[]),
            }
            assert_eq!(network.node(1).node.term(), 1);
        }
    }

    #[test]
    fn test_handle_message_type_msg_append_2ab() {
        let new = |terms: &[(u64, u64)]| -> Vec<raft::Entry> {
            terms.iter().map(|&(index, term)| entry(term, index)).collect()
        };
        // The message: term, index and term of the entry before, entries, commit; what becomes of it.
        let cases = [
            // The entry before is another one, or none.
            (3, (2, 3), vec![], 3, 2, 0, true),
            (3, (3, 3), vec![], 3, 2, 0, true),
            // Conflicts are replaced.
            (2, (1, 1), vec![], 1, 2, 1, false),
            (2, (0, 0), new(&[(1, 2)]), 1, 1, 1, false),
            (2, (2, 2), new(&[(3, 2), (4, 2)]), 3, 4, 3, false),
            (2, (2, 2), new(&[(3, 2)]), 4, 3, 3, false),
            (2, (1, 1), new(&[(2, 2)]), 4, 2, 2, false),
            // Commits go to the last entry that the message confirms.
            (2, (1, 1), vec![], 3, 2, 1, false),
            (2, (1, 1), new(&[(2, 2)]), 3, 2, 2, false),
            (2, (2, 2), vec![], 3, 2, 2, false),
            (2, (2, 2), vec![], 4, 2, 2, false),
        ];
        for (at, (term, (index, log_term), new, commit, last, committed, is_refused)) in
            cases.into_iter().enumerate()
        {
            let mut r = CourseNode::new(1, &[1], 10, 1, storage(&entries(&[1, 2])));
            r.become_follower(2, NONE);
            r.step(2, term, append(index, log_term, new, commit)).unwrap();
            assert_eq!((r.last_index(), r.committed()), (last, committed), "case {at}");
            let messages = r.read_messages();
            assert_eq!(messages.len(), 1, "case {at}");
            assert_eq!(is_rejected(&messages[0]), is_refused, "case {at}");
        }
    }

    #[test]
    fn test_recv_message_type_msg_request_vote_2ab() {
        use RoleKind::{Candidate, Follower, Leader};
        let cases = [
            (Follower, 0, 0, NONE, true),
            (Follower, 0, 1, NONE, true),
            (Follower, 0, 2, NONE, true),
            (Follower, 0, 3, NONE, false),
            (Follower, 1, 0, NONE, true),
            (Follower, 1, 1, NONE, true),
            (Follower, 1, 2, NONE, true),
            (Follower, 1, 3, NONE, false),
            (Follower, 2, 0, NONE, true),
            (Follower, 2, 1, NONE, true),
            (Follower, 2, 2, NONE, false),
            (Follower, 2, 3, NONE, false),
            (Follower, 3, 0, NONE, true),
            (Follower, 3, 1, NONE, true),
            (Follower, 3, 2, NONE, false),
            (Follower, 3, 3, NONE, false),
            (Follower, 3, 2, 2, false),
            (Follower, 3, 2, 1, true),
            (Leader, 3, 3, 1, true),
            (Candidate, 3, 3, 1, true),
        ];
        for (at, (role, last_index, last_term, voted_for, is_refused)) in
            cases.into_iter().enumerate()
        {
            let mut r = CourseNode::new(1, &ids(2), 10, 1, storage(&entries(&[2, 2])));
            let term = last_term.max(2);
            r.set_term(term);
            r.set_vote(voted_for);
            if role != Follower {
                r.set_term(term - 1);
                r.become_candidate();
            }
            if role == Leader {
                r.become_leader();
            }
            r.read_messages();
            r.step(2, term, vote(last_index, last_term)).unwrap();
            let messages = r.read_messages();
            assert_eq!(messages.len(), 1, "case {at}");
            assert_eq!(is_rejected(&messages[0]), is_refused, "case {at}");
        }
    }

    #[test]
    fn test_all_server_stepdown_2ab() {
        let cases: [(Prepare, u64); 3] = [
            (|r| r.become_follower(1, NONE), 0),
            (|r| r.become_candidate(), 0),
            (
                |r| {
                    r.become_candidate();
                    r.become_leader();
                },
                1,
            ),
        ];
        for (at, (prepare, last)) in cases.into_iter().enumerate() {
            let mut r = node(&ids(3));
            prepare(&mut r);
            for (body, leader) in [(vote(0, 3), NONE), (append(0, 3, vec![], 0), 2)] {
                r.step(2, 3, body).unwrap();
                assert_eq!((r.role(), r.node.term()), (RoleKind::Follower, 3), "case {at}");
                assert_eq!((r.last_index(), r.log().len() as u64), (last, last), "case {at}");
                assert_eq!(r.leader(), leader, "case {at}");
            }
        }
    }

    #[test]
    fn test_heartbeat_update_commit_2ab() {
        for (failures, successes) in [(1, 1), (5, 3), (5, 10)] {
            let mut network = Network::new(&[true; 3]);
            network.at(1, CourseNode::hup);
            network.isolate(1);
            for _ in 0..failures {
                network.at(1, |r| {
                    r.propose(b"").unwrap();
                });
            }
            assert!(network.node(1).committed() <= 1);
            network.at(2, CourseNode::hup);
            for _ in 0..successes {
                network.at(2, |r| {
                    r.propose(b"").unwrap();
                });
            }
            for id in [2, 3] {
                assert_eq!(network.node(id).committed(), 2 + successes);
            }
            network.recover();
            network.ignore("Append");
            network.at(2, CourseNode::beat);
            assert!(network.node(1).committed() <= 1);
        }
    }

    #[test]
    fn test_leader_increase_next_2ab() {
        let first = CourseNode::new(1, &ids(2), 10, 1, storage(&entries(&[1, 1, 1])));
        let others = [2, 3].map(|id| CourseNode::new(id, &ids(3), 10, 1, MemStorage::new([])));
        let mut network = Network::of(others.into_iter().chain([first]));
        network.at(1, CourseNode::hup);
        network.at(1, |r| {
            r.propose(b"somedata").unwrap();
        });
        assert_eq!(network.node(1).progress(2).unwrap().1, 6);
    }
}

/// 2AC: the interface of a node.
mod project2ac {
    use super::*;

    /// The course expects the entry and its commitment in one Ready, before it is durable. Here the second follows the
    /// first, and the adapter merges them.
    #[test]
    fn test_raw_node_start_2ac() {
        let mut r = node(&[1]);
        r.node.campaign();
        r.merged_ready();
        r.next_entries();
        r.node.propose("foo".into()).unwrap();
        let ready = r.merged_ready();
        assert_eq!((ready.entries.len(), ready.committed.len()), (1, 1));
        assert_eq!(ready.entries[0].data, ready.committed[0].data);
        assert_eq!(&ready.entries[0].data[..], b"foo");
        r.next_entries();
        assert!(!r.node.has_ready());
    }

    #[test]
    fn test_raw_node_restart_2ac() {
        let log = [entry(1, 1), data(1, 2, b"foo")];
        let mut storage = storage(&log);
        storage.set_hard_state(raft::HardState { term: 1, vote: 0, commit: 1 });
        let mut r = CourseNode::new(1, &[], 10, 1, storage);
        let ready = r.node.ready();
        let expected =
            raft::Ready { number: 1, committed: vec![log[0].clone()], ..Default::default() };
        assert_eq!(ready, expected);
        r.node.persisted(ready.number);
        r.node.applied(1);
        assert!(!r.node.has_ready());
    }
}
