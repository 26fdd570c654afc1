//! Metrics in Prometheus' text format. Read when somebody asks: nothing is counted twice, and a scrape costs the
//! scraper.
//!
//! Names are TiKV's or PD's where the meaning is theirs, else they begin with `tinykv_`.

use std::{fmt, sync::Arc, time::Duration};

use engine::Engine;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};
use storage::Storage;
use types::Histogram;

use crate::transport::{COUNTERS, Counter, Counters};

/// A registry that is read by many.
#[derive(Clone)]
pub(crate) struct Metrics(Arc<Registry>);

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// Metrics of a process and of the given parts of it.
    pub(crate) fn new(parts: Vec<Box<dyn Collector>>) -> Metrics {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(ProcessMetrics));
        for part in parts {
            registry.register_collector(part);
        }
        Metrics(Arc::new(registry))
    }

    /// The text that a scraper gets.
    pub(crate) fn encode(&self) -> String {
        let mut out = String::new();
        text::encode(&mut out, &self.0).expect("writing to a string does not fail");
        out
    }
}

fn counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: u64,
) -> Result<(), fmt::Error> {
    let metric = ConstCounter::new(value);
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    value: f64,
) -> Result<(), fmt::Error> {
    let metric = ConstGauge::new(value);
    metric.encode(encoder.encode_descriptor(name, help, unit, metric.metric_type())?)
}

/// What the values of a histogram are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// Counts.
    One,
    /// Microseconds, shown as seconds.
    Micros,
}

/// Histograms of one name, each with its labels. Buckets that nobody is in at the top are left out.
pub(crate) fn histograms<'a, const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    scale: Scale,
    histograms: impl Iterator<Item = (Vec<(&'a str, &'a str)>, &'a Histogram<N>)>,
) -> Result<(), fmt::Error> {
    let scaled = |value: u64| match scale {
        Scale::One => value as f64,
        Scale::Micros => value as f64 / 1e6,
    };
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for (labels, histogram) in histograms {
        let used =
            histogram.buckets.iter().rposition(|count| *count > 0).map_or(0, |last| last + 1);
        let mut buckets: Vec<(f64, u64)> = (0..used)
            .filter_map(|index| {
                // Buckets count whole numbers below their bound: none lies between it and the one before.
                let bound = Histogram::<N>::bound(index)?;
                let below = if scale == Scale::One { bound - 1 } else { bound };
                Some((scaled(below), histogram.buckets[index]))
            })
            .collect();
        let count: u64 = histogram.buckets.iter().sum();
        let shown: u64 = buckets.iter().map(|(_, count)| count).sum();
        buckets.push((f64::INFINITY, count - shown));
        let labels: Vec<(String, String)> =
            labels.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        family.encode_family(&labels)?.encode_histogram::<[(String, String); 0]>(
            scaled(histogram.sum),
            count,
            &buckets,
            None,
        )?;
    }
    Ok(())
}

/// What a store did and holds.
#[derive(Debug)]
pub(crate) struct StoreMetrics {
    pub(crate) storage: Storage,
    pub(crate) engine: Arc<dyn Engine>,
}

impl Collector for StoreMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let e = &mut encoder;
        let storage = self.storage.statistics();
        counter(
            e,
            "tinykv_storage_groups",
            "Groups of writes committed, each with one sync",
            storage.groups,
        )?;
        counter(e, "tinykv_storage_commands", "Write commands committed", storage.commands)?;
        counter(
            e,
            "tinykv_storage_written_bytes",
            "Bytes of keys and values committed",
            storage.bytes,
        )?;
        counter(e, "tinykv_storage_syncs", "Syncs done for groups of writes", storage.syncs)?;
        histograms(
            e,
            "tinykv_storage_group_commands",
            "Write commands in a group",
            Scale::One,
            [(Vec::new(), &storage.group_sizes)].into_iter(),
        )?;
        histograms(
            e,
            "tinykv_storage_sync_seconds",
            "Time of a sync for a group",
            Scale::Micros,
            [(Vec::new(), &storage.sync_micros)].into_iter(),
        )?;
        counter(
            e,
            "tinykv_storage_refused",
            "Writes refused because the queue was full",
            storage.refused,
        )?;
        gauge(
            e,
            "tinykv_storage_waiting",
            "Writes that wait for their group",
            None,
            storage.waiting as f64,
        )?;
        let waiting_bytes = storage.waiting_bytes as f64;
        gauge(
            e,
            "tinykv_storage_waiting_bytes",
            "Bytes of the writes that wait",
            None,
            waiting_bytes,
        )?;
        let engine = self.engine.statistics();
        counter(e, "tinykv_engine_batches", "Batches written to the engine", engine.batches)?;
        counter(
            e,
            "tinykv_engine_batch_bytes",
            "Bytes of keys and values in them",
            engine.batch_bytes,
        )?;
        counter(e, "tinykv_engine_syncs", "Syncs of the engine's journal", engine.syncs)?;
        let (disk, memory, cache) =
            (engine.disk_bytes as f64, engine.memory_bytes as f64, engine.cache_bytes as f64);
        gauge(e, "tinykv_engine_disk_bytes", "Bytes in the engine's files", None, disk)?;
        gauge(e, "tinykv_engine_memtable_bytes", "Bytes in the engine's memtables", None, memory)?;
        gauge(e, "tinykv_engine_cache_bytes", "Bytes in the engine's block cache", None, cache)
    }
}

/// What was sent to other stores and came from them.
#[derive(Debug)]
pub(crate) struct TransportMetrics(pub(crate) Arc<Counters>);

impl TransportMetrics {
    const METRICS: [(Counter, &str, &str); COUNTERS] = [
        (Counter::Sent, "messages_sent", "Messages sent to other stores"),
        (Counter::SentBatches, "batches_sent", "Batches that they left in"),
        (Counter::SentBytes, "bytes_sent", "Bytes of those batches"),
        (
            Counter::DroppedFull,
            "messages_dropped_full",
            "Messages dropped because too many waited for their store",
        ),
        (
            Counter::DroppedDisconnected,
            "messages_dropped_disconnected",
            "Messages dropped because their store was not there",
        ),
        (
            Counter::DroppedInvalid,
            "messages_dropped_invalid",
            "Messages dropped because nobody would take them: a bug",
        ),
        (Counter::Received, "messages_received", "Messages that came from other stores"),
        (Counter::ReceivedBatches, "batches_received", "Batches that they came in"),
        (Counter::ReceivedBytes, "bytes_received", "Bytes of those batches"),
        (
            Counter::ReceivedDropped,
            "messages_received_dropped",
            "Messages that came and found the store too busy",
        ),
        (Counter::Damaged, "damaged", "Batches and parts of snapshots with a wrong checksum"),
        (Counter::Refused, "streams_refused", "Streams of other stores that were refused"),
        (Counter::Disconnects, "disconnects", "Streams to other stores that ended or never began"),
        (Counter::SnapshotsSent, "snapshots_sent", "Snapshots that arrived at another store"),
        (Counter::SnapshotsNotSent, "snapshots_not_sent", "Snapshots that did not"),
        (Counter::SnapshotBytesSent, "snapshot_bytes_sent", "Bytes of snapshots sent"),
        (Counter::SnapshotsReceived, "snapshots_received", "Snapshots that arrived here"),
        (Counter::SnapshotsNotReceived, "snapshots_not_received", "Snapshots that did not"),
        (Counter::SnapshotBytesReceived, "snapshot_bytes_received", "Bytes of snapshots received"),
    ];
}

impl Collector for TransportMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (counted, name, help) in TransportMetrics::METRICS {
            let name = format!("tinykv_transport_{name}");
            counter(&mut encoder, &name, help, self.0.get(counted))?;
        }
        Ok(())
    }
}

/// What the operating system says of this process.
#[derive(Debug)]
struct ProcessMetrics;

impl Collector for ProcessMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let e = &mut encoder;
        let usage = ProcessUsage::read();
        let cpu = usage.cpu.as_secs_f64();
        let cpu_metric = ConstCounter::new(cpu);
        let descriptor = e.encode_descriptor(
            "process_cpu_seconds",
            "User and system time spent",
            None,
            cpu_metric.metric_type(),
        )?;
        cpu_metric.encode(descriptor)?;
        let resident = usage.resident_bytes as f64;
        gauge(e, "process_resident_memory_bytes", "Resident memory", None, resident)?;
        gauge(e, "process_open_fds", "Open files and sockets", None, usage.open_files as f64)
    }
}

/// A reading of `/proc/self`. Zero where the platform has none.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ProcessUsage {
    pub(crate) cpu: Duration,
    pub(crate) resident_bytes: u64,
    pub(crate) open_files: u64,
}

impl ProcessUsage {
    pub(crate) fn read() -> ProcessUsage {
        let ticks_per_second = rustix::param::clock_ticks_per_second();
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // The command may contain spaces and parentheses; fields are counted behind its last parenthesis.
        let fields: Vec<u64> = stat
            .rsplit_once(')')
            .map(|(_, rest)| {
                rest.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect()
            })
            .unwrap_or_default();
        let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0);
        let ticks = field(14) + field(15);
        ProcessUsage {
            cpu: Duration::from_millis(ticks * 1000 / ticks_per_second.max(1)),
            resident_bytes: field(24) * rustix::param::page_size() as u64,
            open_files: std::fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() as u64),
        }
    }
}
