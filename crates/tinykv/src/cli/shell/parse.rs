//! The language of the shell: one command a line.
//!
//! A line is words between blanks. A word that begins with a quote ends with it: `"…"` with escapes (`\n`, `\x00`,
//! `\"`), `'…'` exactly as it stands. In any other word quotes are ordinary characters, but blanks between two `"` do
//! not end it, so that `put user/1 {"name":"ada l."}` means what it looks like. Bare keys may have escapes or be
//! `0x…` as a whole, as on the command line; bare values are taken as they stand.
//!
//! Pure: text in, [`Command`] out.

use std::time::Duration;

use bytes::Bytes;
use client::{Direction, txn::Locking};
use types::KeyRange;

use super::super::{
    data::{Op, prefix_range},
    output::{Format, parse_duration, parse_key, unescape},
};

/// What a line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Read or write data.
    Data(Op),
    /// Show the region of a key.
    Region(Bytes),
    /// Show the cluster.
    Status,
    /// Show times, or do not; `None` toggles.
    Time(Option<bool>),
    /// Print results in another format.
    Out(Format),
    /// Work on raw keys.
    Raw,
    /// Work in transactions.
    Txn,
    /// Begin a transaction.
    Begin(Locking),
    /// Commit it.
    Commit,
    /// Give it up.
    Rollback,
    /// Show what can be typed.
    Help,
    /// Leave.
    Quit,
}

/// First words, for completion.
pub(super) const WORDS: [&str; 18] = [
    "get", "put", "delete", "scan", "cas", "ttl", "begin", "commit", "rollback", "\\region",
    "\\status", "\\time", "\\out", "\\raw", "\\txn", "\\help", "\\?", "\\q",
];

/// What can be typed.
pub(super) const HELP: &str = r#"get KEY                            print a value
put KEY VALUE [ttl 10s]            set a key
delete KEY                         remove a key
scan [START [END]] [prefix KEY] [limit N] [reverse] [keys]
                                   list keys in order (100 unless limited)
cas KEY EXPECTED NEW [ttl 10s]     set a key if its value is EXPECTED
cas absent KEY NEW [ttl 10s]       set a key if there is none
ttl KEY                            how long a key lives
\region KEY                        where a key is
\status                            the cluster on one screen
\time [on|off]                     show how long each command took
\out table|json|plain              how results are printed
begin [pessimistic]                begin a transaction: what follows is part of it
commit  rollback                   write what it wrote, or nothing
\raw  \txn                         work on raw keys, or in transactions
\help  \?  \q                      this text; leave

Words with blanks are quoted: "with \n, \x00 and \" escapes" or 'as it stands'.
Keys may have escapes without quotes too, or be 0x… in hexadecimal.
"#;

/// How many pairs a scan shows unless it says otherwise.
pub(super) const SCAN_LIMIT: usize = 100;

/// Reads a line. `None`: nothing but blanks or a comment (`# …`).
///
/// # Errors
/// Says what is wrong, in words for who typed it.
pub(super) fn parse(line: &str) -> Result<Option<Command>, String> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let mut words = Words(words(line)?.into());
    let Some(Word::Bare(first)) = words.0.pop_front() else {
        return Err("a line begins with a command; \\? lists them".to_owned());
    };
    let command = match first.to_ascii_lowercase().as_str() {
        "get" => Command::Data(Op::Get { key: words.key("get KEY")? }),
        "delete" | "del" => Command::Data(Op::Delete { key: words.key("delete KEY")? }),
        "ttl" => Command::Data(Op::Ttl { key: words.key("ttl KEY")? }),
        "put" => {
            let usage = "put KEY VALUE [ttl 10s]";
            let (key, value) = (words.key(usage)?, words.value(usage)?);
            Command::Data(Op::Put { key, value, ttl: words.ttl()? })
        }
        "cas" => {
            let usage = "cas KEY EXPECTED NEW, or: cas absent KEY NEW";
            let absent = words.option("absent") && words.0.len() >= 2;
            if absent {
                words.0.pop_front();
            }
            let key = words.key(usage)?;
            let expected = if absent { None } else { Some(words.value(usage)?) };
            Command::Data(Op::Cas { key, expected, new: words.value(usage)?, ttl: words.ttl()? })
        }
        "scan" => Command::Data(scan(&mut words)?),
        "begin" => Command::Begin(match words.bare().as_deref() {
            None | Some("optimistic") => Locking::Optimistic,
            Some("pessimistic") => Locking::Pessimistic,
            Some(other) => return Err(format!("\"{other}\": begin takes pessimistic or nothing")),
        }),
        "commit" => Command::Commit,
        "rollback" => Command::Rollback,
        "\\txn" => Command::Txn,
        "\\raw" => Command::Raw,
        "\\region" => Command::Region(words.key("\\region KEY")?),
        "\\status" => Command::Status,
        "\\time" => Command::Time(match words.bare().as_deref() {
            None => None,
            Some("on") => Some(true),
            Some("off") => Some(false),
            Some(other) => return Err(format!("\"{other}\": \\time takes on or off")),
        }),
        "\\out" => Command::Out(match words.bare().as_deref() {
            Some("table") => Format::Table,
            Some("json") => Format::Json,
            Some("plain") => Format::Plain,
            _ => return Err("\\out takes table, json or plain".to_owned()),
        }),
        "\\help" | "\\?" | "\\h" | "help" | "?" => Command::Help,
        "\\q" | "\\quit" | "quit" | "exit" => Command::Quit,
        _ => return Err(format!("unknown command \"{first}\"; \\? lists them")),
    };
    match words.0.front() {
        None => Ok(Some(command)),
        Some(_) => Err(format!("too many words for {first}; a word with blanks is quoted: '…'")),
    }
}

fn scan(words: &mut Words) -> Result<Op, String> {
    let usage = "scan [START [END]] [prefix KEY] [limit N] [reverse] [keys]";
    let (mut bounds, mut prefix) = (Vec::new(), None);
    let (mut limit, mut direction, mut keys_only) = (SCAN_LIMIT, Direction::Forward, false);
    while !words.0.is_empty() {
        if words.take_option("limit") {
            let number = words.bare().unwrap_or_default();
            limit = number.parse().map_err(|_| format!("\"{number}\" is no number: limit N"))?;
        } else if words.take_option("prefix") {
            prefix = Some(words.key("prefix KEY")?);
        } else if words.take_option("reverse") {
            direction = Direction::Reverse;
        } else if words.take_option("keys") || words.take_option("keys-only") {
            keys_only = true;
        } else if bounds.len() < 2 {
            bounds.push(words.key(usage)?);
        } else {
            return Err(format!("too many words: {usage}"));
        }
    }
    let mut bounds = bounds.into_iter();
    let range = match (prefix, bounds.next()) {
        (Some(_), Some(_)) => return Err("either prefix, or START and END".to_owned()),
        (Some(prefix), None) => prefix_range(prefix),
        (None, start) => {
            KeyRange { start: start.unwrap_or_default(), end: bounds.next().unwrap_or_default() }
        }
    };
    Ok(Op::Scan { range, limit: Some(limit), direction, keys_only })
}

/// A word of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Word {
    /// As it stands.
    Bare(String),
    /// What stood between quotes, decoded.
    Quoted(Vec<u8>),
}

/// The words that are left.
struct Words(std::collections::VecDeque<Word>);

impl Words {
    fn key(&mut self, usage: &str) -> Result<Bytes, String> {
        match self.0.pop_front() {
            Some(Word::Bare(word)) => Ok(parse_key(&word)?.into()),
            Some(Word::Quoted(bytes)) => Ok(bytes.into()),
            None => Err(format!("a key is missing: {usage}")),
        }
    }

    fn value(&mut self, usage: &str) -> Result<Bytes, String> {
        match self.0.pop_front() {
            Some(Word::Bare(word)) => Ok(word.into()),
            Some(Word::Quoted(bytes)) => Ok(bytes.into()),
            None => Err(format!("a value is missing: {usage}")),
        }
    }

    fn bare(&mut self) -> Option<String> {
        match self.0.pop_front()? {
            Word::Bare(word) => Some(word),
            Word::Quoted(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        }
    }

    /// Whether an option comes next; with or without dashes, never in quotes.
    fn option(&self, name: &str) -> bool {
        matches!(self.0.front(), Some(Word::Bare(word)) if word.trim_start_matches("--") == name)
    }

    fn take_option(&mut self, name: &str) -> bool {
        let found = self.option(name);
        if found {
            self.0.pop_front();
        }
        found
    }

    fn ttl(&mut self) -> Result<Option<Duration>, String> {
        if !self.take_option("ttl") {
            return Ok(None);
        }
        parse_duration(&self.bare().unwrap_or_default()).map(Some)
    }
}

/// Splits a line.
fn words(line: &str) -> Result<Vec<Word>, String> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while let Some(first) = rest.chars().next() {
        let after = match first {
            '"' | '\'' => {
                let inner = &rest[1..];
                let end = match first {
                    '"' => closing(inner),
                    _ => inner.find('\''),
                };
                let end = end.ok_or_else(|| format!("{first} is not closed"))?;
                words.push(Word::Quoted(match first {
                    '"' => unescape(&inner[..end])?,
                    _ => inner.as_bytes()[..end].to_vec(),
                }));
                &inner[end + 1..]
            }
            _ => {
                let end = bare_end(rest).ok_or("\" is not closed")?;
                words.push(Word::Bare(rest[..end].to_owned()));
                &rest[end..]
            }
        };
        if !after.is_empty() && !after.starts_with(char::is_whitespace) {
            return Err("a blank must follow a closing quote".to_owned());
        }
        rest = after.trim_start();
    }
    Ok(words)
}

/// Where the `"` is that closes a word; `\"` does not.
fn closing(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(at, c)| {
        let found = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        found.then_some(at)
    })
}

/// Where a bare word ends: at the first blank that is not between two `"`.
fn bare_end(text: &str) -> Option<usize> {
    let (mut inside, mut escaped) = (false, false);
    for (at, c) in text.char_indices() {
        if c.is_whitespace() && !inside {
            return Some(at);
        }
        if c == '"' && !(inside && escaped) {
            inside = !inside;
        }
        escaped = c == '\\' && !escaped;
    }
    (!inside).then_some(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(line: &str) -> Op {
        match parse(line) {
            Ok(Some(Command::Data(op))) => op,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn put(line: &str) -> (Bytes, Bytes) {
        match data(line) {
            Op::Put { key, value, ttl: None } => (key, value),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn words_quotes_and_escapes() {
        assert_eq!(put("put a b"), ("a".into(), "b".into()));
        assert_eq!(put("  PUT   a\t b  "), ("a".into(), "b".into()));
        assert_eq!(
            put(r#"put user/1 {"name":"ada"}"#),
            ("user/1".into(), r#"{"name":"ada"}"#.into())
        );
        assert_eq!(put(r#"put user/1 {"name":"ada \"l.\""}"#).1, r#"{"name":"ada \"l.\""}"#);
        assert_eq!(put(r#"put "a b\x00\"" 'c "d" \n'"#), ("a b\0\"".into(), r#"c "d" \n"#.into()));
        assert_eq!(put(r#"put "" ''"#), ("".into(), "".into()));
        assert_eq!(
            put(r"put a\x00b c\n"),
            ("a\0b".into(), r"c\n".into()),
            "keys have escapes, values have not"
        );
        assert_eq!(
            put(r#"put "0x41" 0x41"#),
            ("0x41".into(), "0x41".into()),
            "quoted is not hexadecimal"
        );
        assert_eq!(put("put 0x41 it's"), ("A".into(), "it's".into()));
        assert_eq!(put(r"put 'back\' slash\"), (r"back\".into(), r"slash\".into()));
    }

    #[test]
    fn every_command_is_read() {
        let key = |key: &'static str| Bytes::from(key);
        assert_eq!(data("get a"), Op::Get { key: key("a") });
        assert_eq!(data("del a"), Op::Delete { key: key("a") });
        assert_eq!(data("ttl a"), Op::Ttl { key: key("a") });
        let ten = Some(Duration::from_secs(10));
        assert_eq!(data("put a b ttl 10s"), Op::Put { key: key("a"), value: key("b"), ttl: ten });
        let cas = |expected, new| Op::Cas { key: key("k"), expected, new: key(new), ttl: None };
        assert_eq!(data("cas k old new"), cas(Some(key("old")), "new"));
        assert_eq!(data("cas absent k new"), cas(None, "new"));
        assert_eq!(data("cas --absent k new"), cas(None, "new"));
        assert_eq!(parse("\\region a"), Ok(Some(Command::Region(key("a")))));
        assert_eq!(parse("\\time"), Ok(Some(Command::Time(None))));
        assert_eq!(parse("\\time off"), Ok(Some(Command::Time(Some(false)))));
        assert_eq!(parse("\\out json"), Ok(Some(Command::Out(Format::Json))));
        assert_eq!(parse("begin"), Ok(Some(Command::Begin(Locking::Optimistic))));
        assert_eq!(parse("begin pessimistic"), Ok(Some(Command::Begin(Locking::Pessimistic))));
        assert_eq!(parse("commit"), Ok(Some(Command::Commit)));
        assert_eq!(parse("\\q"), Ok(Some(Command::Quit)));
        assert_eq!((parse(""), parse("  # a comment")), (Ok(None), Ok(None)));
        for word in WORDS {
            let tried =
                ["", " a", " a b", " a b c", " json"].map(|rest| parse(&format!("{word}{rest}")));
            assert!(tried.iter().any(Result::is_ok), "{word} is offered but not understood");
            assert!(HELP.contains(word), "{word} is not explained");
        }
    }

    #[test]
    fn scans_have_options_in_any_order() {
        let op = |start, end, limit, direction, keys_only| Op::Scan {
            range: KeyRange::new(start, end),
            limit: Some(limit),
            direction,
            keys_only,
        };
        assert_eq!(data("scan"), op("", "", SCAN_LIMIT, Direction::Forward, false));
        assert_eq!(data("scan user/ limit 3"), op("user/", "", 3, Direction::Forward, false));
        assert_eq!(
            data("scan --reverse a z --limit 3 keys"),
            op("a", "z", 3, Direction::Reverse, true)
        );
        assert_eq!(
            data("scan prefix user/"),
            op("user/", "user0", SCAN_LIMIT, Direction::Forward, false)
        );
        assert_eq!(data("scan \"limit\""), op("limit", "", SCAN_LIMIT, Direction::Forward, false));
    }

    #[test]
    fn mistakes_are_explained() {
        let lines = [
            "get",
            "get a b",
            "put a",
            "put a {\"x\": 1, \"y\"",
            "put a [1, 2]",
            "put \"a",
            "put 'a",
            "put \"a\"b c",
            "put \"a\\q\" b",
            "get 0xzz",
            "scan a b c",
            "scan limit x",
            "scan a prefix b",
            "put a b ttl",
            "cas a b",
            "\\out xml",
            "\\time maybe",
            "frobnicate",
            "\"get\" a",
        ];
        let said: Vec<String> =
            lines.iter().map(|line| format!("{line:24} {}", parse(line).unwrap_err())).collect();
        insta::assert_snapshot!(said.join("\n"), @r#"
        get                      a key is missing: get KEY
        get a b                  too many words for get; a word with blanks is quoted: '…'
        put a                    a value is missing: put KEY VALUE [ttl 10s]
        put a {"x": 1, "y"       too many words for put; a word with blanks is quoted: '…'
        put a [1, 2]             too many words for put; a word with blanks is quoted: '…'
        put "a                   " is not closed
        put 'a                   ' is not closed
        put "a"b c               a blank must follow a closing quote
        put "a\q" b              unknown escape "\q": write \\ for a backslash
        get 0xzz                 "0xzz" is not hexadecimal; for a key of that text write \x30xzz
        scan a b c               too many words: scan [START [END]] [prefix KEY] [limit N] [reverse] [keys]
        scan limit x             "x" is no number: limit N
        scan a prefix b          either prefix, or START and END
        put a b ttl              a duration is a number and a unit, as in 500ms or 10s
        cas a b                  a value is missing: cas KEY EXPECTED NEW, or: cas absent KEY NEW
        \out xml                 \out takes table, json or plain
        \time maybe              "maybe": \time takes on or off
        frobnicate               unknown command "frobnicate"; \? lists them
        "get" a                  a line begins with a command; \? lists them
        "#);
    }
}
