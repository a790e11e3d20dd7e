//! From what a function's manifest says to what the runtime enforces.

use std::collections::BTreeMap;

use agent_core::{Filter, FilterError};
use function_package::{ConfigError, Extism, Manifest, Trigger};

use crate::limits::Limits;
use crate::permissions::{Permissions, StreamError, StreamPattern};

/// What is known about a function besides its code.
#[derive(Clone, Debug, Default)]
pub struct Spec {
    /// Name of the function; every error and trap begins with it.
    pub name: String,
    /// Its version, shown beside the name.
    pub version: String,
    /// What it may use.
    pub limits: Limits,
    /// What it may reach.
    pub permissions: Permissions,
    /// What `config_get` answers.
    pub config: BTreeMap<String, String>,
    /// What the call of an Extism plug-in means; `None`: it is none.
    pub extism: Option<Extism>,
}

/// Why a manifest, or a deployment's configuration of it, cannot be enforced.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("function {function}: {cause}")]
pub struct SpecError {
    function: String,
    /// What does not fit.
    pub cause: SpecCause,
}

/// What does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecCause {
    /// A configuration value.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A topic that it may publish to.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// A stream that it may emit to.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The topic that a plug-in's output is published to.
    #[error("extism.topic: publishes to the topic {0:?}, which is not under [allow] publish; add it there")]
    Topic(String),
}

impl Spec {
    /// What a manifest asks for, with a deployment's values over its configuration.
    ///
    /// # Errors
    /// Names the function and what does not fit.
    pub fn of(manifest: &Manifest, overrides: &BTreeMap<String, String>) -> Result<Self, SpecError> {
        let permissions = permissions(manifest).and_then(|permissions| match topic(manifest) {
            Some(topic) if !permissions.may_publish(topic) => Err(SpecCause::Topic(topic.to_owned())),
            _ => Ok(permissions),
        });
        let found = permissions.and_then(|permissions| Ok((permissions, manifest.config_with(overrides)?)));
        let (permissions, config) =
            found.map_err(|cause: SpecCause| SpecError { function: manifest.name.clone(), cause })?;
        let version = manifest.version.to_string();
        let (name, extism) = (manifest.name.clone(), manifest.extism.clone());
        Ok(Self { name, version, limits: limits(manifest), permissions, config, extism })
    }
}

fn topic(manifest: &Manifest) -> Option<&str> {
    manifest.extism.as_ref()?.topic.as_deref()
}

fn permissions(manifest: &Manifest) -> Result<Permissions, SpecCause> {
    let streams = manifest.allow.streams.iter().map(|text| StreamPattern::new(text)).collect::<Result<_, _>>()?;
    let publish = manifest.allow.publish.iter().map(|text| Filter::new(text)).collect::<Result<_, _>>()?;
    let allow = &manifest.allow;
    let triggers = manifest.triggers.iter().filter_map(|trigger| match trigger {
        Trigger::Blob { pattern } => Some(pattern),
        _ => None,
    });
    Ok(Permissions {
        streams,
        publish,
        queues: allow.queues.clone(),
        secrets: allow.secrets.clone(),
        twin: allow.twin.clone(),
        metrics: allow.metrics.clone(),
        hosts: allow.hosts.clone(),
        answers: allow.answers.clone(),
        blobs: allow.blobs.clone(),
        blobs_read: allow.blobs_read.iter().chain(triggers).cloned().collect(),
    })
}

fn limits(manifest: &Manifest) -> Limits {
    let kib = |kib: u32| kib as usize * 1024;
    Limits {
        fuel: manifest.limits.fuel,
        memory_bytes: kib(manifest.limits.memory_kib),
        effects: manifest.limits.effects as usize,
        output_bytes: kib(manifest.limits.output_kib),
        state_value_bytes: kib(manifest.limits.state_value_kib),
        state_bytes: u64::from(manifest.limits.state_kib) * 1024,
        ..Limits::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_becomes_what_is_enforced() {
        let text = "manifest = 1\nname = 'f'\nversion = '1.0.0'\n[[trigger]]\nmqtt = '#'\n[limits]\nmemory_kib = 128\n\
                    [allow]\nstreams = ['a-*']\npublish = ['b/#']\n[config]\nlimit = 30.0\n";
        let manifest = Manifest::parse("function.toml", text).unwrap();
        let with = |key: &str, value: &str| Spec::of(&manifest, &BTreeMap::from([(key.to_owned(), value.to_owned())]));
        let spec = with("limit", "31").unwrap();
        assert_eq!((spec.name.as_str(), spec.version.as_str(), spec.config["limit"].as_str()), ("f", "1.0.0", "31.0"));
        assert_eq!((spec.limits.memory_bytes, spec.limits.fuel), (128 << 10, manifest.limits.fuel));
        assert!(spec.permissions.may_emit("a-1") && spec.permissions.may_publish("b/c"));
        assert!(!spec.permissions.may_emit("b") && !spec.permissions.may_publish("c"));
        let error = with("limt", "31").unwrap_err().to_string();
        assert!(error.starts_with("function f: ") && error.contains("\"limt\""), "{error}");
    }

    #[test]
    fn a_plug_in_may_publish_its_output() {
        let of = |topic: &str| {
            let text = format!(
                "manifest = 1\nname = 'f'\nversion = '1.0.0'\n[[trigger]]\nmqtt = '#'\n[allow]\npublish = ['out/+']\n\
                 [extism]\ntopic = '{topic}'\n"
            );
            Spec::of(&Manifest::parse("function.toml", &text).unwrap(), &BTreeMap::new()).map(|spec| spec.extism)
        };
        assert_eq!(of("out/a").unwrap().unwrap().topic.unwrap(), "out/a");
        assert_eq!(of("in/a").unwrap_err().cause, SpecCause::Topic("in/a".to_owned()));
    }
}
