//! The root certificate of a running proxy: renewed before its end, replaced when another process replaced it, and
//! made to fit hosts that were added since the start.
//!
//! Invariant: leaves, certificate file and bundle change together; a root that cannot be had leaves the present one in
//! force.

use std::sync::Arc;

use crate::app::core::{Core, Root};
use crate::app::error::AppError;
use crate::app::installed;
use crate::app::listen;
use crate::proxy::View;
use crate::telemetry::{Action, Change};
use crate::tls::{Authority, CaInfo, Leaves, Loaded, write_bundle};

/// What is to be told of a root that is not the one that was there.
pub(super) fn said(loaded: &Loaded) -> Option<(Action, String)> {
    match loaded {
        Loaded::Existing => None,
        Loaded::Created => Some((Action::CaCreated, "this home had none".to_owned())),
        Loaded::Renewed { reason } => Some((Action::CaRenewed, reason.to_string())),
    }
}

impl Core {
    /// What there is to know of the root in use.
    pub fn ca_info(&self) -> CaInfo {
        self.root.lock().authority.info()
    }

    /// Takes the root that fits `view` and this day.
    pub async fn suit_root(&self, view: &View) {
        if let Err(error) = self.try_suit_root(view).await {
            tracing::error!(%error, hint = error.hint(), "the root certificate stays as it is");
        }
    }

    async fn try_suit_root(&self, view: &View) -> Result<(), AppError> {
        let config = Arc::clone(&self.state.lock().config);
        let sealed = view.credentials.all().flat_map(|member| member.audience.iter().cloned());
        let mut hosts = installed::certificate_hosts(&view.catalogue, &config, sealed);
        hosts.extend(listen::tls_name(&config, self.mode).map(|name| name.to_string()));
        let now = self.shared.clock.now();
        let (home, wanted) = (self.home.clone(), hosts.clone());
        // Files are read, and another process may hold their lock.
        let loading = tokio::task::spawn_blocking(move || Authority::load_or_create(&home, &wanted, now));
        let Ok(loaded) = loading.await else { return Ok(()) };
        let (authority, loaded) = loaded?;
        {
            let root = self.root.lock();
            if root.hosts == hosts && root.authority.info().fingerprint == authority.info().fingerprint {
                return Ok(());
            }
        }
        let info = authority.info();
        let another = self.ca_info().fingerprint != info.fingerprint;
        let leaves = Leaves::constrained_to(Arc::clone(&authority), &hosts)?;
        if another {
            write_bundle(&self.home, self.inherited.clone(), authority.root_pem())?;
            let (action, why) = said(&loaded).unwrap_or((Action::CaRenewed, "another process made it".to_owned()));
            tracing::warn!(%why, fingerprint = %info.fingerprint,
                "a new root certificate; programs that run with the old one have to be started again");
            let detail = Some(info.fingerprint.as_str());
            self.shared.audit.change(Change { at: now, action, subject: "ca.pem", actor: "daemon", detail })?;
        }
        self.shared.leaves.store(Arc::new(leaves));
        self.shared.books.recorder.metrics().set_ca_not_after(info.not_after);
        *self.root.lock() = Root { authority, hosts };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::app::{Mode, Options, Running};
    use crate::clock::{Clock, WallTime};
    use crate::home::Home;
    use crate::tls::Inherited;
    use crate::vault::Vault;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[tokio::test]
    async fn a_root_is_renewed_30_days_before_its_end_and_both_are_in_the_bundle() {
        let place = tempfile::tempdir().unwrap();
        let home = Home::at(place.path());
        let text = "listen: {proxy: 127.0.0.1:0, base_url: 127.0.0.1:0, admin: 127.0.0.1:0, proxy_tls: 127.0.0.1:0}\n";
        let options = Options {
            config_file: home.config_file(),
            config: crate::config::parse(text, "k").unwrap(),
            home: home.clone(),
            mode: Mode::Serve,
            vault: Vault::ephemeral().await.unwrap(),
            found: Vec::new(),
            lines_to_stdout: false,
            inherited: Inherited::default(),
            redactor: Arc::default(),
            way_out: None,
            companion: None,
        };
        let running = Running::start(options).await.unwrap();
        let core = &running.core;
        let now = Clock::System.now();
        let first = core.ca_info();
        assert!(first.permitted.contains(&"localhost".to_owned()));
        let view = core.shared.view.load_full();
        core.suit_root(&view).await;
        assert_eq!(core.ca_info(), first, "nothing is to be done");
        // Another process left one that lives 29 days more.
        let year = first.not_after.since(first.not_before);
        let past = WallTime(now.plus(29 * DAY).0 - u64::try_from(year.as_millis()).unwrap());
        let (old, _) = Authority::rotate(&home, &first.permitted, past).unwrap();
        assert!(old.info().not_after < now.plus(30 * DAY));
        core.suit_root(&view).await;
        let renewed = core.ca_info();
        assert!(renewed.not_after > now.plus(300 * DAY), "{renewed:?}");
        assert!(renewed.permitted.contains(&"localhost".to_owned()));
        let bundle = std::fs::read_to_string(home.ca_bundle()).unwrap();
        let first_of = |pem: &str| pem.split_inclusive("-----END CERTIFICATE-----").next().unwrap().to_owned();
        assert!(bundle.contains(first_of(old.root_pem()).trim()), "the old one is still trusted");
        let new = std::fs::read_to_string(home.ca_cert()).unwrap();
        assert!(bundle.contains(first_of(&new).trim()));
        running.stop(Duration::from_secs(5)).await;
    }
}
