//! `listen`: the addresses that agents and operators connect to.
//!
//! Invariant: two listeners never have the same address, and an agent stands only where its connections can be told
//! from those of others.

use std::net::SocketAddr;

use crate::config::fault::{At, Report};
use crate::config::field::{Field, Section};
use crate::config::model::{Listen, Listener, UnixListener};
use crate::message::origin::Host;

use super::{access, storage};

pub(super) const LISTEN: &[&str] = &["proxy", "proxy_tls", "base_url", "transparent", "unix", "admin"];
pub(super) const PROXY: &[&str] = &["addr", "agent"];
pub(super) const PROXY_TLS: &[&str] = &["addr", "agent", "name"];
pub(super) const TRANSPARENT: &[&str] = &["addr", "agent", "uid"];
pub(super) const UNIX: &[&str] = &["path", "agents"];
pub(super) const ADMIN: &[&str] = &["addr"];

pub(super) fn read(field: &Field<'_>, listen: &mut Listen, report: &mut Report) {
    let Some(section) = report.section(field, LISTEN) else { return };
    let mut taken: Vec<(SocketAddr, &str, At)> = Vec::new();
    for name in LISTEN.iter().copied().filter(|name| *name != "unix") {
        let Some(field) = section.get(name) else { continue };
        let keys = match name {
            "proxy_tls" => PROXY_TLS,
            "transparent" => TRANSPARENT,
            "admin" => ADMIN,
            _ => PROXY,
        };
        let Some(listener) = listener(&field, keys, report) else { continue };
        taken.push((listener.addr, name, field.at()));
        match name {
            "proxy" => listen.proxy = listener,
            "base_url" => listen.base_url = listener,
            "admin" => listen.admin = listener,
            "proxy_tls" => {
                if listener.name.is_none() && !listener.addr.ip().is_loopback() {
                    let hint =
                        format!("{{addr: \"{}\", name: HOST}}: what clients on other machines call it", listener.addr);
                    report.fault(field.at(), format!("`{}` has no `name`", field.path), hint);
                }
                listen.proxy_tls = Some(listener);
            }
            _ => {
                if listener.agent.is_none() {
                    let hint = format!("{{addr: \"{}\", agent: NAME}}: whose connections they are", listener.addr);
                    report.fault(field.at(), format!("`{}` has no `agent`", field.path), hint);
                }
                listen.transparent = Some(listener);
            }
        }
    }
    if let Some(field) = section.get("unix") {
        listen.unix = unix(&field, report);
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

fn listener(field: &Field<'_>, keys: &[&str], report: &mut Report) -> Option<Listener> {
    let plain = |addr, at| Listener { addr, agent: None, uid: None, name: None, at };
    if !field.is_mapping() {
        return address(field, report).map(|addr| plain(addr, report.mark(field.at())));
    }
    let section = report.section(field, keys)?;
    let known = |key: &str| section.get(key).filter(|_| keys.contains(&key));
    let agent = known("agent").and_then(|field| access::agent_name(&field, report));
    let uid = known("uid").and_then(|field| {
        report.parse(&field, "the number of a user", "id -u USER shows it", |text| text.parse().ok())
    });
    let name = known("name").and_then(|field| {
        let hint = "write the name that clients use in HTTPS_PROXY; an address cannot have a certificate of ours";
        report.parse(&field, "the name of a host", hint, |text| {
            Host::parse(text).ok().filter(|host| host.name().is_some())
        })
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
    Some(Listener { agent, uid, name, ..plain(addr, report.mark(field.at())) })
}

fn unix(field: &Field<'_>, report: &mut Report) -> Option<UnixListener> {
    if !field.is_mapping() {
        return storage::path(field, report).map(|path| UnixListener { path, agents: Default::default() });
    }
    let section: Section<'_> = report.section(field, UNIX)?;
    let mut agents = std::collections::BTreeMap::new();
    for (key, value) in section.get("agents").map(|field| report.named(&field)).unwrap_or_default() {
        let agent = access::agent_name(&value, report);
        match key.parse::<u32>() {
            Ok(uid) => agents.extend(agent.map(|agent| (uid, agent))),
            Err(_) => {
                let message = "a key of `listen.unix.agents` is the number of a user";
                report.fault(value.key_at, message, "id -u USER shows it");
            }
        }
    }
    let Some(path) = section.get("path") else {
        report.fault(field.at(), format!("`{}` has no `path`", field.path), "path: run/proxy.sock");
        return None;
    };
    storage::path(&path, report).map(|path| UnixListener { path, agents })
}

fn address(field: &Field<'_>, report: &mut Report) -> Option<SocketAddr> {
    let hint = "write a numeric address and a port: 127.0.0.1:7878 or [::1]:7878";
    let addr: SocketAddr = report.parse(field, "an address and port", hint, |text| text.parse().ok())?;
    if !addr.ip().is_loopback() && field.path != "listen.proxy_tls" && !field.path.starts_with("listen.proxy_tls.") {
        let hint = "agents on other machines can reach it, their tokens crossing the network unencrypted";
        report.warn(field.at(), format!("`{}` is not a loopback address", field.path), hint);
    }
    Some(addr)
}
