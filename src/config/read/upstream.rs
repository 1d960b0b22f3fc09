//! `upstream`: how providers are reached.
//!
//! Invariant: an address of the operator's own is numeric; nothing here is resolved.

use std::net::SocketAddr;

use ipnet::IpNet;

use crate::config::fault::Report;
use crate::config::field::Field;
use crate::config::model::{ProxySource, Upstream};
use crate::config::units;
use crate::message::origin::Origin;
use crate::upstream::chain::{ProxyUrl, ProxyUrlError};

use super::storage;

pub(super) const UPSTREAM: &[&str] = &["extra_roots", "resolve", "allow_networks", "proxy", "no_proxy", "timeouts"];
pub(super) const TIMEOUTS: &[&str] = &["connect", "response", "idle"];

pub(super) fn read(field: &Field<'_>, upstream: &mut Upstream, report: &mut Report) {
    let Some(section) = report.section(field, UPSTREAM) else { return };
    if let Some(field) = section.get("extra_roots") {
        upstream.extra_roots = report.each(&field, |report, item| storage::path(item, report));
    }
    if let Some(field) = section.get("resolve") {
        resolve(&field, upstream, report);
    }
    if let Some(field) = section.get("allow_networks") {
        upstream.allow_networks = report.each(&field, |report, item| network(item, report));
    }
    if let Some(field) = section.get("proxy") {
        upstream.proxy = proxy(&field, report);
    }
    if let Some(field) = section.get("no_proxy") {
        upstream.no_proxy = report.each(&field, |report, item| report.text(item).map(str::to_owned));
    }
    let Some(timeouts) = section.get("timeouts").and_then(|field| report.section(&field, TIMEOUTS)) else { return };
    for name in TIMEOUTS.iter().copied() {
        let Some(field) = timeouts.get(name) else { continue };
        let Some(duration) = duration(&field, report) else { continue };
        match name {
            "connect" => upstream.timeouts.connect = duration,
            "response" => upstream.timeouts.response = duration,
            _ => upstream.timeouts.idle = duration,
        }
    }
}

pub(super) fn duration(field: &Field<'_>, report: &mut Report) -> Option<std::time::Duration> {
    report.parse(field, "a duration", "write a number and a unit: 250ms, 5s, 10m, 1h", units::duration)
}

fn resolve(field: &Field<'_>, upstream: &mut Upstream, report: &mut Report) {
    for (key, value) in report.named(field) {
        // An unquoted key with a colon in it is read as it should be; a key without a port is the usual slip.
        let origin = Origin::from_connect_target(key).ok();
        if origin.is_none() {
            let hint = "write \"host:port\": \"address:port\", the host without a wildcard";
            report.fault(value.key_at, "a key of `upstream.resolve` is a host and port", hint);
        }
        let hint = "write a numeric address and a port: \"127.0.0.1:18443\"";
        let addr: Option<SocketAddr> = report.parse(&value, "an address and port", hint, |text| text.parse().ok());
        if addr.is_some_and(|addr| addr.port() == 0) {
            report.fault(
                value.at(),
                format!("`{}` has no port that can be reached", value.path),
                "write a port from 1",
            );
            continue;
        }
        let (Some(origin), Some(addr)) = (origin, addr) else { continue };
        let slot = (origin.host().clone(), origin.port());
        if upstream.resolve.insert(slot, addr).is_some() {
            report.fault(value.key_at, "the same host and port stand twice in `upstream.resolve`", "keep one of them");
        }
    }
}

fn network(field: &Field<'_>, report: &mut Report) -> Option<IpNet> {
    let hint = "write an address and a prefix length: 10.0.0.0/8, fd00::/8, 192.168.1.7/32";
    let net: IpNet = report.parse(field, "a network", hint, |text| text.parse().ok())?;
    if net.addr() != net.network() {
        let hint = format!("did you mean `{}`?", net.trunc());
        report.fault(field.at(), format!("`{}` has bits set behind its prefix", field.path), hint);
        return None;
    }
    if net.prefix_len() == 0 {
        report.warn(
            field.at(),
            format!("`{}` switches the address guard off", field.path),
            "name the networks that are needed",
        );
    }
    Some(net)
}

fn proxy(field: &Field<'_>, report: &mut Report) -> Option<ProxySource> {
    let text = report.text(field)?;
    match text.split_once(':') {
        Some(("env", name)) if storage::is_variable(name) => return Some(ProxySource::Env(name.to_owned())),
        Some(("file", path)) if !path.is_empty() => return Some(ProxySource::File(path.into())),
        _ => {}
    }
    // What stands here may hold a password, so no message repeats it.
    let refused = |what: &str| format!("`{}` {what}", field.path);
    match ProxyUrl::parse(text) {
        Ok(url) if url.has_user() => {
            let hint = "write env:CORP_PROXY or file:corp-proxy, and put the whole URL there";
            report.fault(field.at(), refused("has a name or password in it, and no secret stands in this file"), hint);
            None
        }
        Ok(_) if text.starts_with("http://") => Some(ProxySource::Url(text.to_owned())),
        Err(ProxyUrlError::Scheme) => {
            report.fault(
                field.at(),
                refused("is of a kind that cannot be chained through"),
                "only http:// proxies can",
            );
            None
        }
        Ok(_) | Err(ProxyUrlError::Malformed) => {
            let hint = "write http://host:port, env:VARIABLE or file:PATH";
            report.fault(field.at(), refused("is not the URL of a proxy"), hint);
            None
        }
    }
}
