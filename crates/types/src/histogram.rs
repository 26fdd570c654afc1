//! Counts of values, for metrics.

/// Counts of values by powers of two: bucket 0 counts zeros, bucket `i` the values from `2^(i-1)` up to but without
/// `2^i`, and the last one everything above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Histogram<const N: usize> {
    /// How many values each bucket has.
    pub buckets: [u64; N],
    /// The sum of all values.
    pub sum: u64,
}

impl<const N: usize> Histogram<N> {
    /// Counts `value`.
    pub fn add(&mut self, value: u64) {
        self.buckets[Histogram::<N>::bucket(value)] += 1;
        self.sum = self.sum.saturating_add(value);
    }

    /// The bucket that counts `value`.
    pub fn bucket(value: u64) -> usize {
        let bits = (u64::BITS - value.leading_zeros()) as usize;
        bits.min(N - 1)
    }

    /// The smallest value that bucket `index` does not count; `None` for the last one.
    pub fn bound(index: usize) -> Option<u64> {
        (index + 1 < N).then(|| 1 << index)
    }
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Histogram<N> {
        Histogram { buckets: [0; N], sum: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_into_their_buckets() {
        let mut histogram = Histogram::<4>::default();
        for value in [0, 1, 2, 3, 4, 7, 1 << 40] {
            histogram.add(value);
        }
        assert_eq!((histogram.buckets, histogram.sum), ([1, 1, 2, 3], 17 + (1 << 40)));
        assert_eq!([0, 1, 2, 3].map(Histogram::<4>::bound), [Some(1), Some(2), Some(4), None]);
    }
}
