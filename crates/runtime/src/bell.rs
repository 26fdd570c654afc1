//! Wake-ups of a thread that waits for others to put something.
//!
//! A wake-up costs as much as a small request, and whoever is woken by the first of many takes that one alone. A caller
//! that is about to put more says so with [`together`]: what it puts meanwhile is announced once, when it is through.

use std::{
    cell::RefCell,
    sync::{Arc, Condvar, MutexGuard, PoisonError},
    time::Duration,
};

/// Wakes one thread that waits with the guard of what the bell belongs to. Clones are the same bell.
#[derive(Clone, Debug, Default)]
pub struct Bell(Arc<Condvar>);

thread_local! {
    /// Bells that this thread rings when it is through; `None`: it rings at once.
    static HELD: RefCell<Option<Vec<Bell>>> = const { RefCell::new(None) };
}

impl Bell {
    /// Waits until the bell rings, for as long as `patience`, or for no reason at all.
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>, patience: Duration) -> MutexGuard<'a, T> {
        self.0.wait_timeout(guard, patience).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Wakes who waits: now, or at the end of [`together`] if this thread is in it.
    pub fn ring(&self) {
        let is_held = HELD.with_borrow_mut(|held| {
            let Some(held) = held else { return false };
            if !held.iter().any(|bell| Arc::ptr_eq(&bell.0, &self.0)) {
                held.push(self.clone());
            }
            true
        });
        if !is_held {
            self.0.notify_one();
        }
    }
}

/// Makes `calls`; the bells that they ring are rung once, at the end, even if they panic. They must not wait for what a
/// bell of theirs wakes.
pub fn together<T>(calls: impl FnOnce() -> T) -> T {
    struct Through;
    impl Drop for Through {
        fn drop(&mut self) {
            for bell in HELD.take().into_iter().flatten() {
                bell.0.notify_one();
            }
        }
    }
    if HELD.with_borrow(Option::is_some) {
        return calls();
    }
    HELD.set(Some(Vec::new()));
    let _through = Through;
    calls()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn bells_ring_once_and_at_the_end_of_what_is_done_together() {
        let held = || HELD.with_borrow(|held| held.as_ref().map(Vec::len));
        let (one, other) = (Bell::default(), Bell::default());
        one.ring();
        assert_eq!(held(), None, "nobody is about to put more");
        together(|| {
            one.ring();
            together(|| one.clone().ring());
            assert_eq!(held(), Some(1), "the inner end is not the end");
            other.ring();
            assert_eq!(held(), Some(2));
        });
        assert_eq!(held(), None);
        let panicked = std::panic::catch_unwind(|| together(|| panic!("a bug")));
        assert!(panicked.is_err() && held().is_none());
    }

    #[test]
    fn who_waits_is_woken_when_the_others_are_through() {
        let (count, bell) = (Arc::new(Mutex::new(0)), Bell::default());
        let waiter = {
            let (count, bell) = (Arc::clone(&count), bell.clone());
            crate::task::spawn("waiter", move || {
                let mut count = count.lock().unwrap();
                while *count < 3 {
                    count = bell.wait(count, Duration::from_secs(60));
                }
            })
            .unwrap()
        };
        together(|| {
            for _ in 0..3 {
                *count.lock().unwrap() += 1;
                bell.ring();
            }
        });
        waiter.join().unwrap();
    }
}
