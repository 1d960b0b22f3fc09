//! What is stored for a value: whose it is, of which kind, for which hosts, in which variable. Pure.
//!
//! Invariant: a value's shape is looked at only where nobody said whose it is; a wildcard host is sealed only when it
//! was written out.

use crate::cli::output::{Failure, Outcome};
use crate::id::CredentialName;
use crate::launch::exports::is_variable;
use crate::launch::{is_reserved, upper_snake};
use crate::message::pattern::HostPattern;
use crate::provider::{Catalogue, Kind, OAUTH2, Provider};
use crate::secret::Secret;
use crate::vault::{Draft, Scope, Stored};

/// What the command says beside the value.
#[derive(Debug, Clone)]
pub struct Request {
    /// The name.
    pub name: CredentialName,
    /// Who may use it.
    pub scope: Option<Scope>,
    /// `--provider`
    pub provider: Option<String>,
    /// `--type`
    pub kind: Option<String>,
    /// `--env`
    pub env: Option<String>,
    /// `--no-install`
    pub no_install: bool,
    /// `--install`
    pub install: bool,
    /// `--host`
    pub hosts: Vec<String>,
    /// `--description`
    pub description: Option<String>,
    /// `--label`
    pub label: Option<String>,
    /// `--force`
    pub force: bool,
}

impl Request {
    /// The scope that is meant where something is stored.
    #[must_use]
    pub fn scope(&self) -> Scope {
        self.scope.clone().unwrap_or(Scope::Shared)
    }
}

/// What to store, and what to say about it.
#[derive(Debug)]
pub struct Plan {
    /// For the vault.
    pub draft: Draft,
    /// What a person should know: how the provider was found, what will not work.
    pub notes: Vec<Note>,
}

/// Something to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// Good to know.
    Say(String),
    /// May be a mistake.
    Warn(String),
}

/// Finds the provider that the command names, before a value is asked for.
///
/// # Errors
/// When there is no such provider, or two are named.
pub fn named<'a>(request: &Request, catalogue: &'a Catalogue) -> Outcome<Option<&'a Provider>> {
    let in_name = request.name.provider().map(|id| id.as_str());
    let name = match (in_name, request.provider.as_deref()) {
        (Some(one), Some(other)) if one != other => {
            return Err(Failure::usage(format!("the name says {one}, --provider says {other}"))
                .hint("leave --provider out, or use a name without a provider"));
        }
        (one, other) => one.or(other),
    };
    let Some(name) = name else { return Ok(None) };
    let found = catalogue.iter().find(|provider| provider.id.as_str() == name);
    found.map(|provider| Some(provider.as_ref())).ok_or_else(|| unknown_provider(name, catalogue))
}

/// There is no such provider.
pub fn unknown_provider(name: &str, catalogue: &Catalogue) -> Failure {
    let failure = Failure::usage(format!("there is no provider '{name}'"));
    match catalogue.suggest(name) {
        Some(near) => failure.hint(format!("did you mean {near}? All of them: keyferry provider list")),
        None => failure
            .hint("all of them: keyferry provider list; one of your own goes under `providers:` in keyferry.yaml"),
    }
}

/// Decides what to store for `value`, or for a reference whose value is not at hand. `existing` is what stands under
/// this name and scope.
///
/// # Errors
/// When an option or the value does not fit, or a host must be named.
pub fn plan(
    request: &Request,
    value: Option<&Secret>,
    existing: Option<&Stored>,
    catalogue: &Catalogue,
) -> Outcome<Plan> {
    let mut notes = Vec::new();
    let found = find(request, value, existing, catalogue, &mut notes)?;
    let kind = match found {
        Some(provider) => Some(choose_kind(request, value, existing, provider, &mut notes)?),
        None => None,
    };
    if let (Some(kind), Some(provider), Some(value)) = (kind, found, value) {
        kind.check(value).map_err(|error| {
            Failure::usage(format!("the value cannot be a {} of {}: {error}", kind.id, provider.id))
        })?;
        notes.extend(judge_shape(request, value, provider, kind)?);
    }
    let hosts = choose_hosts(request, existing, found, kind, &mut notes)?;
    let env = choose_variable(request, existing)?;
    if found.is_none() {
        let text = "no provider was recognised, so no request gets this value and no variable is set for it; \
                    say whose it is with --provider";
        notes.push(Note::Warn(text.to_owned()));
    }
    let installed = existing.is_none_or(|stored| stored.install || stored.provider.is_none());
    let kept = |new: &Option<String>, old: fn(&Stored) -> &Option<String>| match new {
        Some(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        None => existing.and_then(|stored| old(stored).clone()),
    };
    let draft = Draft {
        name: request.name.clone(),
        provider: found.map(|provider| provider.id.clone()),
        kind: kind.map_or_else(|| request.kind.clone().unwrap_or_else(|| "api-key".to_owned()), |kind| kind.id.clone()),
        scope: request.scope(),
        env,
        install: found.is_some() && !request.no_install && (installed || request.install),
        hosts,
        description: kept(&request.description, |stored| &stored.description),
        label: kept(&request.label, |stored| &stored.label),
    };
    Ok(Plan { draft, notes })
}

/// Says what is odd about a value that does not look like its kind, or refuses it. A key of a host of one's own has
/// whatever form that host gives it.
fn judge_shape(request: &Request, value: &Secret, provider: &Provider, kind: &Kind) -> Outcome<Option<Note>> {
    let elsewhere = !request.hosts.is_empty();
    if !kind.has_form() || kind.fits(value) || elsewhere {
        return Ok(None);
    }
    let odd = format!("the value does not look like a {} of {}", kind.id, provider.name);
    if request.force {
        return Ok(Some(Note::Warn(format!("{odd}; it is stored all the same"))));
    }
    Err(Failure::usage(format!("{odd}; nothing was stored"))
        .hint("copy it again without anything around it, or store it as it is with --force"))
}

/// The form of the host that has to be named for this value, if there is one that is not named.
pub fn lacks_host(
    request: &Request,
    value: Option<&Secret>,
    existing: Option<&Stored>,
    catalogue: &Catalogue,
) -> Option<HostPattern> {
    let notes = &mut Vec::new();
    let provider = find(request, value, existing, catalogue, notes).ok()??;
    let kind = choose_kind(request, value, existing, provider, notes).ok()?;
    let lacking = choose_hosts(request, existing, Some(provider), Some(kind), notes).is_err();
    kind.templates().into_iter().next().filter(|_| lacking)
}

fn find<'a>(
    request: &Request,
    value: Option<&Secret>,
    existing: Option<&Stored>,
    catalogue: &'a Catalogue,
    notes: &mut Vec<Note>,
) -> Outcome<Option<&'a Provider>> {
    let by_shape = value.and_then(|value| catalogue.by_shape(value)).map(|(provider, _)| provider.as_ref());
    let said = match named(request, catalogue)? {
        Some(provider) => Some(provider),
        None => by_name(request, existing, catalogue, notes),
    };
    let Some(provider) = said else {
        if let Some(provider) = by_shape {
            let (name, id) = (&provider.name, &provider.id);
            notes.push(Note::Say(format!("the value has the shape of a key of {name}, so it is a credential of {id}")));
        }
        return Ok(by_shape);
    };
    if let Some(other) = by_shape.filter(|other| other.id != provider.id) {
        let text = format!("the value looks like a key of {}, and is stored as one of {}", other.name, provider.name);
        notes.push(Note::Warn(text));
    }
    Ok(Some(provider))
}

/// Whose it is by what stands under the name already, or by the name as a variable.
fn by_name<'a>(
    request: &Request,
    existing: Option<&Stored>,
    catalogue: &'a Catalogue,
    notes: &mut Vec<Note>,
) -> Option<&'a Provider> {
    if let Some(known) = existing.and_then(|stored| stored.provider.as_ref()) {
        return catalogue.provider(known).map(AsRef::as_ref);
    }
    let short = request.name.short().as_str();
    let variables = [request.env.clone(), Some(short.to_owned()), Some(upper_snake(short))];
    variables.into_iter().flatten().find_map(|variable| {
        let (provider, _) = catalogue.by_env(&variable)?;
        let (name, id) = (&provider.name, &provider.id);
        notes.push(Note::Say(format!("{variable} is a variable of {name}, so it is a credential of {id}")));
        Some(provider.as_ref())
    })
}

fn choose_kind<'a>(
    request: &Request,
    value: Option<&Secret>,
    existing: Option<&Stored>,
    provider: &'a Provider,
    notes: &mut Vec<Note>,
) -> Outcome<&'a Kind> {
    let none = || Failure::new(format!("{} takes no credential", provider.id));
    if let Some(wanted) = &request.kind {
        return provider.kind(wanted).ok_or_else(|| {
            let mut kinds: Vec<&str> = provider.kinds.iter().map(|kind| kind.id.as_str()).collect();
            kinds.extend(provider.kind(OAUTH2).map(|kind| kind.id.as_str()).filter(|id| !kinds.contains(id)));
            Failure::usage(format!("{} has no credentials of type '{wanted}'", provider.id))
                .hint(format!("its types: {}", kinds.join(", ")))
        });
    }
    let fits = |kind: &&Kind| value.is_some_and(|value| kind.fits(value));
    if let Some(fitting) = provider.kinds.iter().find(fits) {
        return Ok(fitting);
    }
    if let Some(before) = existing.and_then(|stored| provider.kind(&stored.kind)) {
        return Ok(before);
    }
    let kind = provider.kinds.first().ok_or_else(none)?;
    if provider.kinds.len() > 1 {
        let kinds: Vec<&str> = provider.kinds.iter().map(|kind| kind.id.as_str()).collect();
        let text =
            format!("taken for a credential of type {}; other types, with --type: {}", kind.id, kinds.join(", "));
        notes.push(Note::Say(text));
    }
    Ok(kind)
}

fn choose_hosts(
    request: &Request,
    existing: Option<&Stored>,
    provider: Option<&Provider>,
    kind: Option<&Kind>,
    notes: &mut Vec<Note>,
) -> Outcome<Vec<String>> {
    let mut hosts = Vec::new();
    for text in &request.hosts {
        let host = HostPattern::parse(text)
            .map_err(|error| Failure::usage(format!("'{text}' is no host: {error}")).hint("--host api.example.com"))?;
        if host.is_wildcard() {
            notes.push(Note::Warn(format!(
                "{host} lets an agent send the key to every host of that form, one of its own included"
            )));
        }
        let known = kind.is_some_and(|kind| kind.hosts().contains(&host) || is_of(&kind.templates(), &host));
        if let (false, Some(provider)) = (known, provider) {
            notes.push(Note::Say(format!(
                "{host} is no host of {}; the key is sent there as it is to its own",
                provider.name
            )));
        }
        hosts.push(host.to_string());
    }
    if !hosts.is_empty() {
        return Ok(hosts);
    }
    let same_kind = |stored: &&Stored| kind.is_some_and(|kind| kind.id == stored.kind);
    if let Some(before) = existing.filter(same_kind).filter(|stored| !stored.hosts.is_empty()) {
        return Ok(before.hosts.clone());
    }
    let Some(kind) = kind else { return Ok(Vec::new()) };
    let concrete: Vec<String> = kind.hosts().iter().map(ToString::to_string).collect();
    match (concrete.is_empty(), kind.templates().first()) {
        (true, template) => Err(needs_host(provider, template)),
        (false, _) => Ok(concrete),
    }
}

/// The provider has a host per customer, so the command must name it.
fn needs_host(provider: Option<&Provider>, template: Option<&HostPattern>) -> Failure {
    let name = provider.map_or("this provider", |provider| provider.name.as_str());
    let form = template.map_or_else(|| "HOST".to_owned(), ToString::to_string);
    Failure::usage(format!("{name} has a host for every customer ({form}), and the key is sealed to yours"))
        .hint(format!("name it: --host {}", form.replace('*', "YOURS")))
}

/// Whether a host that has to be named is of the form of one of these templates.
fn is_of(templates: &[HostPattern], host: &HostPattern) -> bool {
    let text = host.to_string();
    templates.iter().any(|template| {
        let template = template.to_string();
        template == text || template.strip_prefix('*').is_some_and(|suffix| text.ends_with(suffix))
    })
}

fn choose_variable(request: &Request, existing: Option<&Stored>) -> Outcome<Option<String>> {
    let Some(variable) = &request.env else { return Ok(existing.and_then(|stored| stored.env.clone())) };
    if variable.is_empty() {
        return Ok(None);
    }
    if !is_variable(variable) {
        return Err(Failure::usage(format!("'{variable}' is no name of a variable")).hint("--env MY_TOKEN"));
    }
    if is_reserved(variable) {
        return Err(Failure::usage(format!("{variable} has a meaning of its own and cannot hold a placeholder")));
    }
    Ok(Some(variable.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::WallTime;

    fn request(name: &str) -> Request {
        Request {
            name: CredentialName::parse(name).unwrap(),
            scope: None,
            provider: None,
            kind: None,
            env: None,
            no_install: false,
            install: false,
            hosts: Vec::new(),
            description: None,
            label: None,
            force: true,
        }
    }

    fn planned(request: &Request, value: &str, existing: Option<&Stored>) -> Outcome<Plan> {
        plan(request, Some(&Secret::from(value.to_owned())), existing, &Catalogue::embedded())
    }

    /// Values with the beginnings that the issuers give, which open nothing.
    fn value(prefix: &str, length: usize) -> String {
        format!("{prefix}{}", "x".repeat(length))
    }

    fn stored(draft: Draft) -> Stored {
        Stored {
            id: [1; 16],
            name: draft.name,
            provider: draft.provider,
            kind: draft.kind,
            scope: draft.scope,
            env: draft.env,
            install: draft.install,
            hosts: draft.hosts,
            description: draft.description,
            label: draft.label,
            masked: "***".into(),
            by_reference: false,
            version: 1,
            created: WallTime(1),
            updated: WallTime(1),
        }
    }

    #[test]
    fn the_provider_comes_from_the_name_then_the_variable_then_the_shape() {
        let github = value("ghp_", 36);
        let cases = [
            ("anthropic:work", github.as_str(), Some("anthropic")),
            ("openai-api-key", "plain-value-of-no-shape", Some("openai")),
            ("OPENAI_API_KEY", "plain-value-of-no-shape", Some("openai")),
            ("mine", github.as_str(), Some("github")),
            ("mine", "plain-value-of-no-shape", None),
        ];
        for (name, value, provider) in cases {
            let plan = planned(&request(name), value, None).unwrap();
            assert_eq!(plan.draft.provider.as_ref().map(|id| id.as_str()), provider, "{name}");
            assert_eq!(plan.draft.install, provider.is_some(), "{name}");
        }
    }

    #[test]
    fn what_may_be_a_mistake_is_said() {
        let warned = |plan: &Plan| plan.notes.iter().any(|note| matches!(note, Note::Warn(_)));
        assert!(warned(&planned(&request("anthropic:work"), &value("ghp_", 36), None).unwrap()));
        assert!(warned(&planned(&request("mine"), "plain-value-of-no-shape", None).unwrap()));
        assert!(!warned(&planned(&request("github:work"), &value("ghp_", 36), None).unwrap()));
    }

    #[test]
    fn an_unknown_provider_is_refused_with_the_one_that_was_meant() {
        for (name, provider) in [("antropic:work", None), ("work", Some("antropic"))] {
            let mut request = request(name);
            request.provider = provider.map(str::to_owned);
            let failure = planned(&request, "value-of-something", None).unwrap_err();
            assert!(failure.hint.unwrap().contains("anthropic"));
        }
        let mut two = request("anthropic:work");
        two.provider = Some("openai".into());
        assert_eq!(planned(&two, "value-of-something", None).unwrap_err().code, 2);
    }

    #[test]
    fn the_kind_follows_the_shape_and_the_option_wins() {
        let token = format!("sk-ant-{}01-{}", "oat", "x".repeat(93));
        assert_eq!(planned(&request("anthropic:a"), &token, None).unwrap().draft.kind, "setup-token");
        assert_eq!(planned(&request("anthropic:a"), "unlike-any-shape", None).unwrap().draft.kind, "api-key");
        let mut named = request("anthropic:a");
        named.kind = Some("setup-token".into());
        assert_eq!(planned(&named, "unlike-any-shape", None).unwrap().draft.kind, "setup-token");
        named.kind = Some("password".into());
        let failure = planned(&named, "unlike-any-shape", None).unwrap_err();
        assert!(failure.hint.unwrap().contains("setup-token"));
    }

    #[test]
    fn a_host_per_customer_must_be_named_and_a_wildcard_is_warned_of() {
        let mut request = request("azure-openai:work");
        let failure = planned(&request, "value-of-something", None).unwrap_err();
        assert!(failure.hint.unwrap().contains("--host"));
        assert!(lacks_host(&request, Some(&Secret::from("v".repeat(20))), None, &Catalogue::embedded()).is_some());
        request.hosts = vec!["mine.openai.azure.com".into()];
        let plan = planned(&request, "value-of-something", None).unwrap();
        assert_eq!(plan.draft.hosts, ["mine.openai.azure.com"]);
        assert!(plan.notes.is_empty(), "{:?}", plan.notes);
        request.hosts = vec!["*.openai.azure.com".into()];
        let plan = planned(&request, "value-of-something", None).unwrap();
        assert!(matches!(plan.notes.as_slice(), [Note::Warn(_)]), "{:?}", plan.notes);
        request.hosts = vec!["a*b.example".into()];
        assert_eq!(planned(&request, "value-of-something", None).unwrap_err().code, 2);
    }

    #[test]
    fn a_value_that_does_not_look_like_its_kind_needs_force() {
        let mut strict = request("openai:work");
        strict.force = false;
        let failure = planned(&strict, "value-of-something", None).unwrap_err();
        assert!(!failure.message.contains("value-of-something") && failure.hint.unwrap().contains("--force"));
        strict.hosts = vec!["gateway.example".into()];
        assert!(planned(&strict, "value-of-something", None).is_ok(), "another host's key has another form");
        let forced = planned(&request("openai:work"), "value-of-something", None).unwrap();
        assert!(matches!(forced.notes.as_slice(), [Note::Warn(text)] if !text.contains("value-of")));
    }

    #[test]
    fn a_rotation_keeps_what_was_not_said_anew() {
        let mut first = request("openai:work");
        first.env = Some("TEAM_KEY".into());
        first.description = Some("for the team".into());
        first.hosts = vec!["gateway.example".into()];
        let before = stored(planned(&first, "value-of-something", None).unwrap().draft);
        let again = planned(&request("openai:work"), "another-value-of-it", Some(&before)).unwrap().draft;
        assert_eq!(again.env.as_deref(), Some("TEAM_KEY"));
        assert_eq!(again.description.as_deref(), Some("for the team"));
        assert_eq!(again.hosts, ["gateway.example"]);
        let mut changed = request("openai:work");
        changed.description = Some("for everybody".into());
        let changed = planned(&changed, "another-value-of-it", Some(&before)).unwrap().draft;
        assert_eq!(changed.description.as_deref(), Some("for everybody"));
    }

    #[test]
    fn a_variable_with_a_meaning_of_its_own_is_refused() {
        for variable in ["PATH", "LD_PRELOAD", "https_proxy", "a-b", "1A"] {
            let mut request = request("openai:work");
            request.env = Some(variable.into());
            assert_eq!(planned(&request, "value-of-something", None).unwrap_err().code, 2, "{variable}");
        }
    }
}
