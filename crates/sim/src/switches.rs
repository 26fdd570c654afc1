//! The switches in the code under test ([`types::marks`]), for the time of one run.
//!
//! Without the feature `marks` there are none: nothing is counted and no trouble is made.

use std::collections::BTreeMap;

/// Decides for the name of a point whether it makes trouble now.
pub(crate) type Buggify = Box<dyn FnMut(&'static str) -> bool>;

/// Starts counting from nothing, with this generator of trouble and this bug switched on.
#[cfg(feature = "marks")]
pub(crate) fn set(buggify: Buggify, mutant: Option<&'static str>) {
    types::marks::take_counts();
    types::marks::set_buggify(Some(buggify));
    types::marks::set_mutant(mutant);
}

/// Switches everything off; gives what was counted.
#[cfg(feature = "marks")]
pub(crate) fn reset() -> BTreeMap<&'static str, u64> {
    types::marks::set_buggify(None);
    types::marks::set_mutant(None);
    types::marks::take_counts()
}

/// Does nothing: there are no switches.
#[cfg(not(feature = "marks"))]
pub(crate) fn set(_buggify: Buggify, mutant: Option<&'static str>) {
    assert!(mutant.is_none(), "mutants need the feature `marks`");
}

/// Nothing was counted: there are no switches.
#[cfg(not(feature = "marks"))]
pub(crate) fn reset() -> BTreeMap<&'static str, u64> {
    BTreeMap::new()
}
