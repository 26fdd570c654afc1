//! Raw write requests become commands: what is checked before a write is proposed.
//!
//! Order of the checks: what the request says by itself (API version, column family, keys, values, time to live), then
//! where it was meant to go (store, region, peer, epoch), then whether its keys lie there, and its size at last, since
//! that answer names the region.

use std::sync::Arc;

use types::{Bytes, Cf, KeyMode, Modify, Region, RegionError, RequestContext, limits};

use crate::{
    Error, KvPair, Result,
    command::{Action, Command, CompareAndSwap},
    layout::Layout,
    regions::{self, Regions},
    value,
};

/// A command, and the region that it is for.
pub(crate) type Routed = (Arc<Region>, Command);

/// What requests are checked against.
#[derive(Clone, Debug)]
pub(crate) struct Checks {
    pub(crate) layout: Layout,
    pub(crate) regions: Regions,
}

impl Checks {
    /// The column family of a request, whose API version must fit the cluster.
    pub(crate) fn begin(&self, ctx: &RequestContext, cf: &str) -> Result<Cf> {
        self.layout.check_version(ctx.api_version)?;
        Cf::parse(cf).ok_or_else(|| Error::UnknownColumnFamily(cf.to_owned()))
    }

    /// Sets a key.
    pub(crate) fn put(
        &self,
        ctx: &RequestContext,
        cf: &str,
        pair: KvPair,
        ttl_s: u64,
        now_ms: u64,
    ) -> Result<Routed> {
        let cf = self.begin(ctx, cf)?;
        let (key, value) = self.stored_pair(pair, ttl_s, now_ms)?;
        self.propose(ctx, Action::Change(Modify::Put { cf, key, value }))
    }

    /// Sets several keys. `ttls`: none, one for all, or one each.
    pub(crate) fn batch_put(
        &self,
        ctx: &RequestContext,
        cf: &str,
        pairs: Vec<KvPair>,
        ttls: &[u64],
        now_ms: u64,
    ) -> Result<Routed> {
        let cf = self.begin(ctx, cf)?;
        let n_pairs = pairs.len();
        if 1 < ttls.len() && ttls.len() != n_pairs {
            return Err(Error::InvalidRequest(format!(
                "the request has {n_pairs} pairs and {} times to live: none, one, or one each is right",
                ttls.len()
            )));
        }
        let ttl_of = |at: usize| *ttls.get(at).or(ttls.first()).unwrap_or(&0);
        let mut changes = Vec::with_capacity(n_pairs);
        for (at, pair) in pairs.into_iter().enumerate() {
            let (key, value) = self.stored_pair(pair, ttl_of(at), now_ms)?;
            changes.push(Modify::Put { cf, key, value });
        }
        self.propose(ctx, Action::Changes(changes))
    }

    /// Removes a key.
    pub(crate) fn delete(&self, ctx: &RequestContext, cf: &str, key: Bytes) -> Result<Routed> {
        let cf = self.begin(ctx, cf)?;
        let key = self.layout.stored_bytes(key)?;
        self.propose(ctx, Action::Change(Modify::Delete { cf, key }))
    }

    /// Removes several keys.
    pub(crate) fn batch_delete(
        &self,
        ctx: &RequestContext,
        cf: &str,
        keys: Vec<Bytes>,
    ) -> Result<Routed> {
        let cf = self.begin(ctx, cf)?;
        let delete = |key| Ok(Modify::Delete { cf, key: self.layout.stored_bytes(key)? });
        let changes = keys.into_iter().map(delete).collect::<Result<_>>()?;
        self.propose(ctx, Action::Changes(changes))
    }

    /// Removes a range of keys, which must lie in the region as a whole: a part would be taken for all of it.
    pub(crate) fn delete_range(
        &self,
        ctx: &RequestContext,
        cf: &str,
        start: &[u8],
        end: &[u8],
    ) -> Result<Routed> {
        let cf = self.begin(ctx, cf)?;
        let range = self.layout.stored_range(start, end)?;
        if range.is_empty() {
            return Err(Error::InvalidRequest(
                "the range is empty, or ends before it begins".to_owned(),
            ));
        }
        self.propose(ctx, Action::Change(Modify::DeleteRange { cf, range }))
    }

    /// Replaces the value of a key if it is the expected one.
    #[expect(clippy::too_many_arguments, reason = "the request's own fields")]
    pub(crate) fn compare_and_swap(
        &self,
        ctx: &RequestContext,
        cf: &str,
        key: Bytes,
        expected: Option<Bytes>,
        new: Option<Bytes>,
        ttl_s: u64,
        now_ms: u64,
    ) -> Result<Routed> {
        let cf = self.begin(ctx, cf)?;
        let key = self.layout.stored_bytes(key)?;
        if let Some(expected) = &expected {
            check_value(expected)?;
        }
        let expire_at_ms = self.expire_at_ms(ttl_s, now_ms)?;
        let new = match new {
            Some(new) => {
                check_value(&new)?;
                Some(value::encode(self.layout.api(), new, expire_at_ms))
            }
            None => None,
        };
        self.propose(ctx, Action::CompareAndSwap(CompareAndSwap { cf, key, expected, new, now_ms }))
    }

    /// Removes every key between the bounds from all column families. `held` is the kind of data in mode v1.
    pub(crate) fn destroy_range(
        &self,
        start: &Bytes,
        end: &Bytes,
        held: Option<KeyMode>,
    ) -> Result<Command> {
        let range = self.layout.destroyed_range(start, end, held)?;
        let families = if range.is_empty() { &[][..] } else { &Cf::ALL };
        let changes =
            families.iter().map(|&cf| Modify::DeleteRange { cf, range: range.clone() }).collect();
        Ok(Command::new(Action::Changes(changes)))
    }

    fn stored_pair(&self, pair: KvPair, ttl_s: u64, now_ms: u64) -> Result<(Bytes, Bytes)> {
        let key = self.layout.stored_bytes(pair.key)?;
        check_value(&pair.value)?;
        let expire_at_ms = self.expire_at_ms(ttl_s, now_ms)?;
        Ok((key, value::encode(self.layout.api(), pair.value, expire_at_ms)))
    }

    fn expire_at_ms(&self, ttl_s: u64, now_ms: u64) -> Result<Option<u64>> {
        if ttl_s != 0 && !self.layout.api().has_ttl() {
            return Err(Error::TtlNotEnabled);
        }
        Ok(value::expire_at_ms(now_ms, ttl_s))
    }

    /// Checks that `action` was sent to the right place and fits there.
    fn propose(&self, ctx: &RequestContext, action: Action) -> Result<Routed> {
        let region = self.regions.check(ctx)?;
        match &action {
            Action::Change(change) => check_change(&region, change)?,
            Action::Changes(changes) | Action::Collect { changes, .. } => {
                changes.iter().try_for_each(|change| check_change(&region, change))?
            }
            Action::CompareAndSwap(cas) => regions::check_key(&region, &cas.key)?,
            Action::RemoveExpired { keys, .. } => {
                keys.iter().try_for_each(|(_, key)| regions::check_key(&region, key))?;
            }
        }
        let command = Command::new(action);
        let size = command.size();
        if limits::ENTRY_BYTES_MAX < size {
            return Err(
                RegionError::RaftEntryTooLarge { region: region.id, size: size as u64 }.into()
            );
        }
        Ok((region, command))
    }
}

fn check_change(region: &Region, change: &Modify) -> Result<()> {
    match change {
        Modify::Put { key, .. } | Modify::Delete { key, .. } => regions::check_key(region, key),
        Modify::DeleteRange { range, .. } if region.range.covers(range) => Ok(()),
        Modify::DeleteRange { range, .. } => {
            let outside =
                if region.range.contains(&range.start) { &range.end } else { &range.start };
            Err(regions::key_not_in_region(region, outside))
        }
    }
}

fn check_value(value: &[u8]) -> Result<()> {
    if limits::VALUE_BYTES_MAX < value.len() {
        Err(Error::ValueTooLarge { size: value.len() })
    } else {
        Ok(())
    }
}
