//! Two targets in turns: the only way in which rates of two systems may be compared on a shared machine.
//!
//! Both are open all the time; each gets one window to warm up, then windows alternate. A ratio is that of two
//! neighbouring windows; the result is the median of the rounds' ratios, and their least. Rounds during which other
//! virtual machines took more than 2 % of the processors are marked; they do not count as long as at least half of
//! the rounds are quiet.

use std::{fmt, time::Duration};

use serde::Serialize;

use crate::{
    error::Error,
    progress::Progress,
    report::{Figures, Setting},
    target::Target,
    window::{Plan, measure},
    workload::Generator,
};

/// Share of stolen processor time above which a round is marked.
const STEAL_PERCENT_MAX: f64 = 2.0;

/// Load before each window that is not measured: caches and queues of the other side's turn go away.
const RAMP: Duration = Duration::from_millis(250);

/// One round.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Round {
    /// From 1.
    pub(crate) round: u32,
    /// Rate of ours by theirs.
    pub(crate) ratio: Option<f64>,
    /// Server's processor time per request, ours by theirs.
    pub(crate) cpu_ratio: Option<f64>,
    pub(crate) p50_ratio: Option<f64>,
    pub(crate) p99_ratio: Option<f64>,
    /// The larger of the two windows' stolen shares.
    pub(crate) steal_percent: Option<f64>,
    /// Whether that is too much.
    pub(crate) noisy: bool,
    pub(crate) ours: Figures,
    pub(crate) theirs: Figures,
}

impl Round {
    /// The round of these two windows.
    pub(crate) fn new(round: u32, ours: Figures, theirs: Figures) -> Round {
        let steal_percent =
            Option::zip(ours.steal_percent, theirs.steal_percent).map(|(a, b)| a.max(b));
        Round {
            round,
            ratio: ratio(Some(ours.ops_per_s), Some(theirs.ops_per_s)),
            cpu_ratio: ratio(ours.server_cpu_us_per_op, theirs.server_cpu_us_per_op),
            p50_ratio: ratio(Some(ours.p50_us as f64), Some(theirs.p50_us as f64)),
            p99_ratio: ratio(Some(ours.p99_us as f64), Some(theirs.p99_us as f64)),
            steal_percent,
            noisy: steal_percent.is_some_and(|steal| steal > STEAL_PERCENT_MAX),
            ours,
            theirs,
        }
    }
}

/// What ours is compared with.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Peer {
    /// Its name.
    pub(crate) with: &'static str,
    /// Requests per message there; 0 for unary requests.
    pub(crate) with_batch: usize,
    /// Members of the etcd cluster.
    pub(crate) with_members: Option<u8>,
}

/// The result of a comparison.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Comparison {
    #[serde(flatten)]
    pub(crate) setting: Setting,
    #[serde(flatten)]
    pub(crate) peer: Peer,
    pub(crate) ratio_median: Option<f64>,
    pub(crate) ratio_min: Option<f64>,
    pub(crate) cpu_ratio_median: Option<f64>,
    pub(crate) p50_ratio_median: Option<f64>,
    pub(crate) p99_ratio_median: Option<f64>,
    /// Failed requests of all measured windows, both sides.
    pub(crate) errors: u64,
    /// Rounds that were marked.
    pub(crate) noisy_rounds: usize,
    /// Whether marked rounds were left out of the medians.
    pub(crate) noisy_left_out: bool,
    pub(crate) rounds: Vec<Round>,
}

impl Comparison {
    /// Sums up the rounds.
    pub(crate) fn new(setting: Setting, peer: Peer, rounds: Vec<Round>) -> Comparison {
        let noisy_rounds = rounds.iter().filter(|round| round.noisy).count();
        let noisy_left_out = noisy_rounds * 2 <= rounds.len();
        let counted = || rounds.iter().filter(|round| !(round.noisy && noisy_left_out));
        let median_of =
            |value: fn(&Round) -> Option<f64>| median(counted().filter_map(value).collect());
        Comparison {
            ratio_median: median_of(|round| round.ratio),
            ratio_min: counted().filter_map(|round| round.ratio).min_by(f64::total_cmp),
            cpu_ratio_median: median_of(|round| round.cpu_ratio),
            p50_ratio_median: median_of(|round| round.p50_ratio),
            p99_ratio_median: median_of(|round| round.p99_ratio),
            errors: rounds.iter().map(|round| round.ours.errors + round.theirs.errors).sum(),
            noisy_rounds,
            noisy_left_out: noisy_left_out && noisy_rounds > 0,
            setting,
            peer,
            rounds,
        }
    }
}

/// Measures `ours` and `theirs` in turns. `generator` makes the operations of one window for a target.
///
/// # Errors
/// Somebody interrupts: half a comparison is none.
pub(crate) async fn run(
    ours: &dyn Target,
    theirs: &dyn Target,
    generator: impl Fn(&dyn Target) -> Generator,
    plan: Plan,
    rounds: u32,
) -> Result<Vec<Round>, Error> {
    let plan = Plan { ramp: RAMP, ..plan };
    let window = async |target: &dyn Target, what: String| {
        let progress = Progress::new(&what);
        let measurement = measure(target, generator(target), &plan, &progress).await?;
        if measurement.interrupted {
            return Err(Error::Interrupted);
        }
        Ok(Figures::new(&measurement))
    };
    for target in [ours, theirs] {
        window(target, format!("warm-up {}", target.name())).await?;
    }
    let mut results = Vec::new();
    for round in 1..=rounds {
        let label = |target: &dyn Target| format!("round {round} of {rounds} {}", target.name());
        let figures = window(ours, label(ours)).await?;
        results.push(Round::new(round, figures, window(theirs, label(theirs)).await?));
    }
    Ok(results)
}

/// `None` if one is not known or there is nothing to divide by.
fn ratio(ours: Option<f64>, theirs: Option<f64>) -> Option<f64> {
    let theirs = theirs.filter(|theirs| *theirs > 0.0)?;
    ours.map(|ours| ours / theirs)
}

/// The middle one, or the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    match values.len() % 2 {
        0 => Some((values[values.len() / 2 - 1] + upper) / 2.0),
        _ => Some(upper),
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |value: Option<f64>| {
            value.map_or_else(|| "unknown".to_owned(), |value| format!("{value:.2}"))
        };
        writeln!(f, "{}", self.setting)?;
        write!(f, "compared with {}", self.peer.with)?;
        if let Some(members) = self.peer.with_members {
            write!(f, " ({members} members)")?;
        }
        writeln!(f)?;
        writeln!(
            f,
            "  round       ours     theirs   ratio    cpu/op    cpu/op   ratio    p50 us    p50 us"
        )?;
        for round in &self.rounds {
            writeln!(
                f,
                "  {:>5} {:>10.0} {:>10.0} {:>7}  {:>8}  {:>8} {:>7}  {:>8}  {:>8}{}",
                round.round,
                round.ours.ops_per_s,
                round.theirs.ops_per_s,
                number(round.ratio),
                number(round.ours.server_cpu_us_per_op),
                number(round.theirs.server_cpu_us_per_op),
                number(round.cpu_ratio),
                round.ours.p50_us,
                round.theirs.p50_us,
                if round.noisy { "  noisy" } else { "" },
            )?;
        }
        let (median, least) = (number(self.ratio_median), number(self.ratio_min));
        writeln!(f, "  throughput   median ratio {median}, least {least}")?;
        writeln!(f, "  cpu per op   median ratio {}", number(self.cpu_ratio_median))?;
        let (p50, p99) = (number(self.p50_ratio_median), number(self.p99_ratio_median));
        writeln!(f, "  latency      median ratio of p50 {p50}, of p99 {p99}")?;
        let left_out = if self.noisy_left_out { ", left out" } else { "" };
        let rounds = self.rounds.len();
        writeln!(f, "  noisy        {} of {rounds} rounds{left_out}", self.noisy_rounds)?;
        write!(f, "  errors       {}", self.errors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock,
        process::Costs,
        record::{Loop, Recorder},
        window::Measurement,
    };

    /// Figures of a second with this many requests of this latency, server time and steal.
    fn figures(ops: u64, latency_us: u64, cpu_us: Option<u64>, steal_percent: f64) -> Figures {
        let start = clock::now();
        let mut recorder = Recorder::new(Loop::Closed, start, start + Duration::from_secs(1));
        for _ in 0..ops {
            recorder.completed(start, start - Duration::from_micros(latency_us), false, Ok(()));
        }
        let costs =
            cpu_us.map(|us| Costs { cpu: Duration::from_micros(us * ops), ..Costs::default() });
        Figures::new(&Measurement {
            recording: recorder.finish(),
            server: costs,
            client: None,
            syncs_per_put: None,
            steal_percent: Some(steal_percent),
            interrupted: false,
        })
    }

    const PEER: Peer = Peer { with: "echo", with_batch: 0, with_members: None };

    fn setting() -> Setting {
        Setting {
            workload: "raw-get",
            target: "tinykv".into(),
            clients: 64,
            connections: 4,
            batch: 0,
            rate: None,
            seconds: 1.0,
            value_size: 256,
            keys: 100,
            distribution: "uniform",
            seed: 1,
            members: None,
        }
    }

    /// Rounds with these rates of ours against 100 of theirs, and this steal.
    fn comparison(rounds: &[(u64, f64)]) -> Comparison {
        let rounds = (1..).zip(rounds).map(|(number, (ops, steal))| {
            Round::new(
                number,
                figures(*ops, 50, Some(20), *steal),
                figures(100, 100, Some(10), 0.0),
            )
        });
        Comparison::new(setting(), PEER, rounds.collect())
    }

    #[test]
    fn medians_are_those_of_the_rounds_ratios() {
        let comparison = comparison(&[(90, 0.0), (50, 0.0), (80, 0.0)]);
        assert_eq!(comparison.ratio_median, Some(0.8));
        assert_eq!(comparison.ratio_min, Some(0.5));
        assert_eq!(comparison.cpu_ratio_median, Some(2.0));
        assert_eq!(comparison.p50_ratio_median, Some(0.5));
        assert_eq!((comparison.noisy_rounds, comparison.noisy_left_out), (0, false));
    }

    #[test]
    fn the_median_of_an_even_number_is_the_mean_of_the_middle() {
        assert_eq!(median(vec![4.0, 1.0, 2.0, 8.0]), Some(3.0));
        assert_eq!(median(vec![7.0]), Some(7.0));
        assert_eq!(median(vec![]), None);
    }

    #[test]
    fn noisy_rounds_are_left_out_while_half_are_quiet() {
        let result = comparison(&[(90, 0.0), (10, 2.5), (80, 1.9)]);
        assert_eq!(
            result.rounds.iter().map(|round| round.noisy).collect::<Vec<_>>(),
            [false, true, false]
        );
        assert_eq!(
            (result.ratio_min, result.noisy_rounds, result.noisy_left_out),
            (Some(0.8), 1, true)
        );
        let result = comparison(&[(90, 9.0), (10, 2.5), (80, 0.0)]);
        assert_eq!(
            (result.ratio_min, result.noisy_rounds, result.noisy_left_out),
            (Some(0.1), 2, false)
        );
    }

    #[test]
    fn what_is_not_known_has_no_ratio() {
        let round = Round::new(1, figures(10, 1, None, 0.0), figures(0, 1, Some(1), 0.0));
        assert_eq!((round.ratio, round.cpu_ratio), (None, None));
        let comparison = Comparison::new(setting(), PEER, vec![round]);
        let json = serde_json::to_value(&comparison).unwrap();
        assert_eq!(json["ratio_median"], serde_json::Value::Null);
        assert!(comparison.to_string().contains("median ratio unknown"));
    }

    #[test]
    fn json_has_the_promised_names() {
        let json = serde_json::to_value(comparison(&[(90, 0.0)])).unwrap();
        for name in ["ratio_median", "ratio_min", "cpu_ratio_median", "p50_ratio_median"] {
            assert!(json[name].is_number(), "{name}");
        }
        assert_eq!(json["rounds"][0]["ours"]["ops_per_s"], 90.0);
        assert_eq!(json["with"], "echo");
    }
}
