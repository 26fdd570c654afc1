//! The network between machines: frames that are delayed, lost, doubled, reordered, damaged, or not let through.
//!
//! Every directed link is on its own: a partition may let through one direction only, and one link may be clogged
//! while the others are quick. A frame that is under way when its link is cut is lost.
//!
//! Frames are what a real link would carry: a length, a CRC32C, the payload ([`types::codec`]). Damage is done to the
//! bytes, and the receiver has only the checksum to notice it.

use bytes::Bytes;
use runtime::Rng;
use types::codec::{RECORD_HEADER, get_record, put_record};

use super::queue::Time;
use crate::rng::index;

/// How bad the network is.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkOptions {
    /// Microseconds that the quickest frame takes.
    pub delay_min: u64,
    /// Microseconds that a frame takes more than that, on average (the distribution is exponential).
    pub delay_mean: u64,
    /// How often a frame is slow, by twenty times.
    pub slow: f64,
    /// How often a frame is lost.
    pub loss: f64,
    /// How often a frame arrives twice.
    pub duplicate: f64,
    /// How often a frame may overtake earlier ones.
    pub reorder: f64,
    /// How often a bit or several of a frame are flipped.
    pub corrupt: f64,
}

impl NetworkOptions {
    /// A network without faults.
    pub fn healthy(delay_min: u64, delay_mean: u64) -> NetworkOptions {
        NetworkOptions {
            delay_min,
            delay_mean,
            slow: 0.0,
            loss: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            corrupt: 0.0,
        }
    }
}

/// What the network did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkCounters {
    /// Frames handed to the network.
    pub sent: u64,
    /// Frames that were lost by chance.
    pub lost: u64,
    /// Frames that a partition stopped.
    pub blocked: u64,
    /// Frames that arrived twice.
    pub duplicated: u64,
    /// Frames whose bytes were damaged.
    pub corrupted: u64,
    /// Damaged frames that the checksum noticed.
    pub detected: u64,
}

/// A frame on its way.
#[derive(Clone, Debug)]
pub struct Frame {
    bytes: Bytes,
    damaged: bool,
}

/// Why a frame was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The checksum noticed damage, as it must.
    Damaged,
    /// The bytes were damaged and the checksum did not notice.
    Unnoticed,
}

impl Frame {
    /// A frame with `payload`.
    pub fn new(payload: &[u8]) -> Frame {
        let mut bytes = Vec::new();
        put_record(&mut bytes, 1, payload);
        Frame { bytes: Bytes::from(bytes), damaged: false }
    }

    /// What the receiver makes of it.
    pub fn open(&self) -> Result<Bytes, FrameError> {
        match get_record(&self.bytes) {
            Ok(_) if self.damaged => Err(FrameError::Unnoticed),
            Ok(_) => Ok(self.bytes.slice(RECORD_HEADER..)),
            Err(_) => Err(FrameError::Damaged),
        }
    }

    /// Its checksum, which stands for its content in the trace.
    pub fn fingerprint(&self) -> u64 {
        let mut first = [0; 8];
        first.copy_from_slice(&self.bytes[..8]);
        u64::from_be_bytes(first)
    }

    fn damage(&mut self, rng: &mut Rng) {
        let mut bytes = self.bytes.to_vec();
        // Up to three bits: CRC32C notices every such error in frames of this size.
        for _ in 0..=index(rng, 3) {
            let bit = index(rng, bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        self.damaged = bytes != self.bytes;
        self.bytes = Bytes::from(bytes);
    }
}

/// All links between `machines` machines.
#[derive(Debug)]
pub struct Network {
    machines: usize,
    options: NetworkOptions,
    rng: Rng,
    links: Vec<Link>,
    /// What it did so far.
    pub counters: NetworkCounters,
}

#[derive(Clone, Debug, Default)]
struct Link {
    blocked: bool,
    /// Nothing arrives before.
    clogged_until: Time,
    /// When the last frame that keeps order arrives.
    last: Time,
}

impl Network {
    /// A network in which everybody reaches everybody.
    pub fn new(machines: usize, options: NetworkOptions, rng: Rng) -> Network {
        Network {
            machines,
            options,
            rng,
            links: vec![Link::default(); machines * machines],
            counters: NetworkCounters::default(),
        }
    }

    /// Replaces the probabilities and delays; partitions stay.
    pub fn set_options(&mut self, options: NetworkOptions) {
        self.options = options;
    }

    /// Takes a frame at `now`, and says when it arrives: not at all, once or twice.
    pub fn send(&mut self, now: Time, from: usize, to: usize, frame: Frame) -> Vec<(Time, Frame)> {
        let times = self.arrivals(now, from, to);
        let mut copies: Vec<(Time, Frame)> =
            times.into_iter().map(|time| (time, frame.clone())).collect();
        for (_, copy) in &mut copies {
            if self.rng.chance(self.options.corrupt) {
                copy.damage(&mut self.rng);
                self.counters.corrupted += u64::from(copy.damaged);
            }
        }
        copies
    }

    /// When something that is sent at `now` arrives, undamaged: not at all, once or twice. For messages that are handed
    /// over as they are.
    pub fn arrivals(&mut self, now: Time, from: usize, to: usize) -> Vec<Time> {
        self.counters.sent += 1;
        if self.links[self.link(from, to)].blocked {
            self.counters.blocked += 1;
            return Vec::new();
        }
        if self.rng.chance(self.options.loss) {
            self.counters.lost += 1;
            return Vec::new();
        }
        let mut times = vec![self.arrival(now, from, to)];
        if self.rng.chance(self.options.duplicate) {
            self.counters.duplicated += 1;
            times.push(self.arrival(now, from, to));
        }
        times
    }

    /// Whether a frame that has been on its way gets through at the end.
    pub fn lets_through(&mut self, from: usize, to: usize) -> bool {
        let blocked = self.links[self.link(from, to)].blocked;
        self.counters.blocked += u64::from(blocked);
        !blocked
    }

    /// Cuts or joins the link in one direction.
    pub fn set_blocked(&mut self, from: usize, to: usize, blocked: bool) {
        let link = self.link(from, to);
        self.links[link].blocked = blocked;
    }

    /// Whether the link is cut in this direction.
    pub fn is_blocked(&self, from: usize, to: usize) -> bool {
        self.links[self.link(from, to)].blocked
    }

    /// Joins every link and ends every clog.
    pub fn heal(&mut self) {
        for link in &mut self.links {
            link.blocked = false;
            link.clogged_until = 0;
        }
    }

    /// Holds back everything that is sent over the link from now on until `until`.
    pub fn clog(&mut self, from: usize, to: usize, until: Time) {
        let link = self.link(from, to);
        self.links[link].clogged_until = until;
    }

    fn arrival(&mut self, now: Time, from: usize, to: usize) -> Time {
        let options = &self.options;
        let mut delay = exponential(&mut self.rng, options.delay_mean);
        if self.rng.chance(options.slow) {
            delay = (delay + options.delay_min) * 20;
        }
        let in_order = !self.rng.chance(options.reorder);
        let index = self.link(from, to);
        let link = &mut self.links[index];
        let mut arrival = (now + self.options.delay_min + delay).max(link.clogged_until);
        if in_order {
            arrival = arrival.max(link.last);
            link.last = arrival;
        }
        arrival
    }

    fn link(&self, from: usize, to: usize) -> usize {
        from * self.machines + to
    }
}

/// A number with an exponential distribution, at most ten times its mean.
pub(crate) fn exponential(rng: &mut Rng, mean: u64) -> u64 {
    let drawn = -(1.0 - rng.f64()).ln() * mean as f64;
    (drawn as u64).min(mean.saturating_mul(10))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(change: impl FnOnce(&mut NetworkOptions)) -> Network {
        let mut options = NetworkOptions::healthy(100, 1000);
        change(&mut options);
        Network::new(3, options, Rng::new(5))
    }

    fn arrivals(network: &mut Network, count: u64) -> Vec<Time> {
        let frame = Frame::new(b"hello");
        let sent = (0..count).flat_map(|now| network.send(now, 0, 1, frame.clone()));
        sent.map(|(time, _)| time).collect()
    }

    #[test]
    fn a_healthy_link_delivers_everything_in_order() {
        let times = arrivals(&mut network(|_| ()), 500);
        assert_eq!(times.len(), 500);
        assert!(times.is_sorted() && times[0] >= 100);
    }

    #[test]
    fn frames_overtake_if_they_may() {
        assert!(!arrivals(&mut network(|options| options.reorder = 0.5), 500).is_sorted());
    }

    #[test]
    fn frames_are_lost_and_doubled_about_as_often_as_said() {
        let lost = arrivals(&mut network(|options| options.loss = 0.3), 2000).len();
        let doubled = arrivals(&mut network(|options| options.duplicate = 0.3), 2000).len();
        assert!((1300..1500).contains(&lost) && (2500..2700).contains(&doubled));
    }

    #[test]
    fn a_cut_link_is_cut_in_one_direction_also_for_what_is_under_way() {
        let mut network = network(|_| ());
        network.set_blocked(0, 1, true);
        assert!(network.send(0, 0, 1, Frame::new(b"")).is_empty());
        assert_eq!(network.send(0, 1, 0, Frame::new(b"")).len(), 1);
        assert!(!network.lets_through(0, 1) && network.lets_through(1, 0));
        network.heal();
        assert!(network.lets_through(0, 1));
        assert_eq!(network.counters.blocked, 2);
    }

    #[test]
    fn a_clogged_link_delivers_late() {
        let mut network = network(|_| ());
        network.clog(0, 1, 1_000_000);
        assert!(arrivals(&mut network, 5).iter().all(|time| *time >= 1_000_000));
    }

    #[test]
    fn every_damaged_frame_is_noticed() {
        let mut network = network(|options| options.corrupt = 1.0);
        for now in 0..2000 {
            for (_, frame) in network.send(now, 0, 1, Frame::new(b"some payload of a frame")) {
                assert_eq!(frame.damaged, frame.open() == Err(FrameError::Damaged));
            }
        }
        assert!(network.counters.corrupted > 1900);
    }

    #[test]
    fn a_checksum_that_misses_damage_would_be_told() {
        let mut frame = Frame::new(b"payload");
        assert_eq!(frame.open().unwrap(), &b"payload"[..]);
        frame.damaged = true;
        assert_eq!(frame.open(), Err(FrameError::Unnoticed));
    }
}
