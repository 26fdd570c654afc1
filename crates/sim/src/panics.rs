//! Panics of the code under test, as text: an assertion that fails in a simulated node is a finding, not a crash of
//! the simulator.

use std::{cell::RefCell, panic, sync::Once, thread};

thread_local! {
    /// `Some` while panics of this thread are caught: the last one's words.
    static CAUGHT: RefCell<Option<String>> = const { RefCell::new(None) };
}

static HOOK: Once = Once::new();

/// Calls `body`, which catches panics, and gives the words of one instead of printing them.
///
/// # Errors
/// It panicked.
pub fn catch<T>(body: impl FnOnce() -> thread::Result<T>) -> Result<T, String> {
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let is_caught = CAUGHT.with_borrow_mut(|caught| {
                if let Some(words) = caught {
                    *words = info.to_string().replace('\n', " ");
                    true
                } else {
                    false
                }
            });
            if !is_caught {
                usual(info);
            }
        }));
    });
    CAUGHT.set(Some(String::new()));
    let result = body();
    let words = CAUGHT.take().unwrap_or_default();
    result.map_err(|_| words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_words_with_its_place() {
        let words = catch(|| panic::catch_unwind(|| panic!("seven is not {}", 8))).unwrap_err();
        assert!(words.contains("seven is not 8") && words.contains("panics.rs"), "{words}");
        assert_eq!(catch(|| panic::catch_unwind(|| 5)), Ok(5));
    }
}
