//! Certificates of ours, and trust in those of others.
