//! What is asked for: a stream of operations over the data set, the same one for every target and every run with the
//! same seed.
//!
//! One generator serves all requests of a run: it stays in the cache, and the sequence of operations depends on the
//! seed alone (which connection carries one does not).

use std::{fmt, rc::Rc};

use bytes::Bytes;
use clap::ValueEnum;

use crate::keys::{Choice, Dataset, Values};

/// The mix of operations.
#[expect(
    clippy::enum_variant_names,
    reason = "transactional workloads will stand beside the raw ones"
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// Point reads.
    RawGet,
    /// Writes.
    RawPut,
    /// Point reads and writes (`--read-percent`).
    RawMixed,
    /// Short scans (`--scan-limit`).
    RawScan,
}

impl Workload {
    /// The name on the command line and in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Workload::RawGet => "raw-get",
            Workload::RawPut => "raw-put",
            Workload::RawMixed => "raw-mixed",
            Workload::RawScan => "raw-scan",
        }
    }

    /// Whether it finds nothing in an empty store.
    pub(crate) fn reads(self) -> bool {
        self != Workload::RawPut
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// Read the value of a key.
    Get {
        /// The key.
        key: Bytes,
    },
    /// Set a key.
    Put {
        /// The key.
        key: Bytes,
        /// Its new value.
        value: Bytes,
    },
    /// Read the pairs from a key on.
    Scan {
        /// The first key.
        start: Bytes,
        /// How many pairs.
        limit: u32,
    },
}

impl Op {
    /// The key that decides which region gets it.
    pub(crate) fn key(&self) -> &Bytes {
        match self {
            Op::Get { key } | Op::Put { key, .. } | Op::Scan { start: key, .. } => key,
        }
    }

    /// Whether it writes.
    pub(crate) fn is_put(&self) -> bool {
        matches!(self, Op::Put { .. })
    }
}

/// Makes the operations of a run, one after the other.
#[derive(Debug)]
pub(crate) struct Generator {
    workload: Workload,
    dataset: Rc<Dataset>,
    choice: Choice,
    values: Values,
    read_percent: u8,
    scan_limit: u32,
    rng: fastrand::Rng,
}

impl Generator {
    /// A generator that starts from `seed`.
    pub(crate) fn new(
        workload: Workload,
        dataset: Rc<Dataset>,
        choice: Choice,
        read_percent: u8,
        scan_limit: u32,
        seed: u64,
    ) -> Generator {
        let mut rng = fastrand::Rng::with_seed(seed);
        let values = Values::new(dataset.value_bytes(), &mut rng);
        Generator { workload, dataset, choice, values, read_percent, scan_limit, rng }
    }

    /// The next operation.
    pub(crate) fn next_op(&mut self) -> Op {
        let key = self.dataset.key(self.choice.index(&mut self.rng));
        match self.workload {
            Workload::RawGet => Op::Get { key },
            Workload::RawPut => self.put(key),
            Workload::RawMixed if self.rng.u8(..100) < self.read_percent => Op::Get { key },
            Workload::RawMixed => self.put(key),
            Workload::RawScan => Op::Scan { start: key, limit: self.scan_limit },
        }
    }

    fn put(&mut self, key: Bytes) -> Op {
        let value = self.values.build(&key, &mut self.rng);
        Op::Put { key, value }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generator(workload: Workload, seed: u64) -> Generator {
        let dataset = Rc::new(Dataset::new(b"", 100, 32));
        Generator::new(workload, dataset, Choice::uniform(100), 30, 10, seed)
    }

    fn keys(workload: Workload, seed: u64) -> Vec<Bytes> {
        let mut generator = generator(workload, seed);
        (0..50).map(|_| generator.next_op().key().clone()).collect()
    }

    #[test]
    fn the_seed_decides_the_operations() {
        assert_eq!(keys(Workload::RawMixed, 1), keys(Workload::RawMixed, 1));
        assert_ne!(keys(Workload::RawMixed, 1), keys(Workload::RawMixed, 2));
    }

    #[test]
    fn the_mix_keeps_its_share_of_reads() {
        let mut generator = generator(Workload::RawMixed, 1);
        let reads = (0..10_000).filter(|_| !generator.next_op().is_put()).count();
        assert!(
            (2_700..3_300).contains(&reads),
            "{reads} of 10,000 are reads, 30 % were asked for"
        );
    }

    #[test]
    fn puts_carry_values_that_verify() {
        let mut generator = generator(Workload::RawPut, 1);
        for _ in 0..100 {
            let Op::Put { key, value } = generator.next_op() else {
                panic!("raw-put made something else")
            };
            generator.dataset.verify(&key, &value).unwrap();
        }
    }
}
