//! Records, metrics and the audit log.
