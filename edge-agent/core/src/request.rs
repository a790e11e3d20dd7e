//! HTTP requests of functions: what is asked for, and what becomes of it.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use function_abi::EventKind;

use serde::{Deserialize, Serialize};

use crate::Event;
use crate::backoff::{retry_after_ms, spread_ms};

/// An HTTP request that a function wants sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Absolute, http or https.
    pub url: String,
    /// Such as `GET`.
    pub method: String,
    /// Header fields, with names in lower case.
    pub headers: Vec<(String, String)>,
    /// Any bytes.
    pub body: Vec<u8>,
    /// The function that gets the answer.
    pub to: String,
    /// How long one try may take, in milliseconds.
    pub timeout_ms: u32,
    /// How often it is sent at most.
    pub tries: u32,
    /// What the answer brings back.
    pub tag: Option<String>,
}

/// What every header field's attribute begins with.
pub const HEADER: &str = "header.";

impl Request {
    /// The request as it waits in the store: an event whose topic is the URL, and whose payload is the body. `device` is
    /// that of the event from which it comes.
    pub fn waiting(&self, device: &str, now_us: u64) -> Event {
        let mut attributes = Vec::from([
            ("method".to_owned(), self.method.clone()),
            ("to".to_owned(), self.to.clone()),
            ("timeout_ms".to_owned(), self.timeout_ms.to_string()),
            ("tries".to_owned(), self.tries.to_string()),
        ]);
        attributes.extend(self.tag.iter().map(|tag| ("tag".to_owned(), tag.clone())));
        attributes.extend(self.headers.iter().map(|(name, value)| (format!("{HEADER}{name}"), value.clone())));
        Event { attributes, ..Event::new(EventKind::Answer, device, self.url.as_str(), self.body.as_slice(), now_us) }
    }

    /// The request of an event that [`waiting`](Self::waiting) made.
    ///
    /// # Errors
    /// Names what is missing.
    pub fn of(event: &Event) -> Result<Self, String> {
        let find = |wanted: &str| event.attributes.iter().find(|(name, _)| name == wanted).map(|(_, value)| value);
        let text = |name: &str| find(name).cloned().ok_or_else(|| format!("a request that waits has no {name}"));
        let number = |name: &str| {
            text(name)?.parse().map_err(|_| format!("a request that waits has a {name} that is no number"))
        };
        let headers = event.attributes.iter();
        let headers = headers.filter_map(|(name, value)| Some((name.strip_prefix(HEADER)?.to_owned(), value.clone())));
        Ok(Self {
            url: (*event.topic).to_owned(),
            method: text("method")?,
            headers: headers.collect(),
            body: event.payload.to_vec(),
            to: text("to")?,
            timeout_ms: number("timeout_ms")?,
            tries: number("tries")?,
            tag: find("tag").cloned(),
        })
    }

    /// The URL without its query, which may hold what is no topic's business.
    pub fn place(&self) -> &str {
        self.url.split(['?', '#']).next().unwrap_or_default()
    }
}

/// How one try ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tried {
    /// The server answered.
    Answered {
        /// The status.
        status: u16,
        /// How long it wants to be left alone, in seconds, if it said so.
        retry_after_s: Option<u64>,
    },
    /// No answer came: no connection, or not in time.
    Unanswered,
    /// It cannot work, now or later: the address may not be reached.
    Hopeless,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Tell the function; this is the answer.
    Answer,
    /// Tell the function that it was tried for the last time, and failed.
    GiveUp,
    /// Try again, not before this time by the wall clock, microseconds since 1970-01-01 UTC.
    Later {
        /// That time.
        due_us: u64,
    },
}

/// How long the second try waits at least, in milliseconds; each further one twice as long, an hour at most.
const BACKOFF_MS: u32 = 1_000;

/// A server that wants to be left alone for longer than this is asked again all the same: an hour, in seconds.
const MAX_RETRY_AFTER_S: u64 = 3_600;

/// Whether a server that answers so may answer otherwise later (RFC 9110, section 15; RFC 8470; RFC 6585).
fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500..=599)
}

/// Decides after a try: `attempts` were made, this one included, and `tries` may be. The seed spreads the waits of many
/// gateways; each request has one of its own.
pub fn next(tried: Tried, attempts: u32, tries: u32, now_us: u64, seed: u64) -> Next {
    let asked_s = match tried {
        Tried::Hopeless => return Next::GiveUp,
        Tried::Answered { status, .. } if !is_passing(status) => return Next::Answer,
        Tried::Answered { retry_after_s, .. } => retry_after_s.unwrap_or(0),
        Tried::Unanswered => 0,
    };
    if attempts >= tries {
        return Next::GiveUp;
    }
    let wait_ms = retry_after_ms(BACKOFF_MS, attempts).max(asked_s.min(MAX_RETRY_AFTER_S) * 1_000);
    Next::Later { due_us: now_us.saturating_add(spread_ms(wait_ms, seed, attempts) * 1_000) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16) -> Tried {
        Tried::Answered { status, retry_after_s: None }
    }

    const SEED: u64 = 7;

    fn decide(tried: Tried, attempts: u32, tries: u32) -> Next {
        next(tried, attempts, tries, 0, SEED)
    }

    /// So many seconds after the time 0, and what they are spread by.
    fn later(seconds: u64, attempts: u32) -> Next {
        Next::Later { due_us: spread_ms(seconds * 1_000, SEED, attempts) * 1_000 }
    }

    #[test]
    fn what_waits_is_what_was_asked_for() {
        let full = Request {
            url: "https://api.example.org/a?key=1".into(),
            method: "PUT".into(),
            headers: [("content-type".into(), "text/plain".into()), ("x".into(), String::new())].into(),
            body: b"\xff\0".into(),
            to: "other".into(),
            timeout_ms: 100,
            tries: 7,
            tag: Some("t".into()),
        };
        let bare = Request { headers: Vec::new(), body: Vec::new(), tag: None, ..full.clone() };
        for request in [full, bare] {
            let event = request.waiting("d", 5);
            assert_eq!((&*event.device, event.time_us, Request::of(&event)), ("d", 5, Ok(request.clone())));
            assert_eq!(request.place(), "https://api.example.org/a");
            for at in 0..4 {
                let mut damaged = event.clone();
                damaged.attributes.remove(at);
                assert!(Request::of(&damaged).is_err());
            }
        }
    }

    #[test]
    fn an_answer_is_final_unless_the_server_may_change_its_mind() {
        for status in [200, 204, 301, 302, 307, 400, 401, 404, 409, 499] {
            assert_eq!(decide(answered(status), 1, 5), Next::Answer, "{status}");
        }
        for status in [408, 425, 429, 500, 502, 503, 504, 599] {
            assert_eq!(decide(answered(status), 1, 5), later(1, 1), "{status}");
            assert_eq!(decide(answered(status), 5, 5), Next::GiveUp, "{status}");
        }
    }

    #[test]
    fn tries_wait_twice_as_long_each_time_and_end() {
        for (attempts, seconds) in [(1, 1), (2, 2), (3, 4), (4, 8)] {
            assert_eq!(decide(Tried::Unanswered, attempts, 5), later(seconds, attempts));
        }
        for attempts in [5, 6, u32::MAX] {
            assert_eq!(decide(Tried::Unanswered, attempts, 5), Next::GiveUp);
        }
        assert_eq!(decide(Tried::Hopeless, 1, 5), Next::GiveUp);
        assert_eq!(next(Tried::Unanswered, 1, 2, u64::MAX, 0), Next::Later { due_us: u64::MAX });
    }

    #[test]
    fn a_server_is_left_alone_as_long_as_it_says_within_an_hour() {
        let after = |retry_after_s| decide(Tried::Answered { status: 503, retry_after_s }, 1, 5);
        assert_eq!(after(Some(30)), later(30, 1));
        assert_eq!(after(Some(0)), later(1, 1));
        assert_eq!(after(Some(u64::MAX)), later(3_600, 1));
    }
}
