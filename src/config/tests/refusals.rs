//! What is refused, and that no refusal shows a secret.

use super::*;

#[test]
fn what_is_not_built_yet_says_so_and_its_shape_is_checked_all_the_same() {
    let samples = [
        ("vault.url: postgres", "vault: {url: \"postgres://db/keyferry\"}"),
        ("vault.url: elsewhere", "vault: {url: \"sqlite:/var/lib/keyferry/vault.db\"}"),
        ("vault.master_key: keyring", "vault: {master_key: keyring}"),
    ];
    for feature in unbuilt::NOT_AVAILABLE_YET {
        let (_, text) = samples.iter().find(|(name, _)| name == feature).unwrap_or_else(|| panic!("{feature}"));
        let found = faults(text);
        assert_eq!(found.len(), 1, "{text} {found:?}");
        assert!(found[0].contains("not available yet"), "{found:?}");
    }
    for (text, part) in [
        ("listen: {proxy_tls: nowhere}", "not an address and port"),
        ("listen: {proxy: {addr: \"0.0.0.0:1\", agent: coder}}", "names an agent for an address that is not loopback"),
        ("vault: {master_key: \"pasphrase\"}", "did you mean `passphrase`?"),
        ("upstream: {proxy: \"http://\"}", "not the URL of a proxy"),
        ("upstream: {proxy: corp}", "not the URL of a proxy"),
        ("upstream: {proxy: \"http://u:p@corp:1\"}", "no secret stands in this file"),
        ("upstream: {proxy: \"socks5://corp:1\"}", "only http:// proxies can"),
        ("pools: {openai: {fallback: [{provider: openruter}]}}", "did you mean `openrouter`?"),
        ("pools: {openai: {fallback: [{models: {}}]}}", "has no `provider`"),
        ("pools: {openai: {fallback: [{provider: openrouter}]}}", "`pools.openai.fallback[0].models` names no model"),
        ("pools: {openai: {fallback: [{provider: openrouter, models: {}}]}}", "names no model"),
        ("pools: {openai: {fallback: [{provider: openrouter, models: {\"gpt-?\": b}}]}}", "no name for models"),
        ("pools: {openai: {fallback: [{provider: openrouter, models: {\"gpt-*\": b, gpt-4: c}}]}}", "is never reached"),
        ("pools: {openai: {fallback: [{provider: openai, models: {a: b}}]}}", "falls back to itself"),
        ("pools: {openai: {fallback: [{provider: anthropic, models: {a: b}}]}}", "have no protocol in common"),
        ("pools: {openai: {fallback: [{provider: github, models: {a: b}}]}}", "have no protocol in common"),
        (
            "pools: {openai: {fallback: [{provider: groq, models: {a: b}}]}, groq: {fallback: [{provider: openai, models: {a: b}}]}}",
            "`openai` and `groq` lead in a circle",
        ),
        (
            "pools: {openai: {fallback: [{provider: groq, models: {a: b}}, {provider: groq, models: {c: d}}]}}",
            "to `groq` twice",
        ),
        ("pools: {openai: {rotate: off, fallback: [{provider: groq, models: {a: b}}]}}", "does not rotate"),
        ("providers: {openai: {speaks: {caht: /x}}}", "did you mean `chat`?"),
        ("providers: {openai: {speaks: {chat: x}}}", "is not a path"),
        ("pools: {openai: {foreign: keep}}", "not one of its words"),
        ("agents: {coder: {limits: {requests: 60/fortnight}}}", "not a rate"),
        ("agents: {coder: {limits: {concurrency: 0}}}", "not a number from 1"),
        ("agents: {coder: {limits: {request: 1/s}}}", "did you mean `requests`?"),
        ("pools: {openai: {limits: {requests: often}}}", "not a rate"),
        ("pools: {openai: {limits: {concurrency: -1}}}", "not a number from 1"),
        ("pools: {openai: {limits: {tokens: 1/s}}}", "not a key of `pools.openai.limits`"),
    ] {
        is_fault(text, part);
    }
}

#[test]
fn refuses_what_could_not_do_what_it_says() {
    for (text, part) in [
        // The file as a whole.
        ("- a\n", "the file is a mapping"),
        ("just text\n", "the file is a mapping"),
        ("hosts: []\n", "`hosts` is not a key of the file"),
        ("log: [a]\n", "`log` is a mapping"),
        ("default:\n", "`default` has no value"),
        ("default: \"\"\n", "`default` is empty"),
        ("default: [deny]\n", "is one value, not a list"),
        ("scrub: maybe\n", "known here: on, off"),
        ("log: {format: pretty}\n", "known here: json"),
        ("log: {access: \"~/x\"}\n", "stand for themselves"),
        // listen
        ("listen: {proxy: \"localhost:7878\"}", "not an address and port"),
        ("listen: {proxy: 7878}", "not an address and port"),
        ("listen: {proxy: 127.0.0.1:70000}", "not an address and port"),
        ("listen: {proxy: {}}", "has no `addr`"),
        ("listen: {proxy: 127.0.0.1:7879}", "`listen.proxy` and `listen.base_url` have the same address"),
        ("listen: {proxy: 127.0.0.1:1, admin: 127.0.0.1:1}", "have the same address"),
        ("listen: {transparent: 127.0.0.1:1}", "has no `agent`"),
        ("listen: {transparent: {addr: 127.0.0.1:1, agent: coder, uid: root}}", "not the number of a user"),
        ("listen: {proxy_tls: {addr: 127.0.0.1:1, name: 127.0.0.1}}", "not the name of a host"),
        ("listen: {proxy_tls: 10.0.0.1:1}", "has no `name`"),
        ("listen: {unix: {agents: {1000: coder}}}", "has no `path`"),
        (
            "listen: {unix: {path: x.sock, agents: {coder: coder}}}",
            "a key of `listen.unix.agents` is the number of a user",
        ),
        ("listen: {admin: {addr: 127.0.0.1:1, agent: coder}}", "is not a key of `listen.admin`"),
        // vault
        ("vault: {url: \"vault.db\"}", "does not name a store"),
        ("vault: {url: \"mysql://x\"}", "does not name a store"),
        ("vault: {master_key: c2VjcmV0}", "the key itself never stands here"),
        ("vault: {master_key: \"env:1X\"}", "does not name a source"),
        ("vault: {master_key: \"file:\"}", "does not name a source"),
        // upstream
        ("upstream: {resolve: {\"x.test\": \"127.0.0.1:1\"}}", "is a host and port"),
        ("upstream: {resolve: {\"*.x.test:443\": \"127.0.0.1:1\"}}", "is a host and port"),
        ("upstream: {resolve: {\"x.test:443\": \"y.test:1\"}}", "not an address and port"),
        ("upstream: {resolve: {\"x.test:443\": \"127.0.0.1:0\"}}", "no port that can be reached"),
        ("upstream: {resolve: {\"x.test:443\": \"127.0.0.1:1\", \"X.test.:443\": \"127.0.0.1:2\"}}", "stand twice"),
        ("upstream: {resolve: [a]}", "`upstream.resolve` is a mapping"),
        ("upstream: {allow_networks: [10.0.0.0/33]}", "not a network"),
        ("upstream: {allow_networks: [10.0.0.1]}", "not a network"),
        ("upstream: {allow_networks: 10.0.0.0/8}", "is a list"),
        ("upstream: {timeouts: {connect: 0s}}", "not a duration"),
        ("upstream: {timeouts: {conect: 1s}}", "did you mean `connect`?"),
        // providers
        ("providers: {Acme: {}}", "provider's name uses only"),
        (
            "providers: {acme: {inject: {header: X-Key, value: \"{secret}\"}}}",
            "`providers.acme.hosts`: there are no hosts",
        ),
        ("providers: {acme: {hosts: [a.test]}}", "1:13 `providers.acme.inject`: says nothing of where"),
        ("providers: {antropic: {}}", "if the built-in `anthropic` is meant"),
        ("providers: {acme: {hosts: []}}", "is empty"),
        ("providers: {acme: {hosts: [10.0.0.1]}}", "cannot be intercepted"),
        ("providers: {acme: {hosts: [\"*.com\"]}}", "every domain under a top-level name"),
        ("providers: {acme: {hosts: [\"https://a.test\"]}}", "is a URL, not a host"),
        ("providers: {acme: {inject: {}}}", "is empty"),
        ("providers: {acme: {inject: {value: x}}}", "does not say where the credential goes"),
        ("providers: {acme: {inject: {header: A, query: b, value: \"{secret}\"}}}", "says it in two ways"),
        ("providers: {acme: {inject: {header: A}}}", "has no `value`"),
        (
            "providers: {acme: {inject: {header: A, value: constant}}}",
            "1:28 `providers.acme.inject`: never names {secret}",
        ),
        (
            "providers: {acme: {inject: {header: \"A B\", value: \"{secret}\"}}}",
            "1:37 `providers.acme.inject.header`: \"A B\" is not a field name",
        ),
        (
            "providers: {acme: {inject: {header: Host, value: \"{secret}\"}}}",
            "is not a field that a credential can stand in",
        ),
        ("providers: {acme: {inject: {header: Cookie, value: \"{secret}\"}}}", "{cookie: NAME"),
        ("providers: {acme: {inject: {header: A, value: \"{Secret}\"}}}", "1:47 `providers.acme.inject.value`"),
        ("providers: {acme: {inject: {header: A, value: \"\\u00e9\\u0001{secret}\"}}}", "control character"),
        ("providers: {acme: {inject: {path: /bot}}}", "1:35 `providers.acme.inject.path`: never names {secret}"),
        ("providers: {acme: {inject: {path: \"bot{secret}\"}}}", "is not the beginning of a path"),
        ("providers: {acme: {inject: {path: \"/{secret}\", value: x}}}", "has no `value` beside `path`"),
        ("providers: {acme: {inject: {basic: {user: x}}}}", "has no `password`"),
        ("providers: {acme: {inject: {basic: {user: x, password: y}}}}", "never names {secret}"),
        ("providers: {acme: {inject: {cookie: \"a;b\", value: \"{secret}\"}}}", "is not a cookie name"),
        ("providers: {acme: {env: \"1X\"}}", "1:25 `providers.acme.env[0]`"),
        ("providers: {acme: {test: {method: GET}}}", "has no `path`"),
        ("providers: {acme: {test: {method: get, path: /}}}", "1:35 `providers.acme.test.method`"),
        ("providers: {acme: {test: {path: v1}}}", "1:33 `providers.acme.test.path`"),
        ("providers: {acme: {hosts: [a.test, \"b*.test\"]}}", "1:36 `providers.acme.hosts[1]`"),
        (
            "providers: {acme: {inject: [{header: A, value: \"{secret}\"}, {header: A, value: x}]}}",
            "1:61 `providers.acme.inject[1]`: the slot",
        ),
        (
            "providers: {acme: {hosts: [api.openai.com], inject: {header: A, value: \"{secret}\"}}}",
            "belongs to the provider 'openai' already",
        ),
        ("providers: {anthropic: {hosts: [10.0.0.1]}}", "1:33 `providers.anthropic.hosts[0]`"),
        (
            "providers: {anthropic: {inject: {header: Host, value: \"{secret}\"}}}",
            "1:42 `providers.anthropic.inject.header`",
        ),
        ("providers: {acme: {env: [A, 1]}}", "1:29 `providers.acme.env[1]`"),
        // pools
        ("pools: {antropic: {}}", "did you mean `anthropic`?"),
        ("pools: {acme: {}}\nproviders: {acne: {hosts: [a.test]}}", "did you mean `acne`?"),
        ("pools: {openai: {order: [a, b, a]}}", "stands twice in the order"),
        ("pools: {openai: {order: [a, \"openai:a\"]}}", "stands twice in the order"),
        ("pools: {openai: {order: [\"anthropic:a\"]}}", "another provider than `openai`"),
        ("pools: {openai: {order: [\"a b\"]}}", "is no name"),
        ("pools: {openai: {strategy: stick}}", "did you mean `sticky`?"),
        ("pools: {openai: {cooldown: fast}}", "not a cooldown"),
        ("pools: {openai: {cooldown: []}}", "is empty"),
        ("pools: {openai: {cooldown: [5m, 1m]}}", "does not rise"),
        ("pools: {openai: {cooldown: {rate_limt: [1m]}}}", "did you mean `rate_limit`?"),
        ("pools: {openai: {cooldown: {billing: [2h, 1h]}}}", "does not rise"),
        ("pools: {openai: {cooldown: [1m, 25h]}}", "1:33 `pools.openai.cooldown[1]` is longer than any rest"),
        ("pools: {openai: {cooldown: {overload: [1h]}}}", "at most 600s"),
        ("pools: {openai: {rotate: never}}", "known here: on, off"),
        ("pools: {openai: {wait: 5}}", "not a duration"),
        ("pools: {openai: {warm_wait: 2m}}", "longer than a request can wait"),
        ("pools: {openai: {attempts: {total: 0}}}", "not a number from 1 to 8"),
        ("pools: {openai: {attempts: {waits: -1}}}", "not a number from 0 to 8"),
        ("pools: {openai: {attempts: {total: 100}}}", "eight sends are the most"),
        ("pools: {openai: {attempts: {hops: 1}}}", "is not a key of `pools.openai.attempts`"),
        ("pools: {openai: {groups: {work: [a, b], home: [b]}}}", "is in a group already"),
        ("pools: {openai: {groups: {\"a b\": [a]}}}", "no name for a group"),
        // providers.*.rules
        (
            "providers: {openai: {rules: [{on: 429, means: rate-limt}]}}",
            "1:47 `providers.openai.rules[0].means`: `rate-limt` is no known class | did you mean `rate-limit`?",
        ),
        ("providers: {openai: {rules: [{on: 429, means: quota, of: gruop}]}}", "did you mean `group`?"),
        (
            "providers: {openai: {rules: [{on: 429, means: quota, until: {field: x-r, as: epoc}}]}}",
            "did you mean `epoch`?",
        ),
        ("providers: {openai: {rules: [{on: 429}]}}", "does not say what it means"),
        ("providers: {openai: {rules: [{means: quota}]}}", "fits every answer"),
        ("providers: {openai: {rules: [{on: 42, means: quota}]}}", "not a status"),
        ("providers: {openai: {rules: [{on: [429, 600], means: quota}]}}", "not a status"),
        ("providers: {openai: {rules: [{text: \"(\", means: quota}]}}", "not a regular expression"),
        ("providers: {openai: {rules: [{says: {error: x}, means: quota}]}}", "is not a JSON pointer"),
        ("providers: {openai: {rules: [{says: {/error: \"~(\"}, means: quota}]}}", "not a regular expression"),
        (
            "providers: {openai: {rules: [{on: 429, means: quota, until: {as: epoch}}]}}",
            "does not say where the end stands",
        ),
        ("providers: {openai: {rules: [{on: 429, means: quota, until: {field: x, body: /y}}]}}", "names two places"),
        ("providers: {openai: {rules: [{on: 429, means: quota, until: {midnight: 24}}]}}", "hours behind UTC"),
        ("providers: {openai: {rule: []}}", "did you mean `rules`?"),
        ("providers: {openai: {status: {429: rate-limit@grup}}}", "did you mean `group`?"),
        ("providers: {openai: {status: {teapot: quota}}}", "is not a status"),
        ("providers: {openai: {faults: permanent}}", "known here: transient"),
        // agents
        ("agents: {\"a b\": {}}", "agent's name uses only"),
        ("agents: {coder: {allow: openai}}", "is a list"),
        ("agents: {coder: {allow: [{methods: [GET]}]}}", "has no `provider`"),
        ("agents: {coder: {allow: [{provider: openai, methods: []}]}}", "is empty"),
        ("agents: {coder: {allow: [{provider: openai, paths: [v1]}]}}", "does not begin with a slash"),
        ("agents: {coder: {allow: [{provider: openai, path: [/v1]}]}}", "did you mean `paths`?"),
        ("agents: {coder: {env: {\"1A\": x}}}", "not the name of a variable"),
        ("agents: {coder: {env: {A: [x]}}}", "is one value, not a list"),
        ("agents: {coder: {env: {A: }}}", "has no value"),
        ("agents: {coder: {env: {A: \"\\0\"}}}", "NUL"),
        // routes
        ("routes: {host: a.test}", "is a list, not a mapping"),
        ("routes: [{action: deny}]", "has no `host`"),
        ("routes: [{host: a.test}]", "has no `action`"),
        ("routes: [{host: \"*\", action: deny}]", "has a wildcard in a place where none can stand"),
        ("routes: [{host: a.test, agents: [], action: deny}]", "is empty"),
        ("routes: [{host: a.test, agents: , action: deny}]", "is empty"),
        ("routes: [{host: a.test, ports: [0], action: deny}]", "not a port"),
        ("routes: [{host: a.test, ports: [https], action: deny}]", "not a port"),
        ("routes: [{host: \"a.test:1\", ports: [1], action: deny}]", "says the port twice"),
        ("routes: [{host: a.test, action: tunnel, paths: [/x]}]", "a tunnel is not read"),
        ("routes: [{host: a.test, action: tunnel, provider: openai}]", "says nothing beside this action"),
        ("routes: [{host: a.test, action: deny, scrub: off}]", "says nothing beside this action"),
        ("routes: [{host: a.test, action: allow, provider: opnai}]", "did you mean `openai`?"),
        ("routes: [{host: a.test, action: allow, profile: \"openai:x\"}]", "add `provider: openai`"),
        ("routes: [{host: a.test, action: allow, provider: openai, profile: \"slack:x\"}]", "write openai:x"),
        ("routes: [{host: a.test, action: allow, provider: openai, profile: x}]", "is no profile"),
        ("routes: [{host: \"*.com\", action: allow, provider: openai}]", "every domain under a top-level name"),
        ("routes: [{host: \"[::1]\", action: allow}]", "cannot be intercepted"),
        ("routes: [{host: 10.0.0.1, methods: [GET], action: deny}]", "cannot be intercepted"),
        ("routes: [{host: 127.1, action: deny}]", "in a spelling that is not accepted"),
        ("routes: [{name: a, host: a.test, action: deny}, {name: a, host: b.test, action: deny}]", "in line 1"),
        ("routes: [{host: a.test, action: deny, paths: [\"/a*\"]}]", "wildcard inside a segment"),
        ("routes: [deny]", "`routes[0]` is a mapping"),
    ] {
        is_fault(text, part);
    }
}

#[test]
fn no_fault_shows_a_secret() {
    let secrets = [
        format!("sk-ant-api03-{}", "Zq7".repeat(20)),
        format!("gh{}_{}", "p", "Zq7".repeat(12)),
        "Zq7".repeat(15),
        format!("http://user:{}@host", "Zq7".repeat(8)),
    ];
    // Wherever a value may stand by mistake, and however wrong the rest is.
    let places = [
        "default: \"?\"",
        "\"?\": 1",
        "listen: {proxy: \"?\"}",
        "listen: {\"?\": 1}",
        "vault: {url: \"?\"}",
        "vault: {master_key: \"?\"}",
        "vault: {master_key: \"env:?\"}",
        "upstream: {proxy: \"?\", resolve: {\"?\": \"?\"}, allow_networks: [\"?\"], timeouts: {connect: \"?\"}}",
        "providers: {\"?\": {}}",
        "providers: {acme: {hosts: [\"?\"], inject: {header: \"?\", value: \"?\"}, env: \"?\", test: {method: \"?\", path: \"?\"}}}",
        "providers: {acme: {hosts: [a.test], inject: {basic: {user: x, password: \"?\"}}}}",
        "pools: {\"?\": {order: [\"?\"], strategy: \"?\", cooldown: \"?\"}}",
        "pools: {openai: {order: [\"?\", \"?\"], \"?\": \"?\"}}",
        "agents: {\"?\": {allow: [\"?\"], limits: {requests: \"?\"}, env: {\"?\": \"?\"}}}",
        "routes: [{name: \"?\", host: \"?\", agents: [\"?\"], methods: [\"?\"], paths: [\"?\"], action: \"?\", profile: \"?\"}]",
        "routes: [{host: a.test, action: allow, provider: \"?\", profile: \"?:?\"}]",
        "a: \"?\"\n\"?\": 1\n\"?\": 2\n",
        "a: [\"?\"\nb: \"?\n",
        "? [\"?\"]\n: x\n",
        "a: &? x\n",
        "a: *?\n",
        "a: !? x\n",
    ];
    for secret in &secrets {
        for place in places {
            let text = place.replace('?', secret);
            let Err(faults) = parse(&text, "k.yaml") else { continue };
            let shown = format!("{faults}{faults:?}{}", serde_json::to_string(&faults).unwrap());
            assert!(!shown.contains("Zq7"), "{place}: {shown}");
        }
    }
}

#[test]
fn a_well_known_shape_is_a_fault_even_where_a_value_would_be_welcome() {
    let secret = format!("sk-ant-api03-{}", "Zq7".repeat(20));
    for text in [
        format!("agents: {{coder: {{env: {{KEY: {secret}}}}}}}\n"),
        format!("# ANTHROPIC_API_KEY={secret}\n"),
        format!("providers: {{openai: {{inject: [{{header: X-Api-Key, value: \"{secret}{{secret}}\"}}]}}}}\n"),
    ] {
        is_fault(&text, "in the shape of a secret");
    }
    is_fault(
        "providers: {a: {hosts: [a.test], inject: {header: Authorization, value: \"Bearer abcdefghijklmnopqrstuvwx\"}}}",
        "shape of a secret",
    );
}
