//! Transactions of the client against a real cluster whose regions split meanwhile.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use client::{
    Error, Pair, TxnClient,
    error::Kind,
    txn::{CommitMode, Locking},
};
use tinykv::{ApiMode, Cluster};
use types::{Bytes, KeyRange};

const MODES: [CommitMode; 3] = [CommitMode::TwoPhase, CommitMode::Async, CommitMode::OnePhase];

/// A cluster whose regions split after a few keys.
async fn cluster(api: ApiMode) -> Cluster {
    let builder = Cluster::builder().api(api).configure(|config| {
        config.raftstore.split_region_check_tick_interval = Duration::from_millis(100);
        config.coprocessor.region_max_keys = 10;
        config.coprocessor.region_split_keys = 7;
    });
    builder.start().await.unwrap()
}

async fn txns(api: ApiMode) -> (Cluster, TxnClient) {
    let cluster = cluster(api).await;
    let client = cluster.client().await.unwrap();
    (cluster, client.txn())
}

fn text(pairs: &[Pair]) -> String {
    let pair = |pair: &Pair| {
        format!("{}={}", String::from_utf8_lossy(&pair.key), String::from_utf8_lossy(&pair.value))
    };
    pairs.iter().map(pair).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn transactions_see_their_start_and_commit_all_they_wrote() {
    for api in [ApiMode::V1, ApiMode::V2] {
        for mode in MODES {
            let (_cluster, txns) = txns(api).await;
            let txns = txns.with_commit_mode(mode);
            let mut first = txns.begin().await.unwrap();
            for (key, value) in [("a", "1"), ("b", "2"), ("c", "3")] {
                first.put(key, value).await.unwrap();
            }
            let all = KeyRange::all();
            let earlier = txns.begin().await.unwrap();
            let committed_at = first.commit().await.unwrap().unwrap();
            assert_eq!(earlier.scan(all.clone(), 10).await.unwrap(), []);
            let mut second = txns.begin().await.unwrap();
            assert!(committed_at < second.start_ts());
            second.delete("b").await.unwrap();
            second.insert("d", "4").await.unwrap();
            assert_eq!(second.get("a").await.unwrap(), Some("1".into()));
            assert_eq!(text(&second.scan(all.clone(), 10).await.unwrap()), "a=1 c=3 d=4");
            assert_eq!(text(&second.scan_reverse(all.clone(), 2).await.unwrap()), "d=4 c=3");
            assert_eq!(text(&second.batch_get(["d", "b", "a"]).await.unwrap()), "d=4 a=1");
            second.rollback();

            let mut third = txns.begin().await.unwrap();
            third.insert("a", "5").await.unwrap();
            assert_eq!(third.commit().await, Err(Error::KeyExists { key: "a".into() }));
            let nothing = txns.begin().await.unwrap();
            assert_eq!(nothing.commit().await, Ok(None));
            txns.idle().await;
            let snapshot = txns.snapshot(committed_at);
            assert_eq!(text(&snapshot.scan(all, 10).await.unwrap()), "a=1 b=2 c=3");
            assert_eq!(snapshot.get("d").await.unwrap(), None);
            assert_eq!(text(&snapshot.batch_get(["c", "a"]).await.unwrap()), "c=3 a=1");
        }
    }
}

#[tokio::test]
async fn the_second_optimistic_writer_loses_and_a_pessimistic_one_sees_the_newest() {
    let (_cluster, txns) = txns(ApiMode::V1).await;
    let (mut lost, mut won) = (txns.begin().await.unwrap(), txns.begin().await.unwrap());
    let mut waits = txns.begin_pessimistic().await.unwrap();
    lost.put("a", "lost").await.unwrap();
    won.put("a", "won").await.unwrap();
    won.commit().await.unwrap();
    let error = lost.commit().await.unwrap_err();
    assert!(matches!(error, Error::WriteConflict { .. }), "{error}");
    assert_eq!(error.kind(), Kind::Conflict);

    assert_eq!(waits.get("a").await.unwrap(), None, "its start was before");
    assert_eq!(waits.get_for_update("a").await.unwrap(), Some("won".into()));
    let mut second = txns.begin_pessimistic().await.unwrap();
    let locking = tokio::spawn(async move {
        let value = second.get_for_update("a").await;
        (second, value)
    });
    waits.put("a", "first").await.unwrap();
    waits.lock_keys(["b"]).await.unwrap();
    assert_eq!(waits.insert("a", "x").await, Err(Error::KeyExists { key: "a".into() }));
    waits.commit().await.unwrap().unwrap();
    let (second, value) = locking.await.unwrap();
    assert_eq!(value.unwrap(), Some("first".into()));
    second.rollback();
}

const ACCOUNTS: usize = 40;
const MONEY: i64 = 100;

fn account(number: usize) -> Bytes {
    format!("account-{number:03}").into()
}

fn amount(value: &Bytes) -> i64 {
    std::str::from_utf8(value).unwrap().parse().unwrap()
}

/// Moves `money` from one account to another, if it is there.
async fn transfer(
    txns: &TxnClient,
    locking: Locking,
    (from, to): (usize, usize),
    money: i64,
) -> Result<bool, Error> {
    let mut txn = match locking {
        Locking::Optimistic => txns.begin().await?,
        Locking::Pessimistic => txns.begin_pessimistic().await?,
    };
    // In one order, so that nobody waits in a circle.
    let (low, high) = (from.min(to), from.max(to));
    let mut has = [0; 2];
    for (has, number) in has.iter_mut().zip([low, high]) {
        let value = match locking {
            Locking::Optimistic => txn.get(account(number)).await,
            Locking::Pessimistic => txn.get_for_update(account(number)).await,
        };
        match value {
            Ok(value) => *has = amount(&value.expect("accounts are never closed")),
            Err(error) => {
                txn.rollback();
                return Err(error);
            }
        }
    }
    let change = if from == low { -money } else { money };
    let now = [has[0] + change, has[1] - change];
    if now.iter().any(|&has| has < 0) {
        txn.rollback();
        return Ok(false);
    }
    txn.put(account(low), now[0].to_string()).await?;
    txn.put(account(high), now[1].to_string()).await?;
    txn.commit().await.map(|_| true)
}

/// The next of some numbers that look drawn.
fn next(state: &mut u64) -> usize {
    *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    (*state >> 33) as usize
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn money_is_moved_and_never_made() {
    let (cluster, txns) = txns(ApiMode::V1).await;
    let mut opening = txns.begin().await.unwrap();
    for number in 0..ACCOUNTS {
        opening.put(account(number), MONEY.to_string()).await.unwrap();
    }
    opening.commit().await.unwrap();
    // The first region is cut while money is moved already; the rest is moved over several.
    let client = cluster.client().await.unwrap();
    let mut random = 99;
    while client.regions(KeyRange::all(), 3).await.unwrap().len() < 3 {
        let (from, to) = (next(&mut random) % 20, 20 + next(&mut random) % 20);
        transfer(&txns, Locking::Optimistic, (from, to), 1).await.unwrap();
    }

    let mut clients = tokio::task::JoinSet::new();
    for who in 0..6 {
        let locking = if who % 2 == 0 { Locking::Optimistic } else { Locking::Pessimistic };
        let txns = txns.clone().with_commit_mode(MODES[who % 3]);
        clients.spawn(async move {
            let mut random = who as u64;
            let (mut moved, mut conflicts) = (0, 0);
            while moved < 25 {
                let from = next(&mut random) % ACCOUNTS;
                let to = (from + 1 + next(&mut random) % (ACCOUNTS - 1)) % ACCOUNTS;
                let money = (next(&mut random) % 30) as i64;
                match transfer(&txns, locking, (from, to), money).await {
                    Ok(_) => moved += 1,
                    Err(error) if error.kind() == Kind::Conflict => conflicts += 1,
                    Err(error) => panic!("{error}"),
                }
                assert!(conflicts < 1000);
            }
        });
    }
    let readers = txns.clone();
    let sums = tokio::spawn(async move {
        for _ in 0..20 {
            let snapshot = readers.snapshot(readers.timestamp().await.unwrap());
            let pairs = snapshot.scan(KeyRange::all(), 2 * ACCOUNTS).await.unwrap();
            assert_eq!(pairs.len(), ACCOUNTS);
            let sum: i64 = pairs.iter().map(|pair| amount(&pair.value)).sum();
            assert_eq!(sum, MONEY * ACCOUNTS as i64, "at {}", snapshot.version());
        }
    });
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    sums.await.unwrap();
    txns.idle().await;
    let txn = txns.begin().await.unwrap();
    let pairs = txn.scan(KeyRange::all(), 2 * ACCOUNTS).await.unwrap();
    assert_eq!(pairs.iter().map(|pair| amount(&pair.value)).sum::<i64>(), MONEY * ACCOUNTS as i64);
}
