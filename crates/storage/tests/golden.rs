//! Runs the scripts of `golden/raw`: each begins with the property that it shows, then commands, then what happened.
//!
//! `UPDATE_GOLDENFILES=1 cargo test -p storage --test golden` writes them anew; keep only a difference that you can
//! explain. Keys are texts; `r0/name` is the raw key `name` of keyspace 0 in v2 (`x0/` transactional, `r1/` keyspace
//! 1), `size/N` is N bytes. Every command is sent to the region of its key, unless `at=KEY`, `region=`, `peer=`,
//! `store=`, `version=`, `conf_ver=`, `epoch=none` or `context=none` say otherwise.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{
    collections::BTreeMap,
    error::Error as StdError,
    fmt::Write as _,
    future::{self, Future},
    path::Path,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use engine::{Family, MemoryEngine};
use goldenscript::{ArgumentConsumer, Command, Runner};
use storage::{
    Commits, Error, KeyModeLatch, KvPair, Latching, Proposal, RawBatchScan, RawScan, Result,
    StorageOptions, Swapped, View,
};
use types::{
    ApiMode, ApiVersion, Bytes, KeyMode, KeyRange, PeerId, Region, RegionEpoch, RegionError,
    RegionId, RequestContext, StoreId, key,
};

use support::{BEGIN_S, Store};

#[test]
fn scripts() {
    let folder = Path::new("tests/golden/raw");
    let mut scripts: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    scripts.sort();
    assert!(25 <= scripts.len(), "only {} scripts were found", scripts.len());
    for script in scripts {
        let text = std::fs::read_to_string(&script).unwrap();
        assert!(text.starts_with("# "), "{} does not begin with its property", script.display());
        // The name of the script stands in front of the difference.
        println!("{}", script.display());
        goldenscript::run(&mut Script::default(), &script).unwrap();
    }
}

type Fallible<T> = std::result::Result<T, Box<dyn StdError>>;

#[derive(Default)]
struct Script {
    store: Option<Store>,
    latch: Option<Arc<TestLatch>>,
    views: BTreeMap<String, View>,
    /// Writes that were proposed and not committed yet.
    later: Vec<(String, Later)>,
}

enum Later {
    Done(Proposal<()>),
    Swapped(Proposal<Swapped>),
}

/// A scheduler's latch.
#[derive(Debug)]
struct TestLatch {
    held: Mutex<Option<KeyMode>>,
    down: bool,
    asked: AtomicU64,
}

impl KeyModeLatch for TestLatch {
    fn latch(&self, wanted: KeyMode) -> Latching {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.down {
            return Box::pin(future::ready(Err("connection refused".to_owned())));
        }
        let held = *self.held.lock().unwrap().get_or_insert(wanted);
        Box::pin(future::ready(Ok(held)))
    }
}

impl Runner for Script {
    type Command = Command;

    fn run(&mut self, command: &Command, context: &goldenscript::Context) -> Fallible<String> {
        let mut args = command.consume_args();
        let output = match command.name.as_str() {
            "open" => self.open(&mut args),
            "restart" => self.restart(),
            "clock" => self.clock(&mut args),
            "put" | "delete" | "batch_put" | "batch_delete" | "delete_range" | "destroy"
            | "cas" => {
                let shown = command.to_string();
                let write = self.write(&command.name, &mut args)?;
                if context.tags.contains("later") {
                    self.later.push((shown, write));
                    Ok(String::new())
                } else {
                    Ok(format!("{shown} → {}\n", self.settle(write)))
                }
            }
            "commit" => self.commit(),
            "close" => {
                self.store()?.storage.shutdown();
                Ok("closed\n".to_owned())
            }
            "get" | "batch_get" | "ttl" | "scan" | "batch_scan" | "checksum" => {
                self.read(command, &mut args)
            }
            "view" => {
                let name = args.next_pos().ok_or("view NAME")?;
                let view = self.store()?.storage.view()?;
                self.views.insert(name.to_owned(), view);
                Ok(String::new())
            }
            "sweep" => self.sweep(&mut args),
            "dump" => self.dump(&mut args),
            "regions" => {
                Ok(self.store()?.storage.regions().iter().fold(String::new(), |mut out, region| {
                    let _ = writeln!(out, "{}", show_region(region));
                    out
                }))
            }
            "status" => self.status(),
            name => Err(format!("unknown command {name}").into()),
        }?;
        args.reject_next()?;
        Ok(output)
    }
}

impl Script {
    fn store(&self) -> Fallible<&Store> {
        Ok(self.store.as_ref().ok_or("open a store first")?)
    }

    fn open(&mut self, args: &mut ArgumentConsumer<'_>) -> Fallible<String> {
        let api: ApiMode = args.take_key("api").unwrap_or("v1").parse()?;
        self.latch = args.take_key("latch").map(|latch| {
            let held = match latch {
                "raw" => Some(KeyMode::Raw),
                "txn" => Some(KeyMode::Txn),
                _ => None,
            };
            Arc::new(TestLatch {
                held: Mutex::new(held),
                down: latch == "down",
                asked: AtomicU64::new(0),
            })
        });
        *self = Script { latch: self.latch.take(), ..Script::default() };
        self.store = Some(Store::with(api, Arc::new(MemoryEngine::new()), self.options()));
        Ok(String::new())
    }

    fn restart(&mut self) -> Fallible<String> {
        let old = self.store.take().ok_or("open a store first")?;
        old.storage.shutdown();
        self.views.clear();
        self.store = Some(Store::open(old.engine, old.clock, self.options()));
        Ok(String::new())
    }

    fn options(&self) -> StorageOptions {
        let latch = self.latch.clone().map(|latch| latch as Arc<dyn KeyModeLatch>);
        StorageOptions { commits: Commits::ByCaller, latch, ..Default::default() }
    }

    fn clock(&mut self, args: &mut ArgumentConsumer<'_>) -> Fallible<String> {
        let clock = &self.store()?.clock;
        if let Some(ms) = args.take_key("advance_ms") {
            clock.advance(Duration::from_millis(ms.parse()?));
        }
        if let Some(s) = args.take_key("at_s") {
            clock.set_wall(Duration::from_secs(BEGIN_S + s.parse::<u64>()?));
        }
        Ok(String::new())
    }

    fn write(&mut self, name: &str, args: &mut ArgumentConsumer<'_>) -> Fallible<Later> {
        let cf = args.take_key("cf").unwrap_or_default().to_owned();
        let ttls = parse_numbers(args.take_key("ttl"))?;
        let expected = args.take_key("expected").map(parse_value).transpose()?.flatten();
        let new = args.take_key("new").map(parse_value).transpose()?;
        let ctx_args = ContextArgs::take(args);
        let mut texts = Vec::new();
        let mut pairs = Vec::new();
        if name == "batch_put" {
            while let Some((key, value)) = args.next_key() {
                pairs.push(KvPair { key: parse_bytes(key)?, value: parse_bytes(value)? });
            }
        }
        while let Some(text) = args.next_pos() {
            texts.push(parse_bytes(text)?);
        }
        let first =
            pairs.first().map(|pair| &pair.key).or(texts.first()).cloned().unwrap_or_default();
        let ctx = ctx_args.context(self, &first)?;
        let storage = &self.store()?.storage;
        let mut texts = texts.into_iter();
        let mut next = || texts.next().unwrap_or_default();
        let ttl_s = ttls.first().copied().unwrap_or(0);
        Ok(match name {
            "put" => Later::Done(storage.raw_put(&ctx, &cf, next(), next(), ttl_s)),
            "batch_put" => Later::Done(storage.raw_batch_put(&ctx, &cf, pairs, &ttls)),
            "delete" => Later::Done(storage.raw_delete(&ctx, &cf, next())),
            "batch_delete" => Later::Done(storage.raw_batch_delete(&ctx, &cf, texts.collect())),
            "delete_range" => Later::Done(storage.raw_delete_range(&ctx, &cf, next(), next())),
            "destroy" => Later::Done(storage.unsafe_destroy_range(next(), next())),
            "cas" => {
                let new = new.ok_or("cas KEY expected=VALUE|none new=VALUE|none")?;
                Later::Swapped(storage.raw_compare_and_swap(
                    &ctx,
                    &cf,
                    next(),
                    expected,
                    new,
                    ttl_s,
                ))
            }
            _ => return Err("not a write".into()),
        })
    }

    fn settle(&self, write: Later) -> String {
        let store = self.store.as_ref().expect("a write has a store");
        match write {
            Later::Done(proposal) => show(store.settle(proposal), |()| "ok".to_owned()),
            Later::Swapped(proposal) => show(store.settle(proposal), show_swapped),
        }
    }

    /// Commits one group, then shows what has been answered and what has not.
    fn commit(&mut self) -> Fallible<String> {
        let before = self.store()?.storage.statistics();
        let mut cx = Context::from_waker(Waker::noop());
        for (_, write) in &mut self.later {
            // A write that waits for the latch goes into the queue when it is polled.
            let pending = match write {
                Later::Done(proposal) => Pin::new(proposal).poll(&mut cx).is_pending(),
                Later::Swapped(proposal) => Pin::new(proposal).poll(&mut cx).is_pending(),
            };
            assert!(pending, "nothing is answered before it is committed");
        }
        let store = self.store()?;
        let committed = store.storage.commit_once();
        let after = store.storage.statistics();
        let mut out = format!(
            "committed {committed}: {} commands, {} syncs\n",
            after.commands - before.commands,
            after.syncs - before.syncs
        );
        for (shown, mut write) in std::mem::take(&mut self.later) {
            let answer = match &mut write {
                Later::Done(proposal) => match Pin::new(proposal).poll(&mut cx) {
                    Poll::Ready(answer) => Some(show(answer, |()| "ok".to_owned())),
                    Poll::Pending => None,
                },
                Later::Swapped(proposal) => match Pin::new(proposal).poll(&mut cx) {
                    Poll::Ready(answer) => Some(show(answer, show_swapped)),
                    Poll::Pending => None,
                },
            };
            match answer {
                Some(answer) => writeln!(out, "{shown} → {answer}")?,
                None => {
                    writeln!(out, "{shown} waits")?;
                    self.later.push((shown, write));
                }
            }
        }
        Ok(out)
    }

    fn read(&mut self, command: &Command, args: &mut ArgumentConsumer<'_>) -> Fallible<String> {
        let cf = args.take_key("cf").unwrap_or_default().to_owned();
        let view = match args.take_key("view") {
            Some(name) => self.views.get(name).ok_or("no such view")?.clone(),
            None => self.store()?.storage.view()?,
        };
        let limit = args.take_key("limit").map(str::parse).transpose()?.unwrap_or(100);
        let key_only = args.take_key("key_only") == Some("true");
        let reverse = args.take_key("reverse") == Some("true");
        let ctx_args = ContextArgs::take(args);
        let mut texts = Vec::new();
        while let Some(text) = args.next_pos() {
            texts.push(text);
        }
        let first = texts.first().copied().unwrap_or_default();
        let first = parse_bytes(first.split("..").next().unwrap_or_default())?;
        let ctx = ctx_args.context(self, &first)?;
        let at = |n: usize| texts.get(n).map_or(Ok(Bytes::new()), |text| parse_bytes(text));
        let ranges = || -> Fallible<Vec<KeyRange>> {
            let range = |text: &&str| {
                let (start, end) = text.split_once("..").ok_or("START..END")?;
                Ok(KeyRange { start: parse_bytes(start)?, end: parse_bytes(end)? })
            };
            texts.iter().map(range).collect()
        };
        let answer = match command.name.as_str() {
            "get" => show(view.raw_get(&ctx, &cf, &first), |value| show_value(value.as_ref())),
            "batch_get" => {
                let keys =
                    texts.iter().map(|text| parse_bytes(text)).collect::<Fallible<Vec<_>>>()?;
                show(view.raw_batch_get(&ctx, &cf, &keys), show_pairs)
            }
            "ttl" => show(view.raw_key_ttl(&ctx, &cf, &first), |ttl| match ttl {
                None => "none".to_owned(),
                Some(0) => "for good".to_owned(),
                Some(seconds) => format!("{seconds} s"),
            }),
            "scan" => {
                let scan = RawScan { cf, start: first, end: at(1)?, limit, key_only, reverse };
                show(view.raw_scan(&ctx, &scan), show_pairs)
            }
            "batch_scan" => {
                let scan =
                    RawBatchScan { cf, ranges: ranges()?, each_limit: limit, key_only, reverse };
                show(view.raw_batch_scan(&ctx, &scan), show_pairs)
            }
            "checksum" => show(view.raw_checksum(&ctx, &ranges()?), |sum| {
                format!("{:016x}, {} pairs, {} bytes", sum.checksum, sum.total_kvs, sum.total_bytes)
            }),
            _ => return Err("not a read".into()),
        };
        Ok(format!("{command} → {answer}\n"))
    }

    fn sweep(&mut self, args: &mut ArgumentConsumer<'_>) -> Fallible<String> {
        let keys_max = args.next_pos().ok_or("sweep KEYS")?.parse()?;
        let store = self.store()?;
        let sweep = store.settle(store.storage.sweep_expired(keys_max))?;
        let end = if sweep.finished { ", at the end" } else { "" };
        Ok(format!("examined {}, removed {}{end}\n", sweep.examined, sweep.removed))
    }

    /// What lies in the engine.
    fn dump(&mut self, args: &mut ArgumentConsumer<'_>) -> Fallible<String> {
        let with_meta = args.next_pos() == Some("meta");
        let snapshot = self.store()?.engine.snapshot()?;
        let mut out = String::new();
        for family in
            Family::ALL.into_iter().filter(|family| with_meta == (*family == Family::Meta))
        {
            let mut iter = snapshot.iter(family, &KeyRange::all())?;
            let mut valid = iter.seek_to_first()?;
            while valid {
                // Bytes of meta data are pinned elsewhere.
                let value = if with_meta { "…".to_owned() } else { key::display(iter.value()) };
                writeln!(out, "{} {} = {value}", family.name(), key::display(iter.key()))?;
                valid = iter.next()?;
            }
        }
        Ok(if out.is_empty() { "nothing\n".to_owned() } else { out })
    }

    fn status(&self) -> Fallible<String> {
        let storage = &self.store()?.storage;
        let statistics = storage.statistics();
        let mut out = String::new();
        match storage.key_mode() {
            Some(mode) => writeln!(out, "key mode {mode}")?,
            None => writeln!(out, "no key mode")?,
        }
        if let Some(latch) = &self.latch {
            let held = *latch.held.lock().unwrap();
            let held = held.map_or("nothing".to_owned(), |held| held.to_string());
            writeln!(
                out,
                "latch asked {} times, holds {held}",
                latch.asked.load(Ordering::Relaxed)
            )?;
        }
        writeln!(out, "{} groups, {} syncs", statistics.groups, statistics.syncs)?;
        Ok(out)
    }
}

/// The arguments that change a context, taken out before the others are read.
struct ContextArgs<'a>(Vec<(&'static str, &'a str)>);

impl<'a> ContextArgs<'a> {
    const NAMES: [&'static str; 9] =
        ["at", "context", "region", "peer", "store", "version", "conf_ver", "epoch", "api"];

    fn take(args: &mut ArgumentConsumer<'a>) -> ContextArgs<'a> {
        ContextArgs(
            Self::NAMES.iter().filter_map(|name| Some((*name, args.take_key(name)?))).collect(),
        )
    }

    /// The context of a command about `key`, with what the script changes in it.
    fn context(&self, script: &Script, key: &[u8]) -> Fallible<RequestContext> {
        let at = self
            .0
            .iter()
            .find(|(name, _)| *name == "at")
            .map(|(_, key)| parse_bytes(key))
            .transpose()?;
        let mut ctx = script.store()?.context(at.as_deref().unwrap_or(key));
        for (name, value) in &self.0 {
            match (*name, *value) {
                ("at", _) => {}
                ("context", "none") => {
                    ctx = RequestContext {
                        api_version: ctx.api_version,
                        ..RequestContext::default()
                    };
                }
                ("region", id) => ctx.region_id = RegionId(id.parse()?),
                ("peer", id) => ctx.peer_id = PeerId(id.parse()?),
                ("store", id) => ctx.store_id = StoreId(id.parse()?),
                ("version", version) => {
                    ctx.epoch =
                        Some(RegionEpoch { version: version.parse()?, ..RegionEpoch::FIRST });
                }
                ("conf_ver", conf_ver) => {
                    ctx.epoch =
                        Some(RegionEpoch { conf_ver: conf_ver.parse()?, ..RegionEpoch::FIRST });
                }
                ("epoch", "none") => ctx.epoch = None,
                ("api", "v1") => ctx.api_version = ApiVersion::V1,
                ("api", "v1ttl") => ctx.api_version = ApiVersion::V1Ttl,
                ("api", "v2") => ctx.api_version = ApiVersion::V2,
                (name, value) => return Err(format!("{name} can't be {value}").into()),
            }
        }
        Ok(ctx)
    }
}

fn parse_numbers(text: Option<&str>) -> Fallible<Vec<u64>> {
    text.map_or(Ok(Vec::new()), |text| text.split('/').map(|number| Ok(number.parse()?)).collect())
}

/// `none` is no value.
fn parse_value(text: &str) -> Fallible<Option<Bytes>> {
    if text == "none" { Ok(None) } else { parse_bytes(text).map(Some) }
}

fn parse_bytes(text: &str) -> Fallible<Bytes> {
    for prefix in [b'r', b'x'] {
        for keyspace in [0, 1] {
            if let Some(rest) = text.strip_prefix(&format!("{}{keyspace}/", char::from(prefix))) {
                return Ok([&[prefix, 0, 0, keyspace], rest.as_bytes()].concat().into());
            }
        }
    }
    if let Some(size) = text.strip_prefix("size/") {
        return Ok(vec![b'k'; size.parse()?].into());
    }
    Ok(Bytes::copy_from_slice(text.as_bytes()))
}

fn show<T>(answer: Result<T>, show: impl FnOnce(T) -> String) -> String {
    match answer {
        Ok(answer) => show(answer),
        Err(error) => {
            let mut out = format!("{} {:?}: {error}", error.code(), error.class());
            if let Error::Region(RegionError::EpochNotMatch { regions }) = &error {
                for region in regions {
                    let _ = write!(out, "; {}", show_region(region));
                }
            }
            out
        }
    }
}

fn show_value(value: Option<&Bytes>) -> String {
    value.map_or("none".to_owned(), |value| format!("\"{}\"", key::display(value)))
}

fn show_swapped(swapped: Swapped) -> String {
    let verb = if swapped.succeeded { "swapped" } else { "not swapped" };
    format!("{verb}, was {}", show_value(swapped.previous.as_ref()))
}

fn show_pairs(pairs: Vec<KvPair>) -> String {
    let mut out = format!("{} pairs", pairs.len());
    for KvPair { key, value } in pairs {
        let _ = write!(out, "\n  {} = \"{}\"", key::display(&key), key::display(&value));
    }
    out
}

fn show_region(region: &Region) -> String {
    let KeyRange { start, end } = &region.range;
    format!(
        "region {} [{}, {}) at {}",
        region.id,
        key::display(start),
        key::display(end),
        region.epoch
    )
}
