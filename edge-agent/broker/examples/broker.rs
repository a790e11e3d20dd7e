//! A broker that accepts every message at once: for a look with any MQTT client, and for conformance suites.
//!
//! `cargo run -p agent-broker --example broker -- --listen 127.0.0.1:1883`
//!
//! What eclipse-paho's interoperability suite expects of a broker that it tests: `--max-keep-alive 60 --receive-window 20
//! --allow '#' --allow '$TopicA/#' --allow '$client_test5/#' --deny test/nosubscribe`

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use agent_broker::{Broker, Inbound, Ingest, Options, Pattern, Refusal, RefusalCode, Rule};
use clap::Parser;
use tracing_subscriber::EnvFilter;

#[derive(Parser)]
#[command(about = "A broker that accepts every message at once.")]
struct Args {
    /// Address and port.
    #[arg(long, default_value = "127.0.0.1:1883")]
    listen: SocketAddr,
    /// Longest keep-alive, in seconds.
    #[arg(long, default_value_t = 600)]
    max_keep_alive: u64,
    /// Unacknowledged publishes of one connection.
    #[arg(long, default_value_t = 1024)]
    receive_window: u16,
    /// Topics that begin like this are refused.
    #[arg(long)]
    refuse: Option<String>,
    /// Topic filters to publish and subscribe to; all others are denied if there is one. May be given several times.
    #[arg(long, value_parser = Pattern::parse)]
    allow: Vec<Pattern>,
    /// Topic filters to take out of these again.
    #[arg(long, value_parser = Pattern::parse, requires = "allow")]
    deny: Vec<Pattern>,
}

struct TakeAll {
    refuse: Option<String>,
}

impl Ingest for TakeAll {
    async fn submit(&self, inbound: Inbound) {
        match &self.refuse {
            Some(prefix) if inbound.topic.starts_with(prefix) => {
                inbound.ack.refuse(Refusal::new(RefusalCode::NotAuthorized, "refused as the command line says"));
            }
            _ => inbound.ack.accept(),
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_env_filter(EnvFilter::from_default_env()).init();
    let args = Args::parse();
    let rule = Rule { user: None, publish: args.allow.clone(), subscribe: args.allow, deny: args.deny };
    let broker = Broker::bind(Options {
        listen: args.listen,
        max_keep_alive: Duration::from_secs(args.max_keep_alive),
        receive_window: args.receive_window,
        rules: if rule.publish.is_empty() { Vec::new() } else { vec![rule] },
        ..Options::default()
    })
    .await?;
    let interrupted = async {
        // An error means that no signal can be waited for: then the broker stops at once instead of never.
        let _ = tokio::signal::ctrl_c().await;
    };
    broker.run(Arc::new(TakeAll { refuse: args.refuse }), interrupted).await;
    Ok(())
}
