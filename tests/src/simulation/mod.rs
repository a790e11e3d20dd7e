//! The sync protocol under a link that does everything that links do, in virtual time, by a seed.
//!
//! On one side the gateway's real store, and what decides what is delivered and dropped (`edge_agent::uplink::delivery`,
//! `edge_agent::keeper::keeping`); on the other side the real control plane. Between them nothing but this: one thread, a
//! clock that is moved, and dice. So years pass in seconds, and the same seed takes the same way.

mod gateway;
mod link;
mod report;

use std::sync::Arc;
use std::time::Duration;

use agent_core::effect::Priority;
use agent_core::retention::{Quota, Retention, StreamPolicy, WhenFull};
use anyhow::{Context as _, Result};

pub use self::report::Report;

use self::gateway::Gateway;
use self::link::Link;
use crate::crash::Dice;
use crate::{Cloud, Edgectl};

/// What happens until everything is delivered.
const STEPS: u64 = 400;

/// Lives through what this seed says, and compares what functions emitted with what the control plane has and knows to be
/// gone. The control plane may be used for many seeds: each has a gateway of its own.
///
/// # Errors
/// Something failed that must not, or what waits does not come to rest. Names the seed.
pub fn simulate(cloud: &Cloud, operator: &Edgectl, seed: u64) -> Result<Report> {
    run(cloud, operator, seed).with_context(|| format!("seed {seed}"))
}

fn run(cloud: &Cloud, operator: &Edgectl, seed: u64) -> Result<Report> {
    let mut dice = Dice::new(seed);
    let link = Link::enrol(cloud.address(), &operator.claim("site=simulation")?, &format!("simulation-{seed}"))?;
    let retention = Arc::new(retention(&mut dice));
    let mut gateway = Gateway::new(link, retention, paced(&mut dice))?;
    let mut online = true;
    for _ in 0..STEPS {
        match dice.below(100) {
            0..35 => gateway.emit(&mut dice)?,
            35..80 if online => gateway.deliver(&mut dice)?,
            35..80 => gateway.emit(&mut dice)?,
            80..88 => gateway.keep()?,
            88..94 => gateway.pass(Duration::from_millis(dice.below(20_000))),
            94..96 => gateway.pass(Duration::from_secs(dice.below(7 * 86_400))),
            96 => gateway.crash()?,
            97 => gateway.reboot(&mut dice)?,
            _ => online = !online,
        }
    }
    gateway.settle()?;
    gateway.judge(seed, cloud)
}

/// Streams of every sort; see [`gateway::STREAMS`].
fn retention(dice: &mut Dice) -> Retention {
    let policies = [WhenFull::RefuseNew, WhenFull::DropOldest, WhenFull::DropLowestPriority, WhenFull::ThinOut];
    let mut quota = |bytes| {
        let when_full = policies[dice.below(4) as usize];
        Some(Quota { bytes: bytes + dice.below(bytes), when_full })
    };
    let limited = StreamPolicy { quota: quota(20_000), ..StreamPolicy::default() };
    let outbox = quota(150_000);
    let short_lived = StreamPolicy { ttl_us: Some(1 + dice.below(86_400_000_000)), ..StreamPolicy::default() };
    let urgent = StreamPolicy { priority: Some(Priority::High), ..StreamPolicy::default() };
    let [_, second, third, fourth] = gateway::STREAMS.map(str::to_owned);
    let streams = [(second, limited), (third, short_lived), (fourth, urgent)].into();
    Retention { outbox: outbox.filter(|_| dice.below(2) == 0), streams }
}

/// Half of the gateways are on a metered link.
fn paced(dice: &mut Dice) -> Option<u64> {
    let bytes_per_second = 1_000 + dice.below(100_000);
    (dice.below(2) == 0).then_some(bytes_per_second)
}
