//! The course's view of a node, for its ported tests.
