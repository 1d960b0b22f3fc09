//! `redact` and `scan`: secrets in what others wrote.
//!
//! Invariant: what was found is named and placed, never shown.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use zeroize::Zeroizing;

use super::args::Scan;
use super::context::Context;
use super::output::{Failure, Outcome};
use crate::scrub::{Filter, Finding, Hunter, Item, Patterns, What};
use crate::secret::Secret;
use crate::vault::{parts, reference};

/// Of more findings than this only the number is told.
const MOST_SHOWN: usize = 1000;

/// `keyferry redact`
pub async fn redact(context: &mut Context) -> Outcome {
    let secrets: Vec<Arc<Secret>> = known(context).await?.into_iter().map(|(_, secret)| secret).collect();
    let mut filter = Filter::new(&secrets);
    let mut piece = Zeroizing::new(vec![0u8; 64 * 1024]);
    let mut stdin = io::stdin().lock();
    loop {
        let read = match stdin.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Failure::new(format!("stdin could not be read: {error}"))),
        };
        let out = filter.push(piece.get(..read).unwrap_or_default());
        if !out.is_empty() {
            context.output.bytes(&out)?;
        }
    }
    context.output.bytes(&filter.finish())
}

/// One finding.
#[derive(Debug, Serialize)]
struct FindingShape {
    file: String,
    line: u64,
    offset: u64,
    /// `stored`, `stored-form` or `token`.
    what: &'static str,
    /// The secret's name, or what the token begins with.
    name: Option<String>,
}

/// `keyferry scan PATH..`
pub async fn scan(command: &Scan, context: &mut Context) -> Outcome {
    let known = known(context).await?;
    let items: Vec<Item> =
        known.iter().map(|(_, secret)| Item { secret: Arc::clone(secret), replacement: String::new() }).collect();
    // The same value under two names is one item; the first name stands for it.
    let names: Vec<&str> = distinct(&known);
    let patterns = Patterns::new(&items);
    let (mut shapes, mut found, mut files, mut unread) = (Vec::new(), 0usize, 0u64, 0u64);
    for root in &command.paths {
        for entry in walkdir::WalkDir::new(root).sort_by_file_name() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    unread += 1;
                    context.output.warn(&format!("{error}"));
                    continue;
                }
            };
            // A path that was named may be a link; what lies below is not followed, so nothing is met twice.
            let regular = if entry.depth() == 0 { entry.path().is_file() } else { entry.file_type().is_file() };
            if !regular {
                continue;
            }
            files += 1;
            let file = entry.path().display().to_string();
            match search(entry.path(), &patterns) {
                Ok(findings) => {
                    found += findings.len();
                    let room = MOST_SHOWN.saturating_sub(shapes.len());
                    shapes.extend(findings.into_iter().take(room).map(|one| shape(&file, &one, &names)));
                }
                Err(error) => {
                    unread += 1;
                    context.output.warn(&format!("{file}: {error}"));
                }
            }
        }
    }
    report(&shapes, context)?;
    if found > shapes.len() {
        context.output.warn(&format!("{} more are not shown", found - shapes.len()));
    }
    if unread > 0 {
        return Err(Failure::new(format!("{unread} could not be searched"))
            .hint("look again as a user who may read them, or name only what you may read"));
    }
    if found > 0 {
        context.output.next("replace each at its provider, then: keyferry secret set NAME");
        return Err(Failure::silent(1));
    }
    context.output.done(&format!("no secret in {files} {}", if files == 1 { "file" } else { "files" }));
    Ok(())
}

fn report(shapes: &[FindingShape], context: &mut Context) -> Outcome {
    if context.output.is_json() {
        return context.output.json(&shapes);
    }
    let lines = shapes.iter().map(|shape| {
        let name = shape.name.as_deref().unwrap_or_default();
        let what = match shape.what {
            "stored" => format!("the value of {name}"),
            "token" => format!("a token {name}***"),
            _ => "a stored value, encoded or in part".to_owned(),
        };
        format!("{}:{}: {what}\n", super::output::printable(&shape.file), shape.line)
    });
    let text: String = lines.collect();
    if text.is_empty() { Ok(()) } else { context.output.data(&text) }
}

fn search(path: &Path, patterns: &Arc<Patterns>) -> io::Result<Vec<Finding>> {
    let mut file = File::open(path)?;
    let mut hunter = Hunter::new(Arc::clone(patterns));
    let mut piece = Zeroizing::new(vec![0u8; hunter.piece()]);
    let mut found = Vec::new();
    loop {
        match file.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => found.extend(hunter.push(piece.get(..read).unwrap_or_default())),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        // A file that is full of them says no more by the thousandth.
        if found.len() > MOST_SHOWN {
            break;
        }
    }
    found.extend(hunter.finish());
    Ok(found)
}

fn shape(file: &str, finding: &Finding, names: &[&str]) -> FindingShape {
    let (what, name) = match finding.what {
        What::Value(item) => ("stored", names.get(item).map(|name| (*name).to_owned())),
        What::Form => ("stored-form", None),
        What::Token(prefix) => ("token", Some(prefix.to_owned())),
    };
    FindingShape { file: file.to_owned(), line: finding.line, offset: finding.offset, what, name }
}

/// The names of what the search counts as items: those long enough, each value once.
fn distinct(known: &[(String, Arc<Secret>)]) -> Vec<&str> {
    let mut kept: Vec<&(String, Arc<Secret>)> = Vec::new();
    for one in known {
        if one.1.len() >= crate::scrub::SHORTEST_SECRET && !kept.iter().any(|other| other.1.is_same(&one.1)) {
            kept.push(one);
        }
    }
    kept.into_iter().map(|(name, _)| name.as_str()).collect()
}

/// The values of this home's vault, and the parts of those that have several; none where there is no vault.
async fn known(context: &Context) -> Outcome<Vec<(String, Arc<Secret>)>> {
    let (home, config) = (context.home()?, context.config()?);
    let Some(vault) = context.vault(&home, &config).await? else { return Ok(Vec::new()) };
    let mut all = Vec::new();
    for sealed in vault.snapshot().await? {
        let opened = vault.unseal(&sealed)?;
        // What a reference points to is not fetched for a search.
        if reference(&opened.secret).is_some() {
            continue;
        }
        let name = opened.name.to_string();
        all.extend(parts(&opened.secret).into_iter().map(|part| (name.clone(), Arc::new(part))));
        all.push((name, opened.secret));
    }
    Ok(all)
}
