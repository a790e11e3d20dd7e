//! The house that is tried: devices under load, a gateway, a control plane, and proxies between them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Pid;

use crate::cloud::STARTS;
use crate::proxy::{Passage, Proxy};
use crate::report::Report;
use crate::{
    Cloud, Device, Edgectl, Gateway, Inlet, LABEL, Process, Replay, Summary, World, binary, oracle, wait_until,
};

/// One record for each event; one for every sixth event of a device; one for every hundredth event of all.
const FUNCTIONS: [&str; 3] = ["unit-conversion", "rolling-mean", "topic-counter"];
const MEANS_EVERY: u64 = 6;
const COUNTS_EVERY: u64 = 100;

/// A device ends after this many readings, and boots again: so boots change during a run, too.
const READINGS: usize = 2_000;

/// Far more than anything here takes.
const DEADLINE: Duration = Duration::from_secs(60);

/// What devices do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// How many there are.
    pub(crate) devices: usize,
    /// Readings per second of each.
    pub(crate) rate: f64,
}

/// A house under load. What goes to the control plane passes through `C`, what goes to the gateway through `G`.
#[derive(Debug)]
pub(crate) struct House<C, G> {
    pub(crate) gateway: Gateway,
    pub(crate) cloud: Cloud,
    load: Load,
    devices: Vec<Device>,
    ended: Vec<Summary>,
    to_gateway: Proxy<G>,
    to_cloud: Proxy<C>,
    pub(crate) world: World,
}

impl<C: Passage, G: Passage> House<C, G> {
    /// Starts everything, in this world. `settings` go to the end of the agent's configuration, its table `[cloud]`.
    pub(crate) fn start(
        mut world: World,
        load: Load,
        to_cloud: Arc<C>,
        to_gateway: Arc<G>,
        settings: &str,
    ) -> Result<Self> {
        let (gateway, cloud, to_cloud) = match Self::parts(&world, to_cloud, settings) {
            Ok(parts) => parts,
            Err(error) => {
                world.failed();
                return Err(error);
            }
        };
        let to_gateway = Proxy::new(gateway.broker(), to_gateway)?;
        let (devices, ended) = (Vec::with_capacity(load.devices), Vec::new());
        let mut house = Self { gateway, cloud, load, devices, ended, to_gateway, to_cloud, world };
        for number in 1..=load.devices {
            house.devices.push(house.device(&format!("thermostat-{number}"))?);
        }
        Ok(house)
    }

    fn parts(world: &World, to_cloud: Arc<C>, settings: &str) -> Result<(Gateway, Cloud, Proxy<C>)> {
        let cloud = Cloud::start(world)?;
        let to_cloud = Proxy::new(cloud.address(), to_cloud)?;
        let operator = Edgectl::new(world, &cloud)?;
        for name in FUNCTIONS {
            operator.push(name)?;
            operator.deploy(name, &format!("label:{LABEL}"))?;
        }
        let mut gateway = Gateway::new(world, "gateway", Inlet::Own, to_cloud.address(), &operator)?;
        // So that what is used is told while it is waited for.
        gateway.configure(&format!("{settings}\n[usage]\nevery_s = 1\n"))?;
        gateway.start()?;
        gateway.wait_for_functions(&FUNCTIONS, DEADLINE)?;
        Ok((gateway, cloud, to_cloud))
    }
}

impl<C, G> House<C, G> {
    fn device(&self, name: &str) -> Result<Device> {
        let (device, broker) = (name.to_owned(), self.to_gateway.address());
        let replay = Replay { device, broker, recording: None, rate: self.load.rate, limit: Some(READINGS) };
        Device::start(&self.world, &replay)
    }

    /// Starts devices again that came to the end of their readings.
    pub(crate) fn keep_load(&mut self) -> Result<()> {
        for index in 0..self.devices.len() {
            let device = &mut self.devices[index];
            if device.process.ended().is_some() {
                self.ended.push(device.finish(DEADLINE)?);
                let name = device.name.clone();
                self.devices[index] = self.device(&name)?;
            }
        }
        Ok(())
    }

    /// The agent, as the system knows it.
    pub(crate) fn agent_process(&self) -> Result<Pid> {
        process_with("edge-agent", &self.world.path("gateway.toml"))
    }

    /// The control plane, as the system knows it.
    pub(crate) fn cloud_process(&self) -> Result<Pid> {
        process_with("cloud-sync", &self.world.path("cloud"))
    }

    /// Starts the agent again, after it was killed.
    pub(crate) fn restart_agent(&mut self) -> Result<()> {
        self.gateway.kill9();
        // A proxy would hold what the agent had open.
        self.to_gateway.cut();
        self.to_cloud.cut();
        self.gateway.start()
    }

    /// Starts the control plane again, after it was killed.
    pub(crate) fn restart_cloud(&mut self) -> Result<()> {
        self.cloud.process.kill();
        self.to_cloud.cut();
        let address = self.cloud.address();
        let mut command = Command::new(binary("cloud-sync")?);
        command.arg("serve").arg("--data").arg(self.world.path("cloud")).args(["--listen", &address.to_string()]);
        self.cloud.process = Process::start("cloud-sync", command, &self.world.logs())?;
        wait_until("the control plane to start again", STARTS, || {
            ensure!(self.cloud.process.ended().is_none(), "it ended");
            self.cloud.stats()
        })?;
        Ok(())
    }

    /// Ends the connections of all devices.
    pub(crate) fn cut_devices(&self) {
        self.to_gateway.cut();
    }

    /// Lets the devices end with everything acknowledged and the outbox run dry, and judges.
    pub(crate) fn judge(&mut self, report: &mut Report) -> Result<()> {
        self.end_devices()?;
        let status = match self.gateway.wait_until_drained(DEADLINE) {
            Ok(status) => status,
            Err(error) => {
                report.wrong.push(format!("{error:#}"));
                self.gateway.status()?
            }
        };
        let stats = self.cloud.stats()?.records;
        report.expect("dead letters", 0, status.dead_letters);
        report.expect("alarms of the gateway", 0, status.records.alarms);
        report.expect("records that the control plane misses", 0, stats.missing);
        report.expect("records that came with another content", 0, stats.conflicts);

        report.acknowledged = self.ended.iter().map(|summary| summary.acknowledged).sum();
        report.resent = self.ended.iter().map(|summary| summary.resent).sum();
        for account in oracle::judge(&self.ended, &self.cloud.records("temperature")?) {
            report.lost += account.missing.len() as u64;
            report.doubled += account.doubled.len() as u64;
            let of_device = |what: &str| format!("{what}, of {} in boot {}", account.device, account.boot);
            report.expect(&of_device("acknowledged events"), account.published, account.acknowledged);
            report.expect(&of_device("records that no event can have"), 0, account.invented.len() as u64);
        }
        self.judge_state(report)?;
        self.judge_usage(report)
    }

    // Effects on state show in what later records are made of.
    fn judge_state(&self, report: &mut Report) -> Result<()> {
        let means = self.cloud.records("means")?;
        for Device { name, .. } in &self.devices {
            let events: u64 = self.ended.iter().filter(|summary| summary.device == *name).map(|s| s.published).sum();
            let of_device = means.iter().filter(|mean| mean.device == *name).count() as u64;
            report.expect(&format!("means of {events} events of {name}"), events / MEANS_EVERY, of_device);
        }
        let counts = self.cloud.records("counts")?;
        let other = counts.iter().filter(|count| count.body["events"] != COUNTS_EVERY).count() as u64;
        report.expect("counts", report.acknowledged / COUNTS_EVERY, counts.len() as u64);
        report.expect("counts of another number than 100", 0, other);
        Ok(())
    }

    // Each event is one run of each function, however often it was begun.
    fn judge_usage(&self, report: &mut Report) -> Result<()> {
        let mut wanted = BTreeMap::new();
        for summary in &self.ended {
            for function in FUNCTIONS {
                *wanted.entry((function.to_owned(), summary.device.clone())).or_default() += summary.published;
            }
        }
        // What differs after the deadline differs.
        let told = wait_until("what was used to be told", DEADLINE, || {
            let found = self.cloud.runs()?;
            ensure!(found == wanted, "{found:?} in place of {wanted:?}");
            Ok(())
        });
        if let Err(error) = told {
            report.wrong.push(format!("{error:#}"));
        }
        Ok(())
    }

    fn end_devices(&mut self) -> Result<()> {
        for device in &mut self.devices {
            self.ended.push(device.stop(DEADLINE)?);
        }
        Ok(())
    }
}

// The process of this program that has this path among its arguments: the path is in our own world, so it is ours.
fn process_with(program: &str, argument: &Path) -> Result<Pid> {
    let is_it = |folder: &PathBuf| {
        let words = fs::read(folder.join("cmdline")).unwrap_or_default();
        let mut words = words.split(|byte| *byte == 0);
        let named = words.next().is_some_and(|word| word.ends_with(program.as_bytes()));
        named && words.any(|word| word == argument.as_os_str().as_encoded_bytes())
    };
    let mut folders =
        fs::read_dir("/proc").context("cannot look at the processes")?.flatten().map(|entry| entry.path());
    let folder = folders.find(is_it).with_context(|| format!("{program} does not run"))?;
    let number = folder.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
    number.and_then(Pid::from_raw).with_context(|| format!("{} is no process", folder.display()))
}
