//! Where a credential goes, and what an answer means.
