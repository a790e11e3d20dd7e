//! Gateways with functions on them, and a link that is cut: what functions emit stays in the outbox, so that the control
//! plane, which is on another machine usually, takes nothing from what is measured.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use function_package::Package;

use super::pace;
use super::wire::{self, Template};
use crate::gateway::LABEL;
use crate::{Cloud, Edgectl, Gateway, Inlet, Link, System, World, module};

/// The function that is measured, in `tests/reading`.
pub(super) const FUNCTION: &str = "reading";

/// Far more than anything here takes.
pub(super) const DEADLINE: Duration = Duration::from_secs(120);

/// A gateway with the function; its link is cut. `publish`: the function publishes what it makes, too.
pub(super) fn system(inlet: Inlet, publish: bool) -> Result<System> {
    system_with(inlet, |operator, _| {
        operator.push(FUNCTION)?;
        let publish = format!("publish={publish}");
        operator.run(["deploy", FUNCTION, "--to", &format!("label:{LABEL}"), "--config", &publish])?;
        Ok(vec![FUNCTION.to_owned()])
    })
}

/// A gateway with what `deploy` deploys, whose names it answers; its link is cut.
pub(super) fn system_with(
    inlet: Inlet,
    deploy: impl FnOnce(&Edgectl, &World) -> Result<Vec<String>>,
) -> Result<System> {
    let mut world = World::new()?;
    let start = |world: &World| {
        let cloud = Cloud::start(world)?;
        let link = Link::to(cloud.address())?;
        let operator = Edgectl::new(world, &cloud)?;
        let names = deploy(&operator, world)?;
        let mut gateway = Gateway::new(world, "gateway", inlet, link.address(), &operator)?;
        gateway.start()?;
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        gateway.wait_for_functions(&names, DEADLINE)?;
        link.cut();
        Ok((gateway, link, operator, cloud))
    };
    match start(&world) {
        Ok((gateway, link, operator, cloud)) => Ok(System { gateway, link, operator, cloud, world }),
        Err(error) => {
            world.failed();
            Err(error)
        }
    }
}

/// The function under another name and with other topics, packed.
pub(super) fn renamed(world: &World, name: &str, filters: &[String]) -> Result<PathBuf> {
    let triggers: String = filters.iter().map(|filter| format!("\n[[trigger]]\nmqtt = \"{filter}\"\n")).collect();
    let manifest = format!(
        "manifest = 1\nname = \"{name}\"\nversion = \"1.0.0\"\n{triggers}\n[allow]\nstreams = [\"readings\"]\n\
         publish = [\"results/#\"]\n\n[config]\nlimit = 80.0\npublish = false\n"
    );
    packed(world, name, &std::fs::read(module(FUNCTION)?)?, &manifest)
}

/// A module with this manifest, packed into a file.
pub(super) fn packed(world: &World, name: &str, module: &[u8], manifest: &str) -> Result<PathBuf> {
    let package = Package::pack(module, manifest).with_context(|| format!("packing {name}"))?;
    world.write(&format!("{name}.wasm"), package.bytes())
}

/// A device that publishes one event at a time, and waits for its acknowledgement.
pub(super) struct Probe {
    stream: TcpStream,
    sent: usize,
}

impl Probe {
    pub(super) fn new(broker: SocketAddr) -> Result<Self> {
        Ok(Self { stream: pace::open(broker, "bench-probe")?, sent: 0 })
    }

    /// From PUBLISH to PUBACK.
    pub(super) fn event(&mut self, topic: &str) -> Result<Duration> {
        let mut packet = Vec::new();
        Template::new(topic).write(self.sent, &mut packet);
        let [high, low] = wire::id(self.sent);
        self.sent += 1;
        let begun = Instant::now();
        self.stream.write_all(&packet)?;
        let mut answer = [0; 4];
        self.stream.read_exact(&mut answer).context("no PUBACK")?;
        let took = begun.elapsed();
        ensure!(answer == [0x40, 2, high, low], "{answer:x?} is not the PUBACK of {high:x} {low:x}");
        Ok(took)
    }
}
