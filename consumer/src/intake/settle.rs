//! What becomes of a message when all its records have come to something.

use std::time::Duration;

use tokio::time::sleep;
use tracing::{debug, error, warn};

use crate::{
    aws::error::CallError,
    aws::sqs::{Message, Queue, Receipt},
    intake::dead_letter::DeadLetter,
    intake::visibility::HeldMessage,
    reconcile::reconciler::JobEnd,
};

/// What to do with a message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Settlement {
    /// Everything in it has been dealt with, once these are in the dead-letter queue.
    Delete(Vec<DeadLetter>),
    /// To be looked at again after a while.
    Leave,
    /// Another consumer shall have it.
    GiveBack,
}

/// Until a message whose record is another version's is delivered again: its receives have to last for a
/// rolling upgrade.
const LEFT_FOR_UPGRADE: Duration = Duration::from_mins(5);

/// A message is deleted only when all its jobs have ended. `letters` are those about what is no job.
pub fn settlement(letters: Vec<DeadLetter>, ends: Vec<JobEnd>) -> Settlement {
    if ends.contains(&JobEnd::Interrupted) {
        return Settlement::GiveBack;
    }
    if ends.contains(&JobEnd::Unreadable) {
        return Settlement::Leave;
    }
    let failed = ends.into_iter().filter_map(|end| match end {
        JobEnd::Failed(record) => Some(DeadLetter::about(&record)),
        JobEnd::Settled | JobEnd::Unreadable | JobEnd::Interrupted => None,
    });
    Settlement::Delete(letters.into_iter().chain(failed).collect())
}

/// Acts on a settlement. Returns how many letters were sent.
pub async fn settle(
    queue: &dyn Queue,
    message: &Message,
    held: HeldMessage,
    settlement: Settlement,
) -> usize {
    match settlement {
        Settlement::GiveBack => {
            held.until_given_back();
            0
        }
        Settlement::Delete(letters) => {
            for letter in letters.iter().map(DeadLetter::message) {
                if let Err(error) = insist(|| queue.send_dead_letter(&letter)).await {
                    // Left alone, it comes again, and at last SQS moves it.
                    error!(message.id, %error, "a message can't be put into the dead-letter queue");
                    return 0;
                }
            }
            match insist(|| queue.delete(&message.receipt)).await {
                Ok(()) => debug!(message.id, "message deleted"),
                // Harmless: the records say that its videos have ended.
                Err(error) => {
                    warn!(message.id, %error, "a settled message was not deleted and will come again");
                }
            }
            drop(held);
            letters.len()
        }
        Settlement::Leave => {
            // First out of the lease, which would extend it again.
            drop(held);
            leave(queue, &message.receipt, LEFT_FOR_UPGRADE).await;
            0
        }
    }
}

/// Pauses between attempts at a call.
const PAUSES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(15)];

async fn insist<F>(call: impl Fn() -> F) -> Result<(), CallError>
where
    F: Future<Output = Result<(), CallError>>,
{
    let mut pauses = PAUSES.iter();
    loop {
        match (call().await, pauses.next()) {
            (Ok(()), _) => return Ok(()),
            (Err(_), Some(pause)) => sleep(*pause).await,
            (Err(error), None) => return Err(error),
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
    use jiff::Timestamp;
    use vidstreamx_job::{Job, Record, Source, State};

    use super::*;

    fn failed_record() -> Record {
        let source = Source {
            bucket: "uploads".parse().unwrap(),
            key: "a.mp4".parse().unwrap(),
            version_id: None,
            etag: Some("e".into()),
            size: None,
        };
        let job = Job::new(source, "streams".parse().unwrap(), "default".into());
        let mut record = Record::new(&job, Timestamp::UNIX_EPOCH);
        record.state = State::Failed;
        record
    }

    #[test]
    fn a_message_is_deleted_when_all_in_it_was_dealt_with() {
        use JobEnd::*;
        let letter = DeadLetter { body: "b".into(), reason: "why".into(), job: None };
        let record = failed_record();
        let failed = || Failed(Box::new(record.clone()));
        let about = DeadLetter::about(&record);
        assert_eq!(settlement(vec![], vec![]), Settlement::Delete(vec![]));
        assert_eq!(settlement(vec![], vec![Settled, Settled]), Settlement::Delete(vec![]));
        assert_eq!(settlement(vec![], vec![Settled, failed()]), Settlement::Delete(vec![about.clone()]));
        assert_eq!(settlement(vec![letter.clone()], vec![failed()]), Settlement::Delete(vec![letter, about]));
        assert_eq!(settlement(vec![], vec![failed(), Unreadable]), Settlement::Leave);
        assert_eq!(settlement(vec![], vec![failed(), Unreadable, Interrupted]), Settlement::GiveBack);
    }
}
