//! What only functions may know that name it.

use std::path::Path;

use agent_functions::Secrets;
use function_package::check_secret_name;
use function_package::checked::{Rule, Table, Value};

/// Most secrets of a gateway.
const MAX_SECRETS: usize = 1_000;
/// The longest value, in bytes: a chain of certificates with its key. A function reads it as a whole.
const MAX_BYTES: usize = 64 << 10;

pub(super) fn secrets(t: &mut Table<'_, '_>, base: &Path) -> Secrets {
    let name = |name: &str| check_secret_name(name).map_err(|error| format!("is no name of a secret: {error}"));
    Secrets::new(t.entries(MAX_SECRETS, name, secret(base)))
}

/// No message repeats what stands there, for it may be the secret.
fn secret(base: &Path) -> Rule<impl Fn(&Value<'_>) -> Result<String, String>> {
    let read = |value: &Value<'_>| -> Result<String, String> {
        if let Some(text) = value.as_str() {
            return Ok(text.to_owned());
        }
        let entries = value.as_table().filter(|entries| entries.len() == 1);
        let file = entries.and_then(|entries| entries.get("file")?.as_str());
        let file = base.join(file.ok_or("is something else")?);
        let named = |why: String| format!("cannot be read from {}: {why}", file.display());
        let text = std::fs::read_to_string(&file).map_err(|error| named(error.to_string()))?;
        // As an editor or `echo` leaves it.
        let line = text.strip_suffix('\n').unwrap_or(&text);
        Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
    };
    Rule {
        allowed: format!("a text of 1 to {MAX_BYTES} bytes, or {{ file = \"PATH\" }} with a file that holds one"),
        read: move |value: &Value<'_>| match read(value)? {
            secret if secret.is_empty() => Err("is empty".to_owned()),
            secret if secret.len() > MAX_BYTES => Err(format!("has {} bytes", secret.len())),
            secret => Ok(secret),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn parse(toml: &str, base: &Path) -> Result<Secrets, String> {
        let read = |root: &mut Table<'_, '_>| root.table("secrets", |t| Some(secrets(t, base)));
        function_package::checked::read("agent.toml", toml, read).map_err(|mistakes| mistakes.to_string())
    }

    #[test]
    fn a_secret_stands_there_or_in_a_file() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("key"), "from a file\r\n").unwrap();
        let found = parse("[secrets]\na = \"here\"\nb.file = \"key\"\n", dir.path()).unwrap();
        assert_eq!((found.get("a"), found.get("b"), found.get("c")), (Some("here"), Some("from a file"), None));
        assert_eq!(format!("{found:?}"), "{\"a\", \"b\"}");
        assert_eq!(parse("", dir.path()).unwrap().get("a"), None);
    }

    #[test]
    fn mistakes_name_the_key_and_never_the_value() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("binary"), b"hunter2\xff").unwrap();
        let toml = format!(
            "[secrets]\na = 123454321\n\"b c\" = \"hunter2\"\nd = {{ file = \"none\" }}\ne = {{ file = \"binary\" }}\n\
             f = {{ file = \"binary\", value = \"hunter2\" }}\ng = \"\"\nh = \"hunter2{}\"\ni = {{ path = \"hunter2\" }}\n",
            "x".repeat(MAX_BYTES)
        );
        let found = parse(&toml, dir.path()).unwrap_err();
        for part in [
            "agent.toml:2:5: secrets.a: is something else; allowed is a text of 1 to 65536 bytes, or { file = \"PATH\" }",
            "secrets.b c: is no name of a secret: a secret's name has 1 to 64",
            "none: No such file",
            "binary: stream did not contain valid UTF-8",
            "secrets.f: is something else",
            "secrets.g: is empty",
            "secrets.h: has 65543 bytes",
            "secrets.i: is something else",
        ] {
            assert!(found.contains(part), "{found}\n{part}");
        }
        assert!(!found.contains("hunter2") && !found.contains("123454321"), "{found}");
    }
}
