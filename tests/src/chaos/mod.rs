//! Tests that try to break the promise with a bad network: what a device was told is acknowledged takes effect exactly
//! once, whatever the ways between devices, gateway and control plane do.
//!
//! [`Storm`] says which faults strike, set one by one or drawn from a seed; [`endure`] lets them strike the real programs
//! under load, then lets everything come to rest and judges. Nothing is given up on the way: when the last fault has
//! struck, the network is whole again.

mod to_cloud;
mod to_gateway;
mod weather;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

pub use self::to_cloud::{Status, ToCloud};
pub use self::to_gateway::ToGateway;
pub use self::weather::Strike;
use self::weather::Weather;
use crate::crash::Dice;
use crate::house::{House, Load};
use crate::{Report, World, wait_until};

/// The faults that strike.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Storm {
    /// Between gateway and control plane, one after the other, each at a request with records.
    pub to_cloud: Vec<Strike<ToCloud>>,
    /// Between devices and gateway, one after the other, each at a PUBLISH of QoS 1.
    pub to_gateway: Vec<Strike<ToGateway>>,
}

/// Enough for every fault to meet events on their way, and little enough for a machine that does other things.
const LOAD: Load = Load { devices: 2, rate: 100.0 };

/// How long a storm may take. Most of it is waiting: an agent waits for up to a second before it tries again, and a device
/// notices after 20 seconds that its gateway is silent.
const PASSES: Duration = Duration::from_secs(150);

/// What half-open connections to the control plane take: by default the agent waits for half a minute.
const TIMEOUT: &str = "timeout_s = 1\n";

impl Storm {
    /// One fault between gateway and control plane, this many times, with `passing` requests between two.
    pub fn on_the_way_to_the_cloud(fault: ToCloud, times: usize, passing: u32) -> Self {
        Self { to_cloud: vec![Strike { passing, fault }; times], to_gateway: Vec::new() }
    }

    /// One fault between devices and gateway, this many times, with `passing` publishes between two.
    pub fn on_the_way_to_the_gateway(fault: ToGateway, times: usize, passing: u32) -> Self {
        Self { to_cloud: Vec::new(), to_gateway: vec![Strike { passing, fault }; times] }
    }

    /// Draws this many rounds from a seed. In each, every fault strikes once, in an order of its own.
    pub fn draw(seed: u64, rounds: usize) -> Self {
        let mut dice = Dice::new(seed);
        let mut storm = Self::default();
        for _ in 0..rounds {
            storm.to_cloud.extend(round(&mut dice, ToCloud::ALL, 3));
            storm.to_gateway.extend(round(&mut dice, ToGateway::ALL, 40));
        }
        storm
    }
}

fn round<F, const N: usize>(dice: &mut Dice, mut faults: [F; N], passing: u64) -> Vec<Strike<F>> {
    dice.shuffle(&mut faults);
    faults.into_iter().map(|fault| Strike { passing: dice.below(passing) as u32, fault }).collect()
}

/// Lets a storm pass over a house under load, then lets everything come to rest and compares what devices were told with
/// what the control plane has. The report counts every fault that struck; there is none if they did not all strike.
///
/// # Errors
/// A fault does not strike, or something does not come to rest. Names the storm.
pub fn endure(seed: u64, storm: &Storm) -> Result<Report> {
    let start = Instant::now();
    let (to_cloud, to_gateway) = (Arc::<to_cloud::Way>::default(), Arc::<to_gateway::Way>::default());
    // Only where it is needed: elsewhere a busy machine would look like a fault.
    let half_open = storm.to_cloud.iter().any(|strike| strike.fault == ToCloud::HalfOpen);
    let settings = if half_open { TIMEOUT } else { "" };
    let mut house = House::start(World::new()?, LOAD, Arc::clone(&to_cloud), Arc::clone(&to_gateway), settings)?;
    let mut report = Report { seed, ..Report::default() };
    let (to_cloud, to_gateway) = (&to_cloud.weather, &to_gateway.weather);
    to_cloud.forecast(&storm.to_cloud);
    to_gateway.forecast(&storm.to_gateway);
    let passed = wait_until("the storm to pass", PASSES, || {
        house.keep_load()?;
        to_cloud.is_over()?;
        to_gateway.is_over()
    });
    let ran = passed.and_then(|()| house.judge(&mut report));
    count(&mut report, "to the cloud", to_cloud);
    count(&mut report, "to the gateway", to_gateway);
    if ran.is_err() || !report.is_clean() {
        house.world.failed();
    }
    ran.with_context(|| format!("seed {seed}, {storm:?}"))?;
    report.took = start.elapsed();
    Ok(report)
}

fn count<F: Copy + Debug + Ord>(report: &mut Report, way: &str, weather: &Weather<F>) {
    for (fault, times) in weather.happened() {
        report.happened.insert(format!("{way}: {fault:?}"), times);
    }
    report.wrong.extend(weather.complaints());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_storm_and_another_seed_another() {
        let storm = Storm::draw(7, 2);
        assert_eq!(storm, Storm::draw(7, 2));
        assert_ne!(storm, Storm::draw(8, 2));
        for fault in ToCloud::ALL {
            assert_eq!(storm.to_cloud.iter().filter(|strike| strike.fault == fault).count(), 2, "{fault:?}");
        }
        for fault in ToGateway::ALL {
            assert_eq!(storm.to_gateway.iter().filter(|strike| strike.fault == fault).count(), 2, "{fault:?}");
        }
    }
}
