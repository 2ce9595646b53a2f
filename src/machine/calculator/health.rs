//! What keeps the calculator from doing its whole work.

use std::collections::VecDeque;
use std::time::Duration;

use super::messages::Degradation;
use crate::types::Time;

/// The degradations that hold, several at once if need be.
#[derive(Debug)]
pub(super) struct Health {
    pub blind: bool,
    pub deposed: bool,
    pub store: Option<String>,
    pub publishing: Option<String>,
    pub source: Option<String>,
    poison_threshold: usize,
    poison_window: Duration,
    /// When the last poisonous values were met, at most as many as the threshold.
    poison: VecDeque<Time>,
    is_poisoned: bool,
    told: Told,
}

/// Which kinds were told last; the wording may change without being news.
type Told = [bool; 6];

impl Health {
    pub fn new(poison_threshold: u32, poison_window: Duration) -> Self {
        Self {
            blind: false,
            deposed: false,
            store: None,
            publishing: None,
            source: None,
            poison_threshold: poison_threshold as usize,
            poison_window,
            poison: VecDeque::new(),
            is_poisoned: false,
            told: Told::default(),
        }
    }

    pub fn poisoned(&mut self, now: Time, count: u32) {
        for _ in 0..self.poison_threshold.min(count as usize) {
            if self.poison.len() == self.poison_threshold {
                self.poison.pop_front();
            }
            self.poison.push_back(now);
        }
    }

    /// When the poison will have worn off; `None` while there is not too much of it.
    pub fn deadline(&self) -> Option<Time> {
        let oldest = *self.poison.front()?;
        let full = self.poison.len() == self.poison_threshold;
        (full && self.is_poisoned).then(|| oldest + self.poison_window)
    }

    /// The list, when its kinds differ from the last time it was told.
    pub fn changed(&mut self, now: Time) -> Option<Vec<Degradation>> {
        while self
            .poison
            .front()
            .is_some_and(|&t| t + self.poison_window <= now)
        {
            self.poison.pop_front();
        }
        self.is_poisoned = self.poison.len() == self.poison_threshold;
        let kinds = [
            self.blind,
            self.deposed,
            self.store.is_some(),
            self.publishing.is_some(),
            self.source.is_some(),
            self.is_poisoned,
        ];
        if kinds == self.told {
            return None;
        }
        self.told = kinds;
        Some(self.list())
    }

    pub fn list(&self) -> Vec<Degradation> {
        let kinds = [
            self.deposed.then_some(Degradation::Deposed),
            self.blind.then_some(Degradation::Blind),
            self.store.clone().map(Degradation::Store),
            self.publishing.clone().map(Degradation::Publishing),
            self.source.clone().map(Degradation::Source),
            self.is_poisoned.then_some(Degradation::Poison),
        ];
        kinds.into_iter().flatten().collect()
    }
}
