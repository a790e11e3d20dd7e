//! A whole system: the house that most tests and the demo live in.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use crate::gateway::LABEL;
use crate::{Cloud, Device, Edgectl, Gateway, Inlet, Link, Replay, World};

/// A control plane, a gateway that reaches it through a [`Link`], and an operator who deployed functions to it.
#[derive(Debug)]
pub struct System {
    /// The gateway; its agent runs.
    pub gateway: Gateway,
    /// From the gateway to the control plane.
    pub link: Link,
    /// The operator.
    pub operator: Edgectl,
    /// The control plane.
    pub cloud: Cloud,
    /// Where all of it is. The last to be dropped, so that logs are complete when they are shown.
    pub world: World,
}

/// How long a deployment may take until it runs. It takes tenths of a second.
const DEPLOYS: Duration = Duration::from_secs(30);

impl System {
    /// Starts everything, deploys these functions of `function-examples` to the gateway's label, and waits until they run.
    ///
    /// # Errors
    /// Something does not start.
    pub fn start(world: World, inlet: Inlet, functions: &[&str]) -> Result<Self> {
        Self::start_with(world, inlet, functions, "")
    }

    /// The same, with this at the end of the gateway's configuration.
    ///
    /// # Errors
    /// Something does not start.
    pub fn start_with(mut world: World, inlet: Inlet, functions: &[&str], config: &str) -> Result<Self> {
        match Self::parts(&world, inlet, functions, config) {
            Ok((gateway, link, operator, cloud)) => Ok(Self { gateway, link, operator, cloud, world }),
            Err(error) => {
                world.failed();
                Err(error)
            }
        }
    }

    fn parts(world: &World, inlet: Inlet, functions: &[&str], config: &str) -> Result<(Gateway, Link, Edgectl, Cloud)> {
        let cloud = Cloud::start(world)?;
        let link = Link::to(cloud.address())?;
        let operator = Edgectl::new(world, &cloud)?;
        for name in functions {
            operator.push(name)?;
            operator.deploy(name, &format!("label:{LABEL}"))?;
        }
        let mut gateway = Gateway::new(world, "gateway", inlet, link.address(), &operator)?;
        gateway.configure(config)?;
        gateway.start()?;
        gateway.wait_for_functions(functions, DEPLOYS)?;
        Ok((gateway, link, operator, cloud))
    }

    /// Deploys these packages by their names, and waits until they run, and no others.
    ///
    /// # Errors
    /// They do not.
    pub fn deploy(&self, packages: &[(&str, Vec<u8>)]) -> Result<()> {
        for (name, package) in packages {
            self.operator.push_file(&self.world.write(&format!("{name}.wasm"), package)?)?;
            self.operator.deploy(name, "all")?;
        }
        let names: Vec<&str> = packages.iter().map(|(name, _)| *name).collect();
        self.gateway.wait_for_functions(&names, DEPLOYS)
    }

    /// Starts a device at the gateway.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn device(&self, name: &str, recording: Option<PathBuf>, rate: f64, limit: Option<usize>) -> Result<Device> {
        let replay = Replay { device: name.to_owned(), broker: self.gateway.broker(), recording, rate, limit };
        Device::start(&self.world, &replay)
    }
}
