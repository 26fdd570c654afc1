//! Applies a group of commands: what the engine has to do, and what each command is answered.
//!
//! Commands take effect in order. Blind changes go straight into the engine's batch. A conditional command reads the
//! state *as of its turn*: the snapshot from before the group, under an overlay of what the commands before it have
//! changed. A delete-range is no part of a batch (engine contract point 6), so that it ends one step and the changes
//! after it begin another; everything is synced together at the end.
//!
//! The result depends on the commands and the snapshot only. On the write path.

use std::collections::HashMap;

use engine::{Family, Snapshot, WriteBatch};
use types::{ApiMode, Bytes, Cf, KeyRange, Modify};

use crate::{
    command::{Action, Answer, Command, CompareAndSwap, Swapped},
    identity, value,
};

/// One call of the engine.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Write(WriteBatch),
    DeleteRange(Family, KeyRange),
}

/// What a command is answered, provided that its steps succeed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) answer: Answer,
    /// Steps before the first one that holds a part of this command.
    pub(crate) begins: usize,
    /// Steps that must have succeeded for `answer` to be true: the command's own and those whose effects it saw.
    pub(crate) needs: usize,
}

/// What to do for a group of commands.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// To be done in order.
    pub(crate) steps: Vec<Step>,
    /// One per command, in order.
    pub(crate) outcomes: Vec<Outcome>,
    /// Bytes of keys and values in the steps.
    pub(crate) bytes: usize,
}

/// What became of a command when its group was cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Everything that the answer rests on was done.
    Done,
    /// Nothing of the command was done.
    Refused,
    /// Some of it may have been done.
    Unknown,
}

impl Plan {
    /// Whether there is something to sync. `refused`: the step that a full disk refused, if one was.
    pub(crate) fn leaves_something(&self, refused: Option<usize>) -> bool {
        match refused {
            None => !self.steps.is_empty(),
            // A batch that is refused leaves nothing; a delete-range may have got half way, for everybody to see.
            Some(0) => matches!(self.steps[0], Step::DeleteRange(..)),
            Some(_) => true,
        }
    }

    /// What became of a command when step `failed` was refused because the disk is full. The steps before it were
    /// done, those after it were not tried.
    pub(crate) fn fate_on_full_disk(&self, outcome: &Outcome, failed: usize) -> Fate {
        // A batch that is refused leaves nothing; a delete-range may have got half way.
        let leaves_nothing = matches!(self.steps.get(failed), Some(Step::Write(_)));
        if outcome.needs <= failed {
            Fate::Done
        } else if failed < outcome.begins || (outcome.begins == failed && leaves_nothing) {
            Fate::Refused
        } else {
            Fate::Unknown
        }
    }

    /// What became of a command when step `failed` failed for good (`steps.len()`: the sync). What was done before
    /// it can't be made durable any more, and may or may not be found after a restart.
    pub(crate) fn fate_on_failure(&self, outcome: &Outcome, failed: usize) -> Fate {
        if failed < outcome.begins { Fate::Refused } else { Fate::Unknown }
    }
}

/// Works out the effects and answers of `commands`.
///
/// `snapshot` is the state before the group; it must be there if a command is conditional.
pub(crate) fn apply(
    api: ApiMode,
    commands: impl IntoIterator<Item = Command>,
    snapshot: Option<&dyn Snapshot>,
) -> Result<Plan, engine::Error> {
    let mut applier = Applier {
        api,
        before: snapshot,
        overlay: snapshot.map(|_| Overlay::default()),
        plan: Plan::default(),
    };
    for command in commands {
        applier.apply(command)?;
    }
    Ok(applier.plan)
}

/// What a compare-and-swap does where `stored` lies, and what it is answered.
pub(crate) fn decide(
    api: ApiMode,
    cas: CompareAndSwap,
    stored: Option<Bytes>,
) -> Result<(Swapped, Option<Modify>), engine::Error> {
    let CompareAndSwap { cf, key, expected, new, now_ms } = cas;
    let previous = match stored {
        Some(stored) => {
            value::live(api, stored, now_ms).map_err(|error| value::damaged(cf, &key, error))?
        }
        None => None,
    };
    let succeeded = previous == expected;
    let change = succeeded.then(|| match new {
        Some(value) => Modify::Put { cf, key, value },
        None => Modify::Delete { cf, key },
    });
    Ok((Swapped { succeeded, previous }, change))
}

/// Whether the value that is stored at a key has expired.
pub(crate) fn is_expired(
    api: ApiMode,
    cf: Cf,
    key: &Bytes,
    stored: Option<&Bytes>,
    now_ms: u64,
) -> Result<bool, engine::Error> {
    let Some(stored) = stored else { return Ok(false) };
    let parts = value::decode(api, stored).map_err(|error| value::damaged(cf, key, error))?;
    Ok(parts.is_expired(now_ms))
}

struct Applier<'s> {
    api: ApiMode,
    before: Option<&'s dyn Snapshot>,
    /// Kept only when a command of the group reads.
    overlay: Option<Overlay>,
    plan: Plan,
}

/// What the commands of this group have changed so far.
#[derive(Default)]
struct Overlay {
    /// The newest value of a key, `None` if it was deleted. Wins over `cleared`.
    changed: HashMap<(Cf, Bytes), Option<Bytes>>,
    /// Ranges that were deleted.
    cleared: Vec<(Cf, KeyRange)>,
}

impl Applier<'_> {
    fn apply(&mut self, command: Command) -> Result<(), engine::Error> {
        // What a command without effects has seen: everything so far.
        let seen = self.plan.steps.len();
        let mut begins = None;
        if let Some(mode) = command.key_mode {
            let at = self.batch(|batch| identity::record_key_mode(batch, mode));
            begins.get_or_insert(at);
        }
        let answer = match command.action {
            Action::Change(change) => {
                begins.get_or_insert(self.change(change));
                Answer::Done
            }
            Action::Changes(changes) | Action::Collect { changes, .. } => {
                for change in changes {
                    let at = self.change(change);
                    begins.get_or_insert(at);
                }
                Answer::Done
            }
            Action::CompareAndSwap(cas) => {
                let (swapped, change) = self.compare_and_swap(cas)?;
                if let Some(change) = change {
                    let at = self.change(change);
                    begins.get_or_insert(at);
                }
                Answer::Swapped(swapped)
            }
            Action::RemoveExpired { now_ms, keys } => {
                let mut removed = 0;
                for (cf, key) in keys {
                    let stored = self.get(cf, &key)?;
                    if is_expired(self.api, cf, &key, stored.as_ref(), now_ms)? {
                        let at = self.change(Modify::Delete { cf, key });
                        begins.get_or_insert(at);
                        removed += 1;
                    }
                }
                Answer::Removed(removed)
            }
        };
        let (begins, needs) = begins.map_or((seen, seen), |begins| (begins, self.plan.steps.len()));
        self.plan.outcomes.push(Outcome { answer, begins, needs });
        Ok(())
    }

    /// Decides a compare-and-swap; returns its effect.
    fn compare_and_swap(
        &self,
        cas: CompareAndSwap,
    ) -> Result<(Swapped, Option<Modify>), engine::Error> {
        let stored = self.get(cas.cf, &cas.key)?;
        decide(self.api, cas, stored)
    }

    /// The stored value of `key` as of now.
    fn get(&self, cf: Cf, key: &Bytes) -> Result<Option<Bytes>, engine::Error> {
        let before = self.before.expect("a group with a conditional command has a snapshot");
        let overlay = self.overlay.as_ref().expect("a group with a snapshot has an overlay");
        if let Some(changed) = overlay.changed.get(&(cf, key.clone())) {
            return Ok(changed.clone());
        }
        if overlay.cleared.iter().any(|(cleared, range)| *cleared == cf && range.contains(key)) {
            return Ok(None);
        }
        before.get(cf.into(), key)
    }

    /// Adds a change to the steps; returns the number of the step.
    fn change(&mut self, change: Modify) -> usize {
        self.plan.bytes += change.size();
        match change {
            Modify::Put { cf, key, value } => {
                if let Some(overlay) = &mut self.overlay {
                    overlay.changed.insert((cf, key.clone()), Some(value.clone()));
                }
                self.batch(|batch| batch.put(cf, key, value))
            }
            Modify::Delete { cf, key } => {
                if let Some(overlay) = &mut self.overlay {
                    overlay.changed.insert((cf, key.clone()), None);
                }
                self.batch(|batch| batch.delete(cf, key))
            }
            Modify::DeleteRange { cf, range } => {
                if let Some(overlay) = &mut self.overlay {
                    overlay
                        .changed
                        .retain(|(changed, key), _| *changed != cf || !range.contains(key));
                    overlay.cleared.push((cf, range.clone()));
                }
                self.plan.steps.push(Step::DeleteRange(cf.into(), range));
                self.plan.steps.len() - 1
            }
        }
    }

    /// Adds to the batch at the end of the steps; returns the number of its step.
    fn batch(&mut self, add: impl FnOnce(&mut WriteBatch)) -> usize {
        if !matches!(self.plan.steps.last(), Some(Step::Write(_))) {
            self.plan.steps.push(Step::Write(WriteBatch::new()));
        }
        let Some(Step::Write(batch)) = self.plan.steps.last_mut() else {
            unreachable!("it was just put there")
        };
        add(batch);
        self.plan.steps.len() - 1
    }
}

#[cfg(test)]
mod tests;
