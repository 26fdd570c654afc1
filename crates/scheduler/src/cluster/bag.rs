//! A bag of regions: one of them is found by its number or taken at random in constant time.

use std::collections::HashMap;

use types::RegionId;

use super::region_tree::Change;

/// Regions in no order. One that is put in twice has to be taken out twice: a report may name a peer twice.
#[derive(Clone, Debug, Default)]
pub(super) struct Bag {
    list: Vec<RegionId>,
    /// Where in the list, and how often it was put in.
    places: HashMap<RegionId, (usize, usize)>,
}

impl Bag {
    pub(super) fn as_slice(&self) -> &[RegionId] {
        &self.list
    }

    pub(super) fn change(&mut self, id: RegionId, change: Change) {
        match change {
            Change::Add => self.add(id),
            Change::Remove => self.remove(id),
        }
    }

    fn add(&mut self, id: RegionId) {
        let end = self.list.len();
        let (_, times) = self.places.entry(id).or_insert((end, 0));
        *times += 1;
        if *times == 1 {
            self.list.push(id);
        }
    }

    fn remove(&mut self, id: RegionId) {
        let (place, times) = self.places.get_mut(&id).expect("only what is there is taken out");
        *times -= 1;
        if *times > 0 {
            return;
        }
        let place = *place;
        self.places.remove(&id);
        self.list.swap_remove(place);
        if let Some(moved) = self.list.get(place) {
            self.places.get_mut(moved).expect("the list names what is there").0 = place;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use runtime::Rng;

    use super::*;

    #[test]
    fn a_bag_is_what_was_put_in_and_not_taken_out() {
        let mut rng = Rng::new(1);
        let (mut bag, mut model) = (Bag::default(), BTreeMap::new());
        for _ in 0..2000 {
            let id = RegionId(rng.range(0..20));
            let times = model.entry(id).or_insert(0);
            if *times > 0 && rng.chance(0.5) {
                *times -= 1;
                bag.change(id, Change::Remove);
            } else {
                *times += 1;
                bag.change(id, Change::Add);
            }
            let mut list = bag.as_slice().to_vec();
            list.sort();
            let there = model.iter().filter(|(_, times)| **times > 0).map(|(id, _)| *id);
            assert!(list.into_iter().eq(there));
        }
    }
}
