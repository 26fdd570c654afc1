//! Project 3A of the course: transfer of the leadership and changes of the members, test by test.
