//! The harmless stand-in that an agent holds.
