//! The policy held against a second one, written without tables, indexes or shared code, on random rules.

use http::Method;

use super::path::PathPattern;
use super::*;
use crate::id::ProfileId;

/// Cases in a plain test run; `KEYFERRY_TUPLES` asks for more.
const TUPLES: usize = 40_000;

const AGENTS: [&str; 3] = ["ada", "bob", "cyd"];
const PROVIDERS: [&str; 4] = ["one", "two", "three", "four"];
const METHODS: [&str; 3] = ["GET", "POST", "DELETE"];
const TARGETS: [&str; 10] = [
    "x.test:443",
    "a.x.test:443",
    "b.x.test:443",
    "c.a.x.test:443",
    "ax.test:443",
    "x.test:80",
    "a.x.test:8443",
    "other.test:443",
    "other.test:25",
    "10.0.0.1:443",
];
const HOSTS: [&str; 8] =
    ["x.test", "a.x.test", "*.x.test", "*.a.x.test", "*.test", "x.test:8443", "*.x.test:8443", "other.test"];
const PATTERNS: [&str; 8] = ["/", "/v1", "/v1/*", "/v1/**", "/**/x", "/v1/*/x", "/admin/**", "/**"];
/// Paths, and whether a rule about paths must refuse to judge them.
const PATHS: [(&str, bool); 12] = [
    ("/", false),
    ("/v1", false),
    ("/v1/", false),
    ("/v1/a", false),
    ("/v1/a/x", false),
    ("/V1/a", false),
    ("/admin", false),
    ("/admin/x?y=/v1", false),
    ("/v1/../admin", true),
    ("/v1/%2e%2e/admin", true),
    ("//admin", true),
    ("/%61dmin", true),
];

/// What is compared.
#[derive(Debug, PartialEq)]
enum Answer {
    Inject(String, Option<String>, String, bool),
    Forward(String, bool),
    Denied(String),
    Cleartext(String),
    Missing(String, String),
    Ambiguous(String),
}

struct World {
    rules: PolicyRules,
    holdings: Holdings,
    hosts: Vec<(String, String)>,
}

struct Tuple {
    agent: &'static str,
    cleartext: bool,
    target: &'static str,
    method: &'static str,
    path: (&'static str, bool),
}

#[test]
fn agrees_with_a_naive_reading_of_the_rules() {
    // AU-03
    let tuples = std::env::var("KEYFERRY_TUPLES").ok().and_then(|text| text.parse().ok()).unwrap_or(TUPLES);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut seen = [0_usize; 6];
    let mut tunnels = [0_usize; 3];
    for _ in 0..tuples / 20 {
        let world = world(&mut random);
        let hosts = world.hosts.iter().map(|(host, provider)| (pattern(host), provider_id(provider))).collect();
        let policy = Policy::new(world.rules.clone(), world.holdings.clone(), hosts);
        for _ in 0..20 {
            let tuple = Tuple {
                agent: random.pick(&AGENTS),
                cleartext: random.chance(5),
                target: random.pick(&TARGETS),
                method: random.pick(&METHODS),
                path: random.pick(&PATHS),
            };
            check(&world, &policy, &tuple, &mut seen, &mut tunnels);
        }
    }
    // A generator that never reaches a case would prove nothing about it.
    assert!(seen.iter().all(|count| *count > tuples / 400), "{seen:?}");
    assert!(tunnels.iter().all(|count| *count > tuples / 100), "{tunnels:?}");
}

fn check(world: &World, policy: &Policy, tuple: &Tuple, seen: &mut [usize; 6], tunnels: &mut [usize; 3]) {
    let scheme = if tuple.cleartext { Scheme::Http } else { Scheme::Https };
    let connect = Origin::from_connect_target(tuple.target).unwrap();
    let origin = Origin::new(scheme, connect.host().clone(), connect.port());
    let agent = AgentName::parse(tuple.agent).unwrap();
    let method = Method::from_bytes(tuple.method.as_bytes()).unwrap();
    let path = Path::parse(tuple.path.0).unwrap();
    let context = || format!("{} {:?} {} {:?}\n{:#?}", tuple.agent, origin, tuple.method, tuple.path, world.rules);

    let answer = answer_of(policy.decide(&agent, origin.clone(), &method, &path));
    assert_eq!(answer, naive(world, tuple), "{}\n{:?}\n{:?}", context(), world.holdings, world.hosts);
    seen[match answer {
        Answer::Inject(..) => 0,
        Answer::Forward(..) => 1,
        Answer::Denied(_) => 2,
        Answer::Cleartext(_) => 3,
        Answer::Missing(..) => 4,
        Answer::Ambiguous(_) => 5,
    }] += 1;

    for provider in PROVIDERS {
        let decided = policy.decide_provider(&agent, &provider_id(provider), origin.clone(), &method, &path);
        // The base-URL listener never gives more than the proxy would, and never another provider.
        if let Ok(permit) = decided {
            assert!(matches!(permit.action(), Action::Inject { provider: named, .. } if named.as_str() == provider));
            assert!(!tuple.cleartext, "{}", context());
            assert!(world.holdings.usable(&agent, &provider_id(provider)), "{}", context());
        } else if let Answer::Inject(named, ..) = &answer {
            assert_ne!(named, provider, "{}", context());
        }
    }

    if !tuple.cleartext {
        let decision = policy.connect(&agent, &origin);
        // What is decided before anything inside is known must fit every exchange that could come.
        match &decision {
            TunnelDecision::Tunnel(rule) => assert!(
                matches!(&answer, Answer::Forward(named, _) if *named == *rule.name),
                "{} {answer:?} {rule}",
                context()
            ),
            TunnelDecision::Refuse(_) if tuple.target.starts_with("10.") => {}
            TunnelDecision::Refuse(refusal) => {
                assert_eq!(answer, Answer::Denied(refusal.rule().name.to_string()), "{}", context());
            }
            TunnelDecision::Intercept => {}
            TunnelDecision::Observed(rule) => panic!("{rule} {}", context()),
        }
        tunnels[match decision {
            TunnelDecision::Intercept => 0,
            TunnelDecision::Tunnel(_) | TunnelDecision::Observed(_) => 1,
            TunnelDecision::Refuse(_) => 2,
        }] += 1;
        // `why` says what would happen.
        let explained = policy.explain(&agent, &origin, &method, &path);
        match (&answer, explained.decision) {
            (Answer::Inject(provider, ..), Verdict::Inject) => {
                assert_eq!(explained.provider.unwrap().as_str(), provider);
            }
            (Answer::Forward(..), Verdict::Forward | Verdict::Tunnel) | (_, Verdict::Deny) => {}
            other => panic!("{other:?} {}", context()),
        }
    }
}

fn answer_of(decided: Result<Permit, Refusal>) -> Answer {
    match decided {
        Ok(permit) => {
            let rule = permit.rule().name.to_string();
            match permit.action() {
                Action::Forward => Answer::Forward(rule, permit.scrub()),
                Action::Inject { provider, profile } => {
                    let profile = profile.as_ref().map(ToString::to_string);
                    Answer::Inject(provider.to_string(), profile, rule, permit.scrub())
                }
            }
        }
        Err(Refusal::Denied(rule)) => Answer::Denied(rule.name.to_string()),
        Err(Refusal::Cleartext(rule)) => Answer::Cleartext(rule.name.to_string()),
        Err(Refusal::MissingCredentials(provider, rule)) => {
            Answer::Missing(provider.to_string(), rule.name.to_string())
        }
        Err(Refusal::AmbiguousPath(rule)) => Answer::Ambiguous(rule.name.to_string()),
    }
}

fn naive(world: &World, tuple: &Tuple) -> Answer {
    let (host, port) = tuple.target.rsplit_once(':').unwrap();
    let port: u16 = port.parse().unwrap();
    let general = world.rules.scrub == Scrub::On;
    for (index, route) in world.rules.routes.iter().enumerate() {
        let rule = match &route.name {
            Some(name) => format!("routes[{index}] \"{name}\""),
            None => format!("routes[{index}]"),
        };
        let (pattern_host, _) = split_pattern(&route.host.to_string());
        let for_agent = route.agents.is_empty() || route.agents.iter().any(|agent| agent.as_str() == tuple.agent);
        let carries = matches!(route.action, RouteAction::Allow { provider: Some(_), .. });
        let for_port = match &route.ports {
            Ports::Listed(ports) => ports.contains(&port),
            Ports::Usual if route.action == RouteAction::Deny => true,
            Ports::Usual if carries && tuple.cleartext => port == 80,
            Ports::Usual if carries => port == 443,
            Ports::Usual => port == 80 || port == 443,
        };
        if !for_agent || !for_port || !host_matches(&pattern_host, host) {
            continue;
        }
        match inside(&route.methods, &route.paths, tuple) {
            Inside::No => continue,
            Inside::Ambiguous => return Answer::Ambiguous(rule),
            Inside::Yes => {}
        }
        let scrub = route.scrub.map_or(general, |scrub| scrub == Scrub::On);
        return match &route.action {
            RouteAction::Deny => Answer::Denied(rule),
            RouteAction::Tunnel | RouteAction::Allow { provider: None, .. } => Answer::Forward(rule, scrub),
            RouteAction::Allow { .. } if tuple.cleartext => Answer::Cleartext(rule),
            RouteAction::Allow { provider: Some(provider), profile } => {
                if holds(world, tuple.agent, provider.as_str()) {
                    Answer::Inject(provider.to_string(), profile.as_ref().map(ToString::to_string), rule, scrub)
                } else {
                    Answer::Missing(provider.to_string(), rule)
                }
            }
        };
    }
    let allow = world.rules.agents.iter().find(|(agent, _)| agent.as_str() == tuple.agent).map(|(_, allow)| allow);
    let mut missing = None;
    let mut restricted = false;
    for (pattern, provider) in &world.hosts {
        let (pattern_host, pattern_port) = split_pattern(pattern);
        if !host_matches(&pattern_host, host) || (!tuple.cleartext && pattern_port != port) {
            continue;
        }
        let may_use = match allow {
            None => holds(world, tuple.agent, provider),
            Some(allow) => allow.iter().any(|entry| entry.provider.as_str() == provider),
        };
        if !may_use {
            continue;
        }
        if tuple.cleartext {
            return Answer::Cleartext(format!("provider {provider}"));
        }
        let Some(allow) = allow else {
            return Answer::Inject(provider.clone(), None, format!("provider {provider}"), general);
        };
        for (index, entry) in allow.iter().enumerate() {
            if entry.provider.as_str() != provider {
                continue;
            }
            let rule = format!("agents.{}.allow[{index}]", tuple.agent);
            match inside(&entry.methods, &entry.paths, tuple) {
                Inside::Ambiguous => return Answer::Ambiguous(rule),
                Inside::No => restricted = true,
                Inside::Yes if holds(world, tuple.agent, provider) => {
                    return Answer::Inject(provider.clone(), None, rule, general);
                }
                Inside::Yes => missing = missing.or_else(|| Some(Answer::Missing(provider.clone(), rule))),
            }
        }
    }
    if let Some(missing) = missing {
        return missing;
    }
    if restricted {
        return Answer::Denied(format!("agents.{}.allow", tuple.agent));
    }
    if world.rules.fallback == Fallback::Tunnel && (port == 80 || port == 443) {
        return Answer::Forward("default".to_owned(), general);
    }
    Answer::Denied("default".to_owned())
}

enum Inside {
    Yes,
    No,
    Ambiguous,
}

fn inside(methods: &[Method], paths: &[PathPattern], tuple: &Tuple) -> Inside {
    if !methods.is_empty() && !methods.iter().any(|method| method.as_str() == tuple.method) {
        return Inside::No;
    }
    if paths.is_empty() {
        return Inside::Yes;
    }
    if tuple.path.1 {
        return Inside::Ambiguous;
    }
    let path = tuple.path.0.split('?').next().unwrap();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let matched = paths.iter().any(|pattern| {
        let parts: Vec<&str> = pattern.as_str().split('/').skip(1).collect();
        segments_match(&parts, &segments)
    });
    if matched { Inside::Yes } else { Inside::No }
}

fn segments_match(parts: &[&str], segments: &[&str]) -> bool {
    match parts {
        [] => segments.is_empty(),
        ["**", rest @ ..] => (0..=segments.len()).any(|taken| segments_match(rest, &segments[taken..])),
        ["*", rest @ ..] => !segments.is_empty() && !segments[0].is_empty() && segments_match(rest, &segments[1..]),
        [literal, rest @ ..] => segments.first() == Some(literal) && segments_match(rest, &segments[1..]),
    }
}

fn host_matches(pattern: &str, host: &str) -> bool {
    let pattern: Vec<&str> = pattern.split('.').collect();
    let host: Vec<&str> = host.split('.').collect();
    pattern.len() == host.len() && pattern.iter().zip(&host).all(|(part, label)| *part == "*" || part == label)
}

fn split_pattern(pattern: &str) -> (String, u16) {
    match pattern.split_once(':') {
        None => (pattern.to_owned(), 443),
        Some((host, port)) => (host.to_owned(), port.parse().unwrap()),
    }
}

fn holds(world: &World, agent: &str, provider: &str) -> bool {
    world.holdings.shared.iter().any(|held| held.as_str() == provider)
        || world
            .holdings
            .private
            .iter()
            .any(|(owner, held)| owner.as_str() == agent && held.iter().any(|held| held.as_str() == provider))
}

fn world(random: &mut Random) -> World {
    let mut rules = PolicyRules {
        enforcement: super::Enforcement::Enforce,
        fallback: if random.chance(2) { Fallback::Tunnel } else { Fallback::Deny },
        scrub: if random.chance(4) { Scrub::Off } else { Scrub::On },
        ..PolicyRules::default()
    };
    for _ in 0..random.below(5) {
        rules.routes.push(route(random));
    }
    for agent in AGENTS {
        if random.chance(2) {
            let allow = (0..random.below(4)).map(|_| allowance(random)).collect();
            rules.agents.insert(AgentName::parse(agent).unwrap(), allow);
        }
    }
    let mut holdings = Holdings::default();
    for provider in PROVIDERS {
        if random.chance(3) {
            holdings.shared.insert(provider_id(provider));
        }
        for agent in AGENTS {
            if random.chance(6) {
                let own = holdings.private.entry(AgentName::parse(agent).unwrap()).or_default();
                own.insert(provider_id(provider));
            }
        }
    }
    let hosts = (0..random.below(7)).map(|_| (random.pick(&HOSTS).to_owned(), random.pick(&PROVIDERS).to_owned()));
    World { rules, holdings, hosts: hosts.collect() }
}

fn route(random: &mut Random) -> Route {
    let action = match random.below(4) {
        0 => RouteAction::Deny,
        1 => RouteAction::Tunnel,
        2 => RouteAction::Allow { provider: None, profile: None },
        _ => {
            let provider = random.pick(&PROVIDERS);
            let profile = random.chance(3).then(|| ProfileId::parse(&format!("{provider}:x")).unwrap());
            RouteAction::Allow { provider: Some(provider_id(provider)), profile }
        }
    };
    // The configuration has no tunnels that look inside.
    let blind = action == RouteAction::Tunnel;
    Route {
        name: random.chance(3).then(|| "named".to_owned()),
        at: Mark::default(),
        agents: if random.chance(2) { vec![AgentName::parse(random.pick(&AGENTS)).unwrap()] } else { Vec::new() },
        host: pattern(random.pick(&HOSTS)).with_port(443),
        ports: match random.below(4) {
            0 => Ports::Listed(vec![443]),
            1 => Ports::Listed(vec![25, 8443]),
            _ => Ports::Usual,
        },
        methods: if blind { Vec::new() } else { methods(random) },
        paths: if blind { Vec::new() } else { paths(random) },
        action,
        scrub: random.chance(3).then_some(Scrub::Off),
        set_cookie: Default::default(),
    }
}

fn allowance(random: &mut Random) -> Allowance {
    let provider = provider_id(random.pick(&PROVIDERS));
    Allowance { provider, methods: methods(random), paths: paths(random), at: Mark::default() }
}

fn methods(random: &mut Random) -> Vec<Method> {
    let count = random.below(3);
    (0..count).map(|_| Method::from_bytes(random.pick(&METHODS).as_bytes()).unwrap()).collect()
}

fn paths(random: &mut Random) -> Vec<PathPattern> {
    let count = if random.chance(2) { random.below(3) } else { 0 };
    (0..count).map(|_| PathPattern::parse(random.pick(&PATTERNS)).unwrap()).collect()
}

fn pattern(text: &str) -> HostPattern {
    HostPattern::parse(text).unwrap()
}

fn provider_id(text: &str) -> ProviderId {
    ProviderId::parse(text).unwrap()
}

/// xorshift64*: the same cases in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }
}
