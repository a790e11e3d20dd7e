//! The power of the gateway's disk is cut, again and again.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::disk::Disk;
use super::edges::{self, House};
use super::plan::Dice;
use crate::{Report, World};

/// Cuts the power of the disk with the gateway's data, kills the agent, starts it on what is left, and so on under load;
/// then lets everything come to rest and compares what devices were told with what the control plane has. `say` hears how
/// far it is.
///
/// # Errors
/// The agent does not start again, or something does not come to rest. Names the cut.
pub fn power_cut(seed: u64, cuts: usize, mut say: impl FnMut(&str)) -> Result<Report> {
    let start = Instant::now();
    let world = World::new()?;
    // Where `Gateway` puts its data.
    let disk = Disk::new(world.path("gateway.img"), world.path("gateway"))?;
    let (house, _) = edges::start(world)?;
    let mut mounted = Mounted { house, disk };
    let mut report = Report { seed, ..Report::default() };
    let ran = mounted.run(seed, cuts, &mut report, &mut say).and_then(|()| mounted.house.judge(&mut report));
    if ran.is_err() || !report.is_clean() {
        mounted.house.world.failed();
    }
    ran.with_context(|| format!("seed {seed}"))?;
    report.took = start.elapsed();
    Ok(report)
}

struct Mounted {
    // Before the house: what is mounted in the world's folder must be gone when that is removed.
    disk: Disk,
    house: House,
}

impl Mounted {
    fn run(&mut self, seed: u64, cuts: usize, report: &mut Report, say: &mut impl FnMut(&str)) -> Result<()> {
        let mut dice = Dice::new(seed);
        for cut in 1..=cuts {
            self.house.keep_load()?;
            let (pause, errors) = (dice.below(500_000), dice.below(100_000));
            self.cut(Duration::from_micros(pause), Duration::from_micros(errors))
                .with_context(|| format!("cut {cut} of {cuts}"))?;
            report.count("power cuts".to_owned());
            if cut % 10 == 0 {
                say(&format!("{cut} of {cuts} cuts"));
            }
        }
        Ok(())
    }

    // `errors` is how long the agent goes on on a disk that answers with errors only: it must acknowledge nothing then.
    fn cut(&mut self, pause: Duration, errors: Duration) -> Result<()> {
        std::thread::sleep(pause);
        self.disk.cut()?;
        std::thread::sleep(errors);
        self.house.gateway.kill9();
        self.disk.restore()?;
        self.house.restart_agent()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Who uses a disk keeps it mounted.
        self.house.gateway.kill9();
    }
}
