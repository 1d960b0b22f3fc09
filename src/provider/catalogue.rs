//! Every provider that is known: the embedded ones, and those of the configuration.
//!
//! Invariant: no two providers claim the same concrete host, so a host never leads to two credentials.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use super::compile;
use super::draft::{Draft, DraftFault};
use super::kind::{Kind, Provider};
use crate::id::ProviderId;
use crate::message::pattern::HostPattern;
use crate::secret::Secret;

/// The providers by their names.
#[derive(Debug, Clone)]
pub struct Catalogue {
    providers: BTreeMap<ProviderId, Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    draft: Arc<Draft>,
    provider: Arc<Provider>,
    source: Source,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Embedded,
    Configured,
}

impl Catalogue {
    /// The embedded catalogue, `config/providers.yaml`.
    #[must_use]
    pub fn embedded() -> Self {
        static EMBEDDED: OnceLock<Catalogue> = OnceLock::new();
        // The file is a part of the program and a test reads it, so it is never faulty here.
        EMBEDDED.get_or_init(|| read(EMBEDDED_TEXT).unwrap_or_else(|_| Self { providers: BTreeMap::new() })).clone()
    }

    /// This catalogue with the providers of the configuration: new names are added, known ones are overridden in
    /// what they say.
    ///
    /// # Errors
    /// Every [`DraftFault`] of all of them.
    pub fn with(&self, drafts: Vec<(ProviderId, Draft)>) -> Result<Self, Vec<DraftFault>> {
        self.extended(drafts, Source::Configured)
    }

    fn extended(&self, drafts: Vec<(ProviderId, Draft)>, source: Source) -> Result<Self, Vec<DraftFault>> {
        let mut providers = self.providers.clone();
        let mut faults = Vec::new();
        let mut named = Vec::new();
        for (id, draft) in drafts {
            let draft = match providers.get(&id) {
                Some(known) => compile::overlay(&known.draft, draft),
                None => draft,
            };
            match compile::provider(&id, &draft) {
                Ok(provider) => {
                    let (draft, provider) = (Arc::new(draft), Arc::new(provider));
                    providers.insert(id.clone(), Entry { draft, provider, source });
                    named.push(id);
                }
                Err(found) => faults.extend(found),
            }
        }
        let catalogue = Self { providers };
        faults.extend(catalogue.collisions(&named));
        if faults.is_empty() { Ok(catalogue) } else { Err(faults) }
    }

    /// One provider.
    #[must_use]
    pub fn provider(&self, id: &ProviderId) -> Option<&Arc<Provider>> {
        self.providers.get(id).map(|entry| &entry.provider)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Provider>> {
        self.providers.values().map(|entry| &entry.provider)
    }

    /// Whose credential a variable of this name holds. Where the configuration and the embedded catalogue both name
    /// it, the configuration is meant.
    #[must_use]
    pub fn by_env(&self, variable: &str) -> Option<(&Arc<Provider>, &Kind)> {
        let configured = |id: &ProviderId| self.providers.get(id).map(|entry| entry.source) == Some(Source::Configured);
        let mut all = self.kinds().filter(|(_, kind)| kind.env.iter().any(|name| name == variable));
        let first = all.next()?;
        Some([first].into_iter().chain(all).find(|(provider, _)| configured(&provider.id)).unwrap_or(first))
    }

    /// Whose credential a value is, by its form alone. None where two providers' keys look alike.
    #[must_use]
    pub fn by_shape(&self, value: &Secret) -> Option<(&Arc<Provider>, &Kind)> {
        let mut fitting = self.kinds().filter(|(_, kind)| kind.fits(value));
        let first = fitting.next()?;
        fitting.all(|(provider, _)| provider.id == first.0.id).then_some(first)
    }

    /// The provider that was probably meant.
    #[must_use]
    pub fn suggest(&self, text: &str) -> Option<ProviderId> {
        let text = text.trim().to_ascii_lowercase();
        let distance = |name: &str| strsim::damerau_levenshtein(&text, &name.to_ascii_lowercase());
        let nearest = self.iter().filter_map(|provider| {
            let names =
                [provider.id.as_str(), &provider.name].into_iter().chain(provider.aka.iter().map(String::as_str));
            // A third of the letters may be wrong, two at most: more than that is another word.
            let close = |name: &str| distance(name) <= (name.len().min(text.len()) / 3).min(2);
            names.filter(|name| close(name)).map(distance).min().map(|distance| (distance, provider))
        });
        nearest.min_by_key(|(distance, _)| *distance).map(|(_, provider)| provider.id.clone())
    }

    /// The concrete hosts of all providers. Wildcard hosts are no part of it: such a host is known once a credential
    /// is sealed to it.
    #[must_use]
    pub fn hosts(&self) -> Vec<(HostPattern, ProviderId)> {
        let pairs = |provider: &Arc<Provider>| {
            let id = provider.id.clone();
            provider.hosts().into_iter().map(move |host| (host, id.clone()))
        };
        self.iter().flat_map(pairs).collect()
    }

    fn kinds(&self) -> impl Iterator<Item = (&Arc<Provider>, &Kind)> {
        self.iter().flat_map(|provider| provider.kinds.iter().map(move |kind| (provider, kind)))
    }

    /// Hosts of the providers in `named` that another provider has too.
    fn collisions(&self, named: &[ProviderId]) -> Vec<DraftFault> {
        let mut owners: HashMap<HostPattern, Vec<ProviderId>> = HashMap::new();
        for (host, owner) in self.hosts() {
            owners.entry(host).or_default().push(owner);
        }
        let mut faults = Vec::new();
        for id in named {
            for host in self.provider(id).map(|provider| provider.hosts()).unwrap_or_default() {
                let Some(owner) = owners.get(&host).and_then(|owners| owners.iter().find(|owner| *owner != id)) else {
                    continue;
                };
                faults.push(DraftFault {
                    provider: id.clone(),
                    field: "hosts".to_owned(),
                    message: format!("{host} belongs to the provider '{owner}' already"),
                    hint: Some(format!("to change how its credential is sent, write it under 'providers: {owner}:'")),
                });
            }
        }
        faults
    }
}

const EMBEDDED_TEXT: &str = include_str!("../../config/providers.yaml");

fn read(text: &str) -> Result<Catalogue, String> {
    let drafts: BTreeMap<String, Draft> = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    let mut named = Vec::new();
    for (id, draft) in drafts {
        named.push((ProviderId::parse(&id).map_err(|error| error.to_string())?, draft));
    }
    let empty = Catalogue { providers: BTreeMap::new() };
    empty.extended(named, Source::Embedded).map_err(|faults| format!("{faults:?}"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::provider::{InjectDraft, TestDraft};

    fn id(text: &str) -> ProviderId {
        ProviderId::parse(text).unwrap()
    }

    fn header(name: &str, value: &str) -> InjectDraft {
        InjectDraft::Header { header: name.to_owned(), value: value.to_owned() }
    }

    fn acme() -> Draft {
        Draft {
            hosts: vec!["api.acme.test".to_owned(), "*.eu.acme.test".to_owned()],
            inject: vec![header("Authorization", "Bearer {secret}")],
            env: vec!["ACME_API_KEY".to_owned()],
            test: Some(TestDraft { method: "GET".to_owned(), path: "/v1/me".to_owned(), body: None }),
            ..Draft::default()
        }
    }

    #[test]
    fn the_embedded_catalogue_has_no_fault() {
        let read = read(EMBEDDED_TEXT).unwrap();
        assert_eq!(read.iter().count(), Catalogue::embedded().iter().count());
        for (provider, kind) in read.kinds() {
            let at = format!("{} {}", provider.id, kind.id);
            for looks in &kind.looks {
                assert!(looks.regex().is_some(), "{at}: {looks:?} is no pattern");
            }
        }
    }

    #[test]
    fn every_variable_belongs_to_one_kind() {
        let catalogue = Catalogue::embedded();
        let mut seen = HashSet::new();
        for (provider, kind) in catalogue.kinds() {
            for variable in &kind.env {
                assert!(seen.insert(variable.clone()), "{variable} of {} is somebody else's too", provider.id);
                let (owner, found) = catalogue.by_env(variable).unwrap();
                assert_eq!((&owner.id, &found.id), (&provider.id, &kind.id));
            }
        }
        assert!(catalogue.by_env("PATH").is_none());
    }

    #[test]
    fn finds_a_provider_by_the_form_of_a_value() {
        let catalogue = Catalogue::embedded();
        let long = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdefAA";
        for (value, expected) in [
            (format!("sk-ant-api03-{long}"), Some(("anthropic", "api-key"))),
            (format!("sk-ant-oat01-{long}"), Some(("anthropic", "setup-token"))),
            (format!("sk-proj-{long}"), Some(("openai", "api-key"))),
            (format!("sk-{}T3BlbkFJ{}", &long[..20], &long[..20]), Some(("openai", "api-key"))),
            (format!("sk-or-v1-{}", &long[..64]), Some(("openrouter", "api-key"))),
            (format!("ghp_{}", &long[..36]), Some(("github", "token"))),
            (format!("AIza{}", &long[..35]), Some(("gemini", "api-key"))),
            (format!("1234567890:{}", &long[..35]), Some(("telegram", "path"))),
            (format!("xoxb-{long}"), Some(("slack", "bot-token"))),
            (long.to_owned(), None),
            (format!("sk-{}", &long[..32]), None),
            (String::new(), None),
        ] {
            let secret = Secret::from(value.clone());
            let found = catalogue.by_shape(&secret).map(|(provider, kind)| (provider.id.as_str(), kind.id.as_str()));
            assert_eq!(found, expected, "{value}");
        }
    }

    #[test]
    fn a_kind_is_told_from_its_sisters_by_the_value() {
        let catalogue = Catalogue::embedded();
        let anthropic = catalogue.provider(&id("anthropic")).unwrap();
        let kind = |value: &str| anthropic.kind_of(&Secret::from(value.to_owned())).unwrap().id.clone();
        assert_eq!(kind("sk-ant-oat01-0123456789abcdefghij"), "setup-token");
        assert_eq!(kind("sk-ant-api03-0123456789abcdefghij"), "api-key");
        assert_eq!(kind("anything"), "api-key");
    }

    #[test]
    fn suggests_what_was_probably_meant() {
        let catalogue = Catalogue::embedded();
        for (text, expected) in [
            ("antropic", Some("anthropic")),
            ("Anthropic", Some("anthropic")),
            ("claude", Some("anthropic")),
            ("opneai", Some("openai")),
            ("gtihub", Some("github")),
            ("qqqqqqqq", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(catalogue.suggest(text).as_ref().map(ProviderId::as_str), expected, "{text}");
        }
    }

    #[test]
    fn a_provider_of_ones_own_is_found_by_host_and_variable() {
        let catalogue = Catalogue::embedded().with(vec![(id("acme"), acme())]).unwrap();
        let hosts = catalogue.hosts();
        assert!(hosts.contains(&(HostPattern::parse("api.acme.test").unwrap(), id("acme"))));
        assert!(hosts.iter().all(|(host, _)| !host.is_wildcard()), "a wildcard is a template");
        let acme = catalogue.provider(&id("acme")).unwrap();
        assert_eq!(acme.templates(), [HostPattern::parse("*.eu.acme.test").unwrap()]);
        let (provider, kind) = catalogue.by_env("ACME_API_KEY").unwrap();
        assert_eq!((provider.id.as_str(), kind.id.as_str()), ("acme", "bearer"));
        assert_eq!(kind.test.as_ref().unwrap().target, "/v1/me");
    }

    #[test]
    fn a_variable_that_the_configuration_claims_is_its_own() {
        for name in ["a-gateway", "z-gateway"] {
            let gateway = Draft { env: vec!["OPENAI_API_KEY".to_owned()], ..acme() };
            let catalogue = Catalogue::embedded().with(vec![(id(name), gateway)]).unwrap();
            assert_eq!(catalogue.by_env("OPENAI_API_KEY").unwrap().0.id, id(name));
            assert_eq!(catalogue.by_env("CODEX_API_KEY").unwrap().0.id, id("openai"));
        }
    }

    #[test]
    fn what_the_configuration_names_replaces_and_the_rest_stays() {
        let hosts = Draft { hosts: vec!["gate.test:8443".to_owned()], ..Draft::default() };
        let catalogue = Catalogue::embedded().with(vec![(id("anthropic"), hosts)]).unwrap();
        let anthropic = catalogue.provider(&id("anthropic")).unwrap();
        assert_eq!(anthropic.hosts(), [HostPattern::parse("gate.test:8443").unwrap()]);
        assert_eq!(anthropic.kinds.iter().map(|kind| kind.id.as_str()).collect::<Vec<_>>(), ["api-key", "setup-token"]);
        assert_eq!(anthropic.family, Catalogue::embedded().provider(&id("anthropic")).unwrap().family);

        let inject = Draft { inject: vec![header("X-Gate-Key", "{secret}")], ..Draft::default() };
        let catalogue = Catalogue::embedded().with(vec![(id("anthropic"), inject)]).unwrap();
        let anthropic = catalogue.provider(&id("anthropic")).unwrap();
        assert_eq!(anthropic.hosts(), [HostPattern::parse("api.anthropic.com").unwrap()]);
        assert_eq!(anthropic.kinds.len(), 1);
        assert_eq!(catalogue.by_env("ANTHROPIC_API_KEY").unwrap().0.id, id("anthropic"));
    }

    #[test]
    fn names_every_fault_at_once() {
        let bad = Draft {
            hosts: vec!["https://api.acme.test/v1".to_owned(), "10.0.0.1".to_owned(), "a*.acme.test".to_owned()],
            inject: vec![
                header("Auth orization", "{secret}"),
                header("Host", "{secret}"),
                header("X-Key", "{secret"),
                header("X-Break", "{secret}\r\nX-Other: y"),
                InjectDraft::Path { path: "bot{secret}".to_owned() },
                InjectDraft::Query { query: String::new(), value: "{secret}".to_owned() },
                InjectDraft::Cookie { cookie: "a b".to_owned(), value: "{secret}".to_owned() },
            ],
            env: vec!["1BAD".to_owned()],
            test: Some(TestDraft { method: "DELETE".to_owned(), path: "v1".to_owned(), body: None }),
            ..Draft::default()
        };
        let faults = Catalogue::embedded().with(vec![(id("acme"), bad), (id("empty"), Draft::default())]).unwrap_err();
        let fields: Vec<_> = faults.iter().map(|fault| format!("{} {}", fault.provider, fault.field)).collect();
        assert_eq!(
            fields,
            [
                "acme hosts[0]",
                "acme hosts[1]",
                "acme hosts[2]",
                "acme inject[0].header",
                "acme inject[1].header",
                "acme inject[2].value",
                "acme inject[3].value",
                "acme inject[4].path",
                "acme inject[5].query",
                "acme inject[6].cookie",
                "acme env[0]",
                "acme test.method",
                "acme test.path",
                "empty hosts",
                "empty inject",
            ]
        );
        assert!(faults.iter().all(|fault| !fault.message.contains('\n') && !fault.message.contains('\r')), "EX-17");
    }

    #[test]
    fn refuses_slots_that_overwrite_each_other_and_constants() {
        for (inject, message) in [
            (vec![header("X-Key", "{a}"), header("x-key", "{b}")], "the slot x-key is filled twice"),
            (vec![header("X-Key", "constant")], "never names {secret}"),
        ] {
            let draft = Draft { inject, ..acme() };
            let faults = Catalogue::embedded().with(vec![(id("acme"), draft)]).unwrap_err();
            assert_eq!(faults.iter().map(|fault| fault.message.as_str()).collect::<Vec<_>>(), [message]);
        }
    }

    #[test]
    fn refuses_a_host_that_is_somebody_elses() {
        let draft = Draft { hosts: vec!["API.openai.com".to_owned()], ..acme() };
        let faults = Catalogue::embedded().with(vec![(id("acme"), draft)]).unwrap_err();
        assert_eq!(faults.len(), 1);
        assert!(faults[0].message.contains("'openai'"), "{faults:?}");
        assert!(faults[0].hint.is_some());
    }
}
