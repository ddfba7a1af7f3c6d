//! The secrets of a run's exchanges that its output must not show.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;

use super::{super::exchanged::Exchanged, masks::Masks};
use crate::kernel::secret::Secret;

/// What is masked, now and in the streams that look at it.
pub(super) struct Hidden {
    is_masking: bool,
    masks: Arc<ArcSwap<Masks>>,
    /// By exchange, the newest last.
    secrets: Mutex<VecDeque<Vec<Secret>>>,
}

/// How many exchanges' secrets are masked: with renewals at two thirds of a life, all but the last two or three have
/// ended, and a run of days must not grow.
const EXCHANGES: usize = 8;

impl Hidden {
    /// Nothing yet; without `is_masking` nothing ever.
    pub(super) fn new(is_masking: bool) -> Self {
        Self { is_masking, masks: Arc::new(ArcSwap::from_pointee(Masks::new([]))), secrets: Mutex::default() }
    }

    /// The masks as they change.
    pub(super) fn masks(&self) -> &Arc<ArcSwap<Masks>> {
        &self.masks
    }

    /// Hides the secret fields of an exchange, and `more`, from now on.
    pub(super) fn add(&self, exchanged: &Exchanged, more: Option<&Secret>) {
        if !self.is_masking {
            return;
        }
        let fields = exchanged.issuances.iter().flat_map(|issuance| &issuance.fields);
        let values = fields.filter(|field| field.is_secret).map(|field| &field.value).chain(more);
        let copies = values.map(|value| Secret::new(value.expose().to_vec())).collect();
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        secrets.push_back(copies);
        // The first is kept for what it was given `more`.
        if secrets.len() > EXCHANGES {
            secrets.remove(1);
        }
        self.masks.store(Arc::new(Masks::new(secrets.iter().flatten())));
    }
}
