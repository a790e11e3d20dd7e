//! Everything an operator or a function author does: makes, tests, signs and deploys functions, enrols gateways, and
//! looks at what they do. Of the control plane it knows the public interface only; a function it runs as a gateway does.

mod args;
mod client;
mod compile;
mod dead;
mod deploy;
mod failure;
mod files;
mod function;
mod gateway;
mod local;
mod out;
mod records;
mod replay;
mod show;
mod source;
mod time;
mod twin;
mod usage;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use reqwest::Method;
use sync_core::api;

use args::{Args, ClaimCommand, Command, GatewayCommand, KeyCommand, Shell, TwinCommand};
use client::Client;
use failure::Failure;
use out::Out;

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(run(args)),
        Err(error) => Err(Failure::Start(error)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads has seen enough, as with `edgectl records | head`.
        Err(Failure::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            out::complain(&failure);
            ExitCode::from(failure.status())
        }
    }
}

async fn run(args: Args) -> Result<(), Failure> {
    let out = Out::new(args.json);
    let connect = || Client::new(&args.server, args.token_file.as_deref());
    match args.command {
        Command::Key(KeyCommand::New { out: path }) => files::new_key(&out, &path),
        Command::Key(KeyCommand::Register { file }) => {
            let public_key = files::read_text("cannot read the public key in", &file)?;
            let wanted = api::NewPublisher { public_key: public_key.trim().to_owned() };
            let doing = format!("registering {}", file.display());
            let answer = connect()?.send(&doing, Method::POST, "/publishers", &wanted).await?;
            show::publisher(&out, &answer)
        }
        Command::Key(KeyCommand::List) => {
            show::publishers(&out, &connect()?.get("listing the publishers", "/publishers").await?)
        }
        Command::Fn(command) => function::run(&out, command).await,
        Command::Push { file, key } => files::push(&out, &connect()?, &file, &key).await,
        Command::Deploy(wanted) => deploy::deploy(&out, &connect()?, wanted).await,
        Command::Undeploy { name, to } => deploy::undeploy(&out, &connect()?, &name, &to).await,
        Command::Claim(ClaimCommand::New { labels, expires }) => {
            let wanted = api::NewClaim { labels: labels.into_iter().collect(), expires_s: expires.as_secs() };
            show::claim(&out, &connect()?.send("making a claim", Method::POST, "/claims", &wanted).await?)
        }
        Command::Claim(ClaimCommand::List) => {
            show::claims(&out, &connect()?.get("listing the claims", "/claims").await?)
        }
        Command::Gateways => show::gateways(&out, &connect()?.get("listing the gateways", "/gateways").await?),
        Command::Gateway(GatewayCommand::Show { id }) => gateway::show(&out, &connect()?, &id).await,
        Command::Gateway(GatewayCommand::Gaps(wanted)) => gateway::gaps(&out, &connect()?, wanted).await,
        Command::Gateway(GatewayCommand::Label { id, labels }) => {
            let change = api::LabelChange { labels: labels.into_iter().collect() };
            let path = client::path(&["gateways", &id]);
            let answer = connect()?.send(&format!("labelling the gateway {id}"), Method::PATCH, &path, &change).await?;
            show::labels(&out, &answer)
        }
        Command::Functions => show::functions(&out, &connect()?.get("listing the functions", "/functions").await?),
        Command::Deployments => {
            show::deployments(&out, &connect()?.get("listing the deployments", "/deployments").await?)
        }
        Command::Records(wanted) => records::records(&out, &connect()?, wanted).await,
        Command::Streams => show::streams(&out, &connect()?.get("listing the streams", "/streams").await?),
        Command::Stats => show::stats(&out, &connect()?.get("asking for the fleet's numbers", "/stats").await?),
        Command::Replay(replay) => replay::replay(&out, &replay),
        Command::Completions { shell } => completions(&out, shell),
        Command::Usage(wanted) => usage::usage(&out, &connect()?, wanted).await,
        Command::Metrics(wanted) => usage::metrics(&out, &connect()?, wanted).await,
        Command::Dead(wanted) => dead::dead(&out, &connect()?, wanted).await,
        Command::Twin(TwinCommand::Show(wanted)) => twin::show(&out, &connect()?, wanted).await,
    }
}

fn completions(out: &Out, shell: Shell) -> Result<(), Failure> {
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "edgectl", &mut script);
    out.line(String::from_utf8_lossy(&script).trim_end())
}
