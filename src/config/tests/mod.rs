//! The file as a whole: what is accepted, and what is said about the rest.

mod refusals;
mod schema;

use super::*;
use crate::id::{AgentName, ProviderId};
use crate::policy::{Ports, Scrub};

const EXAMPLE: &str = include_str!("../../../config/keyferry.example.yaml");

fn read(text: &str) -> Config {
    parse(text, "k.yaml").unwrap_or_else(|faults| panic!("{faults}"))
}

/// `line:column message | hint` of every fault.
fn faults(text: &str) -> Vec<String> {
    let Err(faults) = parse(text, "k.yaml") else { return Vec::new() };
    let line = |fault: &Fault| {
        // Whatever is wrong, something can be done about it.
        let hint = fault.hint.as_deref().unwrap_or_else(|| panic!("{fault} has no hint"));
        format!("{}:{} {} | {hint}", fault.line, fault.column, fault.message)
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
vault: {url: "sqlite:vault.db", master_key: "env:KEYFERRY_MASTER_KEY"}
upstream:
  extra_roots: [a b.crt, /etc/x.crt]
  resolve: {"x.test:443": "127.0.0.1:1", "10.0.0.1:8443": "[::1]:2"}
  allow_networks: [10.0.0.0/8, "fd00::/8"]
  timeouts: {connect: 250ms, idle: 1h}
providers:
  one: {hosts: [a.test, "*.b.test:8443"], inject: {query: key, value: "{secret}"}}
  two: {hosts: [c.test], inject: {path: "/bot{secret}"}, speaks: {chat: /v1/chat/completions, messages: /v1/messages}}
  three: {hosts: [d.test], inject: {basic: {user: "{user}", password: "{secret}"}}}
  four: {hosts: [e.test], inject: [{cookie: sid, value: "{secret}"}, {header: X-Org, value: constant}]}
  anthropic: {hosts: [proxy.test]}
  openai:
    rules:
      - name: own
        on: [403, 429]
        field: {x-limit: "^spent$", x-any: "*"}
        says: {/error/code: [gone, "~^no"], /error/type: spent}
        text: (?i)out of
        means: quota
        of: group
        until: [{field: x-reset, as: epoch}, {text: "in ([0-9]+)", as: seconds}, {midnight: 8}]
        latest: on
      - {on: 418, means: billing}
    stream: [{says: {/code: gone}, means: overloaded}]
    status: {418: rate-limit@profile-model, 503: overloaded}
    until: {body: /error/resets_at, as: epoch}
    inspect: hold
    events: on
    faults: transient
pools:
  anthropic: {order: ["anthropic:a", b], strategy: priority, cooldown: [1m, 5m, 1h30m], foreign: refuse, limits: {requests: 1500/h, concurrency: 3}}
  openai:
    strategy: round-robin
    rotate: off
    cooldown: {rate_limit: [30s, 1m], billing: [1h], overload: [1s]}
    wait: off
    warm_wait: 30s
    attempts: {total: 8, same_profile: 0, waits: 1}
    groups: {work: [a, "openai:b"], home: [c]}
    learn_groups: off
  deepseek: {fallback: [{provider: openrouter, models: {"claude-sonnet-*": anthropic/claude-sonnet-4, "*": x/y}}]}
  groq: {strategy: least-used, cooldown: short}
agents:
  coder:
    allow: [one, {provider: two, methods: [GET, POST], paths: [/, "/a/*/**"]}]
    env: {A: "1", B: "yes: no", C: "x # y", D: "\"q\"", E: "null"}
  other: {limits: {requests: 60/min, concurrency: 8, tokens: 2M/day}}
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
        "9:13 `providers.acme.hosts[0]`: 'api.*.example' has a wildcard in a place where none can stand | a wildcard is one whole label in front of a name: *.example.com (the apex is not matched)",
        "10:44 `providers.acme.inject.value`: \"Bearer {secert\" has a brace that is not closed | write fields as {secret}",
        "12:19 there is no provider `antropic` | did you mean `anthropic`?",
        "14:36 `routes[0].action`: `alow` is not one of its words | did you mean `allow`?",
        "15:12 `routes[1].host` is an address, which cannot be intercepted | give it a name, and its address in `upstream.resolve`; or use `action: tunnel`",
        "16:15 there is no agent `codr` under `agents` | did you mean `coder`?",
        "16:46 `routes[2].methods[0]`: `get` is no method in capitals | write GET",
        "17:10 `default`: `refuse` is not one of its words | known here: deny, tunnel",
        "19:1 the key `scrub` stands twice; first in line 18 | keep one of them",
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

/// `part` must occur in one of the faults of `text`.
#[track_caller]
fn is_fault(text: &str, part: &str) {
    let found = faults(text);
    assert!(found.iter().any(|fault| fault.contains(part)), "{text}\nhas no fault with {part:?}: {found:#?}");
}

#[test]
fn an_agent_need_not_be_listed_where_none_is() {
    assert_eq!(read("routes: [{host: a.test, agents: [ci], action: deny}]").routes.len(), 1);
    is_fault("agents: {coder: {}}\nroutes: [{host: a.test, agents: [ci], action: deny}]", "`ci: {}`");
}

/// `line message` of every warning.
fn warnings(text: &str) -> Vec<String> {
    read(text).warnings.0.iter().map(|warning| format!("{} {}", warning.line, warning.message)).collect()
}

#[test]
fn warns_of_what_may_be_meant_and_is_risky() {
    assert_eq!(
        warnings("listen: {proxy: \"0.0.0.0:7878\"}\nupstream: {allow_networks: [0.0.0.0/0]}"),
        ["1 `listen.proxy` is not a loopback address", "2 `upstream.allow_networks[0]` switches the address guard off",]
    );
    assert_eq!(
        warnings("agents:\n  coder:\n    env: {DB_PASSWORD: x, TOKEN: y, EMPTY_KEY: \"\", KEYBOARD: z}\n"),
        [
            "3 `agents.coder.env.DB_PASSWORD` has the name of a secret",
            "3 `agents.coder.env.TOKEN` has the name of a secret",
        ]
    );
    assert_eq!(
        warnings("routes:\n  - {host: a.test, action: allow, provider: openai}\n"),
        ["2 `routes[0].host` is no host of `openai`"]
    );
    let fine = "routes: [{host: api.openai.com, action: allow, provider: openai}]\n\
                agents: {coder: {env: {EMPTY: \"\", LINES: \"a\\nb\"}}}\n";
    assert_eq!(warnings(fine), [] as [&str; 0]);
}

#[test]
fn warns_of_routes_that_are_never_reached() {
    for (first, second, reached) in [
        ("host: a.test, action: deny", "host: a.test, action: allow", false),
        ("host: \"*.test\", action: deny", "host: a.test, action: allow", false),
        ("host: \"*.test\", action: deny", "host: \"*.test\", ports: [22], action: tunnel", false),
        ("host: a.test, action: allow", "host: a.test, action: allow, methods: [GET]", false),
        ("host: a.test, ports: [1, 2], action: deny", "host: a.test, ports: [2], action: allow", false),
        ("host: a.test, action: deny", "host: a.test, agents: [x], action: allow", false),
        ("host: a.test, agents: [x, y], action: deny", "host: a.test, agents: [x], action: allow", false),
        ("host: a.test, agents: [x], action: deny", "host: a.test, action: allow", true),
        ("host: a.test, agents: [x], action: deny", "host: a.test, agents: [x, y], action: allow", true),
        ("host: a.test, methods: [GET], action: deny", "host: a.test, action: allow", true),
        ("host: a.test, ports: [1], action: deny", "host: a.test, ports: [1, 2], action: allow", true),
        ("host: a.test, action: tunnel", "host: a.test, action: deny", true),
        ("host: a.test, action: tunnel", "host: a.test, ports: [22], action: tunnel", true),
        ("host: a.test, action: deny", "host: \"*.test\", action: allow", true),
        ("host: a.test, action: deny", "host: b.test, action: allow", true),
    ] {
        let found = warnings(&format!("routes:\n  - {{{first}}}\n  - {{{second}}}\n"));
        let expected: &[&str] =
            if reached { &[] } else { &["3 `routes[1]` is never reached, `routes[0]` matches first"] };
        assert_eq!(found, expected, "{first} / {second}");
    }
}

#[test]
fn a_bomb_is_refused_in_little_time() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for depth in 1..20 {
        let before = format!("*a{}, ", depth - 1).repeat(9);
        bomb.push_str(&format!("a{depth}: &a{depth} [{before}]\n"));
    }
    is_fault(&bomb, "an anchor stands here");
    is_fault(&bomb, "an alias stands here");
    let merge = "base: &base {a: 1}\nlog:\n  <<: *base\n";
    is_fault(merge, "`<<` is not a key of `log`");
    let large = format!("# {}\n", "x".repeat(1024 * 1024));
    is_fault(&large, "is larger than 1024 KiB");
}

#[test]
fn ten_thousand_routes_fit() {
    let mut text = "routes:\n".to_owned();
    for n in 0..10_000 {
        text.push_str(&format!("  - {{name: route-{n}, host: host-{n}.example.com, action: tunnel}}\n"));
    }
    let config = read(&text);
    assert_eq!(config.routes.len(), 10_000);
    let rules = config.rules(Fallback::Deny);
    assert_eq!(rules.routes[9_999].at.0.as_ref().map(|place| place.line), Some(10_001));
}

#[test]
fn any_text_gives_a_configuration_or_faults() {
    // Cut, double and exchange pieces of a file in every form, the same pieces in every run.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut below = |limit: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % limit
    };
    let alphabet =
        ["{", "}", "[", "]", ":", ",", "- ", "\n", "  ", "\"", "'", "#", "*", "&", "!", "|", ">", "\t", "~", "\u{e4}"];
    for _ in 0..1_500 {
        let mut text: Vec<char> = EVERY_FORM.chars().collect();
        for _ in 0..below(6) + 1 {
            let (at, to) = (below(text.len()), below(text.len()));
            match below(3) {
                0 => text.truncate(at.max(1)),
                1 => {
                    let piece: Vec<char> = alphabet[below(alphabet.len())].chars().collect();
                    text.splice(at..at, piece);
                }
                _ => text.swap(at, to),
            }
        }
        let text: String = text.into_iter().collect();
        match parse(&text, "k.yaml") {
            Err(faults) => assert!(!faults.0.is_empty()),
            Ok(config) => assert!(parse(&config.show(), "shown").as_ref() == Ok(&config), "{text}\n{}", config.show()),
        }
    }
}

#[test]
fn says_what_is_wrong_with_the_file_itself() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keyferry.yaml");
    assert!(load(&path).unwrap_err().to_string().contains("there is no such file"));
    assert_eq!(load_or_default(&path).unwrap(), Config::default());
    assert!(load(dir.path()).unwrap_err().to_string().contains("is not a file"));
    std::fs::write(&path, b"scrub: \xff\n").unwrap();
    assert!(load(&path).unwrap_err().to_string().contains("is not UTF-8 text"));
    std::fs::write(&path, "scrub: off\n").unwrap();
    assert_eq!(load(&path).unwrap().scrub, Scrub::Off);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o646)).unwrap();
    let faults = load(&path).unwrap_err();
    assert_eq!(faults.0[0].hint.as_deref(), Some(format!("chmod o-w {}", path.display()).as_str()));
    // Only others are nobody's business: an administrators' group may keep the file.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o664)).unwrap();
    assert!(load(&path).is_ok());
    std::fs::write(&path, format!("#{}\n", "x".repeat(1024 * 1024))).unwrap();
    assert!(load(&path).unwrap_err().to_string().contains("is larger than"));
}

#[test]
fn the_rules_say_where_they_are_written() {
    let config = read(
        "agents:\n  coder:\n    allow: [openai]\n  other: {}\nroutes:\n  - host: a.test\n    action: deny\ndefault: tunnel\n",
    );
    let rules = config.rules(Fallback::Deny);
    assert_eq!(rules.fallback, Fallback::Tunnel);
    let line = |mark: &crate::policy::Mark| mark.0.as_ref().map(|place| place.line);
    assert_eq!((line(&rules.routes[0].at), line(&rules.fallback_at)), (Some(6), Some(8)));
    // An agent without `allow` is one without an entry.
    assert_eq!(rules.agents.keys().map(|name| name.as_str()).collect::<Vec<_>>(), ["coder"]);
    assert_eq!(line(&rules.agents.values().next().unwrap()[0].at), Some(3));
    assert_eq!(read("").rules(Fallback::Tunnel).fallback, Fallback::Tunnel);
}

#[test]
fn names_the_hosts_that_certificates_must_cover() {
    let config = read(EVERY_FORM);
    let hosts: Vec<String> = config.intercepted_hosts().iter().map(ToString::to_string).collect();
    assert_eq!(hosts, ["a.test", "*.b.test:8443", "c.test", "d.test", "e.test", "proxy.test", "b.test"]);
}
