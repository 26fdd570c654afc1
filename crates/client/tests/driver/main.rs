//! The gRPC driver against small servers of its own: what travels, what a failure of the network means, and that the
//! client finds its way around dead schedulers and stores.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

mod cluster;

use std::{collections::BTreeSet, sync::atomic::Ordering, time::Duration};

use client::{
    AmbiguousWrites, CallOptions, Client, Direction, KeyLayout, Kind, Options, Pair, StoreState,
    TimeToLive,
};
use tonic::Status;
use types::{ApiMode, Bytes, Cf, Code, KeyMode, KeyRange, StoreId};

use cluster::{Cluster, Fault};

fn options() -> Options {
    Options { seed: Some(7), ..Options::default() }
}

/// Gives up early, for tests of failures that stay.
fn impatient() -> Options {
    let call = CallOptions {
        timeout: Duration::from_millis(300),
        attempt: Duration::from_millis(100),
        ..Default::default()
    };
    Options { call, ..options() }
}

fn keys(pairs: &[Pair]) -> Vec<String> {
    pairs.iter().map(|pair| String::from_utf8_lossy(&pair.key).into_owned()).collect()
}

#[tokio::test]
async fn every_operation_makes_its_way_over_regions_and_stores() {
    let cluster = Cluster::start(1, 2);
    cluster.split("m", 2);
    let client = Client::connect(cluster.endpoints(), options()).await.unwrap();
    assert_eq!(client.cluster_id().0, cluster::CLUSTER_ID);
    let raw = client.raw();

    raw.put("a", "1").await.unwrap();
    raw.put("z", "").await.unwrap();
    assert_eq!(raw.get("a").await, Ok(Some("1".into())));
    assert_eq!(raw.get("z").await, Ok(Some(Bytes::new())), "an empty value is a value");
    assert_eq!(raw.get("b").await, Ok(None));

    raw.batch_put(["b", "n", "o"].map(|key| Pair::new(key, key)), None).await.unwrap();
    assert_eq!(keys(&raw.batch_get(["o", "x", "a"]).await.unwrap()), ["o", "a"]);
    assert_eq!(keys(&raw.scan(KeyRange::all(), 100).await.unwrap()), ["a", "b", "n", "o", "z"]);
    let reverse = raw.scan_with(KeyRange::new("b", ""), 3, Direction::Reverse, true).await.unwrap();
    assert_eq!(
        (keys(&reverse), reverse[0].value.is_empty()),
        (vec!["z".into(), "o".into(), "n".into()], true)
    );

    assert_eq!(raw.compare_and_swap("c", None, Some("1".into()), None).await, Ok((true, None)));
    let lost = raw.compare_and_swap("c", None, Some("2".into()), None).await;
    assert_eq!(lost, Ok((false, Some("1".into()))));
    assert_eq!(
        raw.compare_and_swap("c", Some("1".into()), None, None).await,
        Ok((true, Some("1".into())))
    );
    assert_eq!(raw.get("c").await, Ok(None));

    assert_eq!(raw.ttl("a").await, Ok(TimeToLive::Forever));
    assert_eq!(raw.ttl("c").await, Ok(TimeToLive::NotFound));
    raw.put_with_ttl("t", "v", Some(Duration::from_millis(1500))).await.unwrap();
    assert_eq!(raw.ttl("t").await, Ok(TimeToLive::Seconds(2)));

    let sum = raw.checksum(KeyRange::all()).await.unwrap();
    assert_eq!((sum.pairs, sum.bytes), (6, 11));

    raw.delete("a").await.unwrap();
    raw.batch_delete(["b", "z"]).await.unwrap();
    raw.delete_range(KeyRange::new("n", "o")).await.unwrap();
    assert_eq!(keys(&raw.scan(KeyRange::all(), 100).await.unwrap()), ["o", "t"]);

    raw.clone().with_cf(Cf::Lock).put("k", "v").await.unwrap();
    assert_eq!(raw.get("k").await, Ok(None), "column families are apart");
    assert!(cluster.requests_to(1) > 0 && cluster.requests_to(2) > 0);
}

#[tokio::test]
async fn the_api_mode_comes_from_the_cluster() {
    let cluster = Cluster::start(1, 1);
    cluster.set_state(Some((ApiMode::V2, KeyMode::Raw)));
    let client = Client::connect(cluster.endpoints(), options()).await.unwrap();
    assert_eq!(client.layout(), KeyLayout::RawV2 { keyspace: 0 });
    client.raw().put("a", "1").await.unwrap();
    assert_eq!(cluster.stored_keys(), [Bytes::from_static(b"r\0\0\0a")]);
    assert_eq!(keys(&client.raw().scan(KeyRange::all(), 10).await.unwrap()), ["a"]);
    assert_eq!(cluster.last_context(), (2, Some(0)));

    // A PD does not know the question; its stores are v1 unless the user says otherwise.
    cluster.set_state(None);
    let client = Client::connect(cluster.endpoints(), options()).await.unwrap();
    assert_eq!(client.layout(), KeyLayout::RawV1);
    let told = Options { api_mode: Some(ApiMode::V2), ..options() };
    assert_eq!(
        Client::connect(cluster.endpoints(), told).await.unwrap().raw().get("a").await,
        Ok(Some("1".into()))
    );
}

#[tokio::test]
async fn large_values_travel() {
    let cluster = Cluster::start(1, 1);
    let client = Client::connect(cluster.endpoints(), options()).await.unwrap();
    // Above the 4 MiB that gRPC libraries take by default.
    let value = Bytes::from(vec![b'x'; 6 << 20]);
    client.raw().put("large", value.clone()).await.unwrap();
    assert_eq!(client.raw().get("large").await, Ok(Some(value)));
}

#[tokio::test]
async fn a_write_without_an_answer_is_undetermined_only_if_it_may_not_happen_twice() {
    let cluster = Cluster::start(1, 1);
    let client = Client::connect(cluster.endpoints(), options()).await.unwrap();
    let raw = client.raw();
    cluster.fail_next(Fault::AfterWork(Status::unavailable("the connection broke")));
    raw.put("a", "1").await.unwrap();

    cluster.fail_next(Fault::AfterWork(Status::unavailable("the connection broke")));
    let error = raw.compare_and_swap("b", None, Some("1".into()), None).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (Kind::Undetermined, Code::Undetermined));
    assert_eq!(raw.get("b").await, Ok(Some("1".into())));

    cluster.fail_next(Fault::AfterWork(Status::unavailable("the connection broke")));
    let strict = raw.clone().with_ambiguous_writes(AmbiguousWrites::Report);
    assert_eq!(strict.put("a", "2").await.unwrap_err().kind(), Kind::Undetermined);

    // What a store of ours says when it does not know is believed for puts, too.
    cluster.fail_next(Fault::AfterWork(Status::unavailable(
        "leadership was lost [TK5009]; try: read the key",
    )));
    let error = raw.put("a", "3").await.unwrap_err();
    assert_eq!(error.to_string(), "the outcome of put a is not known: leadership was lost");
}

#[tokio::test]
async fn refusals_keep_the_code_of_the_store() {
    let cluster = Cluster::start(1, 1);
    let client = Client::connect(cluster.endpoints(), options()).await.unwrap();
    cluster.fail_next(Fault::Text(
        "this cluster holds transactional data [TK4101]; try: another".to_owned(),
    ));
    let error = client.raw().put("a", "1").await.unwrap_err();
    assert_eq!(
        (error.code(), error.to_string().as_str()),
        (Code::KeyModeConflict, "this cluster holds transactional data")
    );
    cluster.fail_next(Fault::AfterWork(Status::unimplemented("")));
    assert_eq!(client.raw().get("a").await.unwrap_err().code(), Code::Unsupported);
}

#[tokio::test]
async fn a_store_that_is_not_there_is_named() {
    let cluster = Cluster::start(1, 1);
    cluster.move_store(1, cluster::nobody());
    let client = Client::connect(cluster.endpoints(), impatient()).await.unwrap();
    let error = client.raw().compare_and_swap("a", None, Some("1".into()), None).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.code()),
        (Kind::Unavailable, Code::StoreUnreachable),
        "it never left this machine"
    );
    let text = error.to_string();
    assert!(
        text.contains(&format!("first: store 1 at {} did not answer: refused", cluster::nobody())),
        "{text}"
    );
}

#[tokio::test]
async fn a_silent_store_is_left_after_its_time() {
    let cluster = Cluster::start(1, 1);
    let call = CallOptions { attempt: Duration::from_millis(500), ..CallOptions::default() };
    let client = Client::connect(cluster.endpoints(), Options { call, ..options() }).await.unwrap();
    client.raw().put("a", "1").await.unwrap();
    cluster.fail_next(Fault::Silence);
    assert_eq!(client.raw().get("a").await, Ok(Some("1".into())), "the second attempt");
    cluster.fail_next(Fault::Silence);
    let error = client.raw().compare_and_swap("a", None, None, None).await.unwrap_err();
    assert_eq!(error.code(), Code::Undetermined);
    assert!(error.to_string().contains("timed out after 500ms"), "{error}");
}

#[tokio::test]
async fn leaders_are_followed_to_the_store_that_took_over() {
    let cluster = Cluster::start(1, 2);
    let client = Client::connect(cluster.endpoints(), options()).await.unwrap();
    client.raw().put("a", "1").await.unwrap();
    cluster.lead("a", 2);
    cluster.kill_store(1).await;
    assert_eq!(client.raw().get("a").await, Ok(Some("1".into())));
    assert!(cluster.requests_to(2) > 0);
}

#[tokio::test]
async fn one_scheduler_that_answers_is_enough() {
    let mut cluster = Cluster::start(2, 1);
    let mut endpoints = vec![cluster::nobody()];
    endpoints.extend(cluster.endpoints());
    let client = Client::connect(&endpoints, options()).await.unwrap();
    client.raw().put("a", "1").await.unwrap();
    client.timestamp().await.unwrap();

    let given = Client::connect([&endpoints[1]], options()).await.unwrap();
    cluster.kill_scheduler(0).await;
    for client in [client, given] {
        // The second knows the other member only from the first one's answer.
        assert_eq!(client.members().await.unwrap().len(), 2);
        assert!(client.timestamp().await.is_ok());
        assert_eq!(client.raw().get("b").await, Ok(None));
    }

    cluster.kill_scheduler(1).await;
    let error = Client::connect(&endpoints, options()).await.unwrap_err();
    let refused: Vec<String> =
        endpoints.iter().map(|endpoint| format!("{endpoint} refused")).collect();
    assert_eq!(error.code(), Code::SchedulerUnreachable);
    assert!(refused.iter().all(|reason| error.to_string().contains(reason)), "{error}");
}

#[tokio::test]
async fn something_else_behind_the_address_is_said() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await;
            open.push(stream);
        }
    });
    let error = Client::connect([&address], options()).await.unwrap_err();
    assert!(error.to_string().contains("speaks something other than gRPC"), "{error}");
}

#[tokio::test]
async fn a_cluster_without_stores_says_so() {
    let cluster = Cluster::start(1, 0);
    let client = Client::connect(cluster.endpoints(), impatient()).await.unwrap();
    let error = client.raw().get("a").await.unwrap_err();
    assert_eq!(error.code(), Code::NotBootstrapped);
    assert_eq!(client.stores().await.unwrap_err().code(), Code::NotBootstrapped);
}

#[tokio::test]
async fn timestamps_are_distinct_and_share_requests() {
    let cluster = Cluster::start(1, 1);
    let client = Client::connect(cluster.endpoints(), options()).await.unwrap();
    let mut callers = Vec::new();
    for _ in 0..500 {
        let client = client.clone();
        callers.push(tokio::spawn(async move { client.timestamp().await.unwrap() }));
    }
    let mut drawn = BTreeSet::new();
    for caller in callers {
        assert!(drawn.insert(caller.await.unwrap()), "a timestamp was given out twice");
    }
    let before = client.timestamp().await.unwrap();
    assert!(drawn.last().unwrap() < &before && before < client.timestamp().await.unwrap());
    let requests = cluster.timestamp_requests().load(Ordering::Relaxed);
    assert!(requests < 400, "{requests} requests for 502 timestamps");

    // A stream that broke while nobody needed it is no failure.
    cluster.break_timestamp_streams();
    assert!(before < client.timestamp().await.unwrap());
}

#[tokio::test]
async fn the_scheduler_tells_what_status_shows() {
    let cluster = Cluster::start(1, 2);
    cluster.split("m", 2);
    cluster.set_state(Some((ApiMode::V1, KeyMode::Txn)));
    let client = Client::connect(cluster.endpoints(), options()).await.unwrap();
    let state = client.cluster_state().await.unwrap();
    assert_eq!((state.api_mode, state.key_mode), (ApiMode::V1, Some(KeyMode::Txn)));
    let stores = client.stores().await.unwrap();
    assert_eq!(
        stores.iter().map(|store| (store.id.0, store.state)).collect::<Vec<_>>(),
        [(1, StoreState::Up), (2, StoreState::Up)]
    );
    assert_eq!(client.store_stats(StoreId(1)).await.unwrap().capacity, 1 << 40);
    let regions = client.regions(KeyRange::all(), 10).await.unwrap();
    assert_eq!(
        regions.iter().map(|info| (info.region.id.0, info.leader)).collect::<Vec<_>>(),
        [(1, Some(StoreId(1))), (2, Some(StoreId(2)))]
    );
    assert_eq!(client.region_of(client.layout(), "z").await.unwrap().unwrap().region.id.0, 2);
    assert_eq!(client.max_peer_count().await, Ok(3));
}
