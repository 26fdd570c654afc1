//! Sizes in bytes as people write them: `256MiB`, `1GiB`, and TiKV's `96MB`, which means MiB too.
//!
//! Every unit is a power of 1024, whatever its spelling: TiKV reads `MB` so, and a file that is valid there must mean
//! the same here.

use std::{fmt, str::FromStr};

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// Units from the largest to the smallest, with the spellings that are read; the first one is written.
const UNITS: [(u32, &[&str]); 6] = [
    (50, &["pib", "pb", "p"]),
    (40, &["tib", "tb", "t"]),
    (30, &["gib", "gb", "g"]),
    (20, &["mib", "mb", "m"]),
    (10, &["kib", "kb", "k"]),
    (0, &["b", ""]),
];

impl ByteSize {
    /// `n` KiB.
    pub const fn kib(n: u64) -> ByteSize {
        ByteSize(n << 10)
    }

    /// `n` MiB.
    pub const fn mib(n: u64) -> ByteSize {
        ByteSize(n << 20)
    }

    /// `n` GiB.
    pub const fn gib(n: u64) -> ByteSize {
        ByteSize(n << 30)
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// `numerator / denominator` of this size, rounded down.
    pub const fn share(self, numerator: u64, denominator: u64) -> ByteSize {
        // The order loses less than one byte per unit of the numerator and cannot overflow.
        ByteSize(self.0 / denominator * numerator + self.0 % denominator * numerator / denominator)
    }
}

/// Exact, and readable again: the largest unit that divides the size.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const WRITTEN: [(u32, &str); 5] =
            [(50, "PiB"), (40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        for (shift, unit) in WRITTEN {
            if self.0 != 0 && self.0.is_multiple_of(1 << shift) {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}B", self.0)
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<ByteSize, String> {
        let wrong =
            || format!("\"{text}\" is not a size: write a number and a unit, such as 256MiB");
        let trimmed = text.trim();
        let digits =
            trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(digits);
        let unit = unit.trim().to_ascii_lowercase();
        let (shift, _) =
            UNITS.iter().find(|(_, names)| names.contains(&unit.as_str())).ok_or_else(wrong)?;

        let too_large = || format!("\"{text}\" does not fit into 64 bits");
        let Some((whole, fraction)) = number.split_once('.') else {
            let n: u64 = number.parse().map_err(|_| wrong())?;
            return n.checked_mul(1 << shift).map(ByteSize).ok_or_else(too_large);
        };
        // "1.5GiB": at most six decimals, computed in whole numbers.
        if whole.is_empty() || fraction.is_empty() || fraction.len() > 6 {
            return Err(wrong());
        }
        let n: u128 = format!("{whole}{fraction}").parse().map_err(|_| wrong())?;
        let scale = 10u128.pow(u32::try_from(fraction.len()).map_err(|_| wrong())?);
        let bytes = n.checked_mul(1 << shift).ok_or_else(too_large)? / scale;
        u64::try_from(bytes).map(ByteSize).map_err(|_| too_large())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_a_power_of_1024() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("512B", 512),
            ("1KB", 1 << 10),
            ("1 KiB", 1 << 10),
            ("96MB", 96 << 20),
            ("96mib", 96 << 20),
            ("2g", 2 << 30),
            ("1.5GiB", 3 << 29),
            ("0.5k", 512),
            ("1TB", 1 << 40),
            (" 3 PiB ", 3 << 50),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "MiB",
            "12XB",
            "-1",
            "1.2.3MB",
            ".5k",
            "1.",
            "1e3",
            "17179869184GiB",
            "18446744073709551616",
        ] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn written_sizes_read_back_the_same() {
        for bytes in
            [0, 1, 1023, 1024, 1025, 256 << 20, (256 << 20) + 1, 1 << 30, 3 << 29, u64::MAX]
        {
            let size = ByteSize(bytes);
            assert_eq!(size.to_string().parse(), Ok(size));
        }
        assert_eq!(ByteSize::mib(256).to_string(), "256MiB");
        assert_eq!(ByteSize::mib(1536).to_string(), "1536MiB");
        assert_eq!(ByteSize::gib(2).to_string(), "2GiB");
    }

    #[test]
    fn shares_never_overflow() {
        assert_eq!(ByteSize(u64::MAX).share(3, 8), ByteSize(u64::MAX / 8 * 3 + 7 * 3 / 8));
        assert_eq!(ByteSize::mib(256).share(3, 8), ByteSize::mib(96));
    }
}
