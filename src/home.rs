//! Where the files of one installation live.
