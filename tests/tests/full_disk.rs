//! A gateway whose disk is full: it acknowledges nothing that it cannot keep, and goes on by itself when there is room.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use system_tests::{Inlet, Mosquitto, Sessions, System, World, oracle, wait_until};

/// Far more than any of this takes, so that a busy machine makes no test fail.
const DEADLINE: Duration = Duration::from_secs(90);

/// A file system of a few megabytes in memory; gone with this.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`, said aloud, where this user may not mount.
    fn mount(at: PathBuf) -> Option<Self> {
        fs::create_dir_all(&at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=12m", "none"]).arg(&at).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(at));
        }
        // Straight to the terminal: the harness swallows what a test that passes prints.
        let _ = writeln!(std::io::stderr(), "may not mount a small disk (only root may): skipped");
        None
    }

    fn fill(&self) -> PathBuf {
        let filler = self.0.join("filler");
        let mut file = File::create(&filler).unwrap();
        for block in [vec![0; 64 << 10], vec![0; 512]] {
            while file.write_all(&block).is_ok() {}
        }
        filler
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the agent may still hold files in it.
        let _ = Command::new("umount").arg("--lazy").arg(Path::new(&self.0)).status();
    }
}

#[test]
fn a_full_disk_stops_acknowledgements_and_loses_nothing() {
    through_a_full_disk(World::new().unwrap(), Inlet::Own);
}

/// A broker sends what is not acknowledged on the next connection, and never on the same.
#[test]
fn a_full_disk_behind_an_outside_broker_loses_nothing() {
    let world = World::new().unwrap();
    let Some(broker) = Mosquitto::start(&world, Sessions::InMemory).unwrap() else { return };
    through_a_full_disk(world, Inlet::Outside(broker.address()));
}

fn through_a_full_disk(world: World, inlet: Inlet) {
    let Some(disk) = SmallDisk::mount(world.path("gateway")) else { return };
    let system = System::start(world, inlet, &["unit-conversion", "rolling-mean"]).unwrap();
    let before = system.device("before", None, 1_000.0, Some(50)).unwrap().finish(DEADLINE).unwrap();

    // No record leaves, so that room comes from nowhere.
    system.link.cut();
    let filler = disk.fill();
    let mut device = system.device("during", None, 2_000.0, Some(3_000)).unwrap();
    let full = wait_until("the disk to be full", DEADLINE, || {
        let status = system.gateway.status().map_err(|error| format!("{error:#}"))?;
        if status.resets >= 3 { Ok(status) } else { Err(format!("{status:?}")) }
    })
    .unwrap();
    assert!(full.events.handled < 2 * 3_000, "{full:?}");

    fs::remove_file(filler).unwrap();
    let during = device.finish(DEADLINE).unwrap();
    assert_eq!(during.acknowledged, 3_000);
    system.link.restore().unwrap();
    // An outside broker acknowledges what the gateway may not have yet.
    let runs = 2 * (before.published + during.published);
    wait_until("all runs", DEADLINE, || {
        let events = system.gateway.status().map_err(|error| format!("{error:#}"))?.events;
        if events.handled >= runs { Ok(()) } else { Err(format!("{events:?}")) }
    })
    .unwrap();
    system.gateway.wait_until_drained(DEADLINE).unwrap();
    oracle::assert_exact(&[before, during], &system.cloud.records("temperature").unwrap());
    let means = system.cloud.records("means").unwrap();
    assert_eq!(means.iter().filter(|mean| mean.device == "during").count(), 3_000 / 6);
}
