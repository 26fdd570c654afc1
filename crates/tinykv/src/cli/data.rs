//! Get, put, delete, scan, cas: the data commands, for one command line and for the shell alike.
//!
//! A value is printed as it is, byte by byte, and a line end behind it: `tinykv get` in a pipe gives what was put.
//! Everything with more than one value to a line (scans) prints keys and values escaped, so that a line is a pair. In
//! JSON, bytes that are no text have their own field (`output.rs`).
//!
//! Keys are typed with escapes, values are not: a value is often JSON, whose backslashes are its own. Binary values
//! come from standard input (`-`).

use std::{
    future::Future,
    io::{self, Read as _, Write},
    time::Duration,
};

use bytes::Bytes;
use clap::Args;
use client::{Client, Direction, Pair, RawClient, TimeToLive, Transaction};
use serde_json::{Map, Value, json};
use types::{Cf, Code, KeyMode, KeyRange, key::prefix_end, limits};

use super::{
    CliError, Format, Global,
    output::{self, Align, escape, json_bytes},
    txn_data,
};

/// Which data a command is about.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct SpaceArgs {
    /// Column family: default, lock or write.
    #[arg(long, value_name = "CF", default_value = "default", value_parser = parse_cf, help_heading = "Data")]
    pub cf: Cf,
    /// Use raw keys, whatever the cluster holds.
    #[arg(long, conflicts_with = "txn", help_heading = "Data")]
    pub raw: bool,
    /// Use transactions.
    #[arg(long, help_heading = "Data")]
    pub txn: bool,
}

fn parse_cf(name: &str) -> Result<Cf, String> {
    Cf::parse(name).ok_or_else(|| "one of default, lock, write".to_owned())
}

/// A key as it was typed, decoded.
#[derive(Clone, Debug)]
pub(super) struct Key(pub Bytes);

fn parse_key(text: &str) -> Result<Key, String> {
    output::parse_key(text).map(|key| Key(key.into()))
}

/// `tinykv get`.
#[derive(Debug, Args)]
pub(super) struct GetArgs {
    /// The key: text, \x00 escapes, or 0x… for the whole key in hexadecimal.
    #[arg(value_parser = parse_key)]
    key: Key,
    #[command(flatten)]
    space: SpaceArgs,
}

/// `tinykv put`.
#[derive(Debug, Args)]
pub(super) struct PutArgs {
    /// The key: text, \x00 escapes, or 0x… for the whole key in hexadecimal.
    #[arg(value_parser = parse_key)]
    key: Key,
    /// The value, as it is; - reads it from standard input.
    value: String,
    /// How long it lives (API modes v1ttl and v2).
    #[arg(long, value_name = "DURATION", value_parser = output::parse_duration)]
    ttl: Option<Duration>,
    #[command(flatten)]
    space: SpaceArgs,
}

/// `tinykv delete`.
#[derive(Debug, Args)]
pub(super) struct DeleteArgs {
    /// The key: text, \x00 escapes, or 0x… for the whole key in hexadecimal.
    #[arg(value_parser = parse_key)]
    key: Key,
    #[command(flatten)]
    space: SpaceArgs,
}

/// `tinykv scan`.
#[derive(Debug, Args)]
pub(super) struct ScanArgs {
    /// The first key.
    #[arg(value_parser = parse_key)]
    start: Option<Key>,
    /// The key after the last.
    #[arg(value_parser = parse_key)]
    end: Option<Key>,
    /// At most so many pairs; all of them if not given.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// From the last key to the first.
    #[arg(long)]
    reverse: bool,
    /// Leave the values out.
    #[arg(long)]
    keys_only: bool,
    /// Only keys that begin with this.
    #[arg(long, value_name = "KEY", value_parser = parse_key, conflicts_with_all = ["start", "end"])]
    prefix: Option<Key>,
    #[command(flatten)]
    space: SpaceArgs,
}

/// `tinykv cas`.
#[derive(Debug, Args)]
#[command(
    override_usage = "tinykv cas [OPTIONS] KEY EXPECTED NEW\n       tinykv cas [OPTIONS] --absent KEY NEW"
)]
pub(super) struct CasArgs {
    /// The key: text, \x00 escapes, or 0x… for the whole key in hexadecimal.
    #[arg(value_parser = parse_key)]
    key: Key,
    /// What its value must be, as it is (not with --absent).
    #[arg(value_name = "EXPECTED")]
    first: String,
    /// What it becomes, as it is; - reads it from standard input.
    #[arg(value_name = "NEW")]
    second: Option<String>,
    /// There must be no such key.
    #[arg(long)]
    absent: bool,
    /// How long the new value lives (API modes v1ttl and v2).
    #[arg(long, value_name = "DURATION", value_parser = output::parse_duration)]
    ttl: Option<Duration>,
    #[command(flatten)]
    space: SpaceArgs,
}

/// What a data command does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// Prints a value.
    Get {
        /// Of this key.
        key: Bytes,
    },
    /// Sets a key.
    Put {
        /// Which.
        key: Bytes,
        /// To what.
        value: Bytes,
        /// For how long.
        ttl: Option<Duration>,
    },
    /// Removes a key.
    Delete {
        /// Which.
        key: Bytes,
    },
    /// Prints pairs.
    Scan {
        /// Of which keys.
        range: KeyRange,
        /// At most so many.
        limit: Option<usize>,
        /// From which end.
        direction: Direction,
        /// Without values.
        keys_only: bool,
    },
    /// Sets a key if its value is the expected one.
    Cas {
        /// Which.
        key: Bytes,
        /// What must be there; `None`: nothing may be.
        expected: Option<Bytes>,
        /// What is there then.
        new: Bytes,
        /// For how long.
        ttl: Option<Duration>,
    },
    /// Prints how long a key lives.
    Ttl {
        /// Which.
        key: Bytes,
    },
}

/// `tinykv get KEY`.
pub(super) fn get(global: &Global, args: GetArgs) -> Result<(), CliError> {
    run(global, &args.space, Op::Get { key: args.key.0 })
}

/// `tinykv put KEY VALUE`.
pub(super) fn put(global: &Global, args: PutArgs) -> Result<(), CliError> {
    run(global, &args.space, Op::Put { key: args.key.0, value: value(args.value)?, ttl: args.ttl })
}

/// `tinykv delete KEY`.
pub(super) fn delete(global: &Global, args: DeleteArgs) -> Result<(), CliError> {
    run(global, &args.space, Op::Delete { key: args.key.0 })
}

/// `tinykv scan [START] [END]`.
pub(super) fn scan(global: &Global, args: ScanArgs) -> Result<(), CliError> {
    let bound = |key: Option<Key>| key.map_or_else(Bytes::new, |key| key.0);
    let range = match args.prefix {
        Some(Key(prefix)) => prefix_range(prefix),
        None => KeyRange { start: bound(args.start), end: bound(args.end) },
    };
    let direction = if args.reverse { Direction::Reverse } else { Direction::Forward };
    run(
        global,
        &args.space,
        Op::Scan { range, limit: args.limit, direction, keys_only: args.keys_only },
    )
}

/// `tinykv cas KEY EXPECTED NEW`.
pub(super) fn cas(global: &Global, args: CasArgs) -> Result<(), CliError> {
    let (expected, new) = match (args.absent, args.second) {
        (false, Some(new)) => (Some(Bytes::from(args.first)), new),
        (true, None) => (None, args.first),
        (false, None) => return Err(cas_usage("cas needs EXPECTED and NEW, or --absent and NEW")),
        (true, Some(_)) => return Err(cas_usage("with --absent there is no EXPECTED value")),
    };
    run(global, &args.space, Op::Cas { key: args.key.0, expected, new: value(new)?, ttl: args.ttl })
}

fn cas_usage(message: &str) -> CliError {
    CliError::usage(message)
        .with_remedy("tinykv cas KEY EXPECTED NEW, or: tinykv cas --absent KEY NEW")
}

/// All keys that begin with `prefix`.
pub(super) fn prefix_range(prefix: Bytes) -> KeyRange {
    let end = prefix_end(&prefix).into();
    KeyRange { start: prefix, end }
}

/// A value of the command line.
fn value(text: String) -> Result<Bytes, CliError> {
    if text != "-" {
        return Ok(text.into());
    }
    // One byte more than fits: the client refuses it with the right words.
    let mut value = Vec::new();
    io::stdin().lock().take(limits::VALUE_BYTES_MAX as u64 + 1).read_to_end(&mut value)?;
    Ok(value.into())
}

fn run(global: &Global, space: &SpaceArgs, op: Op) -> Result<(), CliError> {
    block_on(async {
        let client = connect(global).await?;
        let mut out = io::BufWriter::new(io::stdout().lock());
        match space.mode(&client).await? {
            KeyMode::Raw => {
                let raw = client.raw().with_cf(space.cf);
                perform(&op, &raw, global.output, &mut out).await?
            }
            KeyMode::Txn => {
                txn_data::perform_alone(&op, &client.txn(), global.output, &mut out).await?
            }
        };
        Ok(out.flush()?)
    })
}

impl SpaceArgs {
    /// Which kind of keys is meant: what was said, else what the cluster holds, else raw ones.
    pub(super) async fn mode(&self, client: &Client) -> Result<KeyMode, CliError> {
        Ok(match (self.raw, self.txn) {
            (true, _) => KeyMode::Raw,
            (false, true) => KeyMode::Txn,
            (false, false) => client.cluster_state().await?.key_mode.unwrap_or(KeyMode::Raw),
        })
    }
}

/// Runs `work` on a runtime of its own until it is done or Ctrl-C is pressed.
pub(super) fn block_on<T>(work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(until_interrupted(work))
}

/// Waits for `work` or Ctrl-C.
pub(super) async fn until_interrupted<T>(
    work: impl Future<Output = Result<T, CliError>>,
) -> Result<T, CliError> {
    tokio::select! {
        result = work => result,
        pressed = tokio::signal::ctrl_c() => {
            pressed?;
            Err(CliError::interrupted())
        }
    }
}

/// A client of the cluster that `global` names.
pub(super) async fn connect(global: &Global) -> Result<Client, CliError> {
    let defaults = client::Options::default();
    let options = client::Options {
        call: client::CallOptions {
            timeout: global.timeout,
            // A command that was given more time gives each store more time.
            attempt: defaults.call.attempt.max(global.timeout / 2),
            ..defaults.call
        },
        connections_per_store: 1,
        connect_timeout: defaults.connect_timeout.min(global.timeout),
        ..defaults
    };
    match Client::connect(&global.endpoints(), options).await {
        Ok(client) => Ok(client),
        Err(error @ client::Error::SchedulerUnreachable { .. }) => Err(CliError::from(error)
            .with_remedy("tinykv dev starts a cluster here; -e HOST:PORT names another one")),
        Err(error) if error.code() == Code::InvalidRequest => Err(CliError::from(error)
            .with_cause("The address of a scheduler is a name or number and a port.")
            .with_remedy("-e 127.0.0.1:2379, or TINYKV_ENDPOINTS=127.0.0.1:2379")),
        Err(error) => Err(error.into()),
    }
}

/// Performs a data command and prints its result. Returns how many pairs that was.
pub(super) async fn perform(
    op: &Op,
    raw: &RawClient,
    format: Format,
    out: &mut impl Write,
) -> Result<usize, CliError> {
    match op.clone() {
        Op::Get { key } => {
            let value = raw.get(key.clone()).await?.ok_or_else(|| not_found(&key))?;
            write_value(out, format, &key, &value)?;
            Ok(1)
        }
        Op::Put { key, value, ttl } => {
            raw.put_with_ttl(key, value, ttl).await?;
            Ok(1)
        }
        Op::Delete { key } => {
            raw.delete(key).await?;
            Ok(1)
        }
        Op::Ttl { key } => {
            let seconds = match raw.ttl(key.clone()).await? {
                TimeToLive::NotFound => return Err(not_found(&key)),
                TimeToLive::Forever => None,
                TimeToLive::Seconds(seconds) => Some(seconds),
            };
            write_ttl(out, format, &key, seconds)?;
            Ok(1)
        }
        Op::Cas { key, expected, new, ttl } => {
            let (swapped, previous) =
                raw.compare_and_swap(key.clone(), expected, Some(new), ttl).await?;
            if format == Format::Json {
                write_swap(out, swapped, previous.as_deref())?;
            }
            if !swapped {
                return Err(mismatch(&key, previous.as_deref()));
            }
            Ok(1)
        }
        Op::Scan { range, limit, direction, keys_only } => {
            scan_pages(Source::Raw(raw), range, limit, direction, keys_only, format, out).await
        }
    }
}

/// What is scanned.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    Raw(&'a RawClient),
    Txn(&'a Transaction),
}

/// Prints a range page by page, so that memory and the first line do not depend on its length.
pub(super) async fn scan_pages(
    source: Source<'_>,
    mut range: KeyRange,
    limit: Option<usize>,
    direction: Direction,
    keys_only: bool,
    format: Format,
    out: &mut impl Write,
) -> Result<usize, CliError> {
    let mut printed = 0;
    loop {
        let page = limit.map_or(limits::CLIENT_SCAN_PAGE, |limit| {
            (limit - printed).min(limits::CLIENT_SCAN_PAGE)
        });
        let pairs = match source {
            Source::Raw(raw) => raw.scan_with(range.clone(), page, direction, keys_only).await?,
            Source::Txn(txn) => txn.scan_with(range.clone(), page, direction, keys_only).await?,
        };
        write_pairs(out, format, &pairs, keys_only, printed == 0)?;
        out.flush()?;
        printed += pairs.len();
        let Some(last) = pairs.last().filter(|_| pairs.len() == page && Some(printed) != limit)
        else {
            return Ok(printed);
        };
        match direction {
            Direction::Forward => range.start = [&last.key[..], &[0]].concat().into(),
            // An empty end would be "no bound".
            Direction::Reverse if last.key.is_empty() => return Ok(printed),
            Direction::Reverse => range.end = last.key.clone(),
        }
    }
}

pub(super) fn not_found(key: &[u8]) -> CliError {
    CliError::new(Code::KeyNotFound, format!("no such key: {}", escape(key)))
}

/// Names the key and never the values: errors end up in logs.
fn mismatch(key: &[u8], previous: Option<&[u8]>) -> CliError {
    let cause = match previous {
        Some(_) => "The key has another value.",
        None => "There is no such key.",
    };
    CliError::new(
        Code::CasMismatch,
        format!("the value of {} is not the expected one", escape(key)),
    )
    .with_cause(cause)
}

pub(super) fn write_value(
    out: &mut impl Write,
    format: Format,
    key: &[u8],
    value: &[u8],
) -> io::Result<()> {
    match format {
        Format::Table | Format::Plain => {
            out.write_all(value)?;
            out.write_all(b"\n")
        }
        Format::Json => {
            let mut object = Map::new();
            json_bytes(&mut object, "key", key);
            json_bytes(&mut object, "value", value);
            writeln!(out, "{}", Value::Object(object))
        }
    }
}

fn write_ttl(
    out: &mut impl Write,
    format: Format,
    key: &[u8],
    seconds: Option<u64>,
) -> io::Result<()> {
    match (format, seconds) {
        (Format::Json, seconds) => {
            let mut object = Map::new();
            json_bytes(&mut object, "key", key);
            object.insert("ttl_seconds".to_owned(), json!(seconds));
            writeln!(out, "{}", Value::Object(object))
        }
        (Format::Table, Some(seconds)) => writeln!(out, "{seconds} s"),
        (Format::Plain, Some(seconds)) => writeln!(out, "{seconds}"),
        (Format::Table | Format::Plain, None) => writeln!(out, "never expires"),
    }
}

fn write_swap(out: &mut impl Write, swapped: bool, previous: Option<&[u8]>) -> io::Result<()> {
    let mut object = Map::new();
    object.insert("swapped".to_owned(), swapped.into());
    match previous {
        Some(previous) => json_bytes(&mut object, "previous", previous),
        None => drop(object.insert("previous".to_owned(), Value::Null)),
    }
    writeln!(out, "{}", Value::Object(object))
}

fn write_pairs(
    out: &mut impl Write,
    format: Format,
    pairs: &[Pair],
    keys_only: bool,
    is_first_page: bool,
) -> io::Result<()> {
    match format {
        Format::Json => {
            for pair in pairs {
                let mut object = Map::new();
                json_bytes(&mut object, "key", &pair.key);
                if !keys_only {
                    json_bytes(&mut object, "value", &pair.value);
                }
                writeln!(out, "{}", Value::Object(object))?;
            }
            Ok(())
        }
        Format::Plain => {
            for pair in pairs {
                match keys_only {
                    true => writeln!(out, "{}", escape(&pair.key))?,
                    false => writeln!(out, "{}\t{}", escape(&pair.key), escape(&pair.value))?,
                }
            }
            Ok(())
        }
        Format::Table if pairs.is_empty() => Ok(()),
        Format::Table => {
            let heading = |text| if is_first_page { text } else { "" };
            let columns = [(heading("KEY"), Align::Left), (heading("VALUE"), Align::Left)];
            let columns = if keys_only { &columns[..1] } else { &columns[..] };
            let row = |pair: &Pair| match keys_only {
                true => vec![escape(&pair.key)],
                false => vec![escape(&pair.key), escape(&pair.value)],
            };
            out.write_all(output::table(columns, pairs.iter().map(row)).as_bytes())
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::output::Style;

    #[derive(Debug, Parser)]
    enum Cli {
        Get(GetArgs),
        Put(PutArgs),
        Scan(ScanArgs),
        Cas(CasArgs),
    }

    fn text(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn pairs() -> Vec<Pair> {
        vec![
            Pair::new("user/1", "{\"name\":\"ada\"}"),
            Pair::new("user/22", "two\nlines"),
            Pair::new(&b"user/\x00\xff"[..], &b"\xff"[..]),
        ]
    }

    #[test]
    fn a_value_is_printed_as_it_is() {
        let mut out = Vec::new();
        write_value(&mut out, Format::Table, b"k", b"a\n\xff").unwrap();
        assert_eq!(out, b"a\n\xff\n");
        let json = text(|out| write_value(out, Format::Json, b"k", b"v"));
        assert_eq!(json, "{\"key\":\"k\",\"value\":\"v\"}\n");
        let json = text(|out| write_value(out, Format::Json, b"\xff", b"\x00\xff"));
        assert_eq!(json, "{\"key_hex\":\"0xff\",\"value_hex\":\"0x00ff\"}\n");
    }

    #[test]
    fn scans_are_tables_lines_or_objects() {
        insta::assert_snapshot!(text(|out| write_pairs(out, Format::Table, &pairs(), false, true)), @r#"
        KEY            VALUE
        user/1         {"name":"ada"}
        user/22        two\nlines
        user/\x00\xff  \xff
        "#);
        insta::assert_snapshot!(text(|out| write_pairs(out, Format::Table, &pairs(), true, false)), @r"
        user/1
        user/22
        user/\x00\xff
        ");
        let plain = text(|out| write_pairs(out, Format::Plain, &pairs(), false, true));
        assert_eq!(
            plain,
            "user/1\t{\"name\":\"ada\"}\nuser/22\ttwo\\nlines\nuser/\\x00\\xff\t\\xff\n"
        );
        insta::assert_snapshot!(text(|out| write_pairs(out, Format::Json, &pairs(), false, true)), @r#"
        {"key":"user/1","value":"{\"name\":\"ada\"}"}
        {"key":"user/22","value":"two\nlines"}
        {"key_hex":"0x757365722f00ff","value_hex":"0xff"}
        "#);
        assert_eq!(
            text(|out| write_pairs(out, Format::Table, &[], false, true)),
            "",
            "no heading without rows"
        );
    }

    #[test]
    fn times_to_live_and_swaps() {
        assert_eq!(text(|out| write_ttl(out, Format::Table, b"k", Some(7))), "7 s\n");
        assert_eq!(text(|out| write_ttl(out, Format::Plain, b"k", None)), "never expires\n");
        assert_eq!(
            text(|out| write_ttl(out, Format::Json, b"k", None)),
            "{\"key\":\"k\",\"ttl_seconds\":null}\n"
        );
        assert_eq!(
            text(|out| write_swap(out, false, Some(b"x"))),
            "{\"previous\":\"x\",\"swapped\":false}\n"
        );
        assert_eq!(
            text(|out| write_swap(out, true, None)),
            "{\"previous\":null,\"swapped\":true}\n"
        );
    }

    #[test]
    fn errors_name_keys_and_never_values() {
        insta::assert_snapshot!(not_found(b"a\x00").to_text(Style::Plain), @r"
        error[TK4001]: no such key: a\x00
          cause  Nothing was written under it, or it was deleted or has expired.
          try    `tinykv scan` lists keys
        ");
        insta::assert_snapshot!(mismatch(b"k", Some(b"secret")).to_text(Style::Plain), @r"
        error[TK4002]: the value of k is not the expected one
          cause  The key has another value.
          try    read it again and decide
        ");
    }

    #[test]
    fn arguments_are_read() {
        let Cli::Get(args) = Cli::try_parse_from(["t", "get", "0x00ff"]).unwrap() else { panic!() };
        assert_eq!(args.key.0, &[0, 0xff][..]);
        let Cli::Put(args) =
            Cli::try_parse_from(["t", "put", "a\\x00", "b\\n", "--ttl", "10s"]).unwrap()
        else {
            panic!()
        };
        assert_eq!(
            (args.key.0, args.value.as_str(), args.ttl),
            ("a\0".into(), "b\\n", Some(Duration::from_secs(10)))
        );
        let Cli::Scan(args) =
            Cli::try_parse_from(["t", "scan", "--prefix", "a", "--cf", "write"]).unwrap()
        else {
            panic!()
        };
        assert_eq!(args.space.cf, Cf::Write);
        assert_eq!(prefix_range(args.prefix.unwrap().0), KeyRange::new("a", "b"));
        assert_eq!(prefix_range(Bytes::from_static(b"\xff")), KeyRange::new(&b"\xff"[..], ""));
        for wrong in [
            vec!["t", "get", "0xzz"],
            vec!["t", "get", "a", "--cf", "nope"],
            vec!["t", "get", "a", "--raw", "--txn"],
            vec!["t", "scan", "a", "--prefix", "b"],
            vec!["t", "put", "a", "b", "--ttl", "0"],
        ] {
            assert_eq!(Cli::try_parse_from(&wrong).unwrap_err().exit_code(), 2, "{wrong:?}");
        }
    }

    #[test]
    fn cas_takes_two_values_or_one_and_absent() {
        let parse = |args: &[&str]| Cli::try_parse_from([&["t", "cas"], args].concat());
        assert!(matches!(
            parse(&["k", "old", "new"]),
            Ok(Cli::Cas(CasArgs { second: Some(_), absent: false, .. }))
        ));
        assert!(matches!(
            parse(&["--absent", "k", "new"]),
            Ok(Cli::Cas(CasArgs { second: None, absent: true, .. }))
        ));
        assert!(parse(&["k"]).is_err());
        insta::assert_snapshot!(cas_usage("with --absent there is no EXPECTED value").to_text(Style::Plain), @r"
        error[TK4108]: with --absent there is no EXPECTED value
          cause  A field that is needed is missing, or two of them contradict each other.
          try    tinykv cas KEY EXPECTED NEW, or: tinykv cas --absent KEY NEW
        ");
    }
}
