//! `vault`, `log` and `audit`: where things are kept.
//!
//! Invariant: the file says where a key is, never what it is.

use std::path::PathBuf;

use crate::config::fault::{Report, nearest, shown};
use crate::config::field::Field;
use crate::config::model::{AuditConfig, LogConfig, MasterKey, VaultConfig, VaultUrl};

pub(super) const VAULT: &[&str] = &["url", "master_key"];
pub(super) const LOG: &[&str] = &["format", "access", "level"];
pub(super) const AUDIT: &[&str] = &["durability"];

pub(super) fn vault(field: &Field<'_>, vault: &mut VaultConfig, report: &mut Report) {
    let Some(section) = report.section(field, VAULT) else { return };
    if let Some(url) = section.get("url").and_then(|field| url(&field, report)) {
        vault.url = url;
    }
    if let Some(key) = section.get("master_key").and_then(|field| master_key(&field, report)) {
        vault.master_key = key;
    }
}

pub(super) fn log(field: &Field<'_>, log: &mut LogConfig, report: &mut Report) {
    let Some(section) = report.section(field, LOG) else { return };
    if let Some(format) = section.get("format").and_then(|field| report.word(&field)) {
        log.format = format;
    }
    if let Some(access) = section.get("access").and_then(|field| path(&field, report)) {
        log.access = access;
    }
    if let Some(level) = section.get("level").and_then(|field| report.word(&field)) {
        log.level = level;
    }
}

pub(super) fn audit(field: &Field<'_>, audit: &mut AuditConfig, report: &mut Report) {
    let Some(section) = report.section(field, AUDIT) else { return };
    let Some(field) = section.get("durability") else { return };
    if let Some(durability) = report.word(&field) {
        audit.durability = durability;
    }
}

/// A path, relative to the home unless it is absolute.
pub(super) fn path(field: &Field<'_>, report: &mut Report) -> Option<PathBuf> {
    let text = report.text(field)?;
    if text.starts_with('~') || text.contains('$') {
        let hint = "paths are relative to the directory of this installation, or begin with `/`";
        report.fault(
            field.at(),
            format!("`{}` has `~` or `$` in it, which stand for themselves here", field.path),
            hint,
        );
        return None;
    }
    Some(text.into())
}

fn url(field: &Field<'_>, report: &mut Report) -> Option<VaultUrl> {
    let text = report.text(field)?;
    match text.split_once(':') {
        Some(("sqlite", file)) if !file.strip_prefix("//").unwrap_or(file).is_empty() => {
            let url = VaultUrl::Sqlite(file.strip_prefix("//").unwrap_or(file).into());
            if url != VaultConfig::default().url {
                report.needs("vault.url: elsewhere", "vault.url: a database outside the home", field.at());
            }
            Some(url)
        }
        Some(("postgres" | "postgresql", rest)) if rest.starts_with("//") => {
            report.needs("vault.url: postgres", "vault.url: postgres", field.at());
            Some(VaultUrl::Postgres(text.to_owned()))
        }
        _ => {
            let hint = "write sqlite:vault.db";
            report.fault(field.at(), format!("`{}` does not name a store", field.path), hint);
            None
        }
    }
}

fn master_key(field: &Field<'_>, report: &mut Report) -> Option<MasterKey> {
    const KINDS: [&str; 6] = ["file", "env", "passphrase", "keyring", "command", "credential"];
    let text = report.text(field)?;
    let (kind, rest) = text.split_once(':').map_or((text, None), |(kind, rest)| (kind, Some(rest.trim())));
    let key = match (kind, rest.filter(|rest| !rest.is_empty())) {
        ("file", Some(file)) => MasterKey::File(file.into()),
        ("env", Some(name)) if is_variable(name) => MasterKey::Env(name.to_owned()),
        ("passphrase", None) => MasterKey::Passphrase,
        ("keyring", None) => MasterKey::Keyring,
        ("command", Some(command)) => MasterKey::Command(command.to_owned()),
        ("credential", Some(name)) => MasterKey::Credential(name.to_owned()),
        _ => {
            let hint = match nearest(kind, KINDS) {
                Some(near) if near != kind => format!("did you mean `{near}`?"),
                _ => "write file:PATH, env:VARIABLE, passphrase, command:COMMAND or credential:NAME; the key itself never stands here".to_owned(),
            };
            let what = if KINDS.contains(&kind) { shown(kind) } else { "what stands here".to_owned() };
            report.fault(field.at(), format!("`{}`: {what} does not name a source of the key", field.path), hint);
            return None;
        }
    };
    if key == MasterKey::Keyring {
        let feature = "vault.master_key: keyring";
        report.needs(feature, feature, field.at());
    }
    Some(key)
}

/// Whether a text is the name of an environment variable.
pub(super) fn is_variable(text: &str) -> bool {
    let first_is_no_digit = text.bytes().next().is_some_and(|b| !b.is_ascii_digit());
    first_is_no_digit && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
