//! Zipf-distributed ranks by rejection-inversion (Hörmann and Derflinger, 1996).
//!
//! Rank `k` of `1..=n` has a probability proportional to `k^-s`. The idea: the area under the continuous `x^-s` is
//! easy to invert; draw a point of that area, round to the nearest rank, and reject the few points that the rounding
//! gave too much. It needs no table, so ten million keys cost what ten do, and about 1.1 tries per number.
//!
//! Invariant: every rank is in `1..=n`. Exponents are positive and not 1 (0.99 is the field's "zipfian").

/// A distribution over the ranks `1..=n`.
#[derive(Clone, Debug)]
pub(crate) struct Zipf {
    n: f64,
    exponent: f64,
    /// Area up to the left edge of rank 1, where its whole probability is put as a bar.
    area_first: f64,
    /// Area up to the right edge of rank `n`.
    area_last: f64,
    /// Ranks that lie no further than this above the point are accepted without computing the area.
    shortcut: f64,
}

impl Zipf {
    /// Ranks up to `n` (at least 1) with this exponent (positive, not 1).
    pub(crate) fn new(n: u64, exponent: f64) -> Zipf {
        assert!(n >= 1, "a distribution over no ranks");
        assert!(
            exponent > 0.0 && (exponent - 1.0).abs() > 1e-6,
            "exponent {exponent} is not supported"
        );
        let n = n as f64;
        let mut zipf = Zipf { n, exponent, area_first: 0.0, area_last: 0.0, shortcut: 0.0 };
        zipf.area_first = zipf.area(1.5) - 1.0;
        zipf.area_last = zipf.area(n + 0.5);
        zipf.shortcut = 2.0 - zipf.area_inverse(zipf.area(2.5) - zipf.weight(2.0));
        zipf
    }

    /// Draws a rank.
    pub(crate) fn rank(&self, rng: &mut fastrand::Rng) -> u64 {
        loop {
            let point = self.area_last + rng.f64() * (self.area_first - self.area_last);
            let x = self.area_inverse(point);
            let rank = x.round().clamp(1.0, self.n);
            if rank - x <= self.shortcut || point >= self.area(rank + 0.5) - self.weight(rank) {
                return rank as u64;
            }
        }
    }

    /// The weight of a rank, not normalised.
    fn weight(&self, x: f64) -> f64 {
        x.powf(-self.exponent)
    }

    /// The integral of the weight from 1 to `x`.
    fn area(&self, x: f64) -> f64 {
        (x.powf(1.0 - self.exponent) - 1.0) / (1.0 - self.exponent)
    }

    /// Where the integral reaches `area`.
    fn area_inverse(&self, area: f64) -> f64 {
        // Rounding may push the base below zero at the left edge for exponents above 1.
        (1.0 + area * (1.0 - self.exponent)).max(0.0).powf(1.0 / (1.0 - self.exponent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts of `draws` ranks, and what the definition expects of each.
    fn observed_and_expected(n: u64, exponent: f64, draws: u64) -> (Vec<f64>, Vec<f64>) {
        let zipf = Zipf::new(n, exponent);
        let mut rng = fastrand::Rng::with_seed(7);
        let mut observed = vec![0.0; n as usize];
        for _ in 0..draws {
            observed[zipf.rank(&mut rng) as usize - 1] += 1.0;
        }
        let weights: Vec<f64> = (1..=n).map(|rank| (rank as f64).powf(-exponent)).collect();
        let sum: f64 = weights.iter().sum();
        (observed, weights.iter().map(|weight| weight / sum * draws as f64).collect())
    }

    #[test]
    fn follows_the_definition() {
        for (n, exponent) in [(2, 0.99), (10, 0.99), (1000, 0.99), (100, 0.5), (100, 1.5)] {
            let (observed, expected) = observed_and_expected(n, exponent, 400_000);
            let chi_square: f64 =
                observed.iter().zip(&expected).map(|(o, e)| (o - e) * (o - e) / e).sum();
            // Mean of chi-square is its degrees of freedom, its variance twice that: five sigmas.
            let freedom = (n - 1) as f64;
            let bound = freedom + 5.0 * (2.0 * freedom).sqrt() + 5.0;
            assert!(
                chi_square < bound,
                "n={n} s={exponent}: chi-square {chi_square:.1}, bound {bound:.1}"
            );
        }
    }

    #[test]
    fn a_wrong_exponent_would_be_noticed() {
        let (observed, _) = observed_and_expected(1000, 0.99, 400_000);
        let (_, expected) = observed_and_expected(1000, 0.95, 400_000);
        let chi_square: f64 =
            observed.iter().zip(&expected).map(|(o, e)| (o - e) * (o - e) / e).sum();
        assert!(chi_square > 1_500.0, "chi-square {chi_square:.1}");
    }

    #[test]
    fn ranks_stay_in_bounds() {
        let mut rng = fastrand::Rng::with_seed(1);
        for n in [1, 2, 3, 10_000_000] {
            let zipf = Zipf::new(n, 0.99);
            for _ in 0..10_000 {
                assert!((1..=n).contains(&zipf.rank(&mut rng)));
            }
        }
    }
}
