//! The catalogue of errors: one row per code, with what failed, why, and what to do about it.
//!
//! Codes never change meaning. 1xxx start and configuration, 2xxx network, 3xxx scheduler, 4xxx data and
//! transactions, 5xxx regions, 6xxx storage and disk, 9xxx bugs. `tinykv explain CODE` and the HTTP catalogue print
//! these rows; every error that reaches a person carries its [`Code`].

use std::fmt;

/// One row of the catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// `TK` and four digits.
    pub code: &'static str,
    /// What failed, in a few words.
    pub title: &'static str,
    /// Why it happens.
    pub cause: &'static str,
    /// One command or setting that helps.
    pub remedy: &'static str,
    /// Whether the same request may succeed later without anybody doing anything.
    pub retryable: bool,
    /// TiKV's or PD's own name for it, empty if they have none.
    pub alias: &'static str,
}

macro_rules! catalogue {
    ($($(#[$doc:meta])* $name:ident = $code:literal { title: $title:literal, cause: $cause:literal, remedy: $remedy:literal, retryable: $retryable:literal, alias: $alias:literal })*) => {
        /// The code of an error.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = $title] $name,)*
        }

        /// Every row, in the order of the codes.
        pub const CATALOGUE: &[Entry] = &[
            $(Entry { code: $code, title: $title, cause: $cause, remedy: $remedy, retryable: $retryable, alias: $alias },)*
        ];

        impl Code {
            /// Every code, in the order of [`CATALOGUE`].
            pub const ALL: &[Code] = &[$(Code::$name,)*];
        }
    };
}

catalogue! {
    AddressInUse = "TK1004" {
        title: "cannot listen on an address",
        cause: "Another process listens there already, often an earlier start of the same cluster.",
        remedy: "choose another port (port 0 takes a free one), or see with `tinykv status` whether it is your cluster",
        retryable: false, alias: ""
    }
    LowFileLimit = "TK1010" {
        title: "the limit of open files is low",
        cause: "The hard limit of this process is below what a large data set needs.",
        remedy: "raise it (`ulimit -n`, LimitNOFILE in a service unit); small data sets are fine",
        retryable: false, alias: ""
    }
    UnknownSetting = "TK1021" {
        title: "unknown setting",
        cause: "The name is not one of this version's settings.",
        remedy: "`tinykv config sample` prints all of them",
        retryable: false, alias: ""
    }
    InvalidSetting = "TK1022" {
        title: "a setting has a value that it cannot take",
        cause: "The value does not parse, or contradicts another setting.",
        remedy: "`tinykv config sample` shows what each setting takes",
        retryable: false, alias: ""
    }
    NotAvailableYet = "TK1023" {
        title: "this version cannot do that yet",
        cause: "The option is part of the interface, the feature behind it is not built yet.",
        remedy: "leave the option out; the changelog says which version brings it",
        retryable: false, alias: ""
    }
    IgnoredSetting = "TK1024" {
        title: "a setting has no effect here",
        cause: "TiKV or PD have a setting of that name; nothing here depends on it.",
        remedy: "leave it out, or leave it in: it does no harm; `tinykv config sample` prints the settings that count",
        retryable: false, alias: ""
    }
    UnsyncedWrites = "TK1025" {
        title: "writes are acknowledged before they are on disk",
        cause: "storage.sync is \"os\": the operating system writes them a few seconds later.",
        remedy: "storage.sync = \"always\" for data that matter",
        retryable: false, alias: ""
    }
    PlainText = "TK1030" {
        title: "a server on a network takes plain text from everybody",
        cause: "It listens beyond this machine, and connections are neither encrypted nor authenticated.",
        remedy: "listen on 127.0.0.1, or let a firewall decide who reaches it",
        retryable: false, alias: ""
    }
    AdvertisedWildcard = "TK1031" {
        title: "other machines cannot dial the advertised address",
        cause: "0.0.0.0 and :: mean \"every interface\" to a listener and nothing to a client.",
        remedy: "set the advertised address to one that clients can reach",
        retryable: false, alias: ""
    }
    DataDirLocked = "TK1040" {
        title: "the data directory is used by another process",
        cause: "One process at a time may open a data directory.",
        remedy: "stop that process, or choose another directory with --data",
        retryable: false, alias: ""
    }
    DataDirMismatch = "TK1041" {
        title: "the data directory belongs to something else",
        cause: "It was created with another engine, API mode, cluster or role.",
        remedy: "start with the settings it was created with, or choose another directory",
        retryable: false, alias: ""
    }
    NewerFormat = "TK1050" {
        title: "the data were written by a newer version",
        cause: "Their format number is greater than the ones this binary reads.",
        remedy: "start the newer version",
        retryable: false, alias: ""
    }
    SchedulerUnreachable = "TK2001" {
        title: "no scheduler answered",
        cause: "The addresses refused the connection, timed out, or speak something else.",
        remedy: "check the address (-e HOST:PORT) and that the cluster runs: `tinykv status`",
        retryable: true, alias: ""
    }
    StoreUnreachable = "TK2002" {
        title: "a store did not answer",
        cause: "The scheduler names its address, but nothing answers there in time.",
        remedy: "check the store's process and that its advertised address can be dialled from here",
        retryable: true, alias: ""
    }
    Timeout = "TK2003" {
        title: "no answer in time",
        cause: "The time-out ended before the answer came.",
        remedy: "try again, or allow more time with --timeout",
        retryable: true, alias: ""
    }
    NotBootstrapped = "TK3001" {
        title: "the cluster has no store yet",
        cause: "The scheduler runs, but no store has joined it.",
        remedy: "start a store: tinykv-server --scheduler HOST:PORT",
        retryable: true, alias: "PD:cluster:ErrNotBootstrapped"
    }
    ClusterMismatch = "TK3002" {
        title: "the request or the store belongs to another cluster",
        cause: "Every cluster has an id of its own; this one differs.",
        remedy: "check the scheduler's address; a store keeps the cluster it was created in",
        retryable: false, alias: ""
    }
    AlreadyBootstrapped = "TK3003" {
        title: "the cluster has its first store already",
        cause: "Another store was faster, or this one asked twice.",
        remedy: "let the store join instead; it does so by itself when it starts again",
        retryable: false, alias: "PD:cluster:ErrAlreadyBootstrapped"
    }
    StoreRemoved = "TK3004" {
        title: "the store was removed from the cluster",
        cause: "It is a tombstone: its regions live elsewhere, and its id is never used again.",
        remedy: "start a new store on an empty data directory",
        retryable: false, alias: "PD:cluster:ErrStoreIsTombstone"
    }
    AddressTaken = "TK3005" {
        title: "another store has this address",
        cause: "Two stores advertise the same address; the message names the other one.",
        remedy: "advertise another address, or remove the store that is gone",
        retryable: false, alias: ""
    }
    KeyNotFound = "TK4001" {
        title: "no such key",
        cause: "Nothing was written under it, or it was deleted or has expired.",
        remedy: "`tinykv scan` lists keys",
        retryable: false, alias: ""
    }
    CasMismatch = "TK4002" {
        title: "the value is not the expected one",
        cause: "Another writer changed it.",
        remedy: "read it again and decide",
        retryable: false, alias: ""
    }
    KeyModeConflict = "TK4101" {
        title: "this cluster holds the other kind of data",
        cause: "In API mode v1 the first write decides whether a cluster holds raw or transactional data; mixed, they make each other unreadable.",
        remedy: "use the other API, a second cluster, or storage.api = \"v2\", which holds both",
        retryable: false, alias: ""
    }
    ApiVersionMismatch = "TK4102" {
        title: "the request's API version does not fit the cluster",
        cause: "storage.api is fixed when a cluster is created and decides which requests it takes.",
        remedy: "set the client to the cluster's API version",
        retryable: false, alias: "KV:Storage:ApiVersionNotMatched"
    }
    KeyspacePrefix = "TK4103" {
        title: "the key lies outside of every keyspace",
        cause: "In API mode v2 a raw key begins with `r`, a transactional one with `x`, each followed by three bytes of keyspace id.",
        remedy: "use a client with API V2, which adds the prefix",
        retryable: false, alias: "KV:Storage:InvalidKeyMode"
    }
    TtlNotEnabled = "TK4104" {
        title: "time to live is not enabled",
        cause: "API mode v1 stores values without an expiry.",
        remedy: "create the cluster with storage.api = \"v1ttl\" or \"v2\"",
        retryable: false, alias: "KV:Storage:TtlNotEnabled"
    }
    UnknownColumnFamily = "TK4105" {
        title: "unknown column family",
        cause: "There are three: default, lock, write.",
        remedy: "leave it empty for default",
        retryable: false, alias: "KV:Storage:InvalidCf"
    }
    KeyTooLarge = "TK4106" {
        title: "the key is too long",
        cause: "Keys have at most 8,192 bytes.",
        remedy: "shorten the key, or hash its tail",
        retryable: false, alias: "KV:Storage:KeyTooLarge"
    }
    ValueTooLarge = "TK4107" {
        title: "the value is too large",
        cause: "A value, with its key, must fit into one log entry.",
        remedy: "split the value over several keys",
        retryable: false, alias: ""
    }
    InvalidRequest = "TK4108" {
        title: "the request makes no sense",
        cause: "A field that is needed is missing, or two of them contradict each other.",
        remedy: "the message names the field",
        retryable: false, alias: ""
    }
    Unsupported = "TK4109" {
        title: "this command is not served",
        cause: "This version does not implement it.",
        remedy: "the changelog says what each version serves",
        retryable: false, alias: ""
    }
    WriteConflict = "TK4201" {
        title: "another transaction wrote the same key first",
        cause: "Since this transaction began, another one committed a key that this one writes.",
        remedy: "begin a new transaction, read again and repeat; a pessimistic one locks its keys before it reads them",
        retryable: false, alias: "KV:Storage:WriteConflict"
    }
    KeyExists = "TK4202" {
        title: "a key exists that must not",
        cause: "It was to be inserted, and somebody has written it already.",
        remedy: "use put to overwrite it, or choose another key",
        retryable: false, alias: "KV:Storage:AlreadyExist"
    }
    Deadlock = "TK4203" {
        title: "transactions wait for each other",
        cause: "Each has locked a key that another one of them wants.",
        remedy: "roll back and repeat; lock keys in the same order everywhere",
        retryable: false, alias: "KV:Storage:Deadlock"
    }
    TxnAborted = "TK4204" {
        title: "the transaction was rolled back",
        cause: "It took longer than its locks live, or its client was not heard of, and somebody who met its locks ended it.",
        remedy: "begin a new transaction and repeat; keep transactions short",
        retryable: false, alias: "KV:Storage:TxnLockNotFound"
    }
    KeyLocked = "TK4205" {
        title: "another transaction has locked the key",
        cause: "It is still under way, or its client died and its time is not over yet.",
        remedy: "try again in a few seconds",
        retryable: true, alias: "KV:Storage:KeyIsLocked"
    }
    NotLeader = "TK5001" {
        title: "another peer leads the region",
        cause: "Leadership moved since the client learnt its route.",
        remedy: "clients follow the hint by themselves",
        retryable: true, alias: "KV:Raftstore:NotLeader"
    }
    RegionNotFound = "TK5002" {
        title: "the region is not on this store",
        cause: "It moved, or the request named no region.",
        remedy: "clients refresh their route by themselves; send a context with every request",
        retryable: true, alias: "KV:Raftstore:RegionNotFound"
    }
    EpochNotMatch = "TK5003" {
        title: "the region has changed",
        cause: "It was split, merged or moved since the client learnt its route.",
        remedy: "clients refresh their route by themselves",
        retryable: true, alias: "KV:Raftstore:EpochNotMatch"
    }
    KeyNotInRegion = "TK5004" {
        title: "the key is outside of the region",
        cause: "The client's route is wrong for this key.",
        remedy: "clients refresh their route by themselves",
        retryable: true, alias: "KV:Raftstore:KeyNotInRegion"
    }
    StoreNotMatch = "TK5005" {
        title: "the request is for another store",
        cause: "An address was taken over by another store.",
        remedy: "clients ask the scheduler for the new address by themselves",
        retryable: true, alias: "KV:Raftstore:StoreNotMatch"
    }
    EntryTooLarge = "TK5006" {
        title: "the command is too large",
        cause: "All changes of one request travel as one log entry.",
        remedy: "send smaller batches",
        retryable: false, alias: "KV:Raftstore:EntryTooLarge"
    }
    ServerIsBusy = "TK5008" {
        title: "the store is busy",
        cause: "A queue or memory budget is full; the message says which.",
        remedy: "send less at once, or try again later",
        retryable: true, alias: "KV:Raftstore:ServerIsBusy"
    }
    Undetermined = "TK5009" {
        title: "the outcome of a write is not known",
        cause: "The store stopped, or the time ran out, between accepting the write and answering it.",
        remedy: "read the key; repeat only what may happen twice",
        retryable: false, alias: ""
    }
    DataIsNotReady = "TK5010" {
        title: "stale reads are not served yet",
        cause: "The request asked for a stale read (stale_read), for which a peer has to know until when its data are complete.",
        remedy: "ask the leader, or a follower with replica_read",
        retryable: true, alias: "KV:Raftstore:DataIsNotReady"
    }
    DiskIo = "TK6001" {
        title: "the disk failed",
        cause: "A write, sync or read of the data directory returned an error.",
        remedy: "check the disk and the system log, then start the store again",
        retryable: false, alias: ""
    }
    DiskFull = "TK6002" {
        title: "the disk is full",
        cause: "No space is left in the data directory; reads still work.",
        remedy: "free or add space",
        retryable: true, alias: "KV:Raftstore:DiskFull"
    }
    Corrupt = "TK6003" {
        title: "stored bytes are damaged",
        cause: "A checksum does not match: the disk, memory or somebody changed the file.",
        remedy: "restore the data directory from a copy; the message names the file",
        retryable: false, alias: ""
    }
    Poisoned = "TK6004" {
        title: "the store has stopped after a disk failure",
        cause: "After a failed sync nothing may be assumed durable, so nothing more is acknowledged.",
        remedy: "see the first error in the log, repair the disk, start the store again",
        retryable: false, alias: ""
    }
    Bug = "TK9001" {
        title: "this is a bug in tinykv",
        cause: "The program found itself in a state that it holds impossible.",
        remedy: "please report it with the log",
        retryable: false, alias: ""
    }
}

impl Code {
    /// The row of this code.
    pub fn entry(self) -> &'static Entry {
        &CATALOGUE[self as usize]
    }

    /// Finds a code by its text ("TK4101", case-insensitive, the `TK` may be left out).
    pub fn parse(text: &str) -> Option<Code> {
        let text = text.trim().to_ascii_uppercase();
        let text = if text.starts_with("TK") { text } else { format!("TK{text}") };
        Code::ALL.iter().copied().find(|code| code.entry().code == text)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.entry().code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_complete_unique_and_ordered() {
        for pair in CATALOGUE.windows(2) {
            assert!(pair[0].code < pair[1].code, "{} is not before {}", pair[0].code, pair[1].code);
        }
        for (entry, code) in CATALOGUE.iter().zip(Code::ALL) {
            assert!(entry.code.len() == 6 && entry.code.starts_with("TK"), "{}", entry.code);
            assert!(
                !entry.title.is_empty() && !entry.cause.is_empty() && !entry.remedy.is_empty(),
                "{}",
                entry.code
            );
            assert_eq!(code.entry(), entry);
            assert_eq!(Code::parse(entry.code), Some(*code));
        }
        assert_eq!(Code::parse("4101"), Some(Code::KeyModeConflict));
        assert_eq!(Code::parse("nonsense"), None);
    }
}
