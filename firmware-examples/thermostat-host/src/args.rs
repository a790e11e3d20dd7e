use std::path::PathBuf;

use clap::{Parser, ValueEnum, value_parser};
use device_sdk::WINDOW;
use thiserror::Error;

/// A thermostat that publishes its readings over MQTT (QoS 1) until each is acknowledged.
///
/// It ends by itself when it has replayed its file, or reached its limit, and everything is acknowledged (exit
/// status 0). SIGINT and SIGTERM end it earlier: it waits for outstanding acknowledgements, as --drain says; the
/// exit status is 1 if any is missing.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Args {
    /// The broker, for instance the gateway's own
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:1883", value_parser = parse_broker)]
    pub(crate) broker: Broker,

    /// The device's name, also its MQTT client identifier: ASCII letters, digits, '-', '_', '.' and ':'
    #[arg(long, value_name = "NAME", default_value = "thermostat-1")]
    pub(crate) device: String,

    /// Where to publish; {device} stands for the device's name
    #[arg(long, default_value = "sensors/{device}/temperature")]
    topic: String,

    /// Replay this file in place of a simulated room: "timestamp,value" in the first line, then lines such as
    /// "2013-07-04 00:00:00,69.88" in degrees Fahrenheit
    #[arg(long, value_name = "FILE")]
    pub(crate) replay: Option<PathBuf>,

    /// Readings per second
    #[arg(long, default_value_t = 10.0, value_parser = parse_rate)]
    pub(crate) rate: f64,

    /// End after this many readings
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,

    /// The boot epoch; it must be larger than at any run before. Without it and --boot-file: seconds since 1970
    #[arg(long, value_name = "N", conflicts_with = "boot_file")]
    pub(crate) boot: Option<u32>,

    /// Count the boot epoch in this file, which is made when it is missing
    #[arg(long, value_name = "PATH")]
    pub(crate) boot_file: Option<PathBuf>,

    /// How far sending may run ahead of acknowledgements, 1 to 32 events
    #[arg(long, default_value_t = WINDOW as u16, value_parser = value_parser!(u16).range(1..=WINDOW as i64))]
    pub(crate) window: u16,

    /// Seconds that outstanding acknowledgements may take after SIGINT or SIGTERM
    #[arg(long, value_name = "SECONDS", default_value_t = 2)]
    pub(crate) drain: u32,

    /// Seeds the simulated noise and the jitter of reconnects [default: from the device's name]
    #[arg(long)]
    seed: Option<u64>,

    /// How to print the summary
    #[arg(long, value_enum, default_value_t = Report::Text)]
    pub(crate) report: Report,

    /// Print progress to standard error (RUST_LOG says more finely what is printed)
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

/// How the summary is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Report {
    /// One line for people.
    Text,
    /// One line of JSON.
    Json,
}

/// Where the broker listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broker {
    /// A name or an address; an IPv6 address is in brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum ArgError {
    #[error("expected HOST:PORT, for instance gateway.local:1883 or [::1]:1883")]
    Broker,
    #[error("expected a number of readings per second above 0 and at most 100000")]
    Rate,
}

fn parse_broker(text: &str) -> Result<Broker, ArgError> {
    let (host, port) = text.rsplit_once(':').ok_or(ArgError::Broker)?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let port = port.parse().map_err(|_| ArgError::Broker)?;
    if host.is_empty() || port == 0 || (host.contains(':') && !bracketed) {
        return Err(ArgError::Broker);
    }
    Ok(Broker { host: host.to_owned(), port })
}

fn parse_rate(text: &str) -> Result<f64, ArgError> {
    match text.parse() {
        Ok(rate) if rate > 0.0 && rate <= 100_000.0 => Ok(rate),
        _ => Err(ArgError::Rate),
    }
}

impl Args {
    pub(crate) fn topic(&self) -> String {
        self.topic.replace("{device}", &self.device)
    }

    pub(crate) fn seed(&self) -> u64 {
        // FNV-1a: devices with different names must not reconnect in step.
        let of_name = || {
            self.device
                .bytes()
                .fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3))
        };
        self.seed.unwrap_or_else(of_name)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_options_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn brokers() {
        let broker = |host: &str, port| Ok(Broker { host: host.to_owned(), port });
        assert_eq!(parse_broker("127.0.0.1:1883"), broker("127.0.0.1", 1883));
        assert_eq!(parse_broker("[::1]:1"), broker("[::1]", 1));
        for bad in ["", "host", ":1883", "host:", "host:0", "host:65536", "::1:1883", "host:x"] {
            assert_eq!(parse_broker(bad), Err(ArgError::Broker), "{bad}");
        }
    }

    #[test]
    fn rates() {
        assert_eq!(parse_rate("0.5"), Ok(0.5));
        for bad in ["0", "-1", "nan", "inf", "100001", ""] {
            assert_eq!(parse_rate(bad), Err(ArgError::Rate), "{bad}");
        }
    }

    #[test]
    fn the_topic_names_the_device() {
        let args = Args::parse_from(["thermostat-host", "--device", "attic"]);
        assert_eq!(args.topic(), "sensors/attic/temperature");
        assert_ne!(args.seed(), Args::parse_from(["thermostat-host", "--device", "cellar"]).seed());
    }
}
