//! The course of the demo.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use system_tests::recording::Recording;
use system_tests::{Device, Inlet, Progress, Status, Summary, System, World, binary, oracle};

use crate::results::{DeviceResult, Results};
use crate::screen::{Screen, bar, number};
use crate::stop::Stop;

/// Those of `function-examples` that are made for the recording.
const FUNCTIONS: [&str; 5] =
    ["anomaly-detector", "rolling-mean", "threshold-alert", "topic-counter", "unit-conversion"];

/// The groups (before the hyphen) are what topic-counter tells apart.
const DEVICES: [&str; 4] = ["north-office", "north-lab", "south-office", "south-hall"];

/// How long the replay should take: long enough to see a buffer grow and drain, short enough to wait for.
const REPLAY: Duration = Duration::from_secs(32);

/// How often the screen is drawn.
const FRAME: Duration = Duration::from_millis(100);

/// Without any progress for so long, something is wrong.
const STUCK: Duration = Duration::from_secs(60);

/// How long a device that has sent everything may take to end.
const ENDS: Duration = Duration::from_secs(30);

/// The system, and its devices at work.
#[derive(Debug)]
pub(crate) struct Demo {
    recording: Recording,
    devices: Vec<Device>,
    system: System,
    started: Instant,
}

/// Where the story is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Before,
    Cut,
    After,
}

/// What is seen at one moment.
#[derive(Debug, Default)]
struct Frame {
    published: u64,
    acknowledged: u64,
    status: Status,
    /// Records in the control plane.
    delivered: u64,
}

impl Demo {
    /// Starts everything.
    pub(crate) fn start(recording: Recording, screen: &mut Screen) -> Result<Self> {
        let started = Instant::now();
        screen.note("starting a control plane and a gateway, deploying five functions through the control plane …");
        let system = System::start(World::new()?, Inlet::Own, &FUNCTIONS)?;
        screen.note(&format!(
            "all run after {:.1} s; {} devices replay {} readings each",
            started.elapsed().as_secs_f64(),
            DEVICES.len(),
            number(recording.readings as u64)
        ));
        let mut demo = Self { recording, devices: Vec::new(), system, started: Instant::now() };
        if let Err(error) = demo.start_devices() {
            demo.failed();
            return Err(error);
        }
        Ok(demo)
    }

    fn start_devices(&mut self) -> Result<()> {
        let rate = (self.recording.readings as f64 / REPLAY.as_secs_f64()).max(1.0);
        for name in DEVICES {
            self.devices.push(self.system.device(name, Some(self.recording.file.clone()), rate, None)?);
        }
        Ok(())
    }

    /// Lets the devices replay, cuts the link and restores it, and waits until everything is delivered.
    pub(crate) fn play(&mut self, stop: &Stop, screen: &mut Screen) -> Result<Results> {
        let total = (self.recording.readings * DEVICES.len()) as u64;
        let runs = total * FUNCTIONS.len() as u64;
        let (mut phase, mut at_most, mut at_cut) = (Phase::Before, 0, 0);
        let mut last_change = (Instant::now(), 0);
        loop {
            stop.check()?;
            let frame = self.frame()?;
            let (handled, waiting) = (frame.status.events.handled, frame.status.records.waiting);
            at_most = waiting.max(at_most);
            match phase {
                Phase::Before if handled >= runs / 3 => {
                    self.system.link.cut();
                    (phase, at_cut) = (Phase::Cut, waiting);
                    self.tell(screen, "the link to the control plane is cut; the gateway goes on acknowledging");
                }
                Phase::Cut if handled >= runs / 3 * 2 => {
                    self.system.link.restore()?;
                    phase = Phase::After;
                    let grown = waiting.saturating_sub(at_cut);
                    self.tell(screen, &format!("the link is back; {} records were buffered meanwhile", number(grown)));
                }
                _ => {}
            }
            self.show(screen, &frame, total, at_most);
            if self.devices.iter_mut().all(|device| device.process.ended().is_some())
                && waiting == 0
                && phase == Phase::After
            {
                break;
            }
            let progress = handled + frame.delivered;
            if progress != last_change.1 {
                last_change = (Instant::now(), progress);
            }
            ensure!(last_change.0.elapsed() < STUCK, "nothing has moved for {} s", STUCK.as_secs());
            std::thread::sleep(FRAME);
        }
        self.tell(screen, "everything is delivered");
        self.results(at_most)
    }

    fn frame(&self) -> Result<Frame> {
        let mut frame = Frame {
            status: self.system.gateway.status()?,
            delivered: self.system.cloud.stats()?.records.stored,
            ..Frame::default()
        };
        for device in &self.devices {
            let Progress { published, acknowledged } = device.progress();
            frame.published += published;
            frame.acknowledged += acknowledged;
        }
        Ok(frame)
    }

    fn clock(&self) -> String {
        let seconds = self.started.elapsed().as_secs();
        format!("{}:{:02}", seconds / 60, seconds % 60)
    }

    fn tell(&self, screen: &mut Screen, what: &str) {
        screen.note(&format!("{}  {what}", self.clock()));
    }

    fn show(&self, screen: &mut Screen, frame: &Frame, total: u64, at_most: u64) {
        let Frame { published, acknowledged, status, delivered } = frame;
        let (handled, waiting) = (status.events.handled, status.records.waiting);
        let link = if self.system.link.is_whole() { "up" } else { "CUT" };
        let count = |state: &str| status.functions.iter().filter(|function| function.status == state).count();
        let (running, trial) = (count("running"), count("trial"));
        let row = |name: &str, value: u64, of: u64, note: &str| {
            format!("  {name:<13}{:>8}  {}  {note}", number(value), bar(value, of, 24))
        };
        let clock = self.clock();
        // No line is longer than 79 characters: one that wraps could not be drawn again in place.
        let block = [
            format!("{clock}  link {link:<3}  of {} functions {running} run, {trial} on trial", FUNCTIONS.len()),
            row("published", *published, total, &format!("of {} readings", number(total))),
            row("acknowledged", *acknowledged, total, "on the gateway's disk"),
            row("handled", handled, total * FUNCTIONS.len() as u64, "runs of functions"),
            // About as much as comes together while the link is cut for a third of the time.
            row("buffered", waiting, total / 2, &format!("records; at most {}", number(at_most))),
            row("delivered", *delivered, delivered + waiting, "records in the control plane"),
        ];
        let line = format!(
            "{clock}  link {link:<3}  published {published:>6}  acknowledged {acknowledged:>6}  handled {handled:>6}  \
             buffered {waiting:>6}  delivered {delivered:>6}  functions {} of {} run",
            running + trial,
            FUNCTIONS.len()
        );
        screen.draw(&block, &line);
    }

    fn results(&mut self, buffered_at_most: u64) -> Result<Results> {
        let summaries: Vec<Summary> =
            self.devices.iter_mut().map(|device| device.finish(ENDS)).collect::<Result<_>>()?;
        let cloud = &self.system.cloud;
        let accounts = oracle::judge(&summaries, &cloud.records("temperature")?);
        let (alerts, anomalies) = (cloud.records("alerts")?, cloud.records("anomalies")?);
        let device = |(account, summary): (oracle::Account, &Summary)| {
            let of_device = |record: &&system_tests::Record| record.device == account.device;
            let alerts = alerts.iter().filter(of_device).filter(|alert| alert.body["state"] == "raised").count() as u64;
            let reports = anomalies.iter().filter(of_device).filter_map(|report| report.body["time"].as_str());
            DeviceResult { detection: self.recording.judge(reports), alerts, resent: summary.resent, account }
        };
        let devices = accounts.into_iter().zip(&summaries).map(device).collect();
        Ok(Results {
            devices,
            windows: self.recording.windows.clone(),
            status: self.system.gateway.status()?,
            records: cloud.stats()?.records,
            buffered_at_most,
        })
    }

    /// Keeps what was written, and shows the ends of the logs.
    pub(crate) fn failed(&mut self) {
        self.system.world.failed();
    }

    /// For whoever wants to see more while all of it runs.
    pub(crate) fn how_to_look_around(&self) -> Result<String> {
        let System { gateway, cloud, world, .. } = &self.system;
        let edgectl = binary("edgectl")?;
        let bin = edgectl.parent().context("a program lies in a folder")?.display();
        let (broker, status) = (gateway.broker(), gateway.status_address());
        let folder = world.logs();
        let folder = folder.parent().context("the logs lie in the world's folder")?.display();
        Ok(format!(
            "\nEverything goes on running until Ctrl-C, which stops and removes it. In another terminal:\n\n  \
             export EDGECTL_SERVER=http://{cloud} EDGECTL_TOKEN_FILE={token}\n  \
             PATH={bin}:$PATH\n\n  \
             edgectl gateways                               # what runs where, and how it is\n  \
             edgectl records --stream anomalies --limit 5   # what a function found\n  \
             edgectl records --follow                       # all that arrives\n  \
             curl http://{status}/status          # what the gateway says of itself\n  \
             thermostat-host --broker {broker} -v    # one more device\n  \
             mosquitto_sub -h {ip} -p {port} -t 'celsius/#' -v   # what a function publishes\n\n  \
             logs: {folder}/logs\n  \
             the gateway's configuration: {folder}/gateway.toml\n",
            cloud = cloud.address(),
            token = cloud.token_file().display(),
            ip = broker.ip(),
            port = broker.port(),
        ))
    }
}
