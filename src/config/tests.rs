//! The file as a whole: what is accepted, and what is said about the rest.

use super::*;
use crate::id::{AgentName, ProviderId};
use crate::policy::{Ports, Scrub};

const EXAMPLE: &str = include_str!("../../config/keyferry.example.yaml");

fn read(text: &str) -> Config {
    parse(text, "k.yaml").unwrap_or_else(|faults| panic!("{faults}"))
}

/// `line:column message | hint` of every fault.
fn faults(text: &str) -> Vec<String> {
    let Err(faults) = parse(text, "k.yaml") else { return Vec::new() };
    let line = |fault: &Fault| {
        format!("{}:{} {} | {}", fault.line, fault.column, fault.message, fault.hint.as_deref().unwrap_or_default())
    };
    faults.0.iter().map(line).collect()
}

/// The example with every setting that is off turned on, and the defaults in their place taken out.
fn example_with_everything() -> String {
    let mut lines: Vec<&str> = Vec::new();
    for line in EXAMPLE.lines() {
        let indented = line.trim_start();
        let setting = indented.strip_prefix('#').filter(|rest| !rest.starts_with([' ', '#']) && !rest.is_empty());
        let indent = line.len() - indented.len();
        let off = line.strip_prefix('#').filter(|rest| rest.starts_with("  ") && rest.contains([':', '-', '[']));
        match (setting, off) {
            (Some(setting), _) => {
                let key = setting.split(':').next().unwrap();
                lines.retain(|before| !before.trim_start().starts_with(&format!("{key}:")) || before.starts_with('#'));
                lines.push(Box::leak(format!("{}{setting}", " ".repeat(indent)).into_boxed_str()));
            }
            (None, Some(rest)) => lines.push(rest),
            (None, None) => lines.push(line),
        }
    }
    lines.join("\n") + "\n"
}

#[test]
fn the_example_says_exactly_the_defaults() {
    assert_eq!(read(EXAMPLE), Config::default());
    assert_eq!(read(""), Config::default());
    assert_eq!(read("# nothing\n"), Config::default());
}

#[test]
fn every_setting_of_the_example_that_is_off_can_be_turned_on() {
    let config = read(&example_with_everything());
    assert_eq!(config.upstream.extra_roots.len(), 1);
    assert_eq!(config.upstream.resolve.len(), 1);
    assert_eq!(config.upstream.allow_networks.len(), 1);
    assert_eq!(config.providers.len(), 1);
    assert_eq!(config.pools[&ProviderId::parse("anthropic").unwrap()].order.len(), 2);
    assert_eq!(config.agents[&AgentName::parse("coder").unwrap()].allow.as_ref().unwrap().len(), 3);
    assert_eq!(config.routes.len(), 3);
    assert_eq!(config.default, Some(Fallback::Deny));
    assert_eq!(config.routes[2].ports, Ports::Listed(vec![443]));
    assert_eq!(config.routes[2].scrub, Some(Scrub::On));
}

#[test]
fn what_is_shown_reads_back_the_same() {
    for text in ["", &example_with_everything(), EVERY_FORM] {
        let config = read(text);
        let shown = config.show();
        let again = parse(&shown, "shown.yaml").unwrap_or_else(|faults| panic!("{faults}\n{shown}"));
        assert!(again == config, "{shown}\n{:?}", changed_keys(&config, &again));
        assert_eq!(read(&shown).show(), shown);
    }
}

/// Every form of the grammar that is available.
const EVERY_FORM: &str = r#"
listen: {proxy: {addr: "127.0.0.1:0"}, base_url: "[::1]:9", admin: 127.0.0.1:0}
vault: {url: "sqlite:/var/lib/k/vault.db", master_key: "env:KEYFERRY_MASTER_KEY"}
upstream:
  extra_roots: [a b.crt, /etc/x.crt]
  resolve: {"x.test:443": "127.0.0.1:1", "10.0.0.1:8443": "[::1]:2"}
  allow_networks: [10.0.0.0/8, "fd00::/8"]
  timeouts: {connect: 250ms, idle: 1h}
providers:
  one: {hosts: [a.test, "*.b.test:8443"], inject: {query: key, value: "{secret}"}}
  two: {hosts: [c.test], inject: {path: "/bot{secret}"}}
  three: {hosts: [d.test], inject: {basic: {user: "{user}", password: "{secret}"}}}
  four: {hosts: [e.test], inject: [{cookie: sid, value: "{secret}"}, {header: X-Org, value: constant}]}
  anthropic: {hosts: [proxy.test]}
pools:
  anthropic: {order: ["anthropic:a", b], strategy: priority, cooldown: [1m, 5m, 1h30m]}
agents:
  coder:
    allow: [one, {provider: two, methods: [GET, POST], paths: [/, "/a/*/**"]}]
    env: {A: "1", B: "yes: no", C: "x # y", D: "\"q\"", E: "null"}
  other:
  none: {allow: []}
routes:
  - {host: "a.test:8443", action: deny}
  - {name: "two \"words\"", agents: [coder, other], host: "*.a.test", ports: [80, 8080], action: tunnel}
  - {host: a.test, methods: [DELETE], action: deny}
  - {host: a.test, action: allow, scrub: off}
  - {host: b.test, action: allow, provider: one, profile: "one:x"}
default: tunnel
scrub: off
log: {level: debug}
"#;

#[test]
fn reports_every_fault_at_once_with_its_place_and_a_hint() {
    let text = r#"listen:
  prxy: 127.0.0.1:1
  base_url: somewhere
upstream:
  timeouts: {connect: soon}
  allow_networks: [10.0.0.1/8]
providers:
  acme:
    hosts: [api.*.example]
    inject: {header: Authorization, value: "Bearer {secert"}
agents:
  coder: {allow: [antropic]}
routes:
  - {host: api.github.com, action: alow}
  - {host: 10.0.0.1, action: allow, provider: github}
  - {agents: [codr], host: x.test, methods: [get], action: deny}
default: refuse
scrub: on
scrub: off
"#;
    let expected = [
        "2:3 `prxy` is not a key of `listen` | did you mean `proxy`?",
        "3:13 `listen.base_url`: `somewhere` is not an address and port | write a numeric address and a port: 127.0.0.1:7878 or [::1]:7878",
        "5:23 `upstream.timeouts.connect`: `soon` is not a duration | write a number and a unit: 250ms, 5s, 10m, 1h",
        "6:20 `upstream.allow_networks[0]` has bits set behind its prefix | did you mean `10.0.0.0/8`?",
        "9:13 `providers.acme.hosts[0]`: `api.*.example` has a wildcard in a place where none can stand | a wildcard is one whole label in front of a name: *.example.com (the apex is not matched)",
        "10:44 `providers.acme.inject.value` has braces that name no field | a field is written {secret}; its name has small letters, digits and underscores",
        "12:19 there is no provider `antropic` | did you mean `anthropic`?",
        "14:36 `routes[0].action`: `alow` is not one of its words | did you mean `allow`?",
        "15:12 `routes[1].host` is an address, which cannot be intercepted | give it a name, and its address in `upstream.resolve`; or use `action: tunnel`",
        "16:15 there is no agent `codr` under `agents` | did you mean `coder`?",
        "16:46 `routes[2].methods[0]`: `get` is no method in capitals | write GET",
        "17:10 `default`: `refuse` is not one of its words | known here: deny, tunnel",
        "19:1 the key `scrub` stands twice; first in line 18 | ",
    ];
    let found = faults(text);
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.len(), expected.len());
    let shown = parse(text, "k.yaml").unwrap_err().to_string();
    assert!(
        shown.starts_with("k.yaml:2:3: `prxy` is not a key of `listen`\n  hint: did you mean `proxy`?\n"),
        "{shown}"
    );
}
