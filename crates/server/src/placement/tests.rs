//! Heartbeats, orders and splits of a store against a real scheduler, here and over the wire.
