//! Which faults there are, and in which order a run has them.

use super::processes::Place;

/// A fault, or a group of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Nemesis {
    /// kill -9 of the store that leads the probe's region.
    KillLeader,
    /// kill -9 of a store.
    KillOne,
    /// kill -9 of all stores at once.
    KillAll,
    /// SIGSTOP and SIGCONT of a store.
    Pause,
    /// SIGSTOP and SIGCONT of the store that leads the probe's region.
    PauseLeader,
    /// kill -9 of the scheduler: the stores must serve on.
    KillScheduler,
    /// SIGTERM and a start, one store after the other.
    RollingRestart,
    /// Links between nodes are cut, in both directions or in one, or are slow.
    Partition,
    /// A store dies, and its disk forgets what was not synced.
    PowerCut,
    /// All stores die, and all disks forget what was not synced.
    PowerCutAll,
    /// A store's disk fails every write and sync: it must stop.
    SyncFailure,
    /// A store's disk is full for a while.
    DiskFull,
}

impl Nemesis {
    /// All of them.
    pub const ALL: [Nemesis; 12] = [
        Nemesis::KillLeader,
        Nemesis::KillOne,
        Nemesis::KillAll,
        Nemesis::Pause,
        Nemesis::PauseLeader,
        Nemesis::KillScheduler,
        Nemesis::RollingRestart,
        Nemesis::Partition,
        Nemesis::PowerCut,
        Nemesis::PowerCutAll,
        Nemesis::SyncFailure,
        Nemesis::DiskFull,
    ];

    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Nemesis::KillLeader => "kill-leader",
            Nemesis::KillOne => "kill-one",
            Nemesis::KillAll => "kill-all",
            Nemesis::Pause => "pause",
            Nemesis::PauseLeader => "pause-leader",
            Nemesis::KillScheduler => "kill-scheduler",
            Nemesis::RollingRestart => "rolling-restart",
            Nemesis::Partition => "partition",
            Nemesis::PowerCut => "power-cut",
            Nemesis::PowerCutAll => "power-cut-all",
            Nemesis::SyncFailure => "sync-failure",
            Nemesis::DiskFull => "disk-full",
        }
    }

    /// Whether it counts as a kill -9 of stores.
    pub fn is_kill(self) -> bool {
        matches!(self, Nemesis::KillLeader | Nemesis::KillOne | Nemesis::KillAll)
    }

    /// Whether it needs a disk of its own for each store.
    pub fn needs_disks(self) -> bool {
        matches!(
            self,
            Nemesis::PowerCut | Nemesis::PowerCutAll | Nemesis::SyncFailure | Nemesis::DiskFull
        )
    }

    /// How many of it come with so many kills.
    fn count(self, kills: u32) -> u32 {
        match self {
            // What the two others leave.
            Nemesis::KillLeader => {
                kills - Nemesis::KillOne.count(kills) - Nemesis::KillAll.count(kills)
            }
            Nemesis::KillOne => kills / 3,
            Nemesis::KillAll => kills / 8,
            Nemesis::Pause | Nemesis::PauseLeader | Nemesis::Partition => kills.div_ceil(6),
            Nemesis::KillScheduler => kills.div_ceil(15),
            Nemesis::RollingRestart => kills.div_ceil(30),
            Nemesis::PowerCut => kills.div_ceil(8),
            Nemesis::PowerCutAll => kills.div_ceil(30),
            Nemesis::SyncFailure | Nemesis::DiskFull => kills.div_ceil(6),
        }
    }
}

impl std::str::FromStr for Nemesis {
    type Err = String;

    fn from_str(name: &str) -> Result<Nemesis, String> {
        let names: Vec<_> = Nemesis::ALL.iter().map(|nemesis| nemesis.name()).collect();
        Nemesis::ALL
            .into_iter()
            .find(|nemesis| nemesis.name() == name)
            .ok_or_else(|| format!("one of {}", names.join(", ")))
    }
}

/// The nemeses of a run with so many kills, in a random order. With `only`, nothing else; kills are then spread over
/// those kills that are in it.
pub fn plan(kills: u32, only: &[Nemesis], rng: &mut fastrand::Rng) -> Vec<Nemesis> {
    let chosen = |nemesis: &Nemesis| only.is_empty() || only.contains(nemesis);
    let mut plan = Vec::new();
    for nemesis in Nemesis::ALL.into_iter().filter(chosen) {
        plan.extend((0..nemesis.count(kills)).map(|_| nemesis));
    }
    let kinds: Vec<Nemesis> =
        Nemesis::ALL.into_iter().filter(chosen).filter(|n| n.is_kill()).collect();
    let planned = plan.iter().filter(|nemesis| nemesis.is_kill()).count();
    let missing = (kills as usize).saturating_sub(planned);
    plan.extend(kinds.iter().cycle().take(missing));
    rng.shuffle(&mut plan);
    plan
}

/// Links that are cut, each in one direction, and what to call it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// In words.
    pub name: String,
    /// From whom to whom nothing passes.
    pub links: Vec<(Place, Place)>,
    /// Nothing passes, or it passes late.
    pub is_slow: bool,
}

/// A partition of `stores` around `center`: it is cut off from the others, in one direction or both, with or without
/// the scheduler, or from one other store only; or everything is slow.
pub fn partition(center: Place, stores: &[Place], rng: &mut fastrand::Rng) -> Partition {
    let others: Vec<Place> = stores.iter().copied().filter(|store| *store != center).collect();
    let from = |others: &[Place]| others.iter().map(|other| (*other, center)).collect::<Vec<_>>();
    let to = |others: &[Place]| others.iter().map(|other| (center, *other)).collect::<Vec<_>>();
    let both = |others: &[Place]| [from(others), to(others)].concat();
    let and_scheduler = [others.clone(), vec![Place::Scheduler]].concat();
    let (name, links) = match rng.u32(0..6) {
        0 => (format!("{center} alone"), both(&others)),
        1 => (format!("{center} alone, without scheduler"), both(&and_scheduler)),
        2 => (format!("{center} hears nobody"), from(&others)),
        3 => (format!("nobody hears {center}"), to(&others)),
        4 => (format!("{center} and {} apart", others[0]), both(&others[..1])),
        _ => {
            let all = stores.iter().flat_map(|from| stores.iter().map(move |to| (*from, *to)));
            let links = all.filter(|(from, to)| from != to).collect();
            return Partition { name: "all slow".to_owned(), links, is_slow: true };
        }
    };
    Partition { name, links, is_slow: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_has_its_kills_and_some_of_everything() {
        for kills in [1, 2, 30, 1000] {
            let plan = plan(kills, &[], &mut fastrand::Rng::with_seed(1));
            let executed = plan.iter().filter(|nemesis| nemesis.is_kill()).count();
            assert_eq!(executed, kills as usize);
        }
        let plan = plan(30, &[], &mut fastrand::Rng::with_seed(1));
        let count = |nemesis| plan.iter().filter(|planned| **planned == nemesis).count();
        assert!(10 <= count(Nemesis::Pause) + count(Nemesis::PauseLeader));
        for nemesis in Nemesis::ALL {
            assert!(0 < count(nemesis), "{nemesis:?}");
        }
        for nemesis in [Nemesis::SyncFailure, Nemesis::DiskFull] {
            assert_eq!(count(nemesis), 5);
        }
        assert_eq!(count(Nemesis::PowerCut) + count(Nemesis::PowerCutAll), 5);
    }

    #[test]
    fn a_choice_leaves_everything_else_out() {
        let only = [Nemesis::KillOne, Nemesis::Pause];
        let plan = plan(10, &only, &mut fastrand::Rng::with_seed(1));
        assert!(plan.iter().all(|nemesis| only.contains(nemesis)));
        assert_eq!(plan.iter().filter(|nemesis| nemesis.is_kill()).count(), 10);
    }

    #[test]
    fn names_are_read_back() {
        for nemesis in Nemesis::ALL {
            assert_eq!(nemesis.name().parse(), Ok(nemesis));
        }
        assert!("flood".parse::<Nemesis>().unwrap_err().contains("kill-leader"));
    }

    #[test]
    fn a_partition_leaves_a_majority_that_hears_each_other() {
        let stores = [Place::Store(1), Place::Store(2), Place::Store(3)];
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..100 {
            let Partition { name, links, is_slow } = partition(Place::Store(2), &stores, &mut rng);
            assert!(!links.is_empty());
            let hurt = links.contains(&(Place::Store(1), Place::Store(3)));
            assert!(is_slow || !hurt, "{name}");
        }
    }
}
