//! The way to the control plane, and what can happen on it.

use std::net::SocketAddr;

use anyhow::{Result, bail};
use sync_protocol::records::{Reply, Request};
use sync_protocol::{Refusal, enroll};

use crate::crash::Dice;
use crate::http;

/// A link of a gateway that is enrolled. It remembers what was sent, for it may arrive once more at any time.
#[derive(Debug)]
pub(super) struct Link {
    cloud: SocketAddr,
    credential: String,
    pub(super) gateway: String,
    // The last requests as they were sent, and their answers.
    sent: Vec<(Vec<u8>, Option<Reply>)>,
}

/// How many requests stay on their way at most.
const ON_THE_WAY: usize = 8;

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It arrives, and so does the answer.
    Answered,
    /// It never arrives.
    RequestLost,
    /// It arrives, and the answer is lost.
    AnswerLost,
    /// It arrives only after the gateway has given it up, if at all.
    Late,
    /// The answer is one to an earlier request.
    StaleAnswer,
    /// The answer says something that cannot be.
    LyingAnswer,
}

impl Fate {
    pub(super) fn draw(dice: &mut Dice) -> Self {
        match dice.below(100) {
            0..65 => Self::Answered,
            65..75 => Self::RequestLost,
            75..87 => Self::AnswerLost,
            87..93 => Self::Late,
            93..97 => Self::StaleAnswer,
            _ => Self::LyingAnswer,
        }
    }
}

impl Link {
    pub(super) fn enrol(cloud: SocketAddr, claim: &str, name: &str) -> Result<Self> {
        let request = enroll::Request {
            claim: claim.to_owned(),
            name: name.to_owned(),
            agent_version: "simulation".to_owned(),
            nonce: [7; 16],
        };
        let body = sync_protocol::encode(&request);
        let answer = http::post(cloud, sync_protocol::PATH_ENROLL, &[], &body)?;
        let reply: enroll::Reply = decoded(answer)?;
        Ok(Self { cloud, credential: reply.credential, gateway: reply.gateway, sent: Vec::new() })
    }

    /// Sends a request; what the gateway hears of it.
    pub(super) fn send(&mut self, request: &Request, fate: Fate, dice: &mut Dice) -> Result<Option<Reply>> {
        let body = sync_protocol::compress(&sync_protocol::encode(request));
        let arrives = !matches!(fate, Fate::RequestLost | Fate::Late);
        let reply = if arrives { Some(self.arrive(&body)?) } else { None };
        let heard = match fate {
            Fate::Answered => reply,
            Fate::RequestLost | Fate::Late | Fate::AnswerLost => None,
            Fate::StaleAnswer => {
                self.sent.iter().filter_map(|(_, reply)| *reply).next_back().filter(|old| Some(*old) != reply)
            }
            Fate::LyingAnswer => reply.map(|reply| lie(reply, dice)),
        };
        if fate != Fate::RequestLost {
            if self.sent.len() == ON_THE_WAY {
                self.sent.remove(dice.below(ON_THE_WAY as u64) as usize);
            }
            self.sent.push((body, reply));
        }
        Ok(heard)
    }

    /// Perhaps something that was sent before arrives now, or once more. Nobody hears the answer.
    pub(super) fn perhaps_late(&mut self, dice: &mut Dice) -> Result<()> {
        if !self.sent.is_empty() && dice.below(4) == 0 {
            let (body, _) = &self.sent[dice.below(self.sent.len() as u64) as usize];
            self.arrive(body)?;
        }
        Ok(())
    }

    fn arrive(&self, body: &[u8]) -> Result<Reply> {
        let headers = [
            ("authorization", format!("Bearer {}", self.credential)),
            ("content-encoding", sync_protocol::ENCODING.to_owned()),
        ];
        decoded(http::post(self.cloud, sync_protocol::PATH_RECORDS, &headers, body)?)
    }
}

// Everything that a gateway can tell to be untrue.
fn lie(reply: Reply, dice: &mut Dice) -> Reply {
    match dice.below(4) {
        0 => Reply { epoch: sync_protocol::records::StoreEpoch(reply.epoch.0 ^ 1), ..reply },
        1 => Reply { checksum: reply.checksum ^ (1 << dice.below(32)), ..reply },
        2 => Reply { high_water: u64::MAX >> dice.below(20), ..reply },
        _ => {
            let class = match reply.class {
                sync_protocol::records::Class::High => sync_protocol::records::Class::Normal,
                sync_protocol::records::Class::Normal => sync_protocol::records::Class::High,
            };
            Reply { class, ..reply }
        }
    }
}

fn decoded<T: serde::de::DeserializeOwned>((status, body): (u16, Vec<u8>)) -> Result<T> {
    if status != 200 {
        match sync_protocol::decode::<Refusal>(&body) {
            Ok(refusal) => bail!("the control plane refused with {status}: {refusal}"),
            Err(error) => bail!("the control plane answered {status}: {error}"),
        }
    }
    Ok(sync_protocol::decode(&body)?)
}
