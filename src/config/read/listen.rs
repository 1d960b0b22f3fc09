//! `listen`: the addresses that agents and operators connect to.
//!
//! Invariant: two listeners never have the same address.

use std::net::SocketAddr;

use crate::config::fault::{At, Report};
use crate::config::field::Field;
use crate::config::model::{Listen, Listener};
use crate::id::AgentName;

use super::storage;

pub(super) const LISTEN: &[&str] = &["proxy", "proxy_tls", "base_url", "transparent", "unix", "admin"];
pub(super) const LISTENER: &[&str] = &["addr", "agent"];

pub(super) fn read(field: &Field<'_>, listen: &mut Listen, report: &mut Report) {
    let Some(section) = report.section(field, LISTEN) else { return };
    let mut taken: Vec<(SocketAddr, &str, At)> = Vec::new();
    for name in LISTEN.iter().copied().filter(|name| *name != "unix") {
        let Some(field) = section.get(name) else { continue };
        let Some(listener) = listener(&field, report) else { continue };
        taken.push((listener.addr, name, field.at()));
        match name {
            "proxy" => listen.proxy = listener,
            "base_url" => listen.base_url = listener,
            "admin" => listen.admin = listener,
            "proxy_tls" => {
                report.needs("listen.proxy_tls", &field.path, field.key_at);
                listen.proxy_tls = Some(listener);
            }
            _ => {
                report.needs("listen.transparent", &field.path, field.key_at);
                listen.transparent = Some(listener);
            }
        }
    }
    if let Some(field) = section.get("unix") {
        report.needs("listen.unix", &field.path, field.key_at);
        listen.unix = storage::path(&field, report);
    }
    // What is not written has its default, and can be in the way too.
    for (addr, name, at) in &taken {
        let all = [("proxy", &listen.proxy), ("base_url", &listen.base_url), ("admin", &listen.admin)];
        let more = [("proxy_tls", &listen.proxy_tls), ("transparent", &listen.transparent)];
        let more = more.into_iter().filter_map(|(name, listener)| listener.as_ref().map(|found| (name, found)));
        let mut others = all.into_iter().chain(more).filter(|(other, _)| other != name);
        if let Some((other, _)) = others.find(|(_, listener)| listener.addr == *addr && addr.port() != 0) {
            let hint = "give each its own port, or port 0 for any free one";
            report.fault(*at, format!("`listen.{name}` and `listen.{other}` have the same address"), hint);
        }
    }
}

fn listener(field: &Field<'_>, report: &mut Report) -> Option<Listener> {
    if !field.is_mapping() {
        return address(field, report).map(|addr| Listener { addr, agent: None, at: report.mark(field.at()) });
    }
    let section = report.section(field, LISTENER)?;
    let agent = section.get("agent").and_then(|field| {
        report.needs("listen.*.agent", &field.path, field.key_at);
        super::access::agent_name(&field, report)
    });
    let Some(inner) = section.get("addr") else {
        report.fault(field.at(), format!("`{}` has no `addr`", field.path), "addr: 127.0.0.1:7878");
        return None;
    };
    let addr = address(&inner, report)?;
    if agent.is_some() && !addr.ip().is_loopback() {
        let hint = "everybody who reaches the address would be this agent; use a loopback address";
        report.fault(inner.at(), format!("`{}` names an agent for an address that is not loopback", field.path), hint);
    }
    let agent: Option<AgentName> = agent;
    Some(Listener { addr, agent, at: report.mark(field.at()) })
}

fn address(field: &Field<'_>, report: &mut Report) -> Option<SocketAddr> {
    let hint = "write a numeric address and a port: 127.0.0.1:7878 or [::1]:7878";
    let addr: SocketAddr = report.parse(field, "an address and port", hint, |text| text.parse().ok())?;
    if !addr.ip().is_loopback() {
        let hint = "agents on other machines can reach it, their tokens crossing the network unencrypted";
        report.warn(field.at(), format!("`{}` is not a loopback address", field.path), hint);
    }
    Some(addr)
}
