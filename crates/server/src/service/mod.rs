//! The services: one async function per RPC. What stores serve: [`kv`] and its thin callers [`tikv`],
//! [`batch_commands`], [`tinykv`]; what they ask each other: [`deadlock`]. What schedulers serve: [`pd`], [`keyspace`], [`etcd`], [`placement`]. Both: [`health`].

pub(crate) mod batch_commands;
pub(crate) mod deadlock;
pub(crate) mod etcd;
pub(crate) mod health;
pub(crate) mod keyspace;
pub(crate) mod kv;
mod lock_waits;
mod mvcc;
pub(crate) mod pd;
pub(crate) mod placement;
mod ranges;
pub(crate) mod refused;
pub(crate) mod rpc_times;
pub(crate) mod tikv;
pub(crate) mod tinykv;
pub(crate) mod txn;
