//! The rules of the contract, one test each.

use super::path::PathPattern;
use super::*;
use crate::code::Code;
use crate::id::ProfileId;

fn agent(name: &str) -> AgentName {
    AgentName::parse(name).unwrap()
}

fn provider(name: &str) -> ProviderId {
    ProviderId::parse(name).unwrap()
}

fn https(target: &str) -> Origin {
    Origin::from_connect_target(target).unwrap()
}

fn http(authority: &str) -> Origin {
    Origin::from_authority(Scheme::Http, authority).unwrap()
}

fn route(host: &str, action: RouteAction) -> Route {
    Route {
        name: None,
        at: Mark(Some(Place { file: "k.yaml".into(), line: 7 })),
        agents: Vec::new(),
        host: HostPattern::parse(host).unwrap(),
        ports: Ports::Usual,
        methods: Vec::new(),
        paths: Vec::new(),
        action,
        scrub: None,
        set_cookie: Default::default(),
    }
}

fn allow(provider_name: &str) -> RouteAction {
    RouteAction::Allow { provider: Some(provider(provider_name)), profile: None }
}

fn allowance(provider_name: &str, methods: &[Method], paths: &[&str]) -> Allowance {
    let paths = paths.iter().map(|path| PathPattern::parse(path).unwrap()).collect();
    Allowance { provider: provider(provider_name), methods: methods.to_vec(), paths, at: Mark::default() }
}

fn hosts() -> Vec<(HostPattern, ProviderId)> {
    [("api.openai.com", "openai"), ("api.github.com", "github"), ("github.com", "github"), ("*.acme.test", "acme")]
        .map(|(host, name)| (HostPattern::parse(host).unwrap(), provider(name)))
        .to_vec()
}

fn shared(names: &[&str]) -> Holdings {
    Holdings { shared: names.iter().map(|name| provider(name)).collect(), ..Holdings::default() }
}

fn policy(rules: PolicyRules, holdings: Holdings) -> Policy {
    Policy::new(rules, holdings, hosts())
}

fn get(policy: &Policy, name: &str, origin: Origin, path: &str) -> Result<Permit, Refusal> {
    policy.decide(&agent(name), origin, &Method::GET, &Path::parse(path).unwrap())
}

fn code(decided: Result<Permit, Refusal>) -> Option<Code> {
    decided.err().map(|refusal| refusal.code())
}

#[test]
fn a_credential_of_another_agent_does_not_exist() {
    // AU-01: the very same refusal as for a host that nobody knows.
    let private = HashMap::from([(agent("bob"), [provider("openai")].into())]);
    let policy = policy(PolicyRules::default(), Holdings { private, ..Holdings::default() });
    assert_eq!(policy.connect(&agent("bob"), &https("api.openai.com:443")), TunnelDecision::Intercept);
    assert_eq!(
        policy.connect(&agent("ada"), &https("api.openai.com:443")),
        policy.connect(&agent("ada"), &https("nobody.test:443"))
    );
    let known = get(&policy, "ada", https("api.openai.com:443"), "/").unwrap_err();
    assert_eq!(known, get(&policy, "ada", https("nobody.test:443"), "/").unwrap_err());
    assert_eq!(known.code(), Code::PolicyDenied);
    let base = policy.decide_provider(
        &agent("ada"),
        &provider("openai"),
        https("api.openai.com:443"),
        &Method::GET,
        &Path::parse("/").unwrap(),
    );
    assert_eq!(code(base), Some(Code::PolicyDenied));
}

#[test]
fn only_what_is_listed_may_be_used() {
    let agents = HashMap::from([
        (agent("coder"), vec![allowance("openai", &[], &[]), allowance("github", &[Method::GET], &["/repos/acme/**"])]),
        (agent("nothing"), Vec::new()),
    ]);
    let policy = policy(PolicyRules { agents, ..PolicyRules::default() }, shared(&["github", "acme"]));
    let github = || https("api.github.com:443");
    for (name, origin, path, expected) in [
        ("coder", github(), "/repos/acme/x", None),
        ("coder", github(), "/repos/other/x", Some(Code::PolicyDenied)),
        ("coder", github(), "/repos/acme/%2e%2e/other", Some(Code::BadRequest)),
        ("coder", https("api.openai.com:443"), "/", Some(Code::CredentialsMissing)),
        ("coder", https("x.acme.test:443"), "/", Some(Code::PolicyDenied)),
        ("nothing", github(), "/repos/acme/x", Some(Code::PolicyDenied)),
        ("free", github(), "/any", None),
        ("free", https("x.acme.test:443"), "/", None),
        ("free", https("api.openai.com:443"), "/", Some(Code::PolicyDenied)),
    ] {
        let context = format!("{name} {origin} {path}");
        assert_eq!(code(get(&policy, name, origin, path)), expected, "{context}");
    }
    let post = policy.decide(&agent("coder"), github(), &Method::POST, &Path::parse("/repos/acme/x").unwrap());
    let refusal = post.unwrap_err();
    assert_eq!((refusal.code(), &*refusal.rule().name), (Code::PolicyDenied, "agents.coder.allow"));
    // The missing credential is told inside the connection, where the client can read the answer.
    assert_eq!(policy.connect(&agent("coder"), &https("api.openai.com:443")), TunnelDecision::Intercept);
}

#[test]
fn a_provider_with_nothing_stored_is_left_to_the_default() {
    for (fallback, tunnelled) in [(Fallback::Tunnel, true), (Fallback::Deny, false)] {
        let policy = policy(PolicyRules { fallback, ..PolicyRules::default() }, Holdings::default());
        let decision = policy.connect(&agent("a"), &https("api.openai.com:443"));
        assert_eq!(matches!(decision, TunnelDecision::Tunnel(rule) if &*rule.name == "default"), tunnelled);
    }
}

#[test]
fn tunnels_go_to_two_ports_unless_a_route_says_otherwise() {
    let ssh = Route { ports: Ports::Listed(vec![22]), ..route("git.test", RouteAction::Tunnel) };
    let rules = PolicyRules { routes: vec![ssh], fallback: Fallback::Tunnel, ..PolicyRules::default() };
    let policy = policy(rules, Holdings::default());
    for (target, tunnelled) in [
        ("x.test:443", true),
        ("x.test:80", true),
        ("x.test:22", false),
        ("x.test:8443", false),
        ("git.test:22", true),
        ("git.test:2222", false),
        ("10.0.0.1:443", true),
    ] {
        let decision = policy.connect(&agent("a"), &https(target));
        assert_eq!(matches!(decision, TunnelDecision::Tunnel(_)), tunnelled, "{target}");
    }
    assert!(get(&policy, "a", http("x.test:8080"), "/").is_err());
}

#[test]
fn a_credential_is_bound_to_its_port() {
    // TL-33
    let policy = policy(PolicyRules::default(), shared(&["openai"]));
    assert!(matches!(
        policy.connect(&agent("a"), &https("api.openai.com:8443")),
        TunnelDecision::Refuse(Refusal::Denied(_))
    ));
    assert_eq!(code(get(&policy, "a", https("api.openai.com:8443"), "/")), Some(Code::PolicyDenied));
}

#[test]
fn a_denial_is_for_every_port() {
    let rules = PolicyRules {
        routes: vec![route("*.internal.test", RouteAction::Deny)],
        fallback: Fallback::Tunnel,
        ..PolicyRules::default()
    };
    let policy = policy(rules, Holdings::default());
    for target in ["a.internal.test:443", "a.internal.test:80", "a.internal.test:22"] {
        assert!(matches!(policy.connect(&agent("a"), &https(target)), TunnelDecision::Refuse(_)), "{target}");
    }
    assert_eq!(code(get(&policy, "a", http("a.internal.test"), "/")), Some(Code::PolicyDenied));
}

#[test]
fn the_first_route_that_matches_wins() {
    let delete = Route { methods: vec![Method::DELETE], ..route("api.github.com", RouteAction::Deny) };
    let bot = RouteAction::Allow { provider: Some(provider("github")), profile: ProfileId::parse("github:bot").ok() };
    let bot = Route { name: Some("bot".to_owned()), scrub: Some(Scrub::Off), ..route("api.github.com", bot) };
    let ports = Route { ports: Ports::Usual, ..route("api.github.com", RouteAction::Deny) };
    let rules = PolicyRules { routes: vec![delete, bot, ports], ..PolicyRules::default() };
    let policy = policy(rules, shared(&["github"]));
    let github = || https("api.github.com:443");
    assert_eq!(policy.connect(&agent("a"), &github()), TunnelDecision::Intercept);
    let permit = get(&policy, "a", github(), "/").unwrap();
    assert_eq!(permit.rule().to_string(), "routes[1] \"bot\" (k.yaml:7)");
    assert!(!permit.scrub());
    let Action::Inject { profile: Some(profile), .. } = permit.action() else { panic!("{permit:?}") };
    assert_eq!(profile.to_string(), "github:bot");
    let deleted = policy.decide(&agent("a"), github(), &Method::DELETE, &Path::parse("/").unwrap());
    assert_eq!(&*deleted.unwrap_err().rule().name, "routes[0]");
}

#[test]
fn a_credential_never_goes_over_cleartext() {
    let rules = PolicyRules {
        routes: vec![route("routed.test", allow("openai"))],
        fallback: Fallback::Tunnel,
        ..PolicyRules::default()
    };
    let policy = policy(rules, shared(&["openai"]));
    for (authority, expected) in [
        ("api.openai.com", Some(Code::CleartextRefused)),
        ("api.openai.com:8080", Some(Code::CleartextRefused)),
        ("api.openai.com:443", Some(Code::CleartextRefused)),
        ("routed.test", Some(Code::CleartextRefused)),
        ("api.github.com", None),
        ("plain.test", None),
    ] {
        assert_eq!(code(get(&policy, "a", http(authority), "/")), expected, "{authority}");
    }
}

#[test]
fn an_address_is_never_intercepted() {
    // Such a route is a fault of the configuration; should one come about, it is refused.
    let rules = PolicyRules { routes: vec![route("10.0.0.1", allow("openai"))], ..PolicyRules::default() };
    let policy = policy(rules, shared(&["openai"]));
    assert!(matches!(policy.connect(&agent("a"), &https("10.0.0.1:443")), TunnelDecision::Refuse(_)));
}

#[test]
fn a_route_for_other_paths_refuses_paths_that_can_be_read_in_two_ways() {
    // RT-17
    let paths = vec![PathPattern::parse("/v1/**").unwrap()];
    let rules = PolicyRules {
        routes: vec![Route { paths, ..route("x.test", RouteAction::Allow { provider: None, profile: None }) }],
        fallback: Fallback::Tunnel,
        ..PolicyRules::default()
    };
    let policy = policy(rules, Holdings::default());
    for bad in ["/v1/../admin", "/v1/..;/x", "//v1", "/v1%2fadmin", "/v1\\x", "/v1/%00", "/v1/%252e", "/%76%31/x"] {
        assert_eq!(code(get(&policy, "a", https("x.test:443"), bad)), Some(Code::BadRequest), "{bad}");
        // Where no rule looks at paths, they are nobody's business here.
        assert_eq!(code(get(&policy, "a", https("y.test:443"), bad)), None, "{bad}");
    }
}

#[test]
fn new_holdings_change_the_answer_and_not_the_rules() {
    let before = policy(PolicyRules::default(), Holdings::default());
    let after = before.with_holdings(shared(&["openai"]));
    assert!(get(&before, "a", https("api.openai.com:443"), "/").is_err());
    assert!(get(&after, "a", https("api.openai.com:443"), "/").is_ok());
}

#[test]
fn why_names_the_routes_that_were_passed_over() {
    let rules = PolicyRules {
        routes: vec![
            Route { agents: vec![agent("bob")], ..route("api.github.com", RouteAction::Deny) },
            Route { methods: vec![Method::DELETE], ..route("api.github.com", RouteAction::Deny) },
            Route { ports: Ports::Listed(vec![8443]), ..route("api.github.com", RouteAction::Deny) },
            Route {
                paths: vec![PathPattern::parse("/admin/**").unwrap()],
                ..route("api.github.com", RouteAction::Deny)
            },
            route("api.github.com", allow("github")),
            route("api.github.com", RouteAction::Deny),
        ],
        ..PolicyRules::default()
    };
    let policy = policy(rules, shared(&["github"]));
    let path = Path::parse("/x").unwrap();
    let explained = policy.explain(&agent("ada"), &https("api.github.com:443"), &Method::GET, &path);
    assert_eq!((explained.decision, &*explained.rule.name), (Verdict::Inject, "routes[4]"));
    assert_eq!(explained.reason, "routes[4] (k.yaml:7) lets the agent use github");
    let because: Vec<Mismatch> = explained.passed_over.iter().map(|passed| passed.because).collect();
    assert_eq!(because, [Mismatch::Agent, Mismatch::Method, Mismatch::Port, Mismatch::Path]);
}

#[test]
fn ten_thousand_hosts_are_looked_up_like_one() {
    let many = (0..10_000).map(|n| (HostPattern::parse(&format!("h{n}.x{n}.test")).unwrap(), provider("openai")));
    let routes = (0..10_000).map(|n| route(&format!("r{n}.test"), RouteAction::Deny)).collect();
    let large = Policy::new(PolicyRules { routes, ..PolicyRules::default() }, shared(&["openai"]), many.collect());
    let origin = https("h9999.x9999.test:443");
    // Counted, not timed: what is looked at for one host does not grow with the others.
    assert_eq!(large.compiled.providers.lookup(&origin).count(), 1);
    assert_eq!(large.compiled.routes_for(&agent("a"), &origin).count(), 0);
    assert!(get(&large, "a", origin, "/").is_ok());
}
