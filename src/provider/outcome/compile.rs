//! From text to rules that can be tried; every fault is collected, and what is left can judge.
//!
//! Invariant: nothing fails after this.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderName;
use regex::Regex;

use super::draft::{RuleDraft, RulesDraft, UntilDraft, Words};
use super::json::{self, Pointer};
use super::reset::{Format, Place, ResetSource};
use super::rules::{Need, Rule, Rules, Word};
use super::{Class, Scope};

/// What is wrong, and where.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) place: String,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

type Checked<T> = Result<T, (String, Option<String>)>;

/// Compiles the rules of one provider, without those that are faulty.
pub(super) fn rules(draft: &RulesDraft, generic: Option<&Arc<Rules>>) -> (Rules, Vec<Fault>) {
    let mut faults = Vec::new();
    let common = keep(draft.until.iter().map(|until| ("until".to_owned(), source(until))), &mut faults);
    let named = |list: &[RuleDraft], faults: &mut Vec<Fault>| {
        let compiled = list.iter().map(|draft| (format!("rule '{}'", draft.name), rule(draft, &common)));
        keep(compiled, faults)
    };
    let mut all = named(&draft.rules, &mut faults);
    let stream = named(&draft.stream, &mut faults);
    let by_status =
        draft.status.iter().map(|(status, word)| (format!("status {status}"), by_status(*status, word, &common)));
    all.extend(keep(by_status, &mut faults));
    let mut one = |place: &str, checked: Checked<()>| {
        if let Err((message, hint)) = checked {
            faults.push(Fault { place: place.to_owned(), message, hint });
        }
    };
    let unknown = |word: &str, hint: &str| Err((format!("unknown value '{word}'"), Some(hint.to_owned())));
    let inspect = match draft.inspect.as_deref() {
        None => None,
        Some("hold") => Some(Need::Body),
        Some("aside") => Some(Need::Aside),
        Some(other) => {
            one("inspect", unknown(other, "one of hold, aside"));
            None
        }
    };
    let transient = match draft.faults.as_deref() {
        None => false,
        Some("transient") => true,
        Some(other) => {
            one("faults", unknown(other, "the only one is transient"));
            false
        }
    };
    let mut name = |place: &str, text: &Option<String>| {
        let text = text.as_deref()?;
        field_name(text).map_err(|fault| one(place, Err(fault))).ok()
    };
    let organization = name("organization", &draft.organization);
    let key = name("key", &draft.key);
    let dimensions = draft.dimensions.as_ref().and_then(|dimensions| {
        let form = form(&dimensions.form).map_err(|fault| one("dimensions", Err(fault))).ok()?;
        Some((dimensions.prefix.to_ascii_lowercase(), form))
    });
    let rules = Rules {
        inspect,
        events: draft.events,
        transient,
        words: draft.words.unwrap_or(true),
        organization,
        dimensions,
        key,
        stream,
        rules: all,
        generic: generic.cloned(),
    };
    (rules, faults)
}

fn keep<T>(all: impl Iterator<Item = (String, Checked<T>)>, faults: &mut Vec<Fault>) -> Vec<T> {
    let mut kept = Vec::new();
    for (place, checked) in all {
        match checked {
            Ok(value) => kept.push(value),
            Err((message, hint)) => faults.push(Fault { place, message, hint }),
        }
    }
    kept
}

fn rule(draft: &RuleDraft, common: &[ResetSource]) -> Checked<Rule> {
    let class = class(&draft.means)?;
    let scope = if draft.of.is_empty() { usual_scope(class) } else { scope(&draft.of)? };
    let mut fields = Vec::new();
    for (name, value) in &draft.field {
        fields.push((field_name(name)?, if value == "*" { None } else { Some(regex(value)?) }));
    }
    let until = draft.until.iter().map(source).collect::<Checked<Vec<_>>>()?;
    Ok(Rule {
        name: Arc::from(draft.name.as_str()),
        on: draft.on.clone(),
        fields,
        says: says(&draft.says)?,
        text: draft.text.as_deref().map(regex).transpose()?,
        class,
        scope,
        until: sorted(class, until, common),
        latest: draft.latest,
    })
}

fn by_status(status: u16, word: &str, common: &[ResetSource]) -> Checked<Rule> {
    let (name, of) = word.split_once('@').unwrap_or((word, ""));
    let draft = RuleDraft {
        name: format!("status-{status}"),
        on: vec![status],
        means: name.to_owned(),
        of: of.to_owned(),
        ..RuleDraft::default()
    };
    rule(&draft, common)
}

/// A class with no scope of its own in a rule reaches as far as it usually does.
fn usual_scope(class: Class) -> Scope {
    match class {
        Class::RateLimit | Class::Quota => Scope::Profile,
        Class::AuthInvalid | Class::AuthSuspect | Class::AuthExpired | Class::AuthForbidden => Scope::Profile,
        Class::Billing => Scope::Group,
        Class::Overloaded => Scope::UpstreamModel,
        Class::Transient | Class::Unreached | Class::Broken => Scope::Upstream,
        Class::Success | Class::Ambiguous | Class::RequestFault | Class::RequestSuspect => Scope::None,
        Class::TooLarge | Class::PolicyBlock => Scope::None,
    }
}

/// A rule's ends, the more exact first. A short limit also reads the standard fields and the provider's common ends.
fn sorted(class: Class, own: Vec<ResetSource>, common: &[ResetSource]) -> Vec<ResetSource> {
    let mut all = own;
    if matches!(class, Class::RateLimit | Class::Overloaded) {
        if class == Class::RateLimit {
            all.extend(common.iter().cloned());
        }
        let standard = [("retry-after-ms", Format::Millis), ("retry-after", Format::SecondsOrDate)];
        all.extend(
            standard.map(|(name, form)| ResetSource { place: Place::Field(HeaderName::from_static(name)), form }),
        );
    }
    // Stable: among equals the order of the text stands.
    all.sort_by_key(ResetSource::distance);
    all
}

fn says(draft: &BTreeMap<String, Words>) -> Checked<Vec<(Pointer, Vec<Word>)>> {
    let mut all = Vec::new();
    for (at, words) in draft {
        let values = match words {
            Words::One(value) => std::slice::from_ref(value),
            Words::Many(values) => values,
        };
        let mut read = Vec::new();
        for value in values {
            let text = json::text(value).ok_or(("a value is a text, a number or a flag".to_owned(), None))?;
            read.push(match text.strip_prefix('~') {
                Some(expression) => Word::Fits(regex(expression)?),
                None => Word::Equal(text),
            });
        }
        all.push((pointer(at)?, read));
    }
    Ok(all)
}

fn source(draft: &UntilDraft) -> Checked<ResetSource> {
    if let Some(behind) = draft.midnight {
        return Ok(ResetSource { place: Place::Midnight(behind), form: Format::DateTime });
    }
    let form = form(draft.form.as_deref().unwrap_or("seconds-or-date"))?;
    let place = if let Some(field) = &draft.field {
        Place::Field(field_name(field)?)
    } else if let Some(at) = &draft.body {
        Place::Body(pointer(at)?)
    } else if let Some(expression) = &draft.text {
        Place::Text(regex(expression)?)
    } else if let Some(prefix) = &draft.spent {
        Place::Spent(prefix.to_ascii_lowercase())
    } else if let Some(prefix) = &draft.rejected {
        Place::Rejected(prefix.to_ascii_lowercase(), draft.windows.clone())
    } else {
        return Err(("an end needs one of field, body, text, spent, rejected, midnight".to_owned(), None));
    };
    Ok(ResetSource { place, form })
}

fn class(word: &str) -> Checked<Class> {
    let found = Class::NAMED.iter().copied().find(|class| class.as_str() == word);
    found.ok_or_else(|| {
        (format!("unknown class '{word}'"), nearest(word, Class::NAMED.iter().map(|class| class.as_str())))
    })
}

fn scope(word: &str) -> Checked<Scope> {
    let found = Scope::ALL.iter().copied().find(|scope| scope.as_str() == word);
    found.ok_or_else(|| {
        (format!("unknown scope '{word}'"), nearest(word, Scope::ALL.iter().map(|scope| scope.as_str())))
    })
}

fn form(word: &str) -> Checked<Format> {
    let found = Format::NAMED.iter().find(|(name, _)| *name == word).map(|(_, form)| *form);
    found.ok_or_else(|| (format!("unknown form '{word}'"), nearest(word, Format::NAMED.iter().map(|(name, _)| *name))))
}

fn regex(text: &str) -> Checked<Regex> {
    Regex::new(text).map_err(|_| (format!("'{text}' is not a regular expression"), None))
}

fn field_name(text: &str) -> Checked<HeaderName> {
    text.parse().map_err(|_| (format!("'{text}' is not a field name"), None))
}

fn pointer(text: &str) -> Checked<Pointer> {
    Pointer::parse(text).ok_or_else(|| (format!("'{text}' is not a JSON pointer"), Some("begin with /".to_owned())))
}

fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let scored = known.map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate));
    // Three slips are a typing error in words of this length; more is another word.
    scored.filter(|(slips, _)| *slips <= 3).min().map(|(_, candidate)| format!("did you mean '{candidate}'?"))
}
