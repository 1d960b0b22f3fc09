//! Puts a new snapshot in force.
//!
//! Invariant: a snapshot is whole before it is swapped in, and the root certificate fits it first.

use std::sync::Arc;

use crate::app::core::Core;
use crate::app::error::AppError;
use crate::app::{figures, snapshot};
use crate::proxy::View;

impl Core {
    /// Reads the vault anew and swaps the snapshot.
    pub async fn refresh(&self) -> Result<(), AppError> {
        let (config, catalogue) = {
            let state = self.state.lock();
            (Arc::clone(&state.config), Arc::clone(&state.catalogue))
        };
        let view = snapshot::build(self.ingredients(&config, &catalogue)).await?;
        self.swap(view).await;
        Ok(())
    }

    /// Puts a snapshot in force, with a root certificate that fits it first.
    pub async fn swap(&self, view: View) {
        self.suit_root(&view).await;
        figures::observe(&self.shared, &view);
        self.shared.view.store(Arc::new(view));
    }
}
