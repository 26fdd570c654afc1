//! `tinykv shell`: data and cluster at a prompt, or a script from standard input.
//!
//! On a terminal there is line editing, history (`$XDG_STATE_HOME/tinykv/history`) and completion, an error leaves
//! the prompt standing, and Ctrl-C stops the command under way. From a pipe or file the same lines are a script: no prompt,
//! no times, results on stdout, and the first error ends it with its exit code (`--keep-going` goes on and ends with
//! the code of the first).
//!
//! After `begin` all data commands belong to one transaction, until `commit` or `rollback`; a transaction that is under
//! way when the shell ends is given up. Without it, each command on transactional data is a transaction of its own.
//!
//! The language is in `shell/parse.rs`; what data commands do and print is in `data.rs`, for here and the command line.

mod parse;

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
    time::Duration,
};

use bytes::Bytes;
use clap::Args;
use client::{Client, KeyLayout, RawClient, RegionInfo, Transaction, TxnClient, txn::Locking};
use runtime::{Clock, real::RealClock};
use rustyline::{
    Config, Context, Editor, Helper, completion::Completer, error::ReadlineError,
    highlight::Highlighter, hint::Hinter, history::FileHistory, validate::Validator,
};
use serde_json::json;
use types::{Code, KeyMode};

use self::parse::Command;
use super::{
    CliError, Exit, Format, Global,
    data::{self, Op, SpaceArgs},
    output::{self, count, escape},
    status, txn_data,
};

/// `tinykv shell`.
#[derive(Debug, Args)]
pub(super) struct ShellArgs {
    /// In a script: go on after an error.
    #[arg(long)]
    keep_going: bool,
    #[command(flatten)]
    space: SpaceArgs,
}

/// `tinykv shell`.
pub(super) fn run(global: &Global, args: ShellArgs) -> Result<(), CliError> {
    // A worker of its own keeps connections alive while nobody types.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let (client, mode) = runtime.block_on(data::until_interrupted(async {
        let client = data::connect(global).await?;
        let mode = args.space.mode(&client).await?;
        Ok((client, mode))
    }))?;
    let is_interactive = io::stdin().is_terminal();
    let mut repl = Repl {
        raw: client.raw().with_cf(args.space.cf),
        txns: client.txn(),
        txn: None,
        client,
        runtime,
        global: global.clone(),
        mode,
        is_interactive,
        shows_time: is_interactive,
        clock: RealClock::new(),
    };
    let result = match is_interactive {
        true => repl.converse(),
        false => repl.run_script(io::stdin().lock(), args.keep_going),
    };
    match repl.txn {
        Some(_) => result.and(repl.rollback()),
        None => result,
    }
}

/// Whether to read another line.
#[derive(PartialEq, Eq)]
enum Next {
    Line,
    Leave,
}

struct Repl {
    client: Client,
    raw: RawClient,
    txns: TxnClient,
    /// The transaction that was begun.
    txn: Option<Transaction>,
    runtime: tokio::runtime::Runtime,
    global: Global,
    mode: KeyMode,
    is_interactive: bool,
    shows_time: bool,
    clock: RealClock,
}

impl Repl {
    /// Reads lines from a terminal until its user leaves.
    fn converse(&mut self) -> Result<(), CliError> {
        let endpoints = self.global.endpoints().join(",");
        let mode = prompt_word(self.mode);
        eprintln!(
            "connected to {endpoints} · cluster {} · mode {mode} · help: \\?",
            self.client.cluster_id()
        );
        let config = Config::builder().history_ignore_space(true).build();
        let terminal_failed = |error: ReadlineError| CliError::from(io::Error::other(error));
        let mut editor =
            Editor::<Words, FileHistory>::with_config(config).map_err(terminal_failed)?;
        editor.set_helper(Some(Words));
        let history = history_file();
        if let Some(path) = &history {
            // Without a history it is still a shell.
            let _ = path.parent().map(std::fs::create_dir_all);
            let _ = editor.load_history(path);
        }
        loop {
            let prompt = match &self.txn {
                Some(_) => "txn*> ".to_owned(),
                None => format!("{}> ", prompt_word(self.mode)),
            };
            let line = match editor.readline(&prompt) {
                Ok(line) => line,
                Err(ReadlineError::Interrupted) => continue,
                Err(ReadlineError::Eof) => break,
                Err(error) => return Err(terminal_failed(error)),
            };
            let _ = editor.add_history_entry(&line);
            match self.execute(&line) {
                Ok(Next::Line) => {}
                Ok(Next::Leave) => break,
                Err(error) if error.exit() == Exit::Interrupted => {
                    eprintln!("interrupted; a write may still happen")
                }
                Err(error) => drop(error.report(&self.global)),
            }
        }
        if let Some(path) = &history {
            let _ = editor.save_history(path);
        }
        Ok(())
    }

    /// Executes the lines of a script.
    fn run_script(&mut self, script: impl io::BufRead, keep_going: bool) -> Result<(), CliError> {
        let mut first = None;
        for (number, line) in script.lines().enumerate() {
            let error = match self.execute(&line?) {
                Ok(Next::Line) => continue,
                Ok(Next::Leave) => break,
                Err(error) => error.at(&format!("line {}", number + 1)),
            };
            // Without a code it was Ctrl-C, or nobody reads what is printed.
            if !keep_going || error.code().is_none() {
                return Err(error);
            }
            error.report(&self.global);
            first.get_or_insert(error.exit());
        }
        first.map_or(Ok(()), |exit| Err(CliError::silent(exit)))
    }

    fn execute(&mut self, line: &str) -> Result<Next, CliError> {
        let wrong =
            |message| CliError::usage(message).with_cause("The shell did not understand the line.");
        let command = parse::parse(line)
            .map_err(|message| wrong(message).with_remedy("\\? lists the commands"))?;
        let format = self.global.output;
        match command {
            None => {}
            Some(Command::Quit) => return Ok(Next::Leave),
            Some(Command::Help) => eprint!("{}", parse::HELP),
            Some(Command::Out(format)) => self.global.output = format,
            Some(Command::Time(shows)) => {
                self.shows_time = shows.unwrap_or(!self.shows_time);
                self.note(if self.shows_time { "times are shown" } else { "times are not shown" });
            }
            Some(Command::Raw) => self.mode = KeyMode::Raw,
            Some(Command::Txn) => self.mode = KeyMode::Txn,
            Some(Command::Begin(locking)) => self.begin(locking)?,
            Some(Command::Commit) => self.commit()?,
            Some(Command::Rollback) => self.rollback()?,
            Some(Command::Data(op)) => self.perform(&op)?,
            Some(Command::Status) => {
                let status = self.wait(status::gather(&self.client))?;
                let text = match format {
                    Format::Json => status.to_json(),
                    Format::Table | Format::Plain => status.to_text(self.global.color.stdout()),
                };
                io::stdout().lock().write_all(text.as_bytes())?;
            }
            Some(Command::Region(key)) => self.show_region(key)?,
        }
        Ok(Next::Line)
    }

    fn begin(&mut self, locking: Locking) -> Result<(), CliError> {
        if self.txn.is_some() {
            return Err(CliError::usage("a transaction is under way")
                .with_cause("There is one at a time.")
                .with_remedy("commit or rollback"));
        }
        let txn = self.wait(async {
            Ok(match locking {
                Locking::Optimistic => self.txns.begin().await?,
                Locking::Pessimistic => self.txns.begin_pessimistic().await?,
            })
        })?;
        if self.is_interactive {
            self.note(&format!("transaction {} has begun", txn.start_ts()));
        }
        self.txn = Some(txn);
        Ok(())
    }

    /// Ends the transaction, whatever comes of it.
    fn commit(&mut self) -> Result<(), CliError> {
        let txn = self.take_txn("commit")?;
        let commit_ts = self.wait(async { Ok(txn_data::commit(txn, &self.txns).await?) })?;
        if self.is_interactive {
            self.note(&match commit_ts {
                Some(ts) => format!("committed at {ts}"),
                None => "there was nothing to write".to_owned(),
            });
        }
        Ok(())
    }

    fn rollback(&mut self) -> Result<(), CliError> {
        let txn = self.take_txn("rollback")?;
        self.wait(async {
            txn.rollback();
            self.txns.idle().await;
            Ok(())
        })
    }

    fn take_txn(&mut self, what: &str) -> Result<Transaction, CliError> {
        self.txn.take().ok_or_else(|| {
            CliError::usage(format!("{what}: no transaction is under way"))
                .with_cause("None was begun, or it has ended.")
                .with_remedy("begin")
        })
    }

    fn perform(&mut self, op: &Op) -> Result<(), CliError> {
        let started = self.clock.monotonic();
        let mut out = io::BufWriter::new(io::stdout().lock());
        let format = self.global.output;
        let mut txn = self.txn.take();
        let performed = self.wait(async {
            match (&mut txn, self.mode) {
                (Some(txn), _) => txn_data::perform(op, txn, format, &mut out).await,
                (None, KeyMode::Raw) => data::perform(op, &self.raw, format, &mut out).await,
                (None, KeyMode::Txn) => {
                    txn_data::perform_alone(op, &self.txns, format, &mut out).await
                }
            }
        });
        self.txn = txn;
        let pairs = performed?;
        out.flush()?;
        drop(out);
        if self.shows_time {
            self.note(&outcome(op, pairs, self.clock.monotonic() - started));
        } else if self.is_interactive && is_cut(op, pairs) {
            self.note("there may be more: scan … limit N");
        }
        Ok(())
    }

    fn show_region(&self, key: Bytes) -> Result<(), CliError> {
        let layout = match (&self.txn, self.mode) {
            (None, KeyMode::Raw) => self.client.layout(),
            (Some(_), _) | (None, KeyMode::Txn) => self.client.txn_layout(),
        };
        let found = self.wait(async { Ok(self.client.region_of(layout, key.clone()).await?) })?;
        let info = found.ok_or_else(|| {
            CliError::new(Code::RegionNotFound, format!("no region is known for {}", escape(&key)))
        })?;
        let text = match self.global.output {
            Format::Json => region_json(&info),
            Format::Table | Format::Plain => region_text(&info, layout),
        };
        Ok(writeln!(io::stdout().lock(), "{text}")?)
    }

    fn wait<T>(&self, work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
        self.runtime.block_on(data::until_interrupted(work))
    }

    /// Says something that is no data.
    fn note(&self, text: &str) {
        eprintln!("{}", self.global.color.stderr().label(text));
    }
}

/// The mode as the prompt has it.
fn prompt_word(mode: KeyMode) -> &'static str {
    match mode {
        KeyMode::Raw => "raw",
        KeyMode::Txn => "txn",
    }
}

/// What a data command has done, and how long it took.
fn outcome(op: &Op, pairs: usize, took: Duration) -> String {
    let took = output::duration(took);
    match op {
        Op::Get { .. } | Op::Ttl { .. } => format!("({took})"),
        Op::Put { .. } | Op::Delete { .. } | Op::Cas { .. } => format!("ok ({took})"),
        Op::Scan { .. } if is_cut(op, pairs) => {
            format!("{} ({took}); there may be more: scan … limit N", count(pairs, "key"))
        }
        Op::Scan { .. } => format!("{} ({took})", count(pairs, "key")),
    }
}

/// Whether a scan has ended at its limit.
fn is_cut(op: &Op, pairs: usize) -> bool {
    matches!(op, Op::Scan { limit: Some(limit), .. } if *limit == pairs && pairs > 0)
}

/// A region on one line, its bounds as user keys where they are some.
fn region_text(info: &RegionInfo, layout: KeyLayout) -> String {
    let region = &info.region;
    let bound = |bound: &Bytes, unbounded: &str| {
        if bound.is_empty() {
            return unbounded.to_owned();
        }
        let user = layout.request_bound(bound).and_then(|request| layout.user_key(&request));
        escape(&user.unwrap_or_else(|| bound.clone()))
    };
    let replicas: Vec<String> = region.peers.iter().map(|peer| peer.store_id.to_string()).collect();
    let leader =
        info.leader.map_or_else(|| "no leader".to_owned(), |store| format!("leader store {store}"));
    format!(
        "region {}  [{} … {})  {leader}  replicas {}  epoch {}",
        region.id,
        bound(&region.range.start, "-∞"),
        bound(&region.range.end, "∞"),
        replicas.join(","),
        region.epoch
    )
}

/// A region as one object; bounds in stored form.
fn region_json(info: &RegionInfo) -> String {
    let region = &info.region;
    let mut object = serde_json::Map::new();
    object.insert("id".to_owned(), region.id.0.into());
    output::json_bytes(&mut object, "start", &region.range.start);
    output::json_bytes(&mut object, "end", &region.range.end);
    object.insert("leader_store".to_owned(), json!(info.leader.map(|store| store.0)));
    object.insert("stores".to_owned(), region.peers.iter().map(|peer| peer.store_id.0).collect());
    object.insert("conf_ver".to_owned(), region.epoch.conf_ver.into());
    object.insert("version".to_owned(), region.epoch.version.into());
    serde_json::Value::Object(object).to_string()
}

/// Where lines are remembered.
fn history_file() -> Option<PathBuf> {
    let absolute =
        |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state =
        absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?;
    Some(state.join("tinykv/history"))
}

/// Completes the first word of a line, and the formats of `\out`.
struct Words;

impl Helper for Words {}
impl Highlighter for Words {}
impl Validator for Words {}

impl Hinter for Words {
    type Hint = String;
}

impl Completer for Words {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        pos: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(complete(&line[..pos]))
    }
}

/// What may stand at the end of `line` instead of its last word, and where that begins.
fn complete(line: &str) -> (usize, Vec<String>) {
    let candidates: &[&str] = match line.trim_start().split_once(char::is_whitespace) {
        None => &parse::WORDS,
        Some(("\\out", _)) => &["table", "json", "plain"],
        Some(("\\time", _)) => &["on", "off"],
        Some(("begin", _)) => &["pessimistic"],
        Some(("scan", _)) => &["limit", "prefix", "reverse", "keys"],
        Some(_) => &[],
    };
    let start = line.rfind(char::is_whitespace).map_or(0, |at| at + 1);
    let word = &line[start..];
    (
        start,
        candidates
            .iter()
            .filter(|candidate| candidate.starts_with(word))
            .map(ToString::to_string)
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use types::{KeyRange, Peer, PeerId, PeerRole, Region, RegionEpoch, RegionId, StoreId};

    use super::*;

    fn region(start: &Bytes, end: &Bytes, leader: Option<u64>) -> RegionInfo {
        let peer = |store| Peer {
            id: PeerId(store + 10),
            store_id: StoreId(store),
            role: PeerRole::Voter,
        };
        RegionInfo {
            region: Region {
                id: RegionId(42),
                range: KeyRange { start: start.clone(), end: end.clone() },
                epoch: RegionEpoch { conf_ver: 3, version: 7 },
                peers: [1, 2, 3].map(peer).into(),
            },
            leader: leader.map(StoreId),
            down: Vec::new(),
            pending: Vec::new(),
        }
    }

    #[test]
    fn regions_are_shown_with_user_keys() {
        let raw = region(&"user/".into(), &"user/8".into(), Some(2));
        insta::assert_snapshot!(region_text(&raw, KeyLayout::RawV1), @"region 42  [user/ … user/8)  leader store 2  replicas 1,2,3  epoch 3/7");
        insta::assert_snapshot!(region_json(&raw), @r#"{"conf_ver":3,"end":"user/8","id":42,"leader_store":2,"start":"user/","stores":[1,2,3],"version":7}"#);
        let v2 = KeyLayout::RawV2 { keyspace: 0 };
        let encoded = v2.region_key(&v2.request_key("m".into()));
        insta::assert_snapshot!(region_text(&region(&encoded, &Bytes::new(), None), v2), @"region 42  [m … ∞)  no leader  replicas 1,2,3  epoch 3/7");
    }

    #[test]
    fn outcomes_have_their_time() {
        let took = Duration::from_micros(1900);
        let key = Bytes::from("a");
        let scan = Op::Scan {
            range: KeyRange::all(),
            limit: Some(3),
            direction: client::Direction::Forward,
            keys_only: false,
        };
        assert_eq!(
            outcome(&Op::Put { key: key.clone(), value: key.clone(), ttl: None }, 1, took),
            "ok (1.9 ms)"
        );
        assert_eq!(outcome(&Op::Get { key }, 1, took), "(1.9 ms)");
        assert_eq!(outcome(&scan, 1, took), "1 key (1.9 ms)");
        assert_eq!(outcome(&scan, 3, took), "3 keys (1.9 ms); there may be more: scan … limit N");
    }

    #[test]
    fn first_words_and_options_are_completed() {
        let all = |line: &str| complete(line).1.join(" ");
        assert_eq!(all("s"), "scan");
        assert_eq!(all("\\r"), "\\region \\raw");
        assert_eq!(all("begin p"), "pessimistic");
        assert_eq!(complete("\\out j"), (5, vec!["json".to_owned()]));
        assert_eq!(all("scan a li"), "limit");
        assert_eq!(all("get g"), "");
    }
}
