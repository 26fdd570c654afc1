//! Safe points: how far back readers may still look, and who says so.
//!
//! Two things that clients keep apart, and so do we. The *GC safe point* is what stores act on: versions that no read
//! at or after it needs may go. It only grows. A *service safe point* is a service's wish that nothing after it goes: a
//! backup or a changefeed renews its wish before it expires, and whoever advances the GC safe point first asks for the
//! smallest wish. The service `gc_worker`, which is that somebody, has a wish that never expires; it exists from the
//! beginning, at 0.
//!
//! A wish below the smallest one is refused: those versions may be gone already.

use std::collections::BTreeMap;

use types::{Bytes, TimeStamp};

/// The service that advances the GC safe point.
pub(crate) const GC_WORKER: &[u8] = b"gc_worker";

/// The second at which what never expires expires: the wire's largest number.
pub(crate) const NEVER: u64 = i64::MAX.cast_unsigned();

/// The smallest service safe point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSafePoint {
    /// Whose it is.
    pub service: Bytes,
    /// The safe point.
    pub safe_point: TimeStamp,
    /// In how many seconds it expires.
    pub ttl_seconds: i64,
}

/// The safe points.
#[derive(Clone, Debug)]
pub(crate) struct SafePoints {
    pub(crate) gc: TimeStamp,
    pub(crate) services: BTreeMap<Bytes, Wish>,
}

/// A service safe point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) safe_point: TimeStamp,
    /// The last second (since 1970) in which it counts.
    pub(crate) expires_at: u64,
}

impl Default for SafePoints {
    fn default() -> SafePoints {
        let gc_worker = Wish { safe_point: TimeStamp::ZERO, expires_at: NEVER };
        SafePoints {
            gc: TimeStamp::ZERO,
            services: BTreeMap::from([(Bytes::from_static(GC_WORKER), gc_worker)]),
        }
    }
}

impl SafePoints {
    /// The smallest wish; of several, that of the first service by name.
    pub(crate) fn smallest(&self, now_seconds: u64) -> ServiceSafePoint {
        let alive = self.services.iter().filter(|(_, wish)| now_seconds <= wish.expires_at);
        let (service, wish) = alive
            .min_by_key(|(_, wish)| wish.safe_point)
            .expect("gc_worker never expires and is never removed");
        let ttl_seconds = i64::try_from(wish.expires_at - now_seconds).unwrap_or(i64::MAX);
        ServiceSafePoint { service: service.clone(), safe_point: wish.safe_point, ttl_seconds }
    }

    /// The services whose wishes have expired.
    pub(crate) fn expired(&self, now_seconds: u64) -> Vec<Bytes> {
        let expired = self.services.iter().filter(|(_, wish)| wish.expires_at < now_seconds);
        expired.map(|(service, _)| service.clone()).collect()
    }
}
