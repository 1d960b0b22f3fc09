//! `secret set`.
//!
//! Invariant: everything is judged before anything is made or changed.

use super::amend;
use super::parse_scope;
use super::plan::{self, Note, Request};
use crate::cli::args::SecretSet;
use crate::cli::context::Context;
use crate::cli::input::{self, Origin};
use crate::cli::output::{Failure, Outcome};
use crate::cli::shapes::SecretShape;
use crate::cli::{changes, first_use};
use crate::id::CredentialName;
use crate::provider::{Catalogue, OAUTH2};
use crate::secret::Secret;
use crate::source::Login;
use crate::telemetry::Action;
use crate::vault::{Stored, clean, with_fields};

/// Values of this many bytes or more are taken out of responses and logs by their bytes.
const SCRUBBED_FROM: usize = 8;

/// `keyferry secret set NAME`
pub async fn set(set: SecretSet, context: &mut Context) -> Outcome {
    let origin = origin(&set)?;
    if set.r#ref.is_some() {
        return Err(Failure::not_yet("a reference instead of a value (--ref)"));
    }
    let fields = fields(&set.set)?;
    let (home, config) = (context.home()?, context.config()?);
    let catalogue = context.catalogue(&config)?;
    let request = request(&set, &catalogue)?;
    plan::named(&request, &catalogue)?;
    let raw = match amend::value_or_target(&request, &origin, context).await? {
        amend::Asked::Change(stored, vault) => return amend::amend(&request, &stored, &vault, context).await,
        amend::Asked::Store(Some(piped)) => piped,
        amend::Asked::Store(None) => input::value(context, &request.name.to_string(), &origin)?,
    };
    let kind = request.kind.as_deref().unwrap_or("api-key");
    let value = clean(kind, &raw).map_err(crate::vault::VaultError::from)?;
    let value = if fields.is_empty() { value } else { composed(kind, &value, &fields)? };
    let existing = match context.vault(&home, &config).await? {
        Some(vault) => vault.find(&request.name, Some(&request.scope())).await?,
        None => None,
    };
    let request = ask_for_host(request, &value, existing.as_ref(), &catalogue, context)?;
    let plan = plan::plan(&request, Some(&value), existing.as_ref(), &catalogue)?;
    let value = if plan.draft.kind == OAUTH2 { login(&value, &plan, &catalogue)? } else { value };
    let short = value.len() < SCRUBBED_FROM;

    let vault = first_use::open(context, &home, &config).await?;
    let before = vault.list().await?;
    let stored = vault.set(plan.draft, value, context.now()).await?;
    let action = if stored.version == 1 { Action::SecretCreated } else { Action::SecretRotated };
    changes::record(&home, &vault, action, &stored.name.to_string(), context).await?;

    tell(&plan.notes, context);
    if short {
        context.output.warn(
            "the value is shorter than 8 bytes: it is not recognised in responses and logs, where it would stand by chance",
        );
    }
    let shape = SecretShape::of(&stored, &catalogue);
    if context.output.is_json() {
        context.output.json(&shape)?;
    }
    report(&stored, &shape, &before, context);
    Ok(())
}

/// `--set` as pairs.
fn fields(texts: &[String]) -> Outcome<Vec<(String, String)>> {
    let pair = |text: &String| {
        let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
        let pair = pair.map(|(name, value)| (name.to_owned(), value.to_owned()));
        pair.ok_or_else(|| Failure::usage("--set takes KEY=VALUE").hint("--set client_id=my-client"))
    };
    texts.iter().map(pair).collect()
}

/// The value with the parts of it that are not secret.
fn composed(kind: &str, value: &Secret, fields: &[(String, String)]) -> Outcome<Secret> {
    let secret = if kind == OAUTH2 { Some("refresh_token") } else { None };
    with_fields(value, secret, fields).ok_or_else(|| {
        Failure::usage("--set adds to a value that is one JSON object of texts, and this is none")
            .hint("pipe in {\"secret\": \"...\"}, with the names that the type has")
    })
}

/// A login as it is stored: with the address where it is renewed.
fn login(value: &Secret, plan: &plan::Plan, catalogue: &Catalogue) -> Outcome<Secret> {
    let provider = plan.draft.provider.as_ref().and_then(|id| catalogue.provider(id));
    let read = Login::read(value, provider.and_then(|provider| provider.issuer.as_ref()));
    read.map(|login| login.stored()).map_err(|fault| Failure::usage(fault.to_string()).hint(fault.hint()))
}

/// Says what a plan found worth saying.
pub(super) fn tell(notes: &[Note], context: &mut Context) {
    for note in notes {
        match note {
            Note::Say(text) => context.output.say(text),
            Note::Warn(text) => context.output.warn(text),
        }
    }
}

fn origin(set: &SecretSet) -> Outcome<Origin> {
    match (set.dash.as_slice(), &set.from_env, &set.from_file) {
        ([], Some(variable), _) => Ok(Origin::Variable(variable.clone())),
        ([], None, Some(file)) => Ok(Origin::File(file.clone())),
        ([], None, None) => Ok(Origin::Usual),
        ([dash], None, None) if dash == "-" => Ok(Origin::Stdin),
        // What stands there may be the value itself, so it is not repeated.
        _ => Err(Failure::usage(
            "a value is not taken from an argument: every process of this machine and the shell's history can read it",
        )
        .hint(format!(
            "keyferry secret set {} asks for it; or pipe it in, or use --from-env VAR or --from-file F. \
             If a real key was typed here, replace it",
            shown_name(&set.name)
        ))),
    }
}

/// The name, unless it may be a key itself.
fn shown_name(name: &str) -> &str {
    if name.len() <= 32 && CredentialName::parse(name).is_ok() { name } else { "NAME" }
}

fn request(set: &SecretSet, catalogue: &Catalogue) -> Outcome<Request> {
    let hint = "a name is PROVIDER:NAME, anthropic:work say, or a name of its own";
    // The first argument is not repeated where it is no name: it may be the value.
    let name = CredentialName::parse(&set.name)
        .map_err(|error| Failure::usage(format!("that is no name for a secret: {error}")).hint(hint))?;
    let looks_like_a_key = |text: &str| catalogue.by_shape(&Secret::from(text.to_owned())).is_some();
    if looks_like_a_key(&set.name) || looks_like_a_key(name.short().as_str()) {
        return Err(Failure::usage("that is a key, not a name for one; nothing was stored")
            .hint(format!("{hint}. The key is in the shell's history now: replace it at its provider")));
    }
    Ok(Request {
        name,
        scope: set.scope.as_deref().map(parse_scope).transpose()?,
        provider: set.provider.clone(),
        kind: set.kind.clone(),
        env: set.env.clone(),
        no_install: set.no_install,
        install: set.install,
        hosts: set.hosts.clone(),
        description: set.description.clone(),
        label: set.label.clone(),
        force: set.force,
    })
}

/// Where the provider has a host per customer and a person is there, asks for it.
fn ask_for_host(
    mut request: Request,
    value: &Secret,
    existing: Option<&Stored>,
    catalogue: &Catalogue,
    context: &mut Context,
) -> Outcome<Request> {
    if request.hosts.is_empty()
        && let Some(template) = plan::lacks_host(&request, Some(value), existing, catalogue)
        && let Some(host) = input::line(context, &format!("Your host, of the form {template}:"))?
    {
        request.hosts.push(host);
    }
    Ok(request)
}

fn report(stored: &Stored, shape: &SecretShape, before: &[Stored], context: &mut Context) {
    let output = &mut context.output;
    let verb = if stored.version == 1 { "stored" } else { "rotated" };
    output.done(&format!("{verb} {} ({}, version {}) {}", stored.name, stored.kind, stored.version, stored.masked));
    let Some(provider) = &stored.provider else { return };
    let siblings = before.iter().filter(|other| other.provider.as_ref() == Some(provider) && other.id != stored.id);
    let siblings = siblings.count();
    if stored.version == 1 && siblings > 0 {
        let profiles = siblings.saturating_add(1);
        output
            .say(&format!("{provider} has {profiles} profiles now: when one is out of quota, the next one takes over"));
    }
    if stored.version == 1 && before.is_empty() {
        let agent = if provider.as_str() == "anthropic" { "claude" } else { "COMMAND" };
        let variable = shape
            .env
            .as_deref()
            .filter(|_| shape.install)
            .map_or_else(String::new, |env| format!(" ({env} holds a placeholder there)"));
        output.next(&format!("keyferry run -- {agent}{variable}"));
    }
}
