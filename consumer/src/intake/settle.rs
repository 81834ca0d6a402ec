//! The settlement of a message, after all its jobs have ended.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use tracing::{debug, error, warn};

use super::{dead_letter::DeadLetter, notification, visibility::HeldMessage};
use crate::{
    aws::sqs::{Queue, QueueKind, Receipt},
    reconcile::JobEnd,
};

/// The settlement of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub(super) enum Settlement {
    /// Send these dead letters, then delete the message.
    Delete(Vec<DeadLetter>),
    /// Leave the message in the queue for a while.
    Postpone,
    /// Return the message to the queue for the next consumer.
    Return,
}

/// Time until a message is delivered again if the record of one of its jobs cannot be read. During a rolling
/// upgrade, job records of another version are normal, and the deliveries must not use up the template's
/// limit of receives.
const POSTPONED_FOR: Duration = Duration::from_mins(5);

/// Chooses the settlement by the ends of the message's jobs. `letters` are about the message's records
/// without a job. A message is deleted only if all its jobs have ended.
pub(super) fn settlement(letters: Vec<DeadLetter>, ends: Vec<JobEnd>) -> Settlement {
    if ends.contains(&JobEnd::Interrupted) {
        return Settlement::Return;
    }
    if ends.contains(&JobEnd::Unreadable) {
        return Settlement::Postpone;
    }
    let failed = ends.into_iter().filter_map(|end| match end {
        JobEnd::Failed(record) => Some(DeadLetter::about(&record)),
        JobEnd::GivenUp(given_up) => {
            let (source, reason) = *given_up;
            Some(DeadLetter { body: notification::about(&source), reason, job: None })
        }
        JobEnd::Settled | JobEnd::Obsolete | JobEnd::Unreadable | JobEnd::Interrupted => None,
    });
    Settlement::Delete(letters.into_iter().chain(failed).collect())
}

/// Carries out a settlement. Returns the number of dead letters sent.
pub(super) async fn settle(
    (kind, queue): (QueueKind, &dyn Queue),
    receipt: &Receipt,
    held: HeldMessage,
    settlement: Settlement,
) -> usize {
    // Retries after 1, 4 and 16 seconds.
    let retries = ExponentialBuilder::new().with_factor(4.0).with_max_times(3);
    match settlement {
        Settlement::Return => {
            held.until_returned();
            0
        }
        Settlement::Delete(_) if !held.is_held() => {
            debug!("a message is settled by its next delivery");
            0
        }
        Settlement::Delete(letters) => {
            for letter in letters.iter().map(|letter| letter.message(kind)) {
                if let Err(error) = (|| queue.send_dead_letter(&letter)).retry(retries).await {
                    // The message stays in the queue. It is received again until SQS moves it to the
                    // dead-letter queue.
                    error!(%error, "a message cannot be sent to the dead-letter queue");
                    return 0;
                }
            }
            match (|| queue.delete(receipt)).retry(retries).await {
                Ok(()) => debug!("message deleted"),
                // Harmless, because the job records say that the message's videos have ended.
                Err(error) => {
                    warn!(%error, "a settled message was not deleted and will be received again");
                }
            }
            drop(held);
            letters.len()
        }
        Settlement::Postpone => {
            // Dropped first; otherwise the keeper would extend the message again.
            drop(held);
            let receipts = std::slice::from_ref(receipt);
            // Not retried, because the message is invisible until the end of its last extension anyway.
            if let Err(error) = queue.set_visibility(receipts, POSTPONED_FOR).await {
                debug!(%error, "a message was not postponed");
            }
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use vidstreamx_job::State;

    use super::*;
    use crate::fixtures;

    #[test]
    fn a_message_is_deleted_when_all_its_jobs_have_ended() {
        use JobEnd::*;
        let letter = DeadLetter { body: "b".into(), reason: "why".into(), job: None };
        let mut record = fixtures::record();
        record.state = State::Failed;
        let failed = || Failed(Box::new(record.clone()));
        let about = DeadLetter::about(&record);
        assert_eq!(settlement(vec![], vec![]), Settlement::Delete(vec![]));
        assert_eq!(settlement(vec![], vec![Settled, Settled]), Settlement::Delete(vec![]));
        assert_eq!(settlement(vec![], vec![Settled, failed()]), Settlement::Delete(vec![about.clone()]));
        assert_eq!(settlement(vec![letter.clone()], vec![failed()]), Settlement::Delete(vec![letter, about]));
        assert_eq!(settlement(vec![], vec![failed(), Unreadable]), Settlement::Postpone);
        assert_eq!(settlement(vec![], vec![failed(), Unreadable, Interrupted]), Settlement::Return);
    }
}
