//! Runs the scripts of `golden/`: each begins with the property that it shows, then commands, then what happened.
//!
//! `UPDATE_GOLDENFILES=1 cargo test -p raft --test golden` writes them anew; keep only a difference that you can
//! explain. Node 1 times out after `election` ticks (4 unless the group says otherwise), node 2 one tick later, and so
//! on. A heartbeat is sent every 2 ticks. Pre-vote and the check of the quorum are off unless the group says otherwise.
//! Nothing happens by itself: `stabilize` does all that the nodes want and delivers until there is no more.
//!
//! | command | what it does |
//! |---|---|
//! | `group nodes=3 leader=1 learners=4-5 prevote quorum lease=3 drift=0 election=4 …` | a new group |
//! | `add ID` | a machine that waits for a snapshot |
//! | `tick ID… n=1`, `campaign ID`, `propose ID DATA…`, `read ID CONTEXT`, `transfer ID TARGET` | the verbs |
//! | `change ID add-4 learner-5 remove-1 joint\|explicit`, `leave ID` | changes of the members |
//! | `ready ID`, `persist ID`, `apply ID` | one step of a driver |
//! | `process ID…`, `deliver ID…`, `stabilize ID…` | all of them; messages; both until there is rest |
//! | `stall ID`, `unstall ID`, `slow ID`, `unslow ID` | syncs, and the application, stand still |
//! | `crash ID`, `tear ID`, `start ID` | a power cut; one that leaves entries without hard states; a start |
//! | `compact ID` | a snapshot in place of the log |
//! | `cut A B`, `partition 1-2 3`, `heal`, `lose KIND…`, `drop`, `double` | the network; messages under way |
//! | `unreachable ID PEER`, `snapshot-sent ID PEER ok\|failed` | reports |
//! | `status ID…`, `log ID…`, `progress ID`, `state ID…`, `conf ID…` | what is there |
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{error::Error as StdError, fmt::Write as _, path::Path};

use goldenscript::{Argument, Command, Context, Runner};
use raft::{
    ConfChange, ConfChangeKind, ConfChangeSingle, ConfState, Config, ReadMode, SnapshotStatus,
    Storage, Transition,
    testing::{Group, draw},
};

#[test]
fn scripts() {
    let mut scripts = Vec::new();
    for folder in
        ["election", "replication", "read", "membership", "transfer", "snapshot", "persistence"]
    {
        let folder = Path::new("tests/golden").join(folder);
        scripts.extend(std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()));
    }
    scripts.sort();
    assert!(60 <= scripts.len(), "only {} scripts were found", scripts.len());
    for script in scripts {
        let text = std::fs::read_to_string(&script).unwrap();
        assert!(text.starts_with("# "), "{} does not begin with its property", script.display());
        // The name of the script stands in front of the difference.
        println!("{}", script.display());
        goldenscript::run(&mut Script::default(), &script).unwrap();
    }
}

type Fallible<T> = Result<T, Box<dyn StdError>>;

#[derive(Default)]
struct Script {
    group: Group,
    make: Option<Box<dyn Fn(u64) -> Config>>,
}

/// The arguments of a command.
struct Arguments<'a>(&'a Command);

impl<'a> Arguments<'a> {
    fn words(&self) -> Vec<&'a str> {
        self.0
            .args
            .iter()
            .filter_map(|argument| match argument {
                Argument::Positional(word) => Some(word.as_str()),
                _ => None,
            })
            .collect()
    }

    fn key(&self, name: &str) -> Option<&'a str> {
        self.0.args.iter().find_map(|argument| match argument {
            Argument::KeyValue(key, value) if key == name => Some(value.as_str()),
            _ => None,
        })
    }

    fn number(&self, name: &str, otherwise: u64) -> Fallible<u64> {
        self.key(name).map_or(Ok(otherwise), |value| Ok(value.parse()?))
    }

    fn ids(&self) -> Fallible<Vec<u64>> {
        self.words().into_iter().map(|word| Ok(word.parse()?)).collect()
    }

    /// The first word, a node, and the others.
    fn id_and_words(&self) -> Fallible<(u64, Vec<&'a str>)> {
        let words = self.words();
        let (first, rest) = words.split_first().ok_or("which node?")?;
        Ok((first.parse()?, rest.to_vec()))
    }
}

impl Script {
    fn new_group(&mut self, arguments: &Arguments<'_>) -> Fallible<()> {
        let nodes = arguments.number("nodes", 3)?;
        let words = arguments.words();
        for word in &words {
            if !["prevote", "quorum", "lazy"].contains(word) {
                return Err(format!("a group with {word}?").into());
            }
        }
        let (pre_vote, check_quorum) = (words.contains(&"prevote"), words.contains(&"quorum"));
        let lazy_commit = words.contains(&"lazy");
        let read_mode = match arguments.key("lease") {
            Some(ticks) => ReadMode::Lease {
                ticks: ticks.parse()?,
                drift_percent: arguments.number("drift", 0)? as u32,
            },
            None => ReadMode::Index,
        };
        let election_ticks = arguments.number("election", 4)? as u32;
        let max_message_bytes = arguments.number("message", 1 << 20)? as usize;
        let max_inflight_messages = arguments.number("window", 256)? as usize;
        let max_inflight_bytes = arguments.number("window_bytes", 1 << 20)? as usize;
        let max_uncommitted_bytes = arguments.number("uncommitted", 1 << 20)? as usize;
        let max_entry_bytes = arguments.number("entry", 1 << 20)? as usize;
        let max_apply_bytes = arguments.number("apply", 1 << 20)? as usize;
        let snapshot_ticks = arguments.number("snapshot_ticks", 0)? as u32;
        let low = arguments.number("low_priority", 0)?;
        let make = move |id| Config {
            election_ticks,
            heartbeat_ticks: 2,
            pre_vote,
            check_quorum,
            lazy_commit,
            read_mode,
            max_message_bytes,
            max_inflight_messages,
            max_inflight_bytes,
            max_uncommitted_bytes,
            max_entry_bytes,
            max_apply_bytes,
            snapshot_ticks,
            priority: if id == low { 2 } else { Config::PRIORITY_MAX },
            ..Config::new(id)
        };
        let mut conf = ConfState::of_voters(1..=nodes);
        if let Some(learners) = arguments.key("learners") {
            for id in learners.split('-') {
                conf.learners.push(id.parse()?);
            }
            conf.voters.retain(|id| !conf.learners.contains(id));
        }
        self.group = Group::new(&conf, make);
        self.make = Some(Box::new(make));
        if let Some(leader) = arguments.key("leader") {
            let leader = leader.parse()?;
            self.group.node(leader).campaign();
            self.group.stabilize(&[]);
            self.group.events.clear();
        }
        Ok(())
    }

    fn change(words: &[&str]) -> Fallible<ConfChange> {
        let mut change = ConfChange::default();
        for word in words {
            let (kind, id) = match word.split_once('-') {
                Some(("add", id)) => (ConfChangeKind::AddVoter, id),
                Some(("learner", id)) => (ConfChangeKind::AddLearner, id),
                Some(("remove", id)) => (ConfChangeKind::Remove, id),
                _ => {
                    change.transition = match *word {
                        "joint" => Transition::JointImplicit,
                        "explicit" => Transition::JointExplicit,
                        other => return Err(format!("a change {other}?").into()),
                    };
                    continue;
                }
            };
            change.changes.push(ConfChangeSingle { kind, id: id.parse()? });
        }
        Ok(change)
    }

    fn execute(&mut self, command: &Command, out: &mut String) -> Fallible<()> {
        let arguments = Arguments(command);
        let group = &mut self.group;
        match command.name.as_str() {
            "group" => self.new_group(&arguments)?,
            "add" => {
                let make = self.make.as_ref().ok_or("no group yet")?;
                for id in arguments.words() {
                    self.group.add(make(id.parse()?), ConfState::default());
                }
                self.group.events.clear();
            }
            "tick" => {
                for _ in 0..arguments.number("n", 1)? {
                    for id in arguments.ids()? {
                        group.node(id).tick();
                    }
                }
            }
            "campaign" => {
                for id in arguments.ids()? {
                    group.node(id).campaign();
                }
            }
            "propose" => {
                let (id, data) = arguments.id_and_words()?;
                let result = match arguments.key("bytes") {
                    Some(bytes) => {
                        group.node(id).propose(vec![b'x'; bytes.parse()?].into()).map(|_| ())
                    }
                    None => {
                        let data = data.into_iter().map(|data| data.to_owned().into());
                        group.node(id).propose_batch(data).map(|_| ())
                    }
                };
                if let Err(error) = result {
                    writeln!(out, "n{id} refuses: {error}")?;
                }
            }
            "change" | "leave" => {
                let (id, words) = arguments.id_and_words()?;
                let change = Script::change(&words)?;
                if let Err(error) = group.node(id).propose_conf_change(change) {
                    writeln!(out, "n{id} refuses: {error}")?;
                }
            }
            "read" => {
                let (id, contexts) = arguments.id_and_words()?;
                for context in contexts {
                    if let Err(error) = group.node(id).read_index(context.parse()?) {
                        writeln!(out, "n{id} refuses: {error}")?;
                    }
                }
            }
            "transfer" => {
                let ids = arguments.ids()?;
                if let Err(error) = group.node(ids[0]).transfer_leader(ids[1]) {
                    writeln!(out, "n{} refuses: {error}", ids[0])?;
                }
            }
            "ready" => {
                for id in arguments.ids()? {
                    match group.take_ready(id) {
                        Some(ready) => {
                            writeln!(out, "n{id} {}", draw::ready(&ready).join("\n"))?;
                        }
                        None => writeln!(out, "n{id} wants nothing")?,
                    }
                }
                group.events.clear();
            }
            "persist" => {
                for id in arguments.ids()? {
                    if !group.persist_one(id) {
                        writeln!(out, "n{id} writes nothing")?;
                    }
                }
            }
            "apply" => arguments.ids()?.into_iter().for_each(|id| group.apply(id)),
            "process" => {
                for id in arguments.ids()? {
                    group.process(id);
                }
            }
            "deliver" => {
                group.deliver(&arguments.ids()?);
            }
            "stabilize" => group.stabilize(&arguments.ids()?),
            "stall" => set(arguments.ids()?, |id| group.machine(id).is_stalled = true),
            "unstall" => {
                for id in arguments.ids()? {
                    group.machine(id).is_stalled = false;
                    while group.persist_one(id) {}
                }
            }
            "slow" => set(arguments.ids()?, |id| group.machine(id).is_slow = true),
            "unslow" => {
                for id in arguments.ids()? {
                    group.machine(id).is_slow = false;
                    group.apply(id);
                }
            }
            "tear" => set(arguments.ids()?, |id| group.tear(id)),
            "crash" => set(arguments.ids()?, |id| group.crash(id)),
            "start" => set(arguments.ids()?, |id| group.start(id)),
            "compact" => set(arguments.ids()?, |id| group.snapshot(id)),
            "cut" => {
                let ids = arguments.ids()?;
                group.cuts.insert((ids[0], ids[1]));
            }
            "partition" => {
                let parse = |word: &str| word.split('-').map(str::parse).collect();
                let groups: Result<Vec<Vec<u64>>, _> =
                    arguments.words().into_iter().map(parse).collect();
                group.partition(&groups?);
            }
            "heal" => {
                group.cuts.clear();
                group.lost_kinds.clear();
            }
            "lose" => {
                group.lost_kinds.extend(arguments.words().into_iter().map(str::to_owned));
            }
            "drop" => {
                let dropped = std::mem::take(&mut group.network);
                group.events.extend(dropped.into_iter().map(raft::testing::Event::Lost));
            }
            "double" => {
                let again = group.network.clone();
                group.network.extend(again);
            }
            "unreachable" => {
                let ids = arguments.ids()?;
                group.node(ids[0]).report_unreachable(ids[1]);
            }
            "snapshot-sent" => {
                let (id, words) = arguments.id_and_words()?;
                let status = match words[1] {
                    "ok" => SnapshotStatus::Finished,
                    "failed" => SnapshotStatus::Failed,
                    other => return Err(format!("a snapshot {other}?").into()),
                };
                group.node(id).report_snapshot(words[0].parse()?, status);
            }
            "status" => {
                for id in self.all_or(&arguments)? {
                    writeln!(out, "{}", draw::status(self.group.machine(id)))?;
                }
            }
            "log" => {
                for id in self.all_or(&arguments)? {
                    let status = self.group.node(id).status();
                    let (first, last) = (status.first_index, status.last_index);
                    // Only what the storage has: all that was handed out.
                    let storage = self.group.node(id).storage();
                    let last = last.min(storage.last_index());
                    let entries = match first <= last {
                        true => storage.entries(first, last + 1, usize::MAX)?,
                        false => Vec::new(),
                    };
                    writeln!(out, "n{id} {}", draw::entries(&entries))?;
                }
            }
            "progress" => {
                for id in arguments.ids()? {
                    for line in draw::progress(group.machine(id)) {
                        writeln!(out, "{line}")?;
                    }
                }
            }
            "state" => {
                for id in self.all_or(&arguments)? {
                    writeln!(out, "n{id} {}", self.group.machine(id).state.join(" "))?;
                }
            }
            "conf" => {
                for id in self.all_or(&arguments)? {
                    let conf = self.group.node(id).conf().clone();
                    writeln!(out, "n{id} {}", draw::draw_conf(&conf))?;
                }
            }
            other => return Err(format!("no command {other}").into()),
        }
        let events = std::mem::take(&mut self.group.events);
        for event in &events {
            writeln!(out, "{}", draw::event(event))?;
        }
        Ok(())
    }

    /// The nodes that are named, or all that are up.
    fn all_or(&self, arguments: &Arguments<'_>) -> Fallible<Vec<u64>> {
        let ids = arguments.ids()?;
        if !ids.is_empty() {
            return Ok(ids);
        }
        let machines = self.group.machines.iter();
        Ok(machines.filter(|(_, machine)| machine.node.is_some()).map(|(&id, _)| id).collect())
    }
}

fn set(ids: Vec<u64>, act: impl FnMut(u64)) {
    ids.into_iter().for_each(act);
}

impl Runner for Script {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Fallible<String> {
        let mut out = String::new();
        self.execute(command, &mut out)?;
        Ok(out)
    }
}
