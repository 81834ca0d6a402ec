//! The pause of a stack by an operator: nothing is received or launched while an object in S3 exists. Running
//! tasks go on.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::sleep};
use tracing::{info, warn};

use crate::aws::record_store::{Pause, RecordStore};

/// Time between two reads of the object. 100,000 reads cost 4 cents, so a consumer costs 7 cents a month.
const READ_EVERY: Duration = Duration::from_secs(15);

#[derive(Debug, Clone, PartialEq)]
enum State {
    /// The object has not been read yet.
    Unknown,
    Running,
    Paused(Pause),
}

/// Follows the object.
#[derive(Debug)]
pub(crate) struct PauseSwitch {
    state: Mutex<State>,
    changed: Notify,
}

impl PauseSwitch {
    /// A switch whose state is unknown. Run [`Self::run`] in the background.
    pub(crate) fn new() -> Self {
        Self { state: Mutex::new(State::Unknown), changed: Notify::new() }
    }

    /// A switch of a stack that is not paused.
    #[cfg(test)]
    pub(crate) fn running() -> Self {
        Self { state: Mutex::new(State::Running), changed: Notify::new() }
    }

    /// Reads the object again and again while it is polled. If S3 does not answer, the state remains.
    pub(crate) async fn run(&self, records: &dyn RecordStore) {
        let mut is_failing = false;
        loop {
            match records.pause().await {
                Ok(pause) => {
                    is_failing = false;
                    self.change(pause.map_or(State::Running, State::Paused));
                }
                Err(error) => {
                    if !std::mem::replace(&mut is_failing, true) {
                        warn!(%error, "whether an operator has paused the stack cannot be read now");
                    }
                }
            }
            sleep(READ_EVERY).await;
        }
    }

    fn change(&self, state: State) {
        let before = std::mem::replace(&mut *self.state(), state.clone());
        if before == state {
            return;
        }
        match (&state, &before) {
            (State::Paused(Pause { since, reason }), _) => {
                info!(%since, reason, "an operator has paused the stack: no task is launched");
            }
            (_, State::Paused(_)) => info!("the stack is no longer paused"),
            _ => {}
        }
        self.changed.notify_waiters();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The reason why nothing may be launched now; `None` if launches may go on.
    pub(crate) fn reason(&self) -> Option<String> {
        match &*self.state() {
            State::Running => None,
            State::Unknown => Some("it is not known yet whether an operator has paused the stack".to_owned()),
            State::Paused(Pause { since, reason }) if reason.is_empty() => {
                Some(format!("an operator has paused the stack at {since}"))
            }
            State::Paused(Pause { since, reason }) => {
                Some(format!("an operator has paused the stack at {since}: {reason}"))
            }
        }
    }

    /// Waits until launches may go on.
    pub(crate) async fn until_running(&self) {
        loop {
            let changed = self.changed.notified();
            if *self.state() == State::Running {
                return;
            }
            changed.await;
        }
    }
}
