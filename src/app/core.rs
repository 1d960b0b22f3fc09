//! What reload, refresh and the admin interface work on: the parts of one running proxy.
//!
//! Invariant: data only; what is done with it stands in the rooms above.

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::admin::Listeners;
use crate::app::members::Found;
use crate::app::options::Mode;
use crate::app::snapshot::Ingredients;
use crate::clock::WallTime;
use crate::config::Config;
use crate::home::Home;
use crate::policy::Fallback;
use crate::provider::Catalogue;
use crate::proxy::Shared;
use crate::source::OpenValues;
use crate::tls::{Authority, Inherited};
use crate::vault::Vault;

/// What reload, refresh and the admin interface work on.
pub(super) struct Core {
    pub shared: Arc<Shared>,
    pub vault: Vault,
    pub open: Arc<OpenValues>,
    pub found: Vec<Found>,
    pub root: Mutex<Root>,
    pub inherited: Inherited,
    pub home: Home,
    pub config_file: PathBuf,
    pub mode: Mode,
    pub state: Mutex<State>,
    pub listeners: Listeners,
    pub started: WallTime,
    pub ca_file: PathBuf,
    pub bundle_file: PathBuf,
}

/// What a reload replaces.
pub(super) struct State {
    pub config: Arc<Config>,
    pub catalogue: Arc<Catalogue>,
    pub last_reload: Option<(WallTime, Result<(), String>)>,
    pub restart_needed: Vec<String>,
}

/// The root and the hosts that it was taken for.
pub(super) struct Root {
    pub authority: Arc<Authority>,
    pub hosts: Vec<String>,
}

impl Core {
    /// What a snapshot of this moment is built from.
    pub fn ingredients<'a>(&'a self, config: &'a Config, catalogue: &'a Arc<Catalogue>) -> Ingredients<'a> {
        let fallback = match self.mode {
            Mode::Serve => Fallback::Deny,
            Mode::Run => Fallback::Tunnel,
        };
        Ingredients { config, fallback, catalogue, vault: &self.vault, found: &self.found, open: &self.open }
    }
}
