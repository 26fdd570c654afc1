//! Marks: what product code tells a simulator, and what a simulator may ask of it.
//!
//! - [`sometimes!`](crate::sometimes) names a rare event. The simulator counts it and fails if it never happened.
//! - [`buggify!`](crate::buggify) is a place at which the product may make its own trouble: a short message, an early
//!   timeout, a full queue. Whatever it does there must be legal.
//! - [`mutant!`](crate::mutant) brings one known bug back. A suite that does not notice is too weak.
//!
//! Invariant: without the features `sim` and `mutants` of this crate the three are `()`, `false` and `false`, constants
//! that cost nothing; no product is built with them.
//!
//! The registries belong to the thread, so that simulations which run side by side do not see each other.

#[cfg(feature = "sim")]
mod sim {
    use std::{cell::RefCell, collections::BTreeMap};

    /// Decides for the name of a point whether it makes trouble now.
    pub type Buggify = Box<dyn FnMut(&'static str) -> bool>;

    thread_local! {
        static COUNTS: RefCell<BTreeMap<&'static str, u64>> = const { RefCell::new(BTreeMap::new()) };
        static BUGGIFY: RefCell<Option<Buggify>> = const { RefCell::new(None) };
    }

    /// Counts one occurrence of `name`. Called by [`sometimes!`](crate::sometimes).
    pub fn hit(name: &'static str) {
        COUNTS.with_borrow_mut(|counts| *counts.entry(name).or_default() += 1);
    }

    /// How often `name` has happened on this thread since [`take_counts`].
    pub fn count(name: &str) -> u64 {
        COUNTS.with_borrow(|counts| counts.get(name).copied().unwrap_or(0))
    }

    /// All names that have happened on this thread, with their counts; starts again from nothing.
    pub fn take_counts() -> BTreeMap<&'static str, u64> {
        COUNTS.with_borrow_mut(std::mem::take)
    }

    /// Sets who decides about [`buggify!`](crate::buggify) on this thread; `None` means never. The generator must not
    /// itself reach a `buggify!`.
    pub fn set_buggify(generator: Option<Buggify>) {
        BUGGIFY.with_borrow_mut(|slot| *slot = generator);
    }

    /// Asks the generator. Called by [`buggify!`](crate::buggify).
    pub fn buggify(name: &'static str) -> bool {
        BUGGIFY.with_borrow_mut(|slot| slot.as_mut().is_some_and(|generator| generator(name)))
    }
}

#[cfg(feature = "sim")]
pub use sim::*;

#[cfg(feature = "mutants")]
mod mutants {
    use std::cell::Cell;

    thread_local! {
        static MUTANT: Cell<Option<&'static str>> = const { Cell::new(None) };
    }

    /// Switches one bug on, on this thread, and all others off.
    pub fn set_mutant(name: Option<&'static str>) {
        MUTANT.set(name);
    }

    /// The bug that is switched on.
    pub fn mutant() -> Option<&'static str> {
        MUTANT.get()
    }
}

#[cfg(feature = "mutants")]
pub use mutants::*;

/// Says that something rare has happened. `()` without the feature `sim` of crate `types`.
#[cfg(feature = "sim")]
#[macro_export]
macro_rules! sometimes {
    ($name:literal) => {
        $crate::marks::hit($name)
    };
}

/// Says that something rare has happened. `()` without the feature `sim` of crate `types`.
#[cfg(not(feature = "sim"))]
#[macro_export]
macro_rules! sometimes {
    ($name:literal) => {
        ()
    };
}

/// Whether to make trouble here. `false` without the feature `sim` of crate `types`.
#[cfg(feature = "sim")]
#[macro_export]
macro_rules! buggify {
    ($name:literal) => {
        $crate::marks::buggify($name)
    };
}

/// Whether to make trouble here. `false` without the feature `sim` of crate `types`.
#[cfg(not(feature = "sim"))]
#[macro_export]
macro_rules! buggify {
    ($name:literal) => {
        false
    };
}

/// Whether this bug is switched on. `false` without the feature `mutants` of crate `types`.
#[cfg(feature = "mutants")]
#[macro_export]
macro_rules! mutant {
    ($name:literal) => {
        $crate::marks::mutant() == Some($name)
    };
}

/// Whether this bug is switched on. `false` without the feature `mutants` of crate `types`.
#[cfg(not(feature = "mutants"))]
#[macro_export]
macro_rules! mutant {
    ($name:literal) => {
        false
    };
}

pub use crate::{buggify, mutant, sometimes};

#[cfg(test)]
mod tests {
    #[cfg(not(any(feature = "sim", feature = "mutants")))]
    #[test]
    fn marks_are_constants_without_their_features() {
        sometimes!("never counted");
        const { assert!(!buggify!("never") && !mutant!("never")) }
    }

    #[cfg(feature = "sim")]
    #[test]
    fn what_happened_is_counted_and_the_generator_decides() {
        use super::{count, set_buggify, take_counts};
        take_counts();
        sometimes!("seen");
        sometimes!("seen");
        assert_eq!((count("seen"), count("unseen")), (2, 0));
        assert_eq!(take_counts().into_iter().collect::<Vec<_>>(), [("seen", 2)]);
        assert_eq!(count("seen"), 0);

        assert!(!buggify!("a"), "nobody decides");
        set_buggify(Some(Box::new(|name| name == "a")));
        assert!(buggify!("a") && !buggify!("b"));
        set_buggify(None);
        assert!(!buggify!("a"));
    }

    #[cfg(feature = "mutants")]
    #[test]
    fn one_mutant_is_on_at_a_time() {
        use super::set_mutant;
        assert!(!mutant!("a"));
        set_mutant(Some("a"));
        assert!(mutant!("a") && !mutant!("b"));
        set_mutant(None);
        assert!(!mutant!("a"));
    }
}
