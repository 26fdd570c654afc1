//! Project 2C of the course, its Raft part: snapshots, test by test.
