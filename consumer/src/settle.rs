//! What becomes of a message when all its records have come to something.

use std::time::Duration;

use tokio::time::sleep;
use tracing::{debug, warn};

use crate::{
    lease::Held,
    queue::{Message, Queue, Receipt},
};

/// What one record of a message came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Nothing had to be done, or the video is done, rejected or obsolete, and recorded as such.
    Settled,
    /// The video failed, or the record is for a person to look at.
    Failed,
    /// The job's record or report is another version's: its consumer may be about to take over.
    Unreadable,
    /// This consumer shuts down; another one goes on.
    Interrupted,
}

/// What to do with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Settlement {
    /// Everything in it has been dealt with.
    Delete,
    /// The redrive policy takes it to the dead-letter queue after a few more deliveries.
    Leave(Duration),
    /// Another consumer shall have it.
    GiveBack,
}

/// Until a message that nobody can deal with is delivered again: soon, so that it gets to the
/// dead-letter queue within a minute or so, but not in a hot loop.
const LEFT_FOR_REDRIVE: Duration = Duration::from_secs(5);

/// Until a message whose record is another version's is delivered again: its receives have to last for a
/// rolling upgrade.
const LEFT_FOR_UPGRADE: Duration = Duration::from_mins(5);

/// A message is deleted only when every record in it was dealt with.
pub fn settlement(ends: &[End]) -> Settlement {
    if ends.contains(&End::Interrupted) {
        Settlement::GiveBack
    } else if ends.contains(&End::Unreadable) {
        Settlement::Leave(LEFT_FOR_UPGRADE)
    } else if ends.contains(&End::Failed) {
        Settlement::Leave(LEFT_FOR_REDRIVE)
    } else {
        Settlement::Delete
    }
}

/// Acts on a settlement.
pub async fn settle(queue: &dyn Queue, message: &Message, held: Held, settlement: Settlement) {
    match settlement {
        Settlement::GiveBack => held.until_given_back(),
        Settlement::Delete => {
            delete(queue, message).await;
            drop(held);
        }
        Settlement::Leave(visibility) => {
            // First out of the lease, which would extend it again.
            drop(held);
            leave(queue, &message.receipt, visibility).await;
        }
    }
}

/// Pauses between attempts at deleting a message.
const DELETE_PAUSES: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(15)];

async fn delete(queue: &dyn Queue, message: &Message) {
    let mut pauses = DELETE_PAUSES.iter();
    loop {
        match (queue.delete(&message.receipt).await, pauses.next()) {
            (Ok(()), _) => return debug!(message.id, "message deleted"),
            (Err(_), Some(pause)) => sleep(*pause).await,
            (Err(error), None) => {
                // Harmless: the records say that its videos have ended.
                return warn!(message.id, %error, "a settled message was not deleted and will come again");
            }
        }
    }
}

async fn leave(queue: &dyn Queue, receipt: &Receipt, visibility: Duration) {
    // Not worth a retry: without it the message stays invisible a little longer.
    if let Err(error) = queue.set_visibility(std::slice::from_ref(receipt), visibility).await {
        debug!(%error, "a message that is left becomes visible later than wanted");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_record_that_was_not_dealt_with_keeps_the_message() {
        use End::*;
        assert_eq!(settlement(&[]), Settlement::Delete);
        assert_eq!(settlement(&[Settled, Settled]), Settlement::Delete);
        assert_eq!(settlement(&[Settled, Failed]), Settlement::Leave(LEFT_FOR_REDRIVE));
        assert_eq!(settlement(&[Failed, Unreadable]), Settlement::Leave(LEFT_FOR_UPGRADE));
        assert_eq!(settlement(&[Failed, Unreadable, Interrupted]), Settlement::GiveBack);
    }
}
