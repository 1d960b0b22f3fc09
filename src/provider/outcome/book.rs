//! The rules of all providers: the built-in ones, and a user's before them.
//!
//! Invariant: the rules of one provider are compiled once, when they are first asked for.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock, OnceLock};

use serde::Deserialize;

use super::compile;
use super::draft::RulesDraft;
use super::rules::Rules;
use crate::id::ProviderId;

/// The text of the built-in rules.
const BUILT_IN: &str = include_str!("../../../config/rules.yaml");

/// The rules of all providers.
#[derive(Debug, Clone)]
pub struct Rulebook {
    entries: HashMap<ProviderId, Arc<Entry>>,
    generic: Arc<Rules>,
}

#[derive(Debug)]
struct Entry {
    draft: RulesDraft,
    compiled: OnceLock<Arc<Rules>>,
}

/// Why a rule was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{provider}: {place}: {message}")]
pub struct RuleFault {
    /// Whose.
    pub provider: ProviderId,
    /// Which rule or key.
    pub place: String,
    /// What is wrong.
    pub message: String,
    /// What was probably meant.
    pub hint: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    generic: RulesDraft,
    providers: BTreeMap<String, RulesDraft>,
}

impl Rulebook {
    /// The built-in rules.
    #[must_use]
    pub fn embedded() -> Self {
        static BOOK: LazyLock<Rulebook> = LazyLock::new(|| {
            // A test holds that the built-in text is right, so that no fallback is ever taken.
            let empty = || File { generic: RulesDraft::default(), providers: BTreeMap::new() };
            let file = serde_saphyr::from_str::<File>(BUILT_IN).unwrap_or_else(|_| empty());
            let entries = file.providers.into_iter().filter_map(|(id, draft)| {
                Some((ProviderId::parse(&id).ok()?, Arc::new(Entry { draft, compiled: OnceLock::new() })))
            });
            let generic = compile::rules(&file.generic, None).0;
            Rulebook { entries: entries.collect(), generic: Arc::new(generic) }
        });
        BOOK.clone()
    }

    /// The same with a user's rules, which are tried before the built-in ones of their provider.
    ///
    /// # Errors
    /// Every [`RuleFault`] at once.
    pub fn with(&self, overrides: Vec<(ProviderId, RulesDraft)>) -> Result<Self, Vec<RuleFault>> {
        let mut book = self.clone();
        let mut faults = Vec::new();
        for (id, draft) in overrides {
            let found = compile::rules(&draft, None).1;
            faults.extend(found.into_iter().map(|fault| RuleFault {
                provider: id.clone(),
                place: fault.place,
                message: fault.message,
                hint: fault.hint,
            }));
            let base = book.entries.get(&id).map(|entry| entry.draft.clone()).unwrap_or_default();
            book.entries.insert(id, Arc::new(Entry { draft: base.under(draft), compiled: OnceLock::new() }));
        }
        if faults.is_empty() { Ok(book) } else { Err(faults) }
    }

    /// The rules of one provider; the generic ones for a provider that has none.
    #[must_use]
    pub fn of(&self, provider: &ProviderId) -> Arc<Rules> {
        let Some(entry) = self.entries.get(provider) else { return self.generic.clone() };
        let compiled = entry.compiled.get_or_init(|| Arc::new(compile::rules(&entry.draft, Some(&self.generic)).0));
        compiled.clone()
    }

    /// Which providers have rules of their own.
    pub fn providers(&self) -> impl Iterator<Item = &ProviderId> {
        self.entries.keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_rules_are_right() {
        let file: File = serde_saphyr::from_str(BUILT_IN).unwrap();
        assert_eq!(file.providers.len(), 28);
        for (id, draft) in file.providers.iter().chain([(&"generic".to_owned(), &file.generic)]) {
            let (_, faults) = compile::rules(draft, None);
            assert!(faults.is_empty(), "{id}: {faults:?}");
        }
    }

    #[test]
    fn refuses_unknown_words_and_says_what_was_meant() {
        let acme = ProviderId::parse("acme").unwrap();
        let cases = [
            ("rules: [{name: a, means: rate-limt}]", "unknown class 'rate-limt'", Some("did you mean 'rate-limit'?")),
            ("rules: [{name: a, means: quota, of: gruop}]", "unknown scope 'gruop'", Some("did you mean 'group'?")),
            (
                "rules: [{name: a, means: quota, until: [{field: x, as: epoc}]}]",
                "unknown form 'epoc'",
                Some("did you mean 'epoch'?"),
            ),
            ("rules: [{name: a, means: quota, text: '('}]", "'(' is not a regular expression", None),
            (
                "rules: [{name: a, means: quota, says: {error: x}}]",
                "'error' is not a JSON pointer",
                Some("begin with /"),
            ),
            ("status: {429: nothing-known}", "unknown class 'nothing-known'", None),
            ("inspect: yes please", "unknown value 'yes please'", Some("one of hold, aside")),
            ("faults: permanent", "unknown value 'permanent'", Some("the only one is transient")),
        ];
        for (text, message, hint) in cases {
            let draft: RulesDraft = serde_saphyr::from_str(text).unwrap();
            let faults = Rulebook::embedded().with(vec![(acme.clone(), draft)]).unwrap_err();
            assert_eq!(faults.len(), 1, "{text}");
            assert_eq!((faults[0].message.as_str(), faults[0].hint.as_deref()), (message, hint), "{text}");
        }
        assert!(serde_saphyr::from_str::<RulesDraft>("ruls: []").is_err());
    }
}
