//! What a run prints: one JSON object for scripts, a few lines for people. Both show the same figures.
//!
//! The JSON's names are an interface: fields may be added, none changes its meaning. A figure that could not be
//! measured is `null`, never 0.

use std::fmt;

use serde::Serialize;

use crate::{
    args::{Distribution, LoadArgs},
    process::Costs,
    record::{Errors, Interval},
    window::Measurement,
    workload::Workload,
};

/// The figures of one window.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figures {
    /// Requests that succeeded.
    pub(crate) ops: u64,
    /// The same per second.
    pub(crate) ops_per_s: f64,
    pub(crate) mean_us: f64,
    pub(crate) p50_us: u64,
    pub(crate) p90_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) p999_us: u64,
    pub(crate) max_us: u64,
    /// Requests that failed, for whatever reason.
    pub(crate) errors: u64,
    pub(crate) error_kinds: Errors,
    /// The first failure, in words.
    pub(crate) first_error: Option<String>,
    /// Requests of an open loop that could not begin when they were due.
    pub(crate) shed: u64,
    /// Least work in a whole second.
    pub(crate) worst_interval_ops_per_s: Option<f64>,
    /// Processor time of all servers per request.
    pub(crate) server_cpu_us_per_op: Option<f64>,
    /// Processor time of this process per request.
    pub(crate) client_cpu_us_per_op: Option<f64>,
    /// Bytes that the servers handed to the disk per request.
    pub(crate) server_written_bytes_per_op: Option<f64>,
    /// Memory of all servers at the end.
    pub(crate) server_rss_bytes: Option<u64>,
    /// Syncs of all servers per successful write.
    pub(crate) syncs_per_put: Option<f64>,
    /// Processor time that other virtual machines took.
    pub(crate) steal_percent: Option<f64>,
}

impl Figures {
    /// Computes the figures of a window.
    pub(crate) fn new(measurement: &Measurement) -> Figures {
        let recording = &measurement.recording;
        let per_op = |total: f64| (recording.ops > 0).then(|| total / recording.ops as f64);
        let cpu =
            |costs: Option<Costs>| costs.and_then(|costs| per_op(costs.cpu.as_secs_f64() * 1e6));
        let written = measurement.server.and_then(|costs| costs.written_bytes);
        Figures {
            ops: recording.ops,
            ops_per_s: recording.ops_per_s(),
            mean_us: recording.latencies.mean(),
            p50_us: recording.quantile_us(0.5),
            p90_us: recording.quantile_us(0.9),
            p99_us: recording.quantile_us(0.99),
            p999_us: recording.quantile_us(0.999),
            max_us: recording.latencies.max(),
            errors: recording.errors.total(),
            error_kinds: recording.errors,
            first_error: recording.first_error.clone(),
            shed: recording.shed,
            worst_interval_ops_per_s: recording.worst_interval().map(|(_, rate)| rate),
            server_cpu_us_per_op: cpu(measurement.server),
            client_cpu_us_per_op: cpu(measurement.client),
            server_written_bytes_per_op: written.and_then(|bytes| per_op(bytes as f64)),
            server_rss_bytes: measurement.server.map(|costs| costs.resident_bytes),
            syncs_per_put: measurement.syncs_per_put,
            steal_percent: measurement.steal_percent,
        }
    }
}

/// What was asked for.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Setting {
    pub(crate) workload: &'static str,
    pub(crate) target: String,
    pub(crate) clients: usize,
    pub(crate) connections: usize,
    /// Requests per message; 0 for unary requests.
    pub(crate) batch: usize,
    /// Requests per second of an open loop.
    pub(crate) rate: Option<f64>,
    pub(crate) seconds: f64,
    pub(crate) value_size: usize,
    pub(crate) keys: u64,
    pub(crate) distribution: &'static str,
    pub(crate) seed: u64,
    /// Members of the etcd cluster.
    pub(crate) members: Option<u8>,
}

impl Setting {
    /// The setting of a run against `target`.
    pub(crate) fn new(
        workload: Workload,
        target: &str,
        batch: Option<usize>,
        load: &LoadArgs,
    ) -> Setting {
        Setting {
            workload: workload.name(),
            target: target.to_owned(),
            clients: load.clients,
            connections: load.connections(),
            batch: batch.unwrap_or(0),
            rate: load.rate,
            seconds: load.seconds.as_secs_f64(),
            value_size: load.value_size,
            keys: load.keys,
            distribution: match load.distribution {
                Distribution::Uniform => "uniform",
                Distribution::Zipfian => "zipfian",
            },
            seed: load.seed,
            members: (target == "etcd").then_some(load.members),
        }
    }
}

/// The report of one run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    #[serde(flatten)]
    pub(crate) setting: Setting,
    #[serde(flatten)]
    pub(crate) figures: Figures,
    /// Whole seconds of the window, in order.
    pub(crate) intervals: Vec<Interval>,
    /// Whether a person ended it early; `seconds` is what was measured.
    pub(crate) interrupted: bool,
}

impl Report {
    /// The report of a window.
    pub(crate) fn new(setting: Setting, measurement: &Measurement) -> Report {
        let seconds = measurement.recording.length.as_secs_f64();
        Report {
            setting: Setting { seconds, ..setting },
            figures: Figures::new(measurement),
            intervals: measurement.recording.intervals.clone(),
            interrupted: measurement.interrupted,
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.workload, self.target)?;
        if let Some(members) = self.members.filter(|members| *members > 1) {
            write!(f, " ({members} members)")?;
        }
        match self.rate {
            Some(rate) => write!(f, ", {rate} requests/s")?,
            None => write!(f, ", {} clients", self.clients)?,
        }
        write!(f, ", {} connections", self.connections)?;
        if self.batch > 0 {
            write!(f, ", batches of {}", self.batch)?;
        }
        write!(
            f,
            ", {:.1} s, {} {} keys, values of {} bytes",
            self.seconds, self.keys, self.distribution, self.value_size
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figures = &self.figures;
        writeln!(f, "{}", self.setting)?;
        writeln!(f, "  throughput   {:.0} ops/s ({} requests)", figures.ops_per_s, figures.ops)?;
        if let Some(rate) = figures.worst_interval_ops_per_s {
            writeln!(f, "  worst second {rate:.0} ops/s")?;
        }
        let latencies = [
            ("p50", figures.p50_us),
            ("p90", figures.p90_us),
            ("p99", figures.p99_us),
            ("p99.9", figures.p999_us),
            ("max", figures.max_us),
        ];
        let latencies: Vec<String> =
            latencies.iter().map(|(name, us)| format!("{name} {}", Micros(*us))).collect();
        writeln!(f, "  latency      {}", latencies.join("  "))?;
        writeln!(
            f,
            "  cpu per op   server {}, client {}",
            Unknown(figures.server_cpu_us_per_op, "us"),
            Unknown(figures.client_cpu_us_per_op, "us")
        )?;
        if let Some(bytes) = figures.server_rss_bytes {
            writeln!(f, "  memory       {:.1} MiB", bytes as f64 / (1 << 20) as f64)?;
        }
        if let Some(syncs) = figures.syncs_per_put {
            writeln!(f, "  syncs        {syncs:.3} per put, all servers together")?;
        }
        if figures.shed > 0 {
            writeln!(f, "  shed         {} (the target did not keep up)", figures.shed)?;
        }
        write!(f, "  errors       {}", figures.errors)?;
        if let Some(error) = &figures.first_error {
            write!(f, " (the first: {error})")?;
        }
        if figures.error_kinds.checksum > 0 {
            write!(
                f,
                "\n  WRONG DATA   {} values do not fit their keys",
                figures.error_kinds.checksum
            )?;
        }
        Ok(())
    }
}

/// Microseconds in the unit that people would choose.
struct Micros(u64);

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            us @ 0..1_000 => write!(f, "{us} us"),
            us @ 1_000..1_000_000 => write!(f, "{:.2} ms", us as f64 / 1e3),
            us => write!(f, "{:.2} s", us as f64 / 1e6),
        }
    }
}

/// A figure with its unit, or that it is not known.
struct Unknown(Option<f64>, &'static str);

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(value) => write!(f, "{value:.2} {}", self.1),
            None => f.write_str("unknown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        clock,
        record::{Loop, Recorder},
    };

    fn measurement() -> Measurement {
        let start = clock::now();
        let mut recorder = Recorder::new(Loop::Closed, start, start + Duration::from_secs(2));
        for i in 0..200 {
            let now = start + Duration::from_millis(i * 10);
            recorder.completed(now, now - Duration::from_micros(500), true, Ok(()));
        }
        let cpu = |ms| {
            Some(Costs {
                cpu: Duration::from_millis(ms),
                written_bytes: None,
                resident_bytes: 3 << 20,
            })
        };
        Measurement {
            recording: recorder.finish(),
            server: cpu(20),
            client: None,
            syncs_per_put: Some(0.25),
            steal_percent: Some(0.0),
            interrupted: false,
        }
    }

    fn setting() -> Setting {
        Setting {
            workload: "raw-put",
            target: "etcd".into(),
            clients: 64,
            connections: 4,
            batch: 0,
            rate: None,
            seconds: 3.0,
            value_size: 256,
            keys: 100,
            distribution: "uniform",
            seed: 1,
            members: Some(3),
        }
    }

    #[test]
    fn json_has_the_promised_names() {
        let json = serde_json::to_value(Report::new(setting(), &measurement())).unwrap();
        for (name, value) in [
            ("workload", "raw-put".into()),
            ("target", "etcd".into()),
            ("clients", 64.into()),
            ("batch", 0.into()),
            ("value_size", 256.into()),
            ("keys", 100.into()),
            ("seconds", serde_json::json!(2.0)),
            ("ops_per_s", serde_json::json!(100.0)),
            ("p50_us", 500.into()),
            ("p99_us", 500.into()),
            ("p999_us", 500.into()),
            ("errors", 0.into()),
            ("server_cpu_us_per_op", serde_json::json!(100.0)),
            ("client_cpu_us_per_op", serde_json::Value::Null),
            ("syncs_per_put", serde_json::json!(0.25)),
        ] {
            assert_eq!(json[name], value, "{name}");
        }
        assert_eq!(json["intervals"].as_array().unwrap().len(), 2);
        assert_eq!(json["intervals"][1]["ops"], 100);
    }

    #[test]
    fn people_see_units_and_what_is_unknown() {
        let text = Report::new(setting(), &measurement()).to_string();
        let expected = "raw-put on etcd (3 members), 64 clients, 4 connections, 2.0 s, 100 uniform keys, \
            values of 256 bytes\n  throughput   100 ops/s (200 requests)\n  worst second 100 ops/s\n  \
            latency      p50 500 us  p90 500 us  p99 500 us  p99.9 500 us  max 500 us\n  \
            cpu per op   server 100.00 us, client unknown\n  memory       3.0 MiB\n  \
            syncs        0.250 per put, all servers together\n  errors       0";
        assert_eq!(text, expected);
        assert_eq!(Micros(1_234).to_string(), "1.23 ms");
        assert_eq!(Micros(2_500_000).to_string(), "2.50 s");
    }
}
