//! States that a disk may be in, one by one: groups that are cut at every byte or of which any set of sectors is
//! missing, bits turned in every byte of durable data, the power cut at every operation of the log, of its housekeeping
//! and of the start after that.
//!
//! Each state must open to what was appended up to some batch, with everything that was durable; or, if durable data
//! were damaged, be refused with file and offset, by the start or by the read of the entry. One exception is permitted
//! and counted: damage to the very last group looks like a torn write, and costs that group.
//!
//! `RAFT_LOG_STATES` says how many states; CI takes 200,000.

use std::{
    collections::BTreeMap,
    env,
    ops::Range,
    path::{Path, PathBuf},
};

use engine::raft_log::{Error, Options, RaftLog, RaftLogWriter};
use runtime::{Fs, Rng, sim::SimFs};

use crate::model::{Model, Op, batch, dir, open};

/// States of all tests of this file together.
const STATES: u64 = 200_000;

/// How many states a test with this share of them has to see.
fn states(percent: u64) -> u64 {
    let states = env::var("RAFT_LOG_STATES").map_or(STATES, |states| states.parse().unwrap());
    states * percent / 100
}

fn tiny() -> Options {
    Options {
        segment_bytes: 1024,
        cache_bytes: 256,
        purge_bytes: 4096,
        spares_max: 1,
        grow_bytes: 192,
    }
}

fn short(rng: &mut Rng) -> usize {
    rng.range(0..40) as usize
}

/// A disk that is exactly this one.
fn copy(fs: &SimFs) -> SimFs {
    // Everything was synced, so a crash takes nothing away.
    fs.crash(&mut Rng::new(0))
}

type Files = BTreeMap<PathBuf, Vec<u8>>;

fn files(fs: &SimFs) -> Files {
    let read = |path: PathBuf| (path.clone(), fs.read(&path).unwrap().unwrap());
    fs.list(dir()).unwrap().into_iter().map(read).collect()
}

/// The segment that is written to: the last one that has a group.
fn open_segment(files: &Files) -> (&Path, Vec<Range<usize>>) {
    let of_segments = files.iter().rev().filter(|(path, _)| path.extension().unwrap() == "log");
    of_segments
        .map(|(path, bytes)| (path.as_path(), groups(path, bytes)))
        .find(|(_, groups)| !groups.is_empty())
        .unwrap()
}

/// Where the groups of a segment lie, as docs/formats.md has it.
fn groups(path: &Path, bytes: &[u8]) -> Vec<Range<usize>> {
    let name: u64 = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    let mut groups = Vec::new();
    let mut at = 0;
    while let Some(frame) = bytes.get(at..at + 48)
        && frame[..3] == *b"TLG"
        && frame[4..12] == name.to_be_bytes()
        && frame[28..32] == (at as u32).to_be_bytes()
    {
        let len = |at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().unwrap()) as usize;
        let end = at + 48 + (len(32) + len(36)).next_multiple_of(8);
        groups.push(at..end);
        at = end;
    }
    groups
}

/// A log that is appended to at random, and what it held after each append.
struct Run {
    fs: SimFs,
    log: RaftLog,
    writer: RaftLogWriter,
    history: Vec<Model>,
}

impl Run {
    fn new(fs: SimFs) -> Run {
        let (log, writer) = open(&fs, &tiny()).unwrap();
        Run { fs, log, writer, history: vec![Model::default()] }
    }

    fn append(&mut self, rng: &mut Rng, len: fn(&mut Rng) -> usize) {
        let mut model = self.history.last().unwrap().clone();
        let ops = model.random_ops(rng, len);
        model.apply(&ops);
        self.log.append(batch(&ops)).unwrap();
        self.history.push(model);
    }
}

#[derive(Debug, Default)]
struct Counts {
    states: u64,
    /// Opened with everything.
    whole: u64,
    /// Opened without what was not durable.
    cut: u64,
    /// Refused by the start.
    refused: u64,
    /// Refused by a read.
    refused_by_read: u64,
    /// Opened without the last group, though it was durable.
    last_group_lost: u64,
}

#[test]
fn a_group_that_is_torn_anywhere_is_there_or_not() {
    let wanted = states(40);
    let mut counts = Counts::default();
    let mut seed = 0;
    while counts.states < wanted {
        seed += 1;
        let rng = &mut Rng::new(seed);
        let mut run = Run::new(SimFs::new());
        // The first segment grows; later ones were prepared or used before.
        for _ in 0..rng.range(0..25) {
            run.append(rng, short);
            run.writer.sync().unwrap();
            while run.writer.maintain(300).unwrap().more {}
        }
        let before = copy(&run.fs);
        // The group has some eight sectors, or one.
        let len: fn(&mut Rng) -> usize =
            if rng.chance(0.5) { |rng| rng.range(200..1200) as usize } else { short };
        run.append(rng, len);
        run.writer.sync().unwrap();
        tear(&before, &files(&run.fs), &run.history, rng, &mut counts);
    }
    println!("torn groups, {seed} logs: {counts:?}");
    assert!(wanted <= counts.states && 0 < counts.whole && 0 < counts.cut);
}

/// All states between `before` and the last group in `after`.
fn tear(before: &SimFs, after: &Files, history: &[Model], rng: &mut Rng, counts: &mut Counts) {
    let (path, groups) = open_segment(after);
    let group = groups.last().unwrap().clone();
    let new = &after[path][..group.end];
    let is_new_segment = group.start == 0;
    // A segment gets its name, durably, before its first group is written.
    let mut old = before.read(path).unwrap().unwrap_or_default();
    if is_new_segment && let Some(spare) = used_spare(before) {
        old = before.read(&spare).unwrap().unwrap();
        before.rename(&spare, path).unwrap();
    }
    before.open(path).unwrap();
    before.sync_dir(dir()).unwrap();

    let mut check = |state: Vec<u8>| {
        let fs = copy(before);
        let file = fs.open(path).unwrap();
        file.set_len(state.len() as u64).unwrap();
        file.write_all_at(&state, 0).unwrap();
        counts.states += 1;
        let (log, _writer) = open(&fs, &tiny()).unwrap();
        let found = Model::of(&log).unwrap();
        let [.., without, with] = history else { panic!("there were two appends") };
        if found == *with {
            counts.whole += 1;
        } else {
            assert_eq!(found, *without);
            counts.cut += 1;
        }
    };
    for cut in group.clone() {
        let mut state = old.clone();
        state.resize(old.len().max(cut), 0);
        state[group.start..cut].copy_from_slice(&new[group.start..cut]);
        check(state.clone());
        if old.len() < group.end {
            // The file has grown before its bytes were written.
            state.resize(group.end, 0);
            check(state);
        }
    }
    let sectors: Vec<Range<usize>> = (group.start / 512..group.end.div_ceil(512))
        .map(|sector| (sector * 512).max(group.start)..((sector + 1) * 512).min(group.end))
        .collect();
    // Every subset of the last eight; of those before, any.
    let last = sectors.len().min(8);
    for subset in 0..1_u64 << last {
        let others = rng.u64() << last;
        let mut state = old.clone();
        state.resize(old.len().max(group.end), 0);
        for (i, sector) in sectors.iter().rev().enumerate() {
            if (subset | others) & 1 << (i % 64) != 0 {
                state[sector.clone()].copy_from_slice(&new[sector.clone()]);
            }
        }
        check(state);
    }
}

fn used_spare(fs: &SimFs) -> Option<PathBuf> {
    let mut spares = fs.list(dir()).unwrap();
    spares.retain(|path| path.extension().unwrap() == "spare");
    spares.pop()
}

#[test]
fn damage_to_durable_data_is_refused_or_does_no_harm() {
    let wanted = states(55);
    let mut counts = Counts::default();
    let mut seed = 0;
    while counts.states < wanted {
        seed += 1;
        let rng = &mut Rng::new(seed);
        let mut run = Run::new(SimFs::new());
        for step in 0..rng.range(2..20) {
            run.append(rng, short);
            run.writer.sync().unwrap();
            // Some logs have full segments without footers: their housekeeping was late.
            if seed % 3 != 0 || step < 6 {
                while run.writer.maintain(300).unwrap().more {}
            }
        }
        run.append(rng, short);
        run.writer.sync().unwrap();
        drop((run.log, run.writer));
        damage(&copy(&run.fs), &run.history, &mut counts);
    }
    println!("turned bits, {seed} logs: {counts:?}");
    let Counts { whole, refused, refused_by_read, last_group_lost, .. } = counts;
    assert!(wanted <= counts.states);
    // All kinds of answers have been seen.
    assert!(0 < whole && 0 < refused && 0 < refused_by_read && 0 < last_group_lost);
}

/// Turns every bit of the open segment's groups, and one bit of every other byte of the segments.
fn damage(fs: &SimFs, history: &[Model], counts: &mut Counts) {
    let files = files(fs);
    let (last_path, last_groups) = open_segment(&files);
    let last_group = last_groups.last().unwrap().clone();
    for (path, bytes) in files.iter().filter(|(path, _)| path.extension().unwrap() == "log") {
        let all_bits = if path == last_path { 0..last_group.end } else { 0..0 };
        let turned = |bit: &usize| all_bits.contains(&(bit / 8)) || bit / 8 % 8 == bit % 8;
        for bit in (0..bytes.len() * 8).filter(turned) {
            let damaged = copy(fs);
            damaged.flip_bit(path, bit).unwrap();
            let in_last_group = path == last_path && last_group.contains(&(bit / 8));
            counts.states += 1;
            judge(&damaged, path, in_last_group, history, counts, bit);
        }
    }
}

fn judge(
    damaged: &SimFs,
    path: &Path,
    in_last_group: bool,
    history: &[Model],
    counts: &mut Counts,
    bit: usize,
) {
    let [.., without, with] = history else { panic!("there were two appends") };
    let refused = |error: &Error| match error {
        Error::Failed(engine::Error::Corrupt { path: blamed, detail }) => {
            assert!(blamed == path && detail.starts_with("at offset "), "bit {bit}: {error}");
        }
        error => panic!("bit {bit} of {}: {error}", path.display()),
    };
    let log = match open(damaged, &tiny()) {
        Ok((log, _writer)) => log,
        Err(error) => {
            refused(&error);
            assert_eq!(damaged.operations(), 0, "what is refused is not touched");
            counts.refused += 1;
            return;
        }
    };
    match Model::of(&log) {
        Ok(found) if found == *with => counts.whole += 1,
        Ok(found) if found == *without && in_last_group => counts.last_group_lost += 1,
        Ok(found) => panic!("bit {bit} of {} was not noticed: {found:?}", path.display()),
        Err(error) => {
            refused(&error);
            counts.refused_by_read += 1;
        }
    }
}

/// One step of a run with housekeeping.
#[derive(Clone, Debug)]
enum Step {
    Append(Vec<Op>),
    Sync,
    Maintain,
}

/// A run, and what the log holds after each of its appends.
struct Script {
    steps: Vec<Step>,
    history: Vec<Model>,
}

impl Script {
    fn random(rng: &mut Rng) -> Script {
        let mut script = Script { steps: Vec::new(), history: vec![Model::default()] };
        for _ in 0..150 {
            script.steps.push(match rng.range(0..10) {
                0..4 => {
                    let mut model = script.history.last().unwrap().clone();
                    let ops = model.random_ops(rng, short);
                    model.apply(&ops);
                    script.history.push(model);
                    Step::Append(ops)
                }
                4..6 => Step::Sync,
                _ => Step::Maintain,
            });
        }
        script
    }

    /// Does the steps until the power goes. Says how many appends were tried, and how many were durable.
    fn perform(&self, fs: &SimFs) -> (usize, usize) {
        let (mut appended, mut durable) = (0, 0);
        let Ok((log, mut writer)) = open(fs, &tiny()) else { return (appended, durable) };
        for step in &self.steps {
            let done = match step {
                Step::Append(ops) => {
                    appended += 1;
                    log.append(batch(ops))
                }
                Step::Sync => writer.sync(),
                Step::Maintain => writer.maintain(200).map(|done| done.durable),
            };
            if done.is_err() {
                break;
            }
            durable = log.durable().0 as usize;
        }
        (appended, durable)
    }
}

#[test]
fn the_power_may_go_at_every_operation() {
    let wanted = states(5);
    let mut counts = Counts::default();
    let (mut seed, mut rewritten_bytes) = (0, 0);
    while counts.states < wanted {
        seed += 1;
        let rng = &mut Rng::new(seed);
        let script = Script::random(rng);
        for operations in 0.. {
            let fs = SimFs::new();
            fs.cut_power_after(operations);
            let (appended, durable) = script.perform(&fs);
            let allowed = &script.history[durable..=appended];
            for _ in 0..3 {
                restart(&fs.crash(rng), allowed, rng, &mut counts);
            }
            if fs.operations() <= operations {
                break;
            }
        }
        rewritten_bytes += rewritten_by(&script);
    }
    println!("power cuts, {seed} logs, {rewritten_bytes} bytes rewritten: {counts:?}");
    assert!(wanted <= counts.states && 0 < rewritten_bytes);
}

fn rewritten_by(script: &Script) -> u64 {
    let (log, mut writer) = open(&SimFs::new(), &tiny()).unwrap();
    for step in &script.steps {
        match step {
            Step::Append(ops) => drop(log.append(batch(ops)).unwrap()),
            Step::Sync => drop(writer.sync().unwrap()),
            Step::Maintain => drop(writer.maintain(200).unwrap()),
        }
    }
    log.statistics().rewritten_bytes
}

/// Starts again, also with the power going during the start; what is there is one of `allowed`, and stays once a start
/// has come to its end. Then the log goes on.
///
/// A start that is cut short has told nobody what it has found, and the next one may find more: zeros over a torn group
/// may be what was missing of it.
fn restart(crashed: &SimFs, allowed: &[Model], rng: &mut Rng, counts: &mut Counts) {
    let mut survived: Option<Model> = None;
    for operations in 0.. {
        // The same state again, with the power going a little later.
        let fs = copy(crashed);
        fs.cut_power_after(operations);
        if let Ok((log, _writer)) = open(&fs, &tiny()) {
            fs.cut_power_after(u64::MAX);
            survived = Some(Model::of(&log).unwrap());
        }
        counts.states += 1;
        let (log, _writer) = open(&fs.crash(rng), &tiny()).unwrap();
        let found = Model::of(&log).unwrap();
        assert!(allowed.contains(&found), "found {found:?}");
        if let Some(survived) = &survived {
            assert_eq!(*survived, found);
            break;
        }
    }
    let mut model = survived.unwrap();
    if allowed.last() == Some(&model) {
        counts.whole += 1;
    } else {
        counts.cut += 1;
    }
    let fs = copy(crashed);
    {
        let (log, mut writer) = open(&fs, &tiny()).unwrap();
        for _ in 0..2 {
            let ops = model.random_ops(rng, short);
            model.apply(&ops);
            log.append(batch(&ops)).unwrap();
            writer.sync().unwrap();
            while writer.maintain(500).unwrap().more {}
        }
    }
    let (log, _writer) = open(&fs.crash(rng), &tiny()).unwrap();
    assert_eq!(Model::of(&log).unwrap(), model);
}
