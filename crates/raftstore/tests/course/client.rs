//! Clients: one request after the other, each until it has succeeded.

use raftstore::{
    store::Token,
    testing::{Cluster, Fate},
};
use types::{Bytes, KeyRange, Modify, Region, RegionError};

use super::PATIENCE;

/// After so many milliseconds without an answer a client asks who leads now. Its first request may still be carried out
/// later; what these clients write is the same each time.
const TIMEOUT: u64 = 500;
/// How long a client waits that was refused.
const PAUSE: u64 = 20;

/// What a client wants.
#[derive(Clone, Debug)]
pub(crate) enum Want {
    /// A change of one key.
    Change(Modify),
    /// A value.
    Get(Bytes),
    /// All pairs of a range.
    Scan(KeyRange),
}

/// What a client gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The change was made.
    Done,
    /// The value.
    Value(Option<Bytes>),
    /// The values, in the order of their keys.
    Values(Vec<Bytes>),
}

/// A request that is under way.
#[derive(Debug)]
struct Asked {
    token: Token,
    since: u64,
    region: Region,
}

/// Something that a client wants, until it has it.
#[derive(Debug)]
pub(crate) struct Operation {
    want: Want,
    begun: u64,
    asked: Option<Asked>,
    /// It does not ask before.
    rests_until: u64,
    /// Where a scan goes on, and what it has seen.
    next: Bytes,
    values: Vec<Bytes>,
    last_error: Option<RegionError>,
}

impl Operation {
    /// Something that a client wants from now on.
    pub(crate) fn new(want: Want, now: u64) -> Operation {
        let next = match &want {
            Want::Change(Modify::Put { key, .. } | Modify::Delete { key, .. }) | Want::Get(key) => {
                key.clone()
            }
            Want::Change(Modify::DeleteRange { range, .. }) | Want::Scan(range) => {
                range.start.clone()
            }
        };
        Operation {
            want,
            begun: now,
            asked: None,
            rests_until: 0,
            next,
            values: Vec::new(),
            last_error: None,
        }
    }

    /// Goes on, and returns the answer when there is one.
    ///
    /// # Panics
    /// If it takes more than [`PATIENCE`].
    pub(crate) fn step(&mut self, cluster: &mut Cluster) -> Option<Answer> {
        let now = cluster.now();
        assert!(
            now <= self.begun + PATIENCE,
            "never: {:?}, at last {:?}\n{}",
            self.want,
            self.last_error,
            cluster.describe()
        );
        if let Some(Asked { token, since, region }) = &self.asked {
            match cluster.fates.get(token).cloned() {
                None if now < since + TIMEOUT => return None,
                None => {}
                Some(Fate::Error(error)) => {
                    self.last_error = Some(error);
                    self.rests_until = now + PAUSE;
                }
                Some(Fate::Written(_)) => return Some(Answer::Done),
                Some(Fate::Read(value)) => return Some(Answer::Value(value)),
                Some(Fate::Scanned(pairs)) => {
                    self.values.extend(pairs.into_iter().map(|(_, value)| value));
                    self.next = region.range.end.clone();
                    if self.next.is_empty() || self.end() <= &self.next {
                        return Some(Answer::Values(std::mem::take(&mut self.values)));
                    }
                }
                Some(fate) => panic!("{fate:?} is no answer to {:?}", self.want),
            }
            self.asked = None;
        }
        if now < self.rests_until {
            return None;
        }
        let (leader, region) = cluster.leader_of(&self.next)?;
        let token = match &self.want {
            Want::Change(change) => cluster.write(leader, &region, change),
            Want::Get(key) => {
                let key = std::str::from_utf8(key).unwrap();
                cluster.get(leader, &region, key, false)
            }
            Want::Scan(_) => {
                let range = KeyRange::new(self.next.clone(), self.end().clone());
                cluster.scan(leader, &region, range)
            }
        };
        self.asked = Some(Asked { token, since: now, region });
        None
    }

    /// The network is bad, so that it may take as long as that lasts: a group of two that is cut in two can do nothing,
    /// and one that loses most messages little.
    pub(crate) fn be_patient(&mut self, now: u64) {
        self.begun = now;
    }

    fn end(&self) -> &Bytes {
        match &self.want {
            Want::Scan(range) => &range.end,
            Want::Change(_) | Want::Get(_) => &self.next,
        }
    }
}
