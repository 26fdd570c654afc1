//! Checkers: what is wrong with one region, and what to do about it first.

mod replica;

pub(crate) use replica::check;
