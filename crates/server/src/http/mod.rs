//! HTTP: a store's status port, and PD's paths on the scheduler's port.

pub(crate) mod pd_api;
pub(crate) mod probes;
pub(crate) mod status;
