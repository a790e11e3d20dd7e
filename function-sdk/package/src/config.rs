//! What a deployment may set without a new version of the function.

use std::collections::BTreeMap;
use std::fmt;

use crate::Manifest;
use crate::checked::{Rule, Value, closest};

/// Longest text value in bytes: a threshold or a name, not a document.
pub(crate) const MAX_CONFIG_TEXT_BYTES: usize = 4096;

/// A configuration value. Its display is the text that the function reads with `config_get`.
#[derive(Clone, Debug, PartialEq)]
pub enum ConfigValue {
    /// Any text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A finite number.
    Float(f64),
    /// `true` or `false`.
    Boolean(bool),
}

impl fmt::Display for ConfigValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Integer(number) => write!(f, "{number}"),
            // With a point or an exponent, so that a default of 30.0 and one of 30.5 are read alike.
            Self::Float(number) => write!(f, "{number:?}"),
            Self::Boolean(flag) => write!(f, "{flag}"),
        }
    }
}

/// Why a deployment's configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The manifest does not declare this key.
    #[error("the function {function} has no configuration key {key:?}{}; it has: {known}", meant(.closest))]
    Unknown {
        /// Whose configuration it is.
        function: String,
        /// What was to be set.
        key: String,
        /// The key that was probably meant.
        closest: Option<String>,
        /// All keys that there are.
        known: String,
    },
    /// The value has another type than the default in the manifest.
    #[error("the configuration key {key:?} of the function {function} is {value:?}; allowed is {allowed}")]
    Value {
        /// Whose configuration it is.
        function: String,
        /// What was to be set.
        key: String,
        /// The value, cut where it is long.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },
}

fn meant(closest: &Option<String>) -> String {
    closest.as_ref().map_or(String::new(), |key| format!("; did you mean {key:?}?"))
}

impl ConfigValue {
    /// Reads `text` as a value of the same type.
    fn same_type(&self, text: &str) -> Result<Self, &'static str> {
        match self {
            Self::Text(_) if text.len() <= MAX_CONFIG_TEXT_BYTES => Ok(Self::Text(text.to_owned())),
            Self::Text(_) => Err("a text of at most 4096 bytes"),
            Self::Integer(_) => text.parse().map(Self::Integer).map_err(|_| "a whole number"),
            Self::Float(_) => {
                let number = text.parse().ok().filter(|number: &f64| number.is_finite());
                number.map(Self::Float).ok_or("a number")
            }
            Self::Boolean(_) => text.parse().map(Self::Boolean).map_err(|_| "true or false"),
        }
    }
}

impl Manifest {
    /// The whole configuration as the function reads it: the manifest's defaults with a deployment's values over them.
    ///
    /// # Errors
    /// A key that the manifest does not declare, or a value that is not of the default's type.
    pub fn config_with(&self, overrides: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, ConfigError> {
        let mut config: BTreeMap<_, _> =
            self.config.iter().map(|(key, value)| (key.clone(), value.to_string())).collect();
        for (key, text) in overrides {
            let Some(default) = self.config.get(key) else {
                let names: Vec<&str> = self.config.keys().map(String::as_str).collect();
                let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                let closest = closest(key, &names).map(str::to_owned);
                return Err(ConfigError::Unknown { function: self.name.clone(), key: key.clone(), closest, known });
            };
            let value = default.same_type(text).map_err(|allowed| ConfigError::Value {
                function: self.name.clone(),
                key: key.clone(),
                value: text.chars().take(80).collect(),
                allowed,
            })?;
            config.insert(key.clone(), value.to_string());
        }
        Ok(config)
    }
}

/// The rule for a value in a `[config]` table, wherever one is written.
pub fn config_value() -> Rule<impl Fn(&Value<'_>) -> Result<ConfigValue, String>> {
    let read = |value: &Value<'_>| {
        let text = value.as_str().map(|text| ConfigValue::Text(text.to_owned()));
        let integer = value.as_integer().map(ConfigValue::Integer);
        let float = value.as_float().map(ConfigValue::Float);
        let boolean = value.as_bool().map(ConfigValue::Boolean);
        match text.or(integer).or(float).or(boolean) {
            None => Err("is a list or a table".to_owned()),
            Some(ConfigValue::Float(number)) if !number.is_finite() => Err(format!("is {number}")),
            Some(ConfigValue::Text(text)) if text.len() > MAX_CONFIG_TEXT_BYTES => {
                Err(format!("is a text of {} bytes", text.len()))
            }
            Some(value) => Ok(value),
        }
    };
    Rule { allowed: "a text of at most 4096 bytes, a finite number, true or false".to_owned(), read }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let text = "manifest = 1\nname = 'f'\nversion = '1.0.0'\n[[trigger]]\nmqtt = 'a'\n\
                    [config]\nlimit = 30.0\ncount = 5\nfield = 'x'\nstrict = true";
        Manifest::parse("function.toml", text).unwrap()
    }

    fn with(pairs: &[(&str, &str)]) -> Result<BTreeMap<String, String>, ConfigError> {
        let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        manifest().config_with(&pairs.collect())
    }

    #[test]
    fn a_deployment_sets_values_over_the_defaults() {
        let read = |config: BTreeMap<String, String>| config.into_values().collect::<Vec<_>>();
        assert_eq!(with(&[]).map(read), Ok(vec!["5".into(), "x".into(), "30.0".into(), "true".into()]));
        assert_eq!(
            with(&[("limit", "31"), ("strict", "false"), ("field", ""), ("count", "-1")]).map(read),
            Ok(vec!["-1".into(), String::new(), "31.0".into(), "false".into()])
        );
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        assert_eq!(
            with(&[("limt", "1")]).unwrap_err().to_string(),
            "the function f has no configuration key \"limt\"; did you mean \"limit\"?; it has: count, field, limit, strict"
        );
        for (key, value) in [("limit", "warm"), ("limit", "NaN"), ("count", "1.5"), ("strict", "yes")] {
            let error = with(&[(key, value)]).unwrap_err();
            assert!(matches!(&error, ConfigError::Value { key: found, .. } if found == key), "{error}");
        }
        assert!(with(&[("field", &"x".repeat(4097))]).is_err());
    }
}
