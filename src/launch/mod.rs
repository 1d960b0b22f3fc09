//! Starting an agent behind the proxy.
