//! Dead letters: events that a function could not handle, as gateways tell of them, and what to do with them.

use serde::{Deserialize, Serialize};
pub use sync_protocol::dead::{Action, Letter, LetterEvent, LetterIdentity, Payload, Resolved};

/// Which dead letters, in the query. All that is given must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeadQuery {
    /// Id of the gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// Name of the function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// Most letters of a page; 1 to 1,000, 100 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Where to go on: `next` of an earlier page of the same query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// A page of dead letters that are not resolved, in the order in which they became known here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetters {
    /// The letters.
    pub letters: Vec<DeadLetter>,
    /// The cursor of the next page; `null` when the end was reached.
    pub next: Option<String>,
}

/// A dead letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The gateway that has it.
    pub gateway: String,
    /// The store epoch that numbered it.
    pub epoch: String,
    /// Its number.
    pub letter: u64,
    /// The function, or `@inlet` for an event that never reached one.
    pub function: String,
    /// What sort of cause: `failed`, `trapped`, `too_old` or `refused`.
    pub kind: String,
    /// The cause, for a person; a long one is cut.
    pub reason: String,
    /// Who sent the event.
    pub device: String,
    /// The event's topic.
    pub topic: String,
    /// The gateway's wall clock when it came to be.
    pub wall_us: u64,
    /// What is to be done with it as soon as the gateway hears of that.
    pub waits_for: Option<Action>,
    /// What became of it, if it is no more.
    pub resolved: Option<Resolved>,
}

/// A dead letter in full.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetterDetail {
    /// What the list says of it; its fields stand beside those below.
    #[serde(flatten)]
    pub letter: DeadLetter,
    /// Everything that the gateway told.
    pub dead: Letter,
}

/// Says what to do with dead letters of a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeadCommand {
    /// What.
    pub action: Action,
    /// With which.
    pub letters: Letters,
    /// With `"all"`: only those of this function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
}

/// Some dead letters of a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Letters {
    /// By their numbers; 1 to 1,000 of them.
    These(Vec<u64>),
    /// `"all"`: those that are not resolved and known here now, not those that come later.
    All(All),
}

/// The word `all`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum All {
    /// The word.
    All,
}

/// What came of a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadCommanded {
    /// Letters with which it is going to be done.
    pub letters: u64,
    /// Letters that wait for the same already.
    pub waiting: u64,
    /// Letters that are no more.
    pub resolved: u64,
    /// Letters that were passed over, for their event never reached a function: nothing can retry it.
    pub not_retriable: u64,
    /// Whether there are more than one request takes: ask again.
    pub more: bool,
}

impl DeadCommanded {
    /// With what came of a request before: of letters that wait, the last one knows best.
    pub fn after(self, before: Self) -> Self {
        Self {
            letters: self.letters + before.letters,
            waiting: self.waiting - before.letters.min(self.waiting),
            ..self
        }
    }
}
