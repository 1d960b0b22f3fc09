//! Takes secrets out of what comes back.
