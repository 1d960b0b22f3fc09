//! `provider list|show`.

use serde_json::{Value, json};

use super::args::Provider as Command;
use super::context::Context;
use super::output::Outcome;
use super::secret::unknown_provider;
use crate::provider::Provider;

/// `keyferry provider ..`
pub fn provider(command: &Command, context: &mut Context) -> Outcome {
    let catalogue = context.catalogue(&context.config()?)?;
    match command {
        Command::Show(which) => {
            let found = catalogue.iter().find(|provider| provider.id.as_str() == which.name);
            let provider = found.ok_or_else(|| unknown_provider(&which.name, &catalogue).code(1))?;
            show(provider, context)
        }
        Command::List => {
            if context.output.is_json() {
                return context.output.json(&catalogue.iter().map(|provider| shape(provider)).collect::<Vec<_>>());
            }
            let rows = catalogue.iter().map(|provider| {
                vec![provider.id.to_string(), provider.name.clone(), types(provider), hosts(provider).join(" ")]
            });
            context.output.table(&["provider", "name", "types", "hosts"], rows)
        }
    }
}

fn show(provider: &Provider, context: &mut Context) -> Outcome {
    if context.output.is_json() {
        return context.output.json(&shape(provider));
    }
    let mut rows = vec![("provider", provider.id.to_string()), ("name", provider.name.clone())];
    for kind in &provider.kinds {
        rows.push(("type", kind.id.clone()));
        rows.push((
            "  hosts",
            kind.hosts().iter().chain(&kind.templates()).map(ToString::to_string).collect::<Vec<_>>().join(", "),
        ));
        if !kind.env.is_empty() {
            rows.push(("  variables", kind.env.join(", ")));
        }
        if !kind.base_url_env.is_empty() {
            rows.push(("  base URL", kind.base_url_env.join(", ")));
        }
    }
    context.output.fields(&rows)?;
    context.output.next(&format!("keyferry secret set {}:NAME", provider.id));
    Ok(())
}

fn shape(provider: &Provider) -> Value {
    let kinds = provider.kinds.iter().map(|kind| {
        let texts = |patterns: Vec<crate::message::pattern::HostPattern>| {
            patterns.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        json!({
            "type": kind.id,
            "hosts": texts(kind.hosts()),
            "templates": texts(kind.templates()),
            "env": kind.env,
            "base_url_env": kind.base_url_env,
            "rank": kind.rank,
        })
    });
    json!({
        "provider": provider.id.as_str(),
        "name": provider.name,
        "fungible": provider.fungible,
        "hosts": hosts(provider),
        "types": kinds.collect::<Vec<_>>(),
    })
}

fn types(provider: &Provider) -> String {
    provider.kinds.iter().map(|kind| kind.id.as_str()).collect::<Vec<_>>().join(", ")
}

fn hosts(provider: &Provider) -> Vec<String> {
    provider.hosts().iter().chain(&provider.templates()).map(ToString::to_string).collect()
}
