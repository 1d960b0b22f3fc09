//! Label values and families with a bounded number of series.
//!
//! Invariant: a label value is a word of the program or a name of the configuration, never something that a
//! request or an upstream brought; and a family stops growing at its limit.

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::family::{Family, MetricConstructor};

use crate::id::{AgentName, ProfileId, ProviderId};

/// One label value; making one copies a pointer and allocates nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Word {
    Static(&'static str),
    Agent(AgentName),
    Provider(ProviderId),
    Profile(ProfileId),
    Status(u16),
}

/// Stands where there is nothing to name.
pub(super) const NONE: Word = Word::Static("none");

/// Stands for everything beyond a family's limit.
pub(super) const OTHER: Word = Word::Static("other");

impl Word {
    pub(super) fn agent(name: Option<&AgentName>) -> Self {
        name.map_or(NONE, |name| Self::Agent(name.clone()))
    }

    pub(super) fn provider(id: Option<&ProviderId>) -> Self {
        id.map_or(NONE, |id| Self::Provider(id.clone()))
    }

    pub(super) fn profile(id: Option<&ProfileId>) -> Self {
        id.map_or(NONE, |id| Self::Profile(id.clone()))
    }

    /// The statuses of RFC 9110 section 15 and those in common use; an upstream that makes up others makes no series.
    pub(super) fn status(status: Option<u16>) -> Self {
        match status {
            None => NONE,
            Some(
                status @ (100..=103
                | 200..=208
                | 226
                | 300..=308
                | 400..=418
                | 421..=431
                | 451
                | 499
                | 500..=511
                | 520..=530),
            ) => Self::Status(status),
            Some(200..=299) => Self::Static("2xx"),
            Some(300..=399) => Self::Static("3xx"),
            Some(400..=499) => Self::Static("4xx"),
            Some(500..=599) => Self::Static("5xx"),
            Some(_) => OTHER,
        }
    }
}

impl EncodeLabelValue for Word {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        match self {
            Self::Static(word) => encoder.write_str(word),
            Self::Agent(name) => encoder.write_str(name.as_str()),
            Self::Provider(id) => encoder.write_str(id.as_str()),
            Self::Profile(id) => write!(encoder, "{id}"),
            Self::Status(status) => write!(encoder, "{status}"),
        }
    }
}

macro_rules! label_set {
    ($name:ident { $($label:ident),* }) => {
        #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub(super) struct $name { $(pub(super) $label: Word,)* }

        impl Labels for $name {
            fn other() -> Self { Self { $($label: OTHER,)* } }
        }
    };
}

/// A set of labels that has a form for what is beyond the limit.
pub(super) trait Labels: Clone + std::hash::Hash + Eq {
    fn other() -> Self;
}

label_set!(RequestLabels { agent, provider, profile, status });
label_set!(ProviderLabels { provider });
label_set!(RotationLabels { provider, from, to, reason });
label_set!(ProfileLabels { provider, profile });
label_set!(QuotaLabels { provider, profile, kind });
label_set!(ReasonLabels { reason });
label_set!(AgentLabels { agent });
label_set!(ListenerLabels { listener });
label_set!(OutcomeLabels { provider, profile, outcome });
label_set!(RefreshLabels { provider, profile, result });
label_set!(ResultLabels { result });

/// `where` is a word of the language, so this set is written by hand.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct WhereLabels(pub(super) Word);

impl EncodeLabelSet for WhereLabels {
    fn encode(&self, encoder: &mut prometheus_client::encoding::LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        use prometheus_client::encoding::EncodeLabel as _;
        ("where", self.0.clone()).encode(encoder.encode_label())
    }
}

impl Labels for WhereLabels {
    fn other() -> Self {
        Self(OTHER)
    }
}

/// A family that stops growing.
pub(super) struct Capped<L, M, C = fn() -> M> {
    family: Family<L, M, C>,
    room: AtomicUsize,
    size: usize,
}

impl<L, M, C> Capped<L, M, C>
where
    L: Labels,
    M: Clone,
    C: MetricConstructor<M> + Clone,
{
    /// A family of at most `size` series and one more for the rest.
    pub(super) fn new(size: usize, constructor: C) -> Self {
        Self { family: Family::new_with_constructor(constructor), room: AtomicUsize::new(size), size }
    }

    /// A handle for the registry.
    pub(super) fn family(&self) -> Family<L, M, C> {
        self.family.clone()
    }

    /// Gives the series of `labels`, or the one for the rest, to `change`.
    pub(super) fn with(&self, labels: &L, change: impl FnOnce(&M)) {
        if let Some(metric) = self.family.get(labels) {
            change(&metric);
            return;
        }
        let fits = self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |room| room.checked_sub(1)).is_ok();
        if fits {
            change(&self.family.get_or_create(labels));
        } else {
            change(&self.family.get_or_create(&L::other()));
        }
    }

    /// Forgets every series.
    pub(super) fn clear(&self) {
        self.family.clear();
        self.room.store(self.size, Ordering::Relaxed);
    }
}
