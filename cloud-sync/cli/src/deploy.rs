//! Deploys, and waits for what becomes of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use reqwest::Method;
use sync_core::api::{self, Health, Status};
use sync_core::targeting::Target;
use tokio::time::Instant;

use crate::args::Deploy;
use crate::client::{Answer, Client};
use crate::failure::Failure;
use crate::files;
use crate::out::{Out, note};

/// How often the gateways are looked at while waiting.
const LOOK_EVERY: Duration = Duration::from_millis(500);

pub(crate) async fn deploy(out: &Out, client: &Client, wanted: Deploy) -> Result<(), Failure> {
    let Deploy { function, to, config, wait, timeout } = wanted;
    let is_file = !function.contains('@') && (function.contains('/') || function.ends_with(".wasm"));
    let function = if is_file { files::open(Path::new(&function))?.digest().to_string() } else { function };
    let doing = format!("deploying {function} to {to}");
    let body = api::NewDeployment { function, target: to.to_string(), config: config.into_iter().collect() };
    let answer: Answer<api::Deployment> = client.send(&doing, Method::POST, "/deployments", &body).await?;
    out.answer(&answer, |made| {
        format!(
            "deployment {}: {} {} to {}",
            made.number,
            made.function,
            made.version.as_deref().unwrap_or_default(),
            made.target
        )
    })?;
    if wait { wait_for(client, &answer.value, timeout).await } else { Ok(()) }
}

pub(crate) async fn undeploy(out: &Out, client: &Client, name: &str, to: &Target) -> Result<(), Failure> {
    let query = api::UndeployQuery { function: name.to_owned(), target: to.to_string() };
    let doing = format!("undeploying {name} from {to}");
    let answer: Answer<api::Deployment> = client.delete(&doing, "/deployments", &query).await?;
    out.answer(&answer, |made| format!("deployment {}: {name} removed from {to}", made.number))
}

/// What became of a deployment on a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Running,
    /// It runs, and too few events came to trust it yet.
    OnTrial,
    Pending(String),
    Failed(String),
}

impl Outcome {
    fn runs(&self) -> bool {
        matches!(self, Self::Running | Self::OnTrial)
    }
}

/// What became of a deployment on a gateway; `None` if it is not meant for it.
fn outcome(gateway: &api::Gateway, deployment: &api::Deployment, was_meant: bool) -> Option<Outcome> {
    let desired = gateway.desired.iter().find(|desired| desired.function == deployment.function);
    match desired {
        Some(desired) if desired.deployment == deployment.number => {}
        Some(newer) if was_meant => {
            return Some(Outcome::Failed(format!("replaced by deployment {}", newer.deployment)));
        }
        None if was_meant => return Some(Outcome::Failed("removed by a later deployment".to_owned())),
        _ => return None,
    }
    if gateway.health != Health::Online {
        return Some(Outcome::Pending("not online".to_owned()));
    }
    let functions = gateway.reported.iter().flat_map(|reported| &reported.functions);
    let state = functions.into_iter().find(|state| state.name == deployment.function);
    Some(match state {
        Some(state) if state.deployment == deployment.number => match state.status {
            Status::Running => Outcome::Running,
            Status::Trial => Outcome::OnTrial,
            Status::RolledBack => Outcome::Failed(format!("rolled back: {}", state.detail)),
            Status::Failed => Outcome::Failed(format!("failed: {}", state.detail)),
        },
        _ => Outcome::Pending("has not reported it yet".to_owned()),
    })
}

/// Whether all that is online has decided; gateways that are not online are unknown, and one at least must be there.
fn decided(outcomes: &BTreeMap<String, (Health, Outcome)>) -> bool {
    let is_pending = |outcome: &Outcome| matches!(outcome, Outcome::OnTrial | Outcome::Pending(_));
    let online = || outcomes.values().filter(|(health, _)| *health == Health::Online);
    online().next().is_some() && !online().any(|(_, outcome)| is_pending(outcome))
}

async fn wait_for(client: &Client, deployment: &api::Deployment, timeout: Duration) -> Result<(), Failure> {
    let deadline = Instant::now() + timeout;
    let mut outcomes: BTreeMap<String, (Health, Outcome)> = BTreeMap::new();
    while !decided(&outcomes) && Instant::now() < deadline {
        if !outcomes.is_empty() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let list: Answer<api::Gateways> = client.get("waiting for the deployment", "/gateways").await?;
        let before = std::mem::take(&mut outcomes);
        for gateway in &list.value.gateways {
            if let Some(outcome) = outcome(gateway, deployment, before.contains_key(&gateway.id)) {
                outcomes.insert(gateway.id.clone(), (gateway.health, outcome));
            }
        }
        if outcomes.is_empty() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    let online = || outcomes.values().filter(|(health, _)| *health == Health::Online);
    // A quiet gateway may be on trial for days, which is no failure.
    if online().next().is_some() && online().all(|(_, outcome)| outcome.runs()) {
        let count = |wanted: &Outcome| outcomes.values().filter(|(_, outcome)| outcome == wanted).count();
        note(&format!(
            "runs on {} of {} gateways, and on {} on trial, for few events came yet; those that are not online get it \
             when they come",
            count(&Outcome::Running),
            outcomes.len(),
            count(&Outcome::OnTrial)
        ));
        return Ok(());
    }
    let detail = if outcomes.is_empty() {
        format!("no gateway is meant by {}", deployment.target)
    } else {
        let line = |(id, (_, outcome)): (&String, &(Health, Outcome))| match outcome {
            Outcome::Running => format!("{id}: running"),
            Outcome::OnTrial => format!("{id}: on trial"),
            Outcome::Pending(what) => format!("{id}: {what} (waited {} s)", timeout.as_secs()),
            Outcome::Failed(why) => format!("{id}: {why}"),
        };
        outcomes.iter().map(line).collect::<Vec<_>>().join("\n")
    };
    Err(Failure::NotRunning { number: deployment.number, function: deployment.function.clone(), detail })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateway(health: Health, desired: Option<u64>, state: Option<(u64, Status)>) -> api::Gateway {
        let desired = desired.map(|deployment| api::Desired {
            function: "alert".into(),
            version: "1.0.0".into(),
            digest: "sha256:0".into(),
            deployment,
        });
        let functions = state.map(|(deployment, status)| api::FunctionState {
            name: "alert".into(),
            version: "1.0.0".into(),
            digest: None,
            deployment,
            status,
            detail: "why".into(),
        });
        api::Gateway {
            id: "gw-1".into(),
            name: "n".into(),
            labels: BTreeMap::new(),
            health,
            enrolled_us: 0,
            last_seen_us: None,
            agent_version: "0".into(),
            generation: 1,
            desired: desired.into_iter().collect(),
            reported: Some(api::Reported {
                generation: 1,
                uptime_s: 1,
                waiting: 0,
                streams: vec![],
                handled: 0,
                dead_letters: 0,
                functions: functions.into_iter().collect(),
            }),
            records: api::RecordCounts::default(),
            gone: vec![],
        }
    }

    #[test]
    fn an_outcome_is_that_of_this_deployment() {
        let deployment = api::Deployment {
            number: 5,
            kind: api::Kind::Set,
            function: "alert".into(),
            version: None,
            digest: None,
            target: "all".into(),
            config: BTreeMap::new(),
            created_us: 0,
        };
        let of = |gateway, was_meant| outcome(&gateway, &deployment, was_meant);
        let online = |desired, state| gateway(Health::Online, desired, state);
        assert_eq!(of(online(Some(5), Some((5, Status::Running))), false), Some(Outcome::Running));
        assert!(matches!(of(online(Some(5), Some((4, Status::Running))), false), Some(Outcome::Pending(_))));
        assert_eq!(of(online(Some(5), Some((5, Status::Trial))), false), Some(Outcome::OnTrial));
        assert_eq!(
            of(online(Some(5), Some((5, Status::RolledBack))), false),
            Some(Outcome::Failed("rolled back: why".into()))
        );
        assert_eq!(of(online(Some(6), None), false), None);
        assert_eq!(of(online(Some(6), None), true), Some(Outcome::Failed("replaced by deployment 6".into())));
        assert_eq!(of(online(None, None), false), None);
        assert!(matches!(of(online(None, None), true), Some(Outcome::Failed(_))));
        let offline = of(gateway(Health::Offline, Some(5), Some((5, Status::Running))), false);
        assert_eq!(offline, Some(Outcome::Pending("not online".into())));
    }

    #[test]
    fn gateways_that_are_not_online_decide_nothing() {
        let map = |list: &[(Health, Outcome)]| {
            list.iter().enumerate().map(|(index, one)| (format!("gw-{index}"), one.clone())).collect()
        };
        let (running, pending) = ((Health::Online, Outcome::Running), Outcome::Pending(String::new()));
        assert!(!decided(&map(&[])));
        assert!(!decided(&map(&[(Health::Offline, pending.clone())])));
        assert!(decided(&map(&[(Health::Offline, pending.clone()), running.clone()])));
        assert!(!decided(&map(&[(Health::Online, pending), running.clone()])));
        assert!(!decided(&map(&[(Health::Online, Outcome::OnTrial), running])));
    }
}
