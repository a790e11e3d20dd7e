//! Publishers, functions, and where they should run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Registers a publisher, whose signatures are then checked when functions are pushed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewPublisher {
    /// The public key in its text form.
    pub public_key: String,
}

/// A publisher.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publisher {
    /// Name of the key.
    pub key_id: String,
    /// The key in its text form.
    pub public_key: String,
}

/// Publishers, by key id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publishers {
    /// The publishers.
    pub publishers: Vec<Publisher>,
}

/// What goes with a package when it is pushed, in the query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushQuery {
    /// The signature over its digest, in the text form that names the key too.
    pub signature: String,
}

/// A function that was pushed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Digest of its package.
    pub digest: String,
    /// Size of its package in bytes.
    pub size: u64,
    /// Which key signed it.
    pub key_id: String,
    /// Whether the server knew that key and found the signature right. Gateways check for themselves in any case.
    pub verified: bool,
    /// When it was pushed first.
    pub pushed_us: u64,
}

/// Functions, by name and the order they were pushed in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Functions {
    /// The functions.
    pub functions: Vec<Function>,
}

/// Deploys a function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewDeployment {
    /// `NAME` for its highest version, `NAME@VERSION`, or `sha256:…`.
    pub function: String,
    /// `gateway:ID`, `label:KEY=VALUE` or `all`.
    pub target: String,
    /// Configuration that differs from the manifest's defaults.
    #[serde(default)]
    pub config: BTreeMap<String, String>,
}

/// Names what to undeploy, in the query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UndeployQuery {
    /// Name of the function.
    pub function: String,
    /// Where from; as in [`NewDeployment`].
    pub target: String,
}

/// A deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// Its number: a higher one is newer, and wins.
    pub number: u64,
    /// Whether it sets or removes.
    pub kind: Kind,
    /// Name of the function.
    pub function: String,
    /// Its version, if it sets.
    pub version: Option<String>,
    /// Digest of its package, if it sets.
    pub digest: Option<String>,
    /// What it is aimed at.
    pub target: String,
    /// Configuration that differs from the manifest's defaults.
    pub config: BTreeMap<String, String>,
    /// When it was made.
    pub created_us: u64,
}

/// What a deployment does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The function should run.
    Set,
    /// It should not.
    Remove,
}

/// The newest deployment for each function and target, the newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployments {
    /// The deployments.
    pub deployments: Vec<Deployment>,
}
