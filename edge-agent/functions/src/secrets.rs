//! What only some may know.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The gateway's secrets. Cheap to clone; no value of them is ever shown.
#[derive(Clone, Default)]
pub struct Secrets(Arc<BTreeMap<String, String>>);

impl Secrets {
    /// Secrets by their names.
    pub fn new(secrets: BTreeMap<String, String>) -> Self {
        Self(Arc::new(secrets))
    }

    /// The value of a secret.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_shown() {
        let secrets = Secrets::new(BTreeMap::from([("api-key".to_owned(), "hunter2".to_owned())]));
        assert_eq!((secrets.get("api-key"), secrets.get("none")), (Some("hunter2"), None));
        assert_eq!(format!("{secrets:?}"), "{\"api-key\"}");
    }
}
