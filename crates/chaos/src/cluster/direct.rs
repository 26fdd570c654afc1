//! Requests to one store, past every route: what a client with an old route, or one that reads followers, does.
//!
//! The client crate goes where the leader is; a wrong answer of a store that only believes that it leads would hardly
//! be seen through it. [`Readers`] therefore ask every store all the time, as leader and as follower, without waiting
//! for earlier answers. While a store stands still, requests pile up in its socket, and it answers them when it goes
//! on: by a lease that is over, or by ReadIndex, which is what the history will say.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use check::history::Action;
use proto::{kvrpcpb, metapb, tikvpb::tikv_client::TikvClient};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
};
use tonic::transport::{Channel, Endpoint};
use types::{Peer, Region};

use super::{
    history::Recorder,
    load::{draw_key, hot_key},
    processes::Place,
};
use crate::kv::{Answer, Failure};

/// Whom a store reads for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadAs {
    /// It must lead.
    Leader,
    /// It may follow.
    Replica,
}

/// The regions as they were last known.
#[derive(Clone, Debug, Default)]
pub struct Regions(Arc<Mutex<Vec<Region>>>);

impl Regions {
    /// Takes over what is known now.
    pub fn set(&self, regions: Vec<Region>) {
        *self.0.lock().expect("nobody panics with it") = regions;
    }

    /// The region of a raw key.
    pub fn of(&self, key: &Bytes) -> Option<Region> {
        let regions = self.0.lock().expect("nobody panics with it");
        let covers = |region: &&Region| {
            let range = &region.range;
            range.start <= *key && (range.end.is_empty() || *key < range.end)
        };
        regions.iter().find(covers).cloned()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.lock().expect("nobody panics with it").len()
    }
}

/// A connection to one store.
#[derive(Clone, Debug)]
pub struct Direct {
    /// Which store.
    pub place: Place,
    /// Its id in the cluster.
    pub id: u64,
    client: TikvClient<Channel>,
}

impl Direct {
    /// Will connect to the store `id` at `addr`.
    ///
    /// # Errors
    /// The address is none.
    pub fn new(place: Place, id: u64, addr: &str) -> anyhow::Result<Direct> {
        let channel = Endpoint::try_from(format!("http://{addr}"))?.connect_lazy();
        Ok(Direct { place, id, client: TikvClient::new(channel) })
    }

    /// Asks this store, and no other, for `key`. Any refusal is [`Failure::Refused`].
    ///
    /// # Errors
    /// The store does not lead or does not have the region, or there was no answer in time.
    pub async fn get(
        &self,
        region: &Region,
        key: Bytes,
        read_as: ReadAs,
        timeout: Duration,
    ) -> Answer<Option<Bytes>> {
        let Some(peer) = region.peers.iter().find(|peer| peer.store_id.0 == self.id) else {
            return Err(Failure::Refused("no replica there".into()));
        };
        let context = kvrpcpb::Context {
            region_id: region.id.0,
            region_epoch: Some(metapb::RegionEpoch {
                conf_ver: region.epoch.conf_ver,
                version: region.epoch.version,
            }),
            peer: Some(wire(*peer)),
            replica_read: read_as == ReadAs::Replica,
            ..kvrpcpb::Context::default()
        };
        let mut request = tonic::Request::new(kvrpcpb::RawGetRequest {
            context: Some(context),
            key,
            ..kvrpcpb::RawGetRequest::default()
        });
        request.set_timeout(timeout);
        let answer = self.client.clone().raw_get(request).await;
        let answer = answer.map_err(|status| Failure::Unknown(status.to_string()))?.into_inner();
        if let Some(error) = answer.region_error {
            return Err(Failure::Refused(error.message));
        }
        if !answer.error.is_empty() {
            return Err(Failure::Refused(answer.error));
        }
        Ok((!answer.not_found).then_some(answer.value))
    }
}

fn wire(peer: Peer) -> metapb::Peer {
    metapb::Peer { id: peer.id.0, store_id: peer.store_id.0, ..metapb::Peer::default() }
}

/// How often each store is asked.
const READ_EVERY: Duration = Duration::from_millis(25);

/// Requests under way to one store: some seconds of standing still.
const UNDER_WAY_MAX: usize = 128;

/// How long a store may take to answer: longer than it ever stands still.
const READ_TIMEOUT: Duration = Duration::from_secs(20);

/// Asks every store all the time.
#[derive(Debug)]
pub struct Readers {
    stop: watch::Sender<bool>,
    tasks: JoinSet<u64>,
}

impl Readers {
    /// Starts them. They note what they read as tasks from `who` on.
    pub fn start(
        stores: &[Direct],
        regions: &Regions,
        recorder: &Recorder,
        who: u16,
        seed: u64,
    ) -> Readers {
        let (stop, stopped) = watch::channel(false);
        let mut seeds = fastrand::Rng::with_seed(seed);
        let mut tasks = JoinSet::new();
        for (store, who) in stores.iter().zip(who..) {
            let reader = Reader {
                store: store.clone(),
                regions: regions.clone(),
                recorder: recorder.clone(),
                who,
            };
            tasks.spawn(reader.run(seeds.fork(), stopped.clone()));
        }
        Readers { stop, tasks }
    }

    /// Stops them. Returns how many reads were answered.
    pub async fn stop(mut self) -> u64 {
        self.stop.send_replace(true);
        let mut answered = 0;
        while let Some(done) = self.tasks.join_next().await {
            answered += done.expect("no reader panics");
        }
        answered
    }
}

#[derive(Clone)]
struct Reader {
    store: Direct,
    regions: Regions,
    recorder: Recorder,
    who: u16,
}

impl Reader {
    async fn run(self, mut rng: fastrand::Rng, mut stopped: watch::Receiver<bool>) -> u64 {
        let room = Arc::new(Semaphore::new(UNDER_WAY_MAX));
        let mut reads: JoinSet<bool> = JoinSet::new();
        let mut answered = 0;
        let mut every = tokio::time::interval(READ_EVERY);
        loop {
            tokio::select! {
                biased;
                _ = stopped.wait_for(|stopped| *stopped) => return answered,
                Some(done) = reads.join_next() => answered += u64::from(done.is_ok_and(|ok| ok)),
                _ = every.tick() => {
                    let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { continue };
                    let read_as = if rng.bool() { ReadAs::Leader } else { ReadAs::Replica };
                    // As leader it is asked for hot keys, where a stale answer shows at once.
                    let key = match read_as {
                        ReadAs::Leader => hot_key(&mut rng),
                        ReadAs::Replica => draw_key(&mut rng),
                    };
                    let reader = self.clone();
                    reads.spawn(async move {
                        let _permit = permit;
                        reader.read(key, read_as).await
                    });
                }
            }
        }
    }

    async fn read(&self, key: Bytes, read_as: ReadAs) -> bool {
        let Some(region) = self.regions.of(&key) else { return false };
        let begun = self.recorder.begin(self.who, &key, Action::Read);
        match self.store.get(&region, key, read_as, READ_TIMEOUT).await {
            Ok(found) => self.recorder.read(begun, found.as_deref()).is_some(),
            Err(failure) => {
                self.recorder.failed(begun, &failure);
                false
            }
        }
    }
}
