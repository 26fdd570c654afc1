//! Calls against a small world in which everything can go wrong.

use types::{Cf, Peer, PeerId, PeerRole, RegionId, StoreId};

use super::{
    world::{Fault, World, fingerprint},
    *,
};
use crate::{
    error::EndpointFailure,
    request::{Checksum, Direction, Pair, TimeToLive},
};

const CF: Cf = Cf::Default;
const V2: KeyLayout = KeyLayout::RawV2 { keyspace: 0 };

fn get(key: &'static str) -> Request {
    Request::Get { cf: CF, key: key.into() }
}

fn put(key: &'static str, value: &'static str) -> Request {
    Request::Put { cf: CF, key: key.into(), value: value.into(), ttl_secs: 0 }
}

fn cas(key: &'static str, expected: Option<&'static str>, new: &'static str) -> Request {
    Request::CompareAndSwap {
        cf: CF,
        key: key.into(),
        expected: expected.map(Bytes::from),
        new: Some(new.into()),
        ttl_secs: 0,
    }
}

fn scan(start: &'static str, end: &'static str, limit: usize, direction: Direction) -> Request {
    Request::Scan { cf: CF, range: KeyRange::new(start, end), limit, keys_only: false, direction }
}

fn batch_put(keys: &[&'static str]) -> Request {
    Request::BatchPut {
        cf: CF,
        pairs: keys.iter().map(|key| Pair::new(*key, *key)).collect(),
        ttl_secs: 0,
    }
}

fn region_error(error: RegionError) -> Fault {
    Fault::Store(StoreError::Region(error))
}

fn not_leader(region: u64, leader: Option<u64>) -> Fault {
    let peer = |store: u64| Peer {
        id: PeerId(region * 10 + store),
        store_id: StoreId(store),
        role: PeerRole::Voter,
    };
    region_error(RegionError::NotLeader { region: RegionId(region), leader: leader.map(peer) })
}

fn busy(millis: u64) -> Fault {
    region_error(RegionError::ServerIsBusy {
        reason: "the queue is full".to_owned(),
        retry_after: Duration::from_millis(millis),
    })
}

fn unreachable() -> Error {
    let failure = EndpointFailure { endpoint: "p:1".to_owned(), reason: "refused".to_owned() };
    Error::SchedulerUnreachable { failures: vec![failure] }
}

fn keys(answer: Result<Answer, Error>) -> Vec<String> {
    match answer {
        Ok(Answer::Pairs(pairs)) => {
            pairs.iter().map(|pair| String::from_utf8_lossy(&pair.key).into_owned()).collect()
        }
        other => panic!("no pairs: {other:?}"),
    }
}

/// What happened, without the first questions that every fresh client asks.
fn log(world: &World) -> String {
    world.log.join("\n")
}

/// A world whose client knows region 1 already.
fn warm(bounds: &[&'static str]) -> World {
    let mut world = World::new(KeyLayout::RawV1, bounds);
    world.run(get("a")).unwrap();
    world.log.clear();
    world
}

#[test]
fn the_first_get_asks_for_region_and_store_and_the_second_does_not() {
    let mut world = World::new(KeyLayout::RawV1, &[]);
    assert_eq!(world.run(put("a", "1")), Ok(Answer::Done));
    assert_eq!(world.run(get("a")), Ok(Answer::Value(Some("1".into()))));
    assert_eq!(world.run(get("b")), Ok(Answer::Value(None)));
    insta::assert_snapshot!(log(&world), @r"
    ask: region of a
    ask: store 1
    put a to region 1 on 1: ok
    get a to region 1 on 1: ok
    get b to region 1 on 1: ok
    ");
}

#[test]
fn a_hint_is_followed_at_once() {
    let mut world = warm(&[]).faults([not_leader(1, Some(3))]);
    world.regions[0].1 = StoreId(3);
    let before = world.now;
    world.run(put("a", "1")).unwrap();
    insta::assert_snapshot!(log(&world), @r"
    put a to region 1 on 1: not leader of region 1
    ask: store 3
    put a to region 1 on 3: ok
    ");
    assert_eq!(world.now - before, Duration::from_millis(3), "no wait");
}

#[test]
fn without_a_leader_the_peers_are_tried_in_turn_with_waits() {
    let mut world = warm(&[]).faults([not_leader(1, None), not_leader(1, None)]);
    world.regions[0].1 = StoreId(3);
    world.run(get("a")).unwrap();
    insta::assert_snapshot!(log(&world), @r"
    get a to region 1 on 1: not leader of region 1
    wait
    ask: store 2
    get a to region 1 on 2: not leader of region 1
    wait
    ask: store 3
    get a to region 1 on 3: ok
    ");
}

#[test]
fn a_split_is_followed_without_asking_the_scheduler() {
    let mut world = warm(&[]);
    world.split("m".into());
    world.run(get("z")).unwrap();
    insta::assert_snapshot!(log(&world), @r"
    get z to region 1 on 1: the epoch of the region has changed
    get z to region 2 on 1: ok
    ");
}

#[test]
fn a_batch_whose_region_splits_meanwhile_is_cut_again() {
    let mut world = warm(&[]);
    world.split("c".into());
    world.run(batch_put(&["a", "b", "c", "d"])).unwrap();
    insta::assert_snapshot!(log(&world), @r"
    batch put a b c d to region 1 on 1: the epoch of the region has changed
    batch put a b to region 1 on 1: ok
    batch put c d to region 2 on 1: ok
    ");
}

#[test]
fn wrong_routes_are_forgotten() {
    let key_not_in_region = RegionError::KeyNotInRegion {
        key: "a".into(),
        region: Box::new(world::region(1, &"x".into(), &"y".into(), 1)),
    };
    let store_not_match = RegionError::StoreNotMatch { request: StoreId(1), actual: StoreId(9) };
    for error in [RegionError::RegionNotFound { region: RegionId(1) }, key_not_in_region] {
        let mut world = warm(&[]).faults([region_error(error.clone())]);
        world.run(put("a", "1")).unwrap();
        assert_eq!(
            world.log,
            [
                format!("put a to region 1 on 1: {error}"),
                "ask: region of a".to_owned(),
                "put a to region 1 on 1: ok".to_owned()
            ]
        );
    }
    let mut world = warm(&[]).faults([region_error(store_not_match)]);
    world.run(put("a", "1")).unwrap();
    insta::assert_snapshot!(log(&world), @r"
    put a to region 1 on 1: this is store 9, the request is for store 1
    ask: region of a
    ask: store 1
    put a to region 1 on 1: ok
    ");
}

#[test]
fn a_busy_store_is_left_alone_for_as_long_as_it_asks() {
    let mut world = warm(&[]).faults([busy(700)]);
    let before = world.now;
    world.run(put("a", "1")).unwrap();
    assert!(world.now - before >= Duration::from_millis(700));
    assert_eq!(world.log.len(), 3);
}

#[test]
fn not_now_is_sent_again() {
    let mut world =
        warm(&[]).faults([Fault::Store(StoreError::NotNow("stale command".to_owned()))]);
    assert_eq!(
        world.run(cas("a", None, "1")),
        Ok(Answer::Swapped { swapped: true, previous: None })
    );
    assert_eq!(world.log.len(), 3);
}

#[test]
fn a_dead_store_is_left_for_the_next_peer() {
    let mut world = warm(&[]).faults([Fault::NotSent]);
    world.regions[0].1 = StoreId(2);
    assert_eq!(
        world.run(cas("a", None, "1")),
        Ok(Answer::Swapped { swapped: true, previous: None })
    );
    insta::assert_snapshot!(log(&world), @r"
    compare and swap a to region 1 on 1: not sent
    wait
    ask: store 2
    compare and swap a to region 1 on 2: ok
    ");
}

#[test]
fn a_put_without_an_answer_is_sent_again() {
    for lost in [Fault::AnswerLost, Fault::RequestLost] {
        let mut world = warm(&[]).faults([lost]);
        assert_eq!(world.run(put("a", "1")), Ok(Answer::Done));
        assert_eq!(world.data[&Bytes::from("a")], "1");
    }
}

#[test]
fn a_swap_without_an_answer_is_never_sent_again() {
    for (lost, there) in [(Fault::AnswerLost, true), (Fault::RequestLost, false)] {
        let mut world = warm(&[]).faults([lost]);
        let error = world.run(cas("a", None, "1")).unwrap_err();
        insta::allow_duplicates! {
            insta::assert_snapshot!(error, @"the outcome of compare and swap a is not known: store 1 at s1:1 did not answer: timed out");
        }
        assert_eq!(world.data.contains_key(&Bytes::from("a")), there);
        assert_eq!(world.log.len(), 1);
    }
}

#[test]
fn a_put_is_reported_where_the_caller_wants_that() {
    let mut world = warm(&[]).faults([Fault::AnswerLost]);
    world.options.ambiguous_writes = AmbiguousWrites::Report;
    assert_eq!(world.run(put("a", "1")).unwrap_err().code(), Code::Undetermined);
    // Reads have no outcome to be unsure of.
    world.faults.push_back(Fault::AnswerLost);
    assert_eq!(world.run(get("a")), Ok(Answer::Value(Some("1".into()))));
}

#[test]
fn a_put_that_fails_after_a_lost_answer_is_undetermined_and_never_just_failed() {
    let refused =
        Fault::Store(StoreError::Refused { code: Code::Poisoned, message: "stopped".to_owned() });
    let mut world = warm(&[]).faults([Fault::AnswerLost, refused]);
    world.regions[0].0.peers.truncate(1);
    let error = world.run(put("a", "1")).unwrap_err();
    insta::assert_snapshot!(error, @"the outcome of put a is not known: store 1 at s1:1 did not answer: timed out; sent again: stopped");
    // The same when the time runs out.
    let mut world = warm(&[]).faults([Fault::AnswerLost]);
    world.then = busy(0);
    assert_eq!(world.run(put("a", "1")).unwrap_err().code(), Code::Undetermined);
    // And for the part of a batch that was cut off after the loss.
    let mut world = warm(&[]).faults([Fault::RequestLost]);
    world.split("c".into());
    world.then =
        Fault::Store(StoreError::Refused { code: Code::KeyModeConflict, message: "no".to_owned() });
    assert_eq!(world.run(batch_put(&["a", "d"])).unwrap_err().code(), Code::Undetermined);
}

#[test]
fn a_server_that_does_not_know_the_outcome_is_believed() {
    let undetermined =
        || region_error(RegionError::Undetermined { reason: "leadership changed".to_owned() });
    let mut world = warm(&[]).faults([undetermined()]);
    let error = world.run(put("a", "1")).unwrap_err();
    insta::assert_snapshot!(error, @"the outcome of put a is not known: leadership changed");
    assert!(!error.is_retryable());
    let mut world = warm(&[]).faults([undetermined()]);
    assert_eq!(world.run(get("a")), Ok(Answer::Value(None)), "a read is sent again");
}

#[test]
fn refusals_are_final() {
    let refused = StoreError::Refused {
        code: Code::KeyModeConflict,
        message: "holds transactional data".to_owned(),
    };
    let mut world = warm(&[]).faults([Fault::Store(refused)]);
    let error = world.run(put("a", "1")).unwrap_err();
    assert_eq!(
        (error.code(), error.to_string().as_str()),
        (Code::KeyModeConflict, "holds transactional data")
    );
    assert!(!error.is_retryable());
    let too_large = RegionError::RaftEntryTooLarge { region: RegionId(1), size: 1 << 30 };
    let mut world = warm(&[]).faults([region_error(too_large)]);
    assert_eq!(world.run(put("a", "1")).unwrap_err().code(), Code::EntryTooLarge);
    assert_eq!(world.log.len(), 1);
}

#[test]
fn what_is_too_large_is_not_even_sent() {
    let mut world = warm(&[]);
    let large = |n: usize| Bytes::from(vec![0; n]);
    let key = Request::Get { cf: CF, key: large(limits::KEY_BYTES_MAX + 1) };
    assert_eq!(world.run(key).unwrap_err().code(), Code::KeyTooLarge);
    let value = Request::Put {
        cf: CF,
        key: "a".into(),
        value: large(limits::VALUE_BYTES_MAX + 1),
        ttl_secs: 0,
    };
    assert_eq!(world.run(value).unwrap_err().code(), Code::ValueTooLarge);
    assert_eq!(log(&world), "");
}

#[test]
fn the_time_is_kept_and_the_first_cause_named() {
    let mut world = warm(&[]).faults([Fault::NotSent]);
    world.then = busy(0);
    world.options.timeout = Duration::from_secs(3);
    let before = world.now;
    let error = world.run(get("a")).unwrap_err();
    assert!(world.now - before <= Duration::from_secs(3));
    assert!(error.is_retryable());
    assert_eq!(error.code(), Code::StoreUnreachable);
    let text = error.to_string();
    assert!(text.starts_with("get a not done after "), "{text}");
    assert!(text.ends_with("; first: store 1 at s1:1 did not answer: refused"), "{text}");
}

#[test]
fn no_error_makes_a_client_ask_without_pause() {
    // Every obstacle, for ever: the number of requests stays small.
    let cases = [
        not_leader(1, Some(2)),
        not_leader(1, None),
        region_error(RegionError::EpochNotMatch { regions: Vec::new() }),
        region_error(RegionError::RegionNotFound { region: RegionId(1) }),
        region_error(RegionError::StoreNotMatch { request: StoreId(1), actual: StoreId(2) }),
        Fault::Store(StoreError::NotNow("merging".to_owned())),
        busy(0),
        Fault::NotSent,
        Fault::Scheduler(unreachable()),
        Fault::Route(Route::NoRegion),
        // An answer that does not help: another region, again and again.
        Fault::Route(Route::Region {
            region: world::region(9, &"x".into(), &"y".into(), 1),
            leader: None,
        }),
    ];
    for fault in cases {
        let mut world = World::new(KeyLayout::RawV1, &[]);
        world.then = fault.clone();
        // The fault of the scheduler must be met by a client that asks.
        let before = world.now;
        let result = world.run(get("a"));
        if matches!(fault, Fault::Route(_) | Fault::Scheduler(_)) || result.is_err() {
            assert!(result.unwrap_err().is_retryable(), "{fault:?}");
            assert!(world.now - before <= Duration::from_secs(10));
        }
        let requests = world.log.iter().filter(|line| *line != "wait").count();
        assert!(requests < 250, "{fault:?}: {requests} requests in ten seconds");
    }
}

#[test]
fn a_scheduler_that_comes_back_is_enough() {
    let mut world = World::new(KeyLayout::RawV1, &[]).faults([
        Fault::Scheduler(unreachable()),
        Fault::Route(Route::NoRegion),
        Fault::None,
    ]);
    assert_eq!(world.run(get("a")), Ok(Answer::Value(None)));
    insta::assert_snapshot!(log(&world), @r"
    ask: failed
    wait
    ask: region of a
    wait
    ask: region of a
    ask: store 1
    get a to region 1 on 1: ok
    ");
    // But one that belongs to another cluster is not waited for.
    let mismatch =
        Error::Scheduler { code: Code::ClusterMismatch, message: "mine is 7".to_owned() };
    let mut world = World::new(KeyLayout::RawV1, &[]).faults([Fault::Scheduler(mismatch.clone())]);
    assert_eq!(world.run(get("a")), Err(mismatch));
}

#[test]
fn batches_travel_side_by_side_and_come_back_in_order() {
    let mut world = World::new(KeyLayout::RawV1, &["c", "e"]);
    world.run(batch_put(&["f", "a", "d", "b", "a"])).unwrap();
    insta::assert_snapshot!(log(&world), @r"
    ask: region of a
    ask: store 1
    batch put a b to region 1 on 1: ok
    ask: region of d
    batch put d to region 2 on 1: ok
    ask: region of f
    batch put f to region 3 on 1: ok
    ");
    world.log.clear();
    let wanted = ["f", "zz", "a", "d", "a"].map(Bytes::from).to_vec();
    assert_eq!(keys(world.run(Request::BatchGet { cf: CF, keys: wanted })), ["f", "a", "d", "a"]);
    insta::assert_snapshot!(log(&world), @r"
    batch get a to region 1 on 1: ok
    batch get d to region 2 on 1: ok
    batch get f zz to region 3 on 1: ok
    ");
    world.run(Request::BatchDelete { cf: CF, keys: ["a", "f"].map(Bytes::from).to_vec() }).unwrap();
    assert_eq!(world.data.len(), 2);
}

#[test]
fn large_batches_are_cut_and_few_requests_are_under_way() {
    let mut world = warm(&[]);
    let pairs: Vec<Pair> =
        (0..40_000_u32).map(|i| Pair::new(i.to_be_bytes().to_vec(), "v")).collect();
    world.run(Request::BatchPut { cf: CF, pairs, ttl_secs: 0 }).unwrap();
    assert_eq!(world.data.len(), 40_000);
    assert_eq!(world.log.len(), 40_000_usize.div_ceil(limits::CLIENT_BATCH_KEYS_MAX));
    assert_eq!(world.under_way_max, limits::CLIENT_REQUESTS_MAX);
    // By bytes, too; a pair above the limit travels alone.
    world.log.clear();
    let value = |n: usize| Bytes::from(vec![b'x'; n]);
    let sizes = [
        limits::CLIENT_BATCH_BYTES_MAX / 2 - 1,
        limits::CLIENT_BATCH_BYTES_MAX / 2 - 1,
        2,
        3 << 20,
        5,
    ];
    let pairs = sizes
        .iter()
        .zip(["a", "b", "c", "d", "e"])
        .map(|(n, key)| Pair::new(key, value(*n)))
        .collect();
    world.run(Request::BatchPut { cf: CF, pairs, ttl_secs: 0 }).unwrap();
    assert_eq!(world.log.len(), 4);
}

#[test]
fn empty_batches_and_ranges_are_done_at_once() {
    let mut world = World::new(KeyLayout::RawV1, &[]);
    assert_eq!(
        world.run(Request::BatchGet { cf: CF, keys: Vec::new() }),
        Ok(Answer::Pairs(Vec::new()))
    );
    assert_eq!(world.run(batch_put(&[])), Ok(Answer::Done));
    assert_eq!(world.run(scan("a", "z", 0, Direction::Forward)), Ok(Answer::Pairs(Vec::new())));
    assert_eq!(world.run(scan("z", "a", 10, Direction::Reverse)), Ok(Answer::Pairs(Vec::new())));
    assert_eq!(
        world.run(Request::DeleteRange { cf: CF, range: KeyRange::new("b", "b") }),
        Ok(Answer::Done)
    );
    assert_eq!(log(&world), "");
}

#[test]
fn scans_walk_over_regions() {
    let mut world = World::new(KeyLayout::RawV1, &["c", "e"]);
    world.run(batch_put(&["a", "b", "c", "d", "e", "f"])).unwrap();
    world.log.clear();
    assert_eq!(keys(world.run(scan("b", "", 4, Direction::Forward))), ["b", "c", "d", "e"]);
    insta::assert_snapshot!(log(&world), @r"
    scan of [b, c) limit 4 to region 1 on 1: ok
    scan of [c, e) limit 3 to region 2 on 1: ok
    scan of [e, ) limit 1 to region 3 on 1: ok
    ");
    world.log.clear();
    assert_eq!(keys(world.run(scan("b", "", 100, Direction::Reverse))), ["f", "e", "d", "c", "b"]);
    insta::assert_snapshot!(log(&world), @r"
    scan of [e, ) limit 100 to region 3 on 1: ok
    scan of [c, e) limit 98 to region 2 on 1: ok
    scan of [b, c) limit 96 to region 1 on 1: ok
    ");
}

#[test]
fn a_reverse_scan_by_a_fresh_client_finds_the_last_region() {
    let mut world = World::new(KeyLayout::RawV1, &["c", "e"]);
    world.data.insert("a".into(), "1".into());
    world.data.insert("".into(), "the empty key".into());
    assert_eq!(keys(world.run(scan("", "", 100, Direction::Reverse))), ["a", ""]);
    insta::assert_snapshot!(log(&world), @r"
    ask: region of the end
    ask: store 1
    scan of [e, ) limit 100 to region 3 on 1: ok
    ask: region before e
    scan of [c, e) limit 100 to region 2 on 1: ok
    ask: region before c
    scan of [, c) limit 100 to region 1 on 1: ok
    ");
    // A bound that is the first key of an unknown region is asked for twice, once each way.
    world.cache = RegionCache::new();
    world.log.clear();
    assert_eq!(keys(world.run(scan("", "e", 1, Direction::Reverse))), ["a"]);
    insta::assert_snapshot!(log(&world), @r"
    ask: region of e
    ask: region before e
    ask: store 1
    scan of [c, e) limit 1 to region 2 on 1: ok
    ask: region before c
    scan of [, c) limit 1 to region 1 on 1: ok
    ");
}

#[test]
fn a_reverse_scan_survives_the_end_of_the_region_that_it_left() {
    let mut world = World::new(KeyLayout::RawV1, &["c", "e"]);
    world.data.insert("a".into(), "1".into());
    world.run(get("e")).unwrap(); // knows that a region begins at "e"
    world.merge(1);
    world.merge(0); // and it does not any more
    world.log.clear();
    assert_eq!(keys(world.run(scan("", "e", 10, Direction::Reverse))), ["a"]);
    insta::assert_snapshot!(log(&world), @r"
    ask: region before e
    wait
    ask: region of e
    scan of [, e) limit 10 to region 1 on 1: ok
    ");
}

#[test]
fn long_scans_are_cut_into_pages() {
    let count = 3 * limits::CLIENT_SCAN_PAGE + 10;
    let mut world = warm(&["m"]);
    for i in 0..count {
        world.data.insert(format!("k{i:05}").into(), "v".into());
    }
    for direction in [Direction::Forward, Direction::Reverse] {
        world.log.clear();
        assert_eq!(keys(world.run(scan("", "", usize::MAX, direction))).len(), count);
        assert!(world.log.len() <= 8, "{}", log(&world));
    }
    // Exactly one page: whether there are more takes another question.
    world.data.retain(|key, _| key < &Bytes::from(format!("k{:05}", limits::CLIENT_SCAN_PAGE)));
    assert_eq!(
        keys(world.run(scan("", "", usize::MAX, Direction::Forward))).len(),
        limits::CLIENT_SCAN_PAGE
    );
}

#[test]
fn answers_that_are_too_large_are_asked_for_in_smaller_parts() {
    let mut world = warm(&[]);
    let all: Vec<Bytes> = (0..300).map(|i| format!("k{i:05}").into()).collect();
    world.data = all.iter().map(|key| (key.clone(), "v".into())).collect();
    world.pairs_max = 3;
    for direction in [Direction::Forward, Direction::Reverse] {
        assert_eq!(keys(world.run(scan("", "", 299, direction))).len(), 299);
    }
    assert_eq!(keys(world.run(Request::BatchGet { cf: CF, keys: all })).len(), 300);
    world.pairs_max = 0;
    assert_eq!(
        world.run(scan("", "", 299, Direction::Forward)).unwrap_err().code(),
        Code::InvalidRequest
    );
    let pair = Request::BatchGet { cf: CF, keys: vec!["k00000".into(), "k00001".into()] };
    assert_eq!(world.run(pair).unwrap_err().code(), Code::InvalidRequest);
}

#[test]
fn the_walk_goes_on_where_it_was_when_regions_change_under_it() {
    let mut world = World::new(KeyLayout::RawV1, &["c", "e"]);
    world.run(batch_put(&["a", "b", "c", "d", "e", "f"])).unwrap();
    world.split("d".into());
    world.merge(0);
    world.log.clear();
    assert_eq!(
        keys(world.run(scan("", "", 100, Direction::Forward))),
        ["a", "b", "c", "d", "e", "f"]
    );
    insta::assert_snapshot!(log(&world), @r"
    scan of [, c) limit 100 to region 1 on 1: the epoch of the region has changed
    scan of [, d) limit 100 to region 1 on 1: ok
    scan of [d, e) limit 97 to region 4 on 1: ok
    scan of [e, ) limit 96 to region 3 on 1: ok
    ");
}

#[test]
fn answers_that_make_no_sense_end_the_call() {
    let pairs =
        |keys: &[&'static str]| Answer::Pairs(keys.iter().map(|key| Pair::new(*key, "")).collect());
    let cases = [
        (get("a"), Answer::Done),
        (scan("a", "c", 10, Direction::Forward), pairs(&["b", "a"])),
        (scan("a", "c", 10, Direction::Reverse), pairs(&["a", "b"])),
        (scan("a", "c", 10, Direction::Forward), pairs(&["a", "c"])),
        (scan("a", "c", 1, Direction::Forward), pairs(&["a", "b"])),
    ];
    for (request, answer) in cases {
        let mut world = warm(&[]).faults([Fault::Answer(answer)]);
        assert!(matches!(world.run(request.clone()), Err(Error::BadAnswer { .. })), "{request:?}");
    }
    let mut world = warm(&[]).faults([Fault::Answer(Answer::Value(None))]);
    assert_eq!(
        world.run(put("a", "1")).unwrap_err().code(),
        Code::Undetermined,
        "it may have done what we asked"
    );
}

#[test]
fn v2_keys_are_wrapped_located_and_unwrapped() {
    let mut world = World::new(V2, &["", "m"]);
    world.run(batch_put(&["a", "z"])).unwrap();
    assert_eq!(world.data.keys().collect::<Vec<_>>(), [&b"r\0\0\0a"[..], &b"r\0\0\0z"[..]]);
    for (direction, expected) in
        [(Direction::Forward, ["a", "z"]), (Direction::Reverse, ["z", "a"])]
    {
        world.cache = RegionCache::new();
        assert_eq!(keys(world.run(scan("", "", 10, direction))), expected);
    }
    assert_eq!(world.run(get("z")), Ok(Answer::Value(Some("z".into()))));
    world.run(Request::DeleteRange { cf: CF, range: KeyRange::all() }).unwrap();
    assert!(world.data.is_empty());
}

#[test]
fn a_bound_that_is_no_encoded_key_is_an_error_and_no_panic() {
    let mut world = World::new(V2, &[]);
    world.regions[0].0.range.end = "z".into();
    assert!(matches!(
        world.run(scan("", "", 10, Direction::Forward)),
        Err(Error::BadAnswer { .. })
    ));
}

/// Random operations in a cluster that changes and fails all the time do exactly what they do on one map, and every
/// failure that is not "undetermined" has done nothing.
#[test]
fn any_history_is_that_of_one_map() {
    let (mut done, mut failed) = (0, 0);
    for seed in 0..300 {
        let mut random = seed;
        let mut next = |n: u64| splitmix64(&mut random) % n;
        let layout = if next(2) == 0 { KeyLayout::RawV1 } else { V2 };
        let mut world = World::new(layout, if next(2) == 0 { &["c", "g"] } else { &[] });
        world.options.timeout = Duration::from_secs(120); // every lost answer costs five seconds
        world.pairs_max = 1 + next(4) as usize;
        let mut model = std::collections::BTreeMap::<Bytes, Bytes>::new();
        for step in 0..60 {
            let key =
                |n: u64| Bytes::from(["a", "b", "c", "d", "e", "f", "g", "h"][n as usize % 8]);
            match next(6) {
                0 => world.split(key(next(8))),
                1 => world.merge(next(4) as usize),
                2 => {
                    let i = next(world.regions.len() as u64) as usize;
                    world.regions[i].1 = StoreId(1 + next(3));
                }
                _ => {}
            }
            for _ in 0..next(4) {
                let region = 1 + next(4);
                let fault = match next(9) {
                    0 => not_leader(region, None),
                    1 => not_leader(region, Some(1 + next(3))),
                    2 => busy(next(100)),
                    3 => Fault::NotSent,
                    4 => Fault::AnswerLost,
                    5 => Fault::RequestLost,
                    6 => region_error(RegionError::EpochNotMatch { regions: Vec::new() }),
                    7 => Fault::Scheduler(unreachable()),
                    _ => Fault::None,
                };
                world.faults.push_back(fault);
            }
            let value = Bytes::from(format!("{seed}.{step}"));
            let (start, end) =
                (key(next(8)), if next(3) == 0 { Bytes::new() } else { key(next(8)) });
            let range = KeyRange { start, end };
            let direction = if next(2) == 0 { Direction::Forward } else { Direction::Reverse };
            let some_keys: Vec<Bytes> = (0..next(6)).map(|_| key(next(8))).collect();
            let request = match next(9) {
                0 => Request::Get { cf: CF, key: key(next(8)) },
                1 => Request::Put { cf: CF, key: key(next(8)), value, ttl_secs: 0 },
                2 => Request::Delete { cf: CF, key: key(next(8)) },
                3 => Request::BatchGet { cf: CF, keys: some_keys },
                4 => {
                    let pairs = some_keys
                        .into_iter()
                        .map(|key| Pair { key, value: value.clone() })
                        .collect();
                    Request::BatchPut { cf: CF, pairs, ttl_secs: 0 }
                }
                5 => {
                    let (key, expected) = (key(next(8)), model.get(&key(next(8))).cloned());
                    Request::CompareAndSwap { cf: CF, key, expected, new: Some(value), ttl_secs: 0 }
                }
                6 => Request::DeleteRange { cf: CF, range },
                7 => Request::Checksum { range },
                _ => Request::Scan {
                    cf: CF,
                    range,
                    limit: next(9) as usize,
                    keys_only: next(2) == 0,
                    direction,
                },
            };
            let before = unwrapped(&world);
            assert_eq!(before, model);
            let result = world.run(request.clone());
            let expected = apply(&mut model, &request, layout);
            match result {
                Ok(answer) => {
                    assert_eq!(
                        answer,
                        expected,
                        "seed {seed} step {step}: {request:?}\n{}",
                        log(&world)
                    );
                    assert_eq!(
                        unwrapped(&world),
                        model,
                        "seed {seed} step {step}: {request:?}\n{}",
                        log(&world)
                    );
                    done += 1;
                }
                Err(Error::Undetermined { .. }) => {
                    assert_eq!(
                        request.effect(),
                        Effect::Once,
                        "seed {seed} step {step}: {request:?}"
                    );
                    model = unwrapped(&world);
                    failed += 1;
                }
                Err(error) => {
                    panic!("seed {seed} step {step}: {request:?}: {error}\n{}", log(&world))
                }
            }
            world.log.clear();
            world.faults.clear();
        }
    }
    assert!(done > 10_000 && failed > 100, "{done} done, {failed} undetermined");
}

/// The world's data by user key.
fn unwrapped(world: &World) -> std::collections::BTreeMap<Bytes, Bytes> {
    let user =
        |key: &Bytes| world.layout.user_key(key).expect("only keys of the keyspace were written");
    world.data.iter().map(|(key, value)| (user(key), value.clone())).collect()
}

/// What an operation does to one map.
fn apply(
    model: &mut std::collections::BTreeMap<Bytes, Bytes>,
    request: &Request,
    layout: KeyLayout,
) -> Answer {
    match request.clone() {
        Request::Txn(_) => panic!("the model is of raw requests"),
        Request::Get { key, .. } => Answer::Value(model.get(&key).cloned()),
        Request::Ttl { key, .. } => Answer::Ttl(match model.contains_key(&key) {
            true => TimeToLive::Forever,
            false => TimeToLive::NotFound,
        }),
        Request::Put { key, value, .. } => {
            model.insert(key, value);
            Answer::Done
        }
        Request::Delete { key, .. } => {
            model.remove(&key);
            Answer::Done
        }
        Request::BatchGet { keys, .. } => {
            let pair = |key: Bytes| model.get(&key).cloned().map(|value| Pair { key, value });
            Answer::Pairs(keys.into_iter().filter_map(pair).collect())
        }
        Request::BatchPut { pairs, .. } => {
            model.extend(pairs.into_iter().map(|pair| (pair.key, pair.value)));
            Answer::Done
        }
        Request::BatchDelete { keys, .. } => {
            keys.iter().for_each(|key| drop(model.remove(key)));
            Answer::Done
        }
        Request::DeleteRange { range, .. } => {
            model.retain(|key, _| !range.contains(key));
            Answer::Done
        }
        Request::CompareAndSwap { key, expected, new, .. } => {
            let previous = model.get(&key).cloned();
            let swapped = previous == expected;
            if let (true, Some(new)) = (swapped, new) {
                model.insert(key, new);
            }
            Answer::Swapped { swapped, previous }
        }
        Request::Scan { range, limit, keys_only, direction, .. } => {
            let pairs =
                model.iter().filter(|(key, _)| range.contains(key)).map(|(key, value)| Pair {
                    key: key.clone(),
                    value: if keys_only { Bytes::new() } else { value.clone() },
                });
            Answer::Pairs(match direction {
                Direction::Forward => pairs.take(limit).collect(),
                Direction::Reverse => pairs.rev().take(limit).collect(),
            })
        }
        Request::Checksum { range } => {
            let mut sum = Checksum::default();
            for (key, value) in model.iter().filter(|(key, _)| range.contains(key)) {
                let key = layout.request_key(key.clone());
                sum.crc64_xor ^= fingerprint(&key, value);
                sum.pairs += 1;
                sum.bytes += (key.len() + value.len()) as u64;
            }
            Answer::Checksum(sum)
        }
    }
}
