//! The life of a store: up, on its way out, gone for good, forgotten.
//!
//! ```text
//!  put_store ──▶ up ──remove_store──▶ offline ──holds nothing──▶ tombstone ──forget──▶ only its id is kept
//!                 ▲                      │
//!                 └──────restore_store───┘
//! ```
//!
//! Its id is never used again: a machine that was away for long, and comes back with the data of a store that is gone,
//! is told so.

use types::StoreId;

use crate::{Answer, Record, Result, Scheduler, Store, StoreState};

impl Scheduler {
    /// Sends a store away: its peers move elsewhere, as far as there is room, and then it is gone for good. Nothing
    /// changes if it is on its way already.
    ///
    /// # Errors
    /// `NotBootstrapped`, `StoreNotFound`, `StoreTombstone`.
    pub fn remove_store(&mut self, id: StoreId) -> Result<Answer<()>> {
        let answer = self.set_state(id, StoreState::Offline)?;
        // It may be empty already.
        self.placement.look_for_empty_stores();
        Ok(answer)
    }

    /// Takes back that a store was sent away. What has moved meanwhile moves back as balance demands.
    ///
    /// # Errors
    /// `NotBootstrapped`, `StoreNotFound`; `StoreTombstone` if it is too late.
    pub fn restore_store(&mut self, id: StoreId) -> Result<Answer<()>> {
        self.set_state(id, StoreState::Up)
    }

    /// Forgets the stores that are gone for good and answers which. Their ids stay in use.
    ///
    /// # Errors
    /// `NotBootstrapped`.
    pub fn forget_tombstones(&mut self) -> Result<Answer<Vec<StoreId>>> {
        self.cluster.check_bootstrapped()?;
        let gone = self.cluster.stores.values().map(|known| &known.store);
        let gone: Vec<StoreId> = gone
            .filter(|store| store.state == StoreState::Tombstone)
            .map(|store| store.id)
            .collect();
        for &store in &gone {
            self.commit(Record::StoreForgotten { store });
        }
        Ok(self.cluster_answer(gone))
    }

    /// The oldest version among the stores that are not gone: what all of them understand. `None` without stores, and
    /// while one of them names none.
    ///
    /// # Errors
    /// `NotBootstrapped`.
    pub fn oldest_version(&self) -> Result<Answer<Option<String>>> {
        self.cluster.check_bootstrapped()?;
        let stores = self.cluster.stores.values().map(|known| &known.store);
        let stores = stores.filter(|store| store.state != StoreState::Tombstone);
        let oldest = stores.map(|store| &store.version).min_by_key(|version| numbers(version));
        Ok(self.cluster_answer(oldest.filter(|version| !version.is_empty()).cloned()))
    }

    fn set_state(&mut self, id: StoreId, state: StoreState) -> Result<Answer<()>> {
        let store = &self.cluster.check_reporting_store(id)?.store;
        if store.state != state {
            let store = Store { state, ..store.clone() };
            self.commit(Record::StorePut(store));
        }
        Ok(self.cluster_answer(()))
    }
}

/// The numbers of a version, so that 8.10 comes after 8.9. What follows the first other letter does not count.
fn numbers(version: &str) -> Vec<u64> {
    let text = version.strip_prefix('v').unwrap_or(version);
    let end = text.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(text.len());
    text[..end].split('.').map(|number| number.parse().unwrap_or(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        let mut versions = ["8.5.10", "v8.5.2", "7.1.0-alpha.3", "10.0.0", ""];
        versions.sort_by_key(|version| numbers(version));
        assert_eq!(versions, ["", "7.1.0-alpha.3", "v8.5.2", "8.5.10", "10.0.0"]);
    }

    #[test]
    fn a_state_of_nobody_is_not_set() {
        let mut scheduler = Scheduler::new(types::ClusterId(7), types::ApiMode::V1);
        let refused = scheduler.remove_store(StoreId(1)).unwrap_err();
        assert!(matches!(refused, Error::NotBootstrapped));
    }
}
