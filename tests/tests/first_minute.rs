//! What docs/functions.md shows whoever is new: from nothing to a function that runs on an agent.

use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rumqttc::{Client, MqttOptions, QoS};
use system_tests::http::get_text;
use system_tests::{Port, Process, World, binary, wait_until};

const DOCS: &str = include_str!("../../docs/functions.md");

const DEADLINE: Duration = Duration::from_secs(60);

#[test]
fn a_new_function_runs_on_an_agent_as_the_documentation_says() -> Result<()> {
    let world = World::new()?;
    edgectl(&world.path(""), &["fn", "new", "too-warm"])?;
    let folder = world.path("too-warm");
    edgectl(&folder, &["fn", "build"])?;

    // Word for word, but for the ports, which others may have.
    let (broker, status) = (Port::free()?, Port::free()?);
    let config = DOCS.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).context("no agent.toml")?;
    let config = config.replace("127.0.0.1:1883", &broker.address().to_string());
    std::fs::write(folder.join("agent.toml"), config.replace("127.0.0.1:9090", &status.address().to_string()))?;
    let mut agent = Command::new(binary("edge-agent")?);
    agent.args(["run", "--config", "agent.toml"]).current_dir(&folder);
    let _agent = Process::start("agent", agent, &world.logs())?;
    let read = || get_text(status.address(), "/status", None);
    wait_until("the agent's broker", DEADLINE, || TcpStream::connect(broker.address()))?;

    let options = MqttOptions::new("kitchen", "127.0.0.1", broker.address().port());
    let (client, mut connection) = Client::new(options, 10);
    client.publish("sensors/kitchen/temperature", QoS::AtLeastOnce, false, r#"{"celsius": 31.5}"#)?;
    let acknowledged = connection.iter().find(|event| match event {
        Ok(rumqttc::Event::Incoming(rumqttc::Packet::PubAck(_))) | Err(_) => true,
        Ok(_) => false,
    });
    acknowledged.context("the connection ended")??;
    let seen: serde_json::Value = serde_json::from_str(&read()?)?;
    ensure!(seen["events"]["handled"] == 1 && seen["records"]["waiting"] == 1, "{seen:#}");
    let streams = seen["records"]["streams"].to_string();
    ensure!(streams.contains("alerts"), "{streams}");
    Ok(())
}

fn edgectl(folder: &Path, arguments: &[&str]) -> Result<()> {
    let mut edgectl = Command::new(binary("edgectl")?);
    edgectl.args(arguments).current_dir(folder).env_remove("RUSTFLAGS").env_remove("EDGECTL_SDK");
    // Shared by all runs of this test, so that dependencies are built once.
    edgectl.env("CARGO_TARGET_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("authors"));
    let done = edgectl.output()?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "edgectl {arguments:?}: {said}");
    Ok(())
}
