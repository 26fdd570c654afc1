//! Project 2A of the course: election (2AA), replication (2AB) and the driver's view (2AC), test by test.
