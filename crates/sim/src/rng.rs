//! Where the simulator's random numbers come from: one root seed, one stream a concern.
//!
//! A stream is named ("network", "disk 3"), and its seed follows from the root seed and the name alone. So a change
//! that draws one more number in one stream leaves all other streams as they were, and a seed keeps most of its
//! meaning while the code changes. The generator is `runtime::Rng`, the one the product uses: small, fast, and with
//! cheap streams; nothing here needs numbers that an adversary cannot guess.

use runtime::Rng;

use crate::hash::mix;

/// The root of all streams of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(pub u64);

impl Seed {
    /// The stream `name`.
    pub fn stream(self, name: &str) -> Rng {
        self.numbered(name, 0)
    }

    /// The stream `name` of the thing with number `number`, a machine say.
    pub fn numbered(self, name: &str, number: u64) -> Rng {
        let mut hash = mix(self.0 ^ 0x9e37_79b9_7f4a_7c15);
        for byte in name.bytes() {
            hash = mix(hash ^ u64::from(byte));
        }
        Rng::new(mix(hash ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93)))
    }
}

/// A number between `low` and `high`, every order of magnitude as likely as another: most runs get mild faults, a few
/// get fierce ones. `0 < low <= high`.
pub fn log_uniform(rng: &mut Rng, low: f64, high: f64) -> f64 {
    (low.ln() + rng.f64() * (high.ln() - low.ln())).exp()
}

/// One of `items`, which must not be empty.
pub fn pick<'a, T>(rng: &mut Rng, items: &'a [T]) -> &'a T {
    &items[index(rng, items.len())]
}

/// An index below `len`, which must not be 0.
pub fn index(rng: &mut Rng, len: usize) -> usize {
    rng.range(0..len as u64) as usize
}

/// Puts `items` in a random order.
pub fn shuffle<T>(rng: &mut Rng, items: &mut [T]) {
    for last in (1..items.len()).rev() {
        items.swap(last, index(rng, last + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_by_seed_name_and_number_and_nothing_else() {
        let first = |mut rng: Rng| rng.u64();
        let base = first(Seed(1).numbered("disk", 2));
        assert_eq!(base, first(Seed(1).numbered("disk", 2)));
        for other in [
            Seed(2).numbered("disk", 2),
            Seed(1).numbered("disc", 2),
            Seed(1).numbered("disk", 3),
            Seed(1).stream("disk"),
        ] {
            assert_ne!(base, first(other));
        }
    }

    #[test]
    fn log_uniform_stays_within_its_bounds_and_reaches_both_ends() {
        let mut rng = Rng::new(1);
        let drawn: Vec<f64> = (0..1000).map(|_| log_uniform(&mut rng, 0.001, 1.0)).collect();
        assert!(drawn.iter().all(|value| (0.001..=1.0).contains(value)));
        assert!(drawn.iter().any(|value| *value < 0.01) && drawn.iter().any(|value| *value > 0.1));
    }

    #[test]
    fn shuffling_keeps_every_item() {
        let mut items: Vec<u32> = (0..20).collect();
        shuffle(&mut Rng::new(3), &mut items);
        assert_ne!(items, (0..20).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..20).collect::<Vec<_>>());
    }
}
