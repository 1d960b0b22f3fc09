//! What is wrong with a configuration file, and where.
//!
//! Invariant: no fault quotes a line of the file, and none shows text that looks like a secret.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::suspect;
use crate::id::{AgentName, ProviderId};
use crate::policy::{Mark, Place};

/// A file with more faults than this is not worth reading to its end.
const LIMIT: usize = 200;

/// One thing that is wrong, at one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The file as the user named it.
    pub file: String,
    /// From 1; 0 where the whole file is meant.
    pub line: u32,
    /// From 1; 0 where the whole line or file is meant.
    pub column: u32,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// `keyferry.yaml:4:5: unknown key`, and the hint on a line of its own.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if self.column > 0 {
            write!(f, ":{}", self.column)?;
        }
        write!(f, ": {}", self.message)?;
        match &self.hint {
            None => Ok(()),
            Some(hint) => write!(f, "\n  hint: {hint}"),
        }
    }
}

/// Everything that is wrong with a file, in its order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
pub struct Faults(pub Vec<Fault>);

impl Faults {
    /// One fault that is about the whole file.
    pub(super) fn of_file(file: &str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        let (message, hint) = (message.into(), Some(hint.into()));
        Self(vec![Fault { file: file.to_owned(), line: 0, column: 0, message, hint }])
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            fmt::Display::fmt(fault, f)?;
        }
        Ok(())
    }
}

/// A place in the file that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct At {
    pub(super) line: u32,
    pub(super) column: u32,
}

/// Collects what is found while a file is read.
pub(super) struct Report {
    file: Arc<str>,
    faults: Vec<Fault>,
    warnings: Vec<Fault>,
    references: References,
}

/// Names that the file uses, to be looked up when all of it is read.
#[derive(Default)]
pub(super) struct References {
    pub(super) providers: Vec<(ProviderId, At)>,
    pub(super) agents: Vec<(AgentName, At)>,
    pub(super) fallbacks: Vec<(ProviderId, ProviderId, At)>,
    pub(super) definitions: Vec<Definition>,
}

/// A provider of the file, and where its parts stand.
pub(super) struct Definition {
    pub(super) provider: ProviderId,
    places: Vec<(String, At)>,
}

impl Definition {
    /// The place of `inject[1].value`, or of what it is a part of; the whole where that is not written.
    pub(super) fn place_of(&self, part: &str) -> At {
        let mut part = part;
        loop {
            if let Some((_, at)) = self.places.iter().find(|(name, _)| name == part) {
                return *at;
            }
            part = match part.rfind(['.', '[']) {
                Some(end) => part.get(..end).unwrap_or_default(),
                None if part.is_empty() => return At { line: 0, column: 0 },
                None => "",
            };
        }
    }
}

impl Report {
    pub(super) fn new(file: &str) -> Self {
        Self { file: file.into(), faults: Vec::new(), warnings: Vec::new(), references: References::default() }
    }

    pub(super) fn refer_to_provider(&mut self, provider: &ProviderId, at: At) {
        self.references.providers.push((provider.clone(), at));
    }

    pub(super) fn refer_to_agent(&mut self, agent: &AgentName, at: At) {
        self.references.agents.push((agent.clone(), at));
    }

    /// The pool of `from` falls back to `to`.
    pub(super) fn refer_to_fallback(&mut self, from: &ProviderId, to: &ProviderId, at: At) {
        self.references.fallbacks.push((from.clone(), to.clone(), at));
    }

    pub(super) fn define_provider(&mut self, provider: &ProviderId, places: Vec<(String, At)>) {
        self.references.definitions.push(Definition { provider: provider.clone(), places });
    }

    pub(super) fn take_references(&mut self) -> References {
        std::mem::take(&mut self.references)
    }

    pub(super) fn fault(&mut self, at: At, message: impl Into<String>, hint: impl Into<String>) {
        if self.faults.len() < LIMIT {
            let fault = self.at(at, message.into(), hint.into());
            self.faults.push(fault);
        }
    }

    pub(super) fn warn(&mut self, at: At, message: impl Into<String>, hint: impl Into<String>) {
        if self.warnings.len() < LIMIT {
            let warning = self.at(at, message.into(), hint.into());
            self.warnings.push(warning);
        }
    }

    /// As [`Report::warn`], for what was read already.
    pub(super) fn warn_at(&mut self, mark: &Mark, message: impl Into<String>, hint: impl Into<String>) {
        let line = mark.0.as_ref().map_or(0, |place| place.line);
        self.warn(At { line, column: 0 }, message, hint);
    }

    pub(super) fn mark(&self, at: At) -> Mark {
        Mark(Some(Place { file: Arc::clone(&self.file), line: at.line }))
    }

    /// The warnings, where there is no fault.
    pub(super) fn finish(mut self) -> Result<Vec<Fault>, Faults> {
        if self.faults.is_empty() {
            return Ok(self.warnings);
        }
        self.faults.sort_by_key(|fault| (fault.line, fault.column));
        // A change to a built-in provider is laid upon each of its kinds, which may all say the same.
        self.faults.dedup();
        Err(Faults(self.faults))
    }

    fn at(&self, at: At, message: String, hint: String) -> Fault {
        let hint = Some(hint);
        Fault { file: self.file.to_string(), line: at.line, column: at.column, message, hint }
    }
}

/// Text of the file as a message may show it: short, printable and no candidate for a secret, else not at all.
pub(super) fn shown(text: &str) -> String {
    const SHOWN: usize = 60;
    let plain = text.len() <= SHOWN && !text.is_empty() && !text.chars().any(char::is_control);
    if plain && !suspect::may_be_secret(text) { format!("`{text}`") } else { "what stands here".to_owned() }
}

/// The nearest of `candidates`, where one is near enough to have been meant.
pub(super) fn nearest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A slip is one edit in a short word, and about one in three letters of a long one.
    let allowed = (text.chars().count() / 3).clamp(1, 4);
    let lower = text.to_ascii_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&lower, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `did you mean X?`, else `known here: a, b, c`.
pub(super) fn suggestion<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str> + Clone) -> String {
    match nearest(text, candidates.clone()) {
        Some(candidate) => format!("did you mean `{candidate}`?"),
        None => format!("known here: {}", candidates.into_iter().collect::<Vec<_>>().join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_another_word_is_not() {
        for (text, expected) in [
            ("profle", Some("profile")),
            ("Host", Some("host")),
            ("metods", Some("methods")),
            ("hsot", Some("host")),
            ("action", None),
            ("zz", None),
        ] {
            assert_eq!(nearest(text, ["host", "profile", "methods"]), expected, "{text}");
        }
    }

    #[test]
    fn stops_collecting_after_a_limit() {
        let mut report = Report::new("x.yaml");
        for line in 0..10_000 {
            report.fault(At { line, column: 1 }, "wrong", "right it");
        }
        assert_eq!(report.finish().unwrap_err().0.len(), LIMIT);
    }
}
