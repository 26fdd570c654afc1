use scheduler::*;
use std::time::{Duration, Instant};
use types::*;
fn main() {
    let n: u64 = 100_000;
    let stores: u64 = 10;
    for max_peers in [3u32, 5] {
        let mut s = Scheduler::new(ClusterId(7), ApiMode::V1);
        let store = |id| Store {
            id: StoreId(id),
            address: format!("h:{id}"),
            version: "8.5.0".into(),
            ..Store::default()
        };
        let _ = s.bootstrap(store(1), vec![], ApiMode::V1).unwrap();
        for id in 2..=stores {
            let _ = s.put_store(store(id)).unwrap();
        }
        let _ = s.put_cluster_config(ClusterConfig { max_peer_count: max_peers }).unwrap();
        let now =
            |ms: u64| Now { monotonic: Duration::from_millis(ms), wall_ms: 1_000_000_000 + ms };
        s.tick(now(0));
        let mut beat = |s: &mut Scheduler, i: u64, ms: u64| {
            let key = |i: u64| {
                if i == 0 || i == n { Bytes::new() } else { Bytes::from(format!("{i:08}")) }
            };
            // skewed: stores 1-5 have everything
            let peers: Vec<Peer> = (0..3)
                .map(|k| Peer {
                    id: PeerId(1_000_000 + i * 3 + k),
                    store_id: StoreId(1 + (i + k) % 5),
                    role: PeerRole::Voter,
                })
                .collect();
            let region = Region {
                id: RegionId(i + 1),
                range: KeyRange { start: key(i), end: key(i + 1) },
                epoch: RegionEpoch::FIRST,
                peers,
            };
            let leader = region.peers.first().copied();
            let _ = s
                .region_heartbeat(RegionInfo {
                    region,
                    leader,
                    approximate_size: 50 << 20,
                    term: 6,
                    ..RegionInfo::default()
                })
                .unwrap();
            let _ = ms;
        };
        let mut times = vec![];
        for id in 1..=stores {
            let _ = s
                .store_heartbeat(
                    now(0),
                    StoreStats {
                        store_id: StoreId(id),
                        capacity: 1 << 45,
                        available: 1 << 44,
                        region_count: 30000,
                        ..StoreStats::default()
                    },
                )
                .unwrap();
        }
        for i in 0..n {
            beat(&mut s, i, 0);
        }
        s.take_outbox();
        for t in 1..2400u64 {
            let ms = t * 50;
            if t % 200 == 0 {
                for id in 1..=stores {
                    let _ = s
                        .store_heartbeat(
                            now(ms),
                            StoreStats {
                                store_id: StoreId(id),
                                capacity: 1 << 45,
                                available: 1 << 44,
                                region_count: 30000,
                                ..StoreStats::default()
                            },
                        )
                        .unwrap();
                }
            }
            let b = Instant::now();
            s.tick(now(ms));
            times.push((b.elapsed(), t));
            let _ = s.take_orders();
            s.take_outbox();
            // heartbeats trickle
            for i in 0..83 {
                beat(&mut s, (t * 83 + i) % n, ms);
            }
        }
        let ops = s.operators().value.len();
        let b = Instant::now();
        let snap = s.snapshot();
        println!("snapshot of {} records: {:?}", snap.len(), b.elapsed());
        times.sort();
        let at = |p: f64| times[((times.len() - 1) as f64 * p) as usize];
        println!(
            "max_peers {max_peers}: {ops} operators; tick p50 {:?} p90 {:?} p99 {:?} max {:?}",
            at(0.5),
            at(0.9),
            at(0.99),
            at(1.0)
        );
    }
}
