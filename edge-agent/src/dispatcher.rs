//! Hands over what functions published: after the commit, in order, and again until the broker has taken it.

use std::sync::Arc;
use std::time::Duration;

use agent_core::Backoff;
use agent_store::{ErrorKind, Reader, Write};
use tokio::sync::{mpsc, oneshot};

use crate::inlet::Outgoing;
use crate::limits;
use crate::pipeline::writer::{Sender, Wakers};

/// Hands publishes over until the inlet is gone.
pub async fn dispatch(mut reader: Reader, writer: Sender, wakers: Arc<Wakers>, inlet: mpsc::Sender<Outgoing>) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10), 0);
    // Everything up to here was taken. The store remembers it too, a little later.
    let mut taken_up_to = 0;
    loop {
        let batch = match tokio::task::block_in_place(|| reader.publishes(taken_up_to, limits::PUBLISHES_IN_FLIGHT)) {
            Ok(batch) => batch,
            Err(error) => {
                let wait = backoff.failed();
                tracing::error!(?wait, "cannot read what functions published: {error}");
                if error.kind() == ErrorKind::Corrupt {
                    // The writer gives the store up, and what is whole in it is carried over.
                    writer.abandoned(error.into());
                }
                tokio::time::sleep(wait).await;
                continue;
            }
        };
        if batch.is_empty() {
            wakers.publishes.notified().await;
            continue;
        }
        let mut waiting = Vec::with_capacity(batch.len());
        for publish in batch {
            let (taken, answer) = oneshot::channel();
            let id = publish.id;
            if inlet.send(Outgoing { publish, taken }).await.is_err() {
                return;
            }
            waiting.push((id, answer));
        }
        let mut failed = false;
        for (id, answer) in waiting {
            // In order, so that what follows one that was not taken is sent again too, and stays behind it.
            if answer.await.is_err() {
                failed = true;
                break;
            }
            taken_up_to = id;
        }
        if taken_up_to > 0 && writer.write(vec![Write::Published { up_to: taken_up_to }]).await.is_none() {
            failed = true;
        }
        if failed {
            tokio::time::sleep(backoff.failed()).await;
        } else {
            backoff.succeeded();
        }
    }
}
