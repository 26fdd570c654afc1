//! The key-mode latch: the first write decides whether a v1 cluster holds raw or transactional data.
//!
//! The truth is one compare-and-set at the scheduler ([`KeyModeLatch`]). A store asks before its first write and
//! remembers the answer: in a cell, so that every later write pays one load, and in [`engine::Family::Meta`], so that
//! a restart knows it without the scheduler. The record travels inside the writes themselves until one of them is
//! durable: data of a kind can't be there without it.
//!
//! Reads never latch. Modes v1ttl and v2 have no latch: their keys tell the kinds apart.

use std::{
    future::Future,
    pin::Pin,
    sync::atomic::{AtomicU8, Ordering},
};

use types::KeyMode;

/// A question to the scheduler under way: the mode that the cluster holds, or why it is not known.
pub type Latching = Pin<Box<dyn Future<Output = Result<KeyMode, String>> + Send>>;

/// Where a cluster keeps its key mode.
pub trait KeyModeLatch: Send + Sync {
    /// Latches `wanted`, durably, if nothing is latched yet; answers what is latched then. Asking again is harmless.
    fn latch(&self, wanted: KeyMode) -> Latching;
}

/// What this store knows of the latch. Grows from nothing to a mode to a mode on disk, and never back.
#[derive(Debug, Default)]
pub(crate) struct KeyModeCell(AtomicU8);

const RAW: u8 = 1;
const TXN: u8 = 2;
/// Set beside the mode once a record of it is durable here.
const RECORDED: u8 = 4;

impl KeyModeCell {
    /// What was found on disk at start.
    pub(crate) fn recorded(mode: Option<KeyMode>) -> KeyModeCell {
        KeyModeCell(AtomicU8::new(mode.map_or(0, |mode| to_bits(mode) | RECORDED)))
    }

    /// The mode, if it is known.
    pub(crate) fn get(&self) -> Option<KeyMode> {
        match self.0.load(Ordering::Acquire) & !RECORDED {
            RAW => Some(KeyMode::Raw),
            TXN => Some(KeyMode::Txn),
            _ => None,
        }
    }

    /// Whether a record of the mode is durable in this store.
    pub(crate) fn is_recorded(&self) -> bool {
        self.0.load(Ordering::Acquire) & RECORDED != 0
    }

    /// Takes `mode` for the cluster's, unless another one is known already; returns the one that holds.
    pub(crate) fn learn(&self, mode: KeyMode) -> KeyMode {
        let _ = self.0.compare_exchange(0, to_bits(mode), Ordering::AcqRel, Ordering::Acquire);
        self.get().expect("a mode that was learnt stays")
    }

    /// Notes that a record of the mode is durable in this store.
    pub(crate) fn note_recorded(&self) {
        self.0.fetch_or(RECORDED, Ordering::AcqRel);
    }
}

fn to_bits(mode: KeyMode) -> u8 {
    match mode {
        KeyMode::Raw => RAW,
        KeyMode::Txn => TXN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_mode_stays() {
        let cell = KeyModeCell::default();
        assert_eq!((cell.get(), cell.is_recorded()), (None, false));
        assert_eq!(cell.learn(KeyMode::Txn), KeyMode::Txn);
        assert_eq!(cell.learn(KeyMode::Raw), KeyMode::Txn);
        assert!(!cell.is_recorded());
        cell.note_recorded();
        assert_eq!((cell.get(), cell.is_recorded()), (Some(KeyMode::Txn), true));
        assert_eq!(cell.learn(KeyMode::Raw), KeyMode::Txn);
    }

    #[test]
    fn a_record_is_found_again() {
        assert_eq!(KeyModeCell::recorded(Some(KeyMode::Raw)).get(), Some(KeyMode::Raw));
        assert!(KeyModeCell::recorded(Some(KeyMode::Raw)).is_recorded());
        assert!(!KeyModeCell::recorded(None).is_recorded());
    }
}
