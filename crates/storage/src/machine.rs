//! What log entries mean to a replicated store: the commands of `entry.rs`, carried out one by one.

use engine::Error;
use raftstore::{Machine, apply::Changes};
use types::{ApiMode, Bytes, Modify, TimeStamp};

use crate::{
    applier::{decide, is_expired},
    command::{Action, Answer},
    entry,
    safe_point::SafePoint,
};

/// Carries out commands. The same on every replica: the effect depends on the command and the data before it.
#[derive(Debug)]
pub(crate) struct CommandMachine {
    pub(crate) api: ApiMode,
    /// What transactions of this store go by.
    pub(crate) safe_point: SafePoint,
}

impl Machine for CommandMachine {
    type Answer = Answer;

    fn installing(&mut self, safe_point: TimeStamp) {
        self.safe_point.raise(safe_point);
    }

    fn apply(&mut self, command: &Bytes, changes: &mut Changes<'_>) -> Result<Answer, Error> {
        let action = entry::decode(command).map_err(|error| Error::Corrupt {
            path: "the Raft log".into(),
            detail: format!("a command can't be read: {error}"),
        })?;
        match action {
            Action::Change(change) => {
                changes.push(change);
                Ok(Answer::Done)
            }
            Action::Changes(all) => {
                for change in all {
                    changes.push(change);
                }
                Ok(Answer::Done)
            }
            Action::Collect { safe_point, changes: all } => {
                // Before anybody can see what is removed.
                self.safe_point.raise(safe_point);
                changes.raise_safe_point(safe_point);
                for change in all {
                    changes.push(change);
                }
                Ok(Answer::Done)
            }
            Action::CompareAndSwap(cas) => {
                let stored = changes.get(cas.cf, &cas.key)?;
                let (swapped, change) = decide(self.api, cas, stored)?;
                if let Some(change) = change {
                    changes.push(change);
                }
                Ok(Answer::Swapped(swapped))
            }
            Action::RemoveExpired { now_ms, keys } => {
                let mut removed = 0;
                for (cf, key) in keys {
                    let stored = changes.get(cf, &key)?;
                    if is_expired(self.api, cf, &key, stored.as_ref(), now_ms)? {
                        changes.push(Modify::Delete { cf, key });
                        removed += 1;
                    }
                }
                Ok(Answer::Removed(removed))
            }
        }
    }
}
