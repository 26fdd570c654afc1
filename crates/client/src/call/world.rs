//! A cluster in a few lines, for tests of calls: true regions, one map of data, a clock that jumps, and a list of
//! things that go wrong. It checks what a store checks and is otherwise as simple as it can be.

use std::collections::{BTreeMap, BinaryHeap};

use types::{Peer, PeerId, PeerRole, Region, RegionEpoch, RegionId, StoreId};

use super::*;
use crate::{
    request::{Checksum, Direction, Pair, TimeToLive},
    txn::world::{Versions, command_range},
};

/// What happens instead of a correct answer.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Nothing: the request is served.
    None,
    /// The store answers this and does nothing.
    Store(StoreError),
    /// The request never arrives.
    NotSent,
    /// The request is executed and the answer lost.
    AnswerLost,
    /// The request and its answer are lost: the store looks the same from outside as with `AnswerLost`.
    RequestLost,
    /// The store answers this instead.
    Answer(Answer),
    /// The question to the scheduler fails.
    Scheduler(Error),
    /// The scheduler answers this instead.
    Route(Route),
    /// The request is lost, and executed before the next one that arrives.
    Late,
    /// A region splits at this user key before the request arrives.
    Split(&'static str),
    /// The client stops for ever; the request has left it (`true`) or not.
    Crash(bool),
}

pub(crate) struct World {
    pub(crate) regions: Vec<(Region, StoreId)>,
    /// By request key.
    pub(crate) data: BTreeMap<Bytes, Bytes>,
    pub(crate) layout: KeyLayout,
    pub(crate) options: CallOptions,
    pub(crate) cache: RegionCache,
    pub(crate) now: Duration,
    /// Taken one by one, by sendings and questions alike; after the last everything works.
    pub(crate) faults: VecDeque<Fault>,
    /// After the last of `faults`, for ever.
    pub(crate) then: Fault,
    pub(crate) log: Vec<String>,
    pub(crate) under_way_max: usize,
    next_region: u64,
    /// Answers with more pairs are refused, as a store that is full of large values does.
    pub(crate) pairs_max: usize,
    /// What transactions have written.
    pub(crate) versions: Versions,
    /// Sent, and not arrived yet.
    late: Vec<(Target, Request)>,
    /// The client has stopped.
    pub(crate) is_crashed: bool,
}

/// Three peers of region `id` on stores 1, 2, 3.
pub(crate) fn region(id: u64, start: &Bytes, end: &Bytes, version: u64) -> Region {
    let peer = |store: u64| Peer {
        id: PeerId(id * 10 + store),
        store_id: StoreId(store),
        role: PeerRole::Voter,
    };
    Region {
        id: RegionId(id),
        range: KeyRange { start: start.clone(), end: end.clone() },
        epoch: RegionEpoch { conf_ver: 1, version },
        peers: [1, 2, 3].map(peer).into(),
    }
}

impl World {
    /// Regions split at `bounds` (user keys), all led by store 1.
    pub(crate) fn new(layout: KeyLayout, bounds: &[&'static str]) -> World {
        let mut world = World {
            regions: vec![(region(1, &Bytes::new(), &Bytes::new(), 1), StoreId(1))],
            data: BTreeMap::new(),
            layout,
            options: CallOptions::default(),
            cache: RegionCache::new(),
            now: Duration::from_secs(1000),
            faults: VecDeque::new(),
            then: Fault::None,
            log: Vec::new(),
            under_way_max: 0,
            next_region: 2,
            pairs_max: usize::MAX,
            versions: Versions::default(),
            late: Vec::new(),
            is_crashed: false,
        };
        for bound in bounds {
            world.split(Bytes::from_static(bound.as_bytes()));
        }
        world
    }

    pub(crate) fn faults(mut self, faults: impl IntoIterator<Item = Fault>) -> World {
        self.faults = faults.into_iter().collect();
        self
    }

    /// Splits at a user key; the right half is a new region. Nothing happens at an existing bound.
    pub(crate) fn split(&mut self, user: Bytes) {
        let bound = self.layout.region_key(&self.layout.request_key(user));
        let i = self.regions.iter().position(|(region, _)| region.range.contains(&bound)).unwrap();
        let (left, leader) = &mut self.regions[i];
        if left.range.start == bound {
            return;
        }
        let version = left.epoch.version + 1;
        let right = region(self.next_region, &bound, &left.range.end, version);
        self.next_region += 1;
        (left.range.end, left.epoch.version) = (bound, version);
        let leader = *leader;
        self.regions.insert(i + 1, (right, leader));
    }

    /// Merges region number `i` with its right neighbour.
    pub(crate) fn merge(&mut self, i: usize) {
        if i + 1 < self.regions.len() {
            let (right, _) = self.regions.remove(i + 1);
            let (left, _) = &mut self.regions[i];
            left.range.end = right.range.end;
            left.epoch.version = left.epoch.version.max(right.epoch.version) + 1;
        }
    }

    /// Runs one operation to its end.
    pub(crate) fn run(&mut self, request: Request) -> Result<Answer, Error> {
        let mut call = Call::new(request, self.layout, self.options, 7);
        let mut inputs =
            BinaryHeap::from([Arrival { at: self.now, number: 0, input: Input::Start }]);
        let (mut outputs, mut number) = (Vec::new(), 0);
        loop {
            self.under_way_max = self.under_way_max.max(inputs.len());
            let Arrival { at, input, .. } =
                inputs.pop().expect("a call that is not done has something under way");
            self.now = self.now.max(at);
            if self.is_crashed {
                let (who, what) = ("this client".to_owned(), "nothing: it has stopped".to_owned());
                return Err(Error::BadAnswer { who, what });
            }
            call.step(at, input, &mut self.cache, &mut outputs);
            for output in outputs.drain(..) {
                let (after, input) = match output {
                    Output::Done(result) => {
                        // Late arrivals change nothing.
                        for late in inputs {
                            let mut nothing = Vec::new();
                            call.step(late.at, late.input, &mut self.cache, &mut nothing);
                            assert_eq!(nothing, []);
                        }
                        return result;
                    }
                    Output::Wait { piece, duration } => {
                        self.log.push("wait".to_owned());
                        (duration, Input::Timer(piece))
                    }
                    Output::Ask { piece, question, timeout } => self.ask(piece, question, timeout),
                    Output::Send { piece, target, request, timeout } => {
                        self.send(piece, &target, &request, timeout)
                    }
                };
                number += 1;
                inputs.push(Arrival { at: self.now + after, number, input });
            }
        }
    }

    fn fault(&mut self) -> Fault {
        self.faults.pop_front().unwrap_or_else(|| self.then.clone())
    }

    fn ask(&mut self, piece: PieceId, question: Question, timeout: Duration) -> (Duration, Input) {
        assert!(!timeout.is_zero());
        let fault = match question {
            Question::Store(_) => Fault::None, // addresses are nobody's trouble here
            _ => self.fault(),
        };
        let route = match fault {
            Fault::Scheduler(error) => {
                self.log.push("ask: failed".to_owned());
                return (Duration::from_millis(1), Input::Route(piece, Err(error)));
            }
            Fault::Route(route) => route,
            _ => match &question {
                Question::Store(store) => {
                    Route::Store { store: *store, address: format!("s{store}:1") }
                }
                Question::RegionOf(key) => self.route(|region| region.range.contains(key)),
                Question::RegionBefore(key) => {
                    let before = self
                        .regions
                        .iter()
                        .take_while(|(region, _)| !region.range.contains(key))
                        .last();
                    before.map_or(Route::NoRegion, |(region, leader)| Route::Region {
                        region: region.clone(),
                        leader: Some(*leader),
                    })
                }
            },
        };
        match question {
            Question::Store(store) => self.log.push(format!("ask: store {store}")),
            Question::RegionOf(key) if key.len() > 1000 => {
                self.log.push("ask: region of the end".to_owned())
            }
            Question::RegionOf(key) => self.log.push(format!("ask: region of {}", display(&key))),
            Question::RegionBefore(key) => {
                self.log.push(format!("ask: region before {}", display(&key)))
            }
        }
        (Duration::from_millis(1), Input::Route(piece, Ok(route)))
    }

    fn route(&self, found: impl Fn(&Region) -> bool) -> Route {
        match self.regions.iter().find(|(region, _)| found(region)) {
            Some((region, leader)) => {
                Route::Region { region: region.clone(), leader: Some(*leader) }
            }
            None => Route::NoRegion,
        }
    }

    fn send(
        &mut self,
        piece: PieceId,
        target: &Target,
        request: &Request,
        timeout: Duration,
    ) -> (Duration, Input) {
        assert!(!timeout.is_zero());
        assert_eq!(&*target.address, format!("s{}:1", target.store));
        assert_eq!(target.context.api_version, self.layout.api_version());
        let what =
            format!("{} to region {} on {}", show(request), target.context.region_id, target.store);
        let soon = Duration::from_millis(1);
        let (result, after, input) = match self.fault() {
            fault @ (Fault::None | Fault::Scheduler(_) | Fault::Route(_) | Fault::Split(_)) => {
                if let Fault::Split(at) = fault {
                    self.split(Bytes::from_static(at.as_bytes()));
                }
                for (target, request) in std::mem::take(&mut self.late) {
                    let _ = self.serve(&target, &request);
                }
                let reply = self.serve(target, request);
                let result = match &reply {
                    Ok(_) => "ok".to_owned(),
                    Err(StoreError::Region(error)) => error.to_string(),
                    Err(other) => format!("{other:?}"),
                };
                (result, soon, Input::Reply(piece, reply))
            }
            Fault::Store(error) => {
                let result = match &error {
                    StoreError::Region(error) => error.to_string(),
                    other => format!("{other:?}"),
                };
                (result, soon, Input::Reply(piece, Err(error)))
            }
            Fault::Answer(answer) => (format!("{answer:?}"), soon, Input::Reply(piece, Ok(answer))),
            Fault::NotSent => (
                "not sent".to_owned(),
                soon,
                Input::Failed(piece, Failure::NotSent("refused".to_owned())),
            ),
            fault @ (Fault::AnswerLost | Fault::RequestLost | Fault::Late | Fault::Crash(_)) => {
                match fault {
                    Fault::AnswerLost | Fault::Crash(true) => {
                        let _ = self.serve(target, request);
                    }
                    Fault::Late => self.late.push((target.clone(), request.clone())),
                    _ => {}
                }
                self.is_crashed |= matches!(fault, Fault::Crash(_));
                let failure = Failure::NoAnswer("timed out".to_owned());
                ("no answer".to_owned(), timeout, Input::Failed(piece, failure))
            }
        };
        self.log.push(format!("{what}: {result}"));
        (after, input)
    }

    /// What a correct store does.
    fn serve(&mut self, target: &Target, request: &Request) -> Reply {
        let id = target.context.region_id;
        let Some((region, leader)) = self.regions.iter().find(|(region, _)| region.id == id) else {
            return Err(StoreError::Region(RegionError::RegionNotFound { region: id }));
        };
        if *leader != target.store {
            let leader = region.peer_on(*leader).copied();
            return Err(StoreError::Region(RegionError::NotLeader { region: id, leader }));
        }
        if target.context.epoch != Some(region.epoch) {
            let regions = self.regions.iter().map(|(region, _)| region.clone()).collect();
            return Err(StoreError::Region(RegionError::EpochNotMatch { regions }));
        }
        let range = region.range.clone();
        let inside = |key: &Bytes| {
            assert!(range.contains(&self.layout.region_key(key)), "{request:?} to {range:?}")
        };
        let within = |part: &KeyRange| {
            assert!(!part.is_empty());
            let end =
                if part.end.is_empty() { Bytes::new() } else { self.layout.region_key(&part.end) };
            let part = KeyRange { start: self.layout.region_key(&part.start), end };
            assert!(range.covers(&part), "{request:?} to {range:?}");
        };
        Ok(match request.clone() {
            Request::Txn(command) => {
                let part = command_range(&command);
                part.keys.iter().for_each(inside);
                part.range.iter().for_each(within);
                Answer::Txn(Box::new(self.versions.run(command)))
            }
            Request::Get { key, .. } => {
                inside(&key);
                Answer::Value(self.data.get(&key).cloned())
            }
            Request::Ttl { key, .. } => {
                inside(&key);
                let found = self.data.contains_key(&key);
                Answer::Ttl(if found { TimeToLive::Forever } else { TimeToLive::NotFound })
            }
            Request::BatchGet { keys, .. } => {
                keys.iter().for_each(inside);
                let pair =
                    |key: Bytes| self.data.get(&key).cloned().map(|value| Pair { key, value });
                self.pairs(keys.into_iter().filter_map(pair).collect())?
            }
            Request::Put { key, value, .. } => {
                inside(&key);
                self.data.insert(key, value);
                Answer::Done
            }
            Request::BatchPut { pairs, .. } => {
                pairs.iter().for_each(|pair| inside(&pair.key));
                self.data.extend(pairs.into_iter().map(|pair| (pair.key, pair.value)));
                Answer::Done
            }
            Request::Delete { key, .. } => {
                inside(&key);
                self.data.remove(&key);
                Answer::Done
            }
            Request::BatchDelete { keys, .. } => {
                keys.iter().for_each(inside);
                keys.iter().for_each(|key| drop(self.data.remove(key)));
                Answer::Done
            }
            Request::DeleteRange { range, .. } => {
                within(&range);
                self.data.retain(|key, _| !range.contains(key));
                Answer::Done
            }
            Request::CompareAndSwap { key, expected, new, .. } => {
                inside(&key);
                let previous = self.data.get(&key).cloned();
                let swapped = previous == expected;
                match new {
                    _ if !swapped => {}
                    Some(value) => drop(self.data.insert(key, value)),
                    None => drop(self.data.remove(&key)),
                }
                Answer::Swapped { swapped, previous }
            }
            Request::Scan { range, limit, keys_only, direction, .. } => {
                within(&range);
                let pairs =
                    self.data.iter().filter(|(key, _)| range.contains(key)).map(|(key, value)| {
                        Pair {
                            key: key.clone(),
                            value: if keys_only { Bytes::new() } else { value.clone() },
                        }
                    });
                self.pairs(match direction {
                    Direction::Forward => pairs.take(limit).collect(),
                    Direction::Reverse => pairs.rev().take(limit).collect(),
                })?
            }
            Request::Checksum { range } => {
                within(&range);
                let mut sum = Checksum::default();
                for (key, value) in self.data.iter().filter(|(key, _)| range.contains(key)) {
                    sum.crc64_xor ^= fingerprint(key, value);
                    sum.pairs += 1;
                    sum.bytes += (key.len() + value.len()) as u64;
                }
                Answer::Checksum(sum)
            }
        })
    }
}

impl World {
    fn pairs(&self, pairs: Vec<Pair>) -> Reply {
        if pairs.len() > self.pairs_max {
            let message = "the answer would be too large".to_owned();
            return Err(StoreError::Refused { code: Code::InvalidRequest, message });
        }
        Ok(Answer::Pairs(pairs))
    }
}

/// Something that depends on every byte.
pub(crate) fn fingerprint(key: &[u8], value: &[u8]) -> u64 {
    key.iter().chain(value).fold(17, |sum, byte| splitmix64(&mut (sum ^ u64::from(*byte))))
}

fn show(request: &Request) -> String {
    match request {
        Request::BatchGet { keys, .. } | Request::BatchDelete { keys, .. } => {
            let keys: Vec<String> = keys.iter().map(|key| display(key)).collect();
            format!("{} {}", request.name(), keys.join(" "))
        }
        Request::BatchPut { pairs, .. } => {
            let keys: Vec<String> = pairs.iter().map(|pair| display(&pair.key)).collect();
            format!("{} {}", request.name(), keys.join(" "))
        }
        Request::Scan { limit, .. } => format!("{} limit {limit}", Operation::of(request)),
        other => Operation::of(other).to_string(),
    }
}

/// An input on its way; the earliest is the greatest.
struct Arrival {
    at: Duration,
    number: usize,
    input: Input,
}

impl Ord for Arrival {
    fn cmp(&self, other: &Arrival) -> std::cmp::Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl PartialOrd for Arrival {
    fn partial_cmp(&self, other: &Arrival) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Arrival {
    fn eq(&self, other: &Arrival) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Arrival {}
