//! Networks and the named, seeded parameters in them.
