//! HTTP requests of functions: each waits in the store from the transaction of the run that listed it, is sent until it has an
//! answer or was tried often enough, and is replaced by its answer in one transaction.
//!
//! So a request is sent at least once, with the same idempotency key each time, and its answer takes effect once. An answer
//! goes to its function the way of an event that is tried again ([`retry_queue`](agent_store::retry_queue)); for a function
//! that does not run here, it waits there.

use std::collections::HashMap;
use std::sync::Arc;

use agent_core::Event;
use agent_core::event::EventKind;
use agent_core::request::{Next, Request, Tried, next};
use agent_store::{Message, Reader, StoreError, Write};
use sync_protocol::records::StoreEpoch;
use tokio::task::{Id, JoinSet, block_in_place};

use crate::limits;
use crate::pipeline::Pipeline;
use crate::pipeline::writer::{Sender, Wakers};
use crate::triggers::queue::pass_over;

pub mod client;

use client::{Client, Sent};

/// All that sending requests takes.
#[derive(Debug)]
pub struct Requests {
    /// Its own.
    pub reader: Reader,
    /// The store's.
    pub epoch: StoreEpoch,
    /// Where answers are written.
    pub writer: Sender,
    /// Says when there are requests.
    pub wakers: Arc<Wakers>,
    /// The counts, the clock, and what runs.
    pub pipeline: Arc<Pipeline>,
    /// What sends them.
    pub client: Arc<Client>,
}

/// Requests that are on the way: for each task its message and the queue of that.
type Out = HashMap<Id, (u64, String)>;

impl Requests {
    /// Sends requests for as long as the agent runs.
    pub async fn run(mut self) {
        let (mut tasks, mut out) = (JoinSet::new(), Out::new());
        // The queue that was served last; the others have their turn first.
        let mut last = String::new();
        loop {
            let wait = match self.round(&mut tasks, &mut out, &mut last).await {
                Ok(next_us) => self.pipeline.clock.until(next_us),
                Err(error) => {
                    tracing::error!("requests wait: {error}");
                    limits::LOOK_AT_CLOCK
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.wakers.requests.notified() => {}
                Some(done) = tasks.join_next_with_id() => {
                    let id = done.map_or_else(|panic| panic.id(), |(id, ())| id);
                    out.remove(&id);
                }
            }
        }
    }

    // Sends all that is due, within the bounds. When the next one is due.
    async fn round(
        &mut self,
        tasks: &mut JoinSet<()>,
        out: &mut Out,
        last: &mut String,
    ) -> Result<Option<u64>, StoreError> {
        let mut next_us: Option<u64> = None;
        let mut queues = block_in_place(|| self.reader.request_queues())?;
        let turn = queues.partition_point(|queue| queue <= last);
        queues.rotate_left(turn);
        for queue in queues {
            // What is out stays among these until its answer is on disk, so what is not and is still there is to be sent.
            let held = out.values().filter(|(_, of)| *of == queue).count();
            let room = limits::REQUESTS_OF_A_FUNCTION.saturating_sub(held);
            let room = room.min(limits::REQUESTS_IN_FLIGHT.saturating_sub(out.len()));
            if room == 0 {
                continue;
            }
            let now_us = self.pipeline.clock.wall_us();
            let found = block_in_place(|| self.reader.messages(&queue, now_us, limits::REQUESTS_OF_A_FUNCTION));
            let (messages, next) = match found {
                Ok(found) => found,
                Err(error) => {
                    pass_over(&self.pipeline, &self.writer, error).await?;
                    return Ok(Some(now_us));
                }
            };
            next_us = [next_us, next].into_iter().flatten().min();
            let news = messages.into_iter().filter(|message| !out.values().any(|(id, _)| *id == message.id));
            let news: Vec<Message> = news.take(room).collect();
            for message in news {
                last.clone_from(&queue);
                let id = message.id;
                let task = tasks.spawn(self.attempt(message));
                out.insert(task.id(), (id, queue.clone()));
            }
        }
        Ok(next_us)
    }

    // Sends a request, and writes what came of it.
    fn attempt(&self, message: Message) -> impl Future<Output = ()> + Send + 'static {
        let (client, pipeline, writer) = (self.client.clone(), self.pipeline.clone(), self.writer.clone());
        let number = format!("{:016x}-{}", self.epoch.0, message.id);
        let seed = self.epoch.0 ^ message.id;
        async move {
            let Message { id, queue, attempts, event, .. } = message;
            let attempts = attempts.saturating_add(1);
            let request = match Request::of(&event) {
                Ok(request) => request,
                Err(what) => {
                    pipeline.counters.alarms.add(1);
                    tracing::error!("request {number} in {queue} cannot be read: {what}; it is lost, and others go on");
                    let _ = writer.write(vec![Write::MessageLost { id }]).await;
                    return;
                }
            };
            pipeline.counters.requests_sent.add(1);
            let sent = client.send(&request, &number).await;
            let now_us = pipeline.clock.wall_us();
            let decided = next(sent.tried, attempts, request.tries, now_us, seed);
            let write = match decided {
                Next::Later { due_us } => {
                    let cause = sent.cause();
                    tracing::info!(url = request.place(), attempts, cause, "request {number} is tried again");
                    Write::Requested { id, due_us, attempts }
                }
                Next::Answer | Next::GiveUp => {
                    let gave_up = decided == Next::GiveUp;
                    let event = answer(&request, &event.device, sent, (&number, attempts), gave_up, now_us);
                    Write::Answered { id, to: request.to.clone(), event }
                }
            };
            if writer.write(vec![write]).await.is_none() {
                // The request is made once more; not at once, for the store has to come back first.
                tokio::time::sleep(limits::REQUEST_AGAIN).await;
                return;
            }
            if matches!(decided, Next::Later { .. }) {
                return;
            }
            match decided {
                Next::GiveUp => pipeline.counters.requests_failed.add(1),
                _ => pipeline.counters.requests_answered.add(1),
            }
            if pipeline.plan().find(&request.to).is_none() {
                let (to, url) = (&request.to, request.place());
                tracing::warn!(url, "the answer to request {number} waits until the function {to} runs here");
            }
        }
    }
}

/// The event that tells a function what became of its request.
fn answer(
    request: &Request,
    device: &str,
    sent: Sent,
    (number, attempts): (&str, u32),
    gave_up: bool,
    now_us: u64,
) -> Event {
    let error = match (gave_up, sent.tried) {
        // More attempts would change nothing, so there is nothing to say of them.
        (true, Tried::Hopeless) | (false, _) => sent.error.clone(),
        (true, _) => Some(format!("gave up after {attempts} attempts: {}", sent.cause())),
    };
    let mut attributes = vec![("request".to_owned(), number.to_owned()), ("attempts".to_owned(), attempts.to_string())];
    attributes.extend(sent.status.map(|status| ("status".to_owned(), status.to_string())));
    attributes.extend(error.map(|error| ("error".to_owned(), error)));
    attributes.extend(request.tag.iter().map(|tag| ("tag".to_owned(), tag.clone())));
    attributes.extend(sent.headers);
    Event { attributes, ..Event::new(EventKind::Answer, device, request.place(), sent.body, now_us) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        Request {
            url: "http://a/b?secret=1".into(),
            method: "GET".into(),
            headers: Vec::new(),
            body: Vec::new(),
            to: "f".into(),
            timeout_ms: 1_000,
            tries: 3,
            tag: Some("t".into()),
        }
    }

    fn sent(tried: Tried, status: Option<u16>, error: Option<&str>) -> Sent {
        let error = error.map(str::to_owned);
        Sent { tried, status, headers: vec![("header.x".into(), "y".into())], body: b"body".to_vec(), error }
    }

    #[test]
    fn an_answer_says_what_became_of_the_request() {
        let of = |sent: Sent, gave_up| {
            let event = answer(&request(), "d", sent, ("1-2", 3), gave_up, 7);
            assert_eq!(
                (event.kind, &*event.device, &*event.topic, event.time_us),
                (EventKind::Answer, "d", "http://a/b", 7)
            );
            let find =
                |wanted: &str| event.attributes.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone());
            for (name, value) in [("request", "1-2"), ("attempts", "3"), ("tag", "t"), ("header.x", "y")] {
                assert_eq!(find(name).as_deref(), Some(value));
            }
            (find("status"), find("error"))
        };
        let answered = |status| Tried::Answered { status, retry_after_s: None };
        assert_eq!(of(sent(answered(404), Some(404), None), false), (Some("404".into()), None));
        assert_eq!(
            of(sent(answered(503), Some(503), None), true),
            (Some("503".into()), Some("gave up after 3 attempts: the server answered 503".into()))
        );
        assert_eq!(
            of(sent(Tried::Unanswered, None, Some("no connection")), true),
            (None, Some("gave up after 3 attempts: no connection".into()))
        );
        assert_eq!(of(sent(Tried::Hopeless, None, Some("private")), true), (None, Some("private".into())));
        assert_eq!(
            of(sent(answered(200), Some(200), Some("too long")), false),
            (Some("200".into()), Some("too long".into()))
        );
    }
}
