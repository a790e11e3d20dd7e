//! `[[mqtt.listen.access]]`: which device may publish and subscribe to what.

use std::collections::BTreeMap;

use agent_broker::{Pattern, PatternError, Rule};
use function_package::checked::{Table, parsed};

use super::Secret;

/// Entries, and filters in one list of an entry. Each message is compared with all that are about its device.
const MAX_ENTRIES: usize = 256;
const MAX_FILTERS: usize = 64;

/// Reads the entries. `users` are those that may connect.
pub(super) fn rules(listen: &mut Table<'_, '_>, users: &BTreeMap<String, Secret>) -> Vec<Rule> {
    let user = |name: &str| match users.contains_key(name) {
        true => Ok(name.to_owned()),
        false => Err("there is no such user"),
    };
    let allowed = || parsed("a topic filter such as \"sensors/%u/#\"", Pattern::parse);
    listen.tables("access", 0..=MAX_ENTRIES, |t| {
        let rule = Rule {
            user: t.optional("user", parsed("one of mqtt.listen.users", user)),
            publish: t.list("publish", 0..=MAX_FILTERS, allowed()),
            subscribe: t.list("subscribe", 0..=MAX_FILTERS, allowed()),
            deny: t.list("deny", 0..=MAX_FILTERS, parsed("a topic filter such as \"secret/#\"", denied)),
        };
        Some(rule)
    })
}

fn denied(text: &str) -> Result<Pattern, String> {
    let pattern = Pattern::parse(text).map_err(|error: PatternError| error.to_string())?;
    match pattern.has_placeholder() {
        true => Err("it has %u or %c, and would deny nothing to a client whose name does not fit in".to_owned()),
        false => Ok(pattern),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use agent_broker::{Pattern, Rule};

    use crate::config::{Config, Mqtt};

    const HEAD: &str = "[gateway]\ndata_dir = \"d\"\n[mqtt.listen]\naddress = \"[::1]:1\"\nusers = { t1 = \"x\" }\n";

    fn rules(entries: &str) -> Result<Vec<Rule>, String> {
        match Config::parse("agent.toml", &format!("{HEAD}{entries}"), Path::new("")) {
            Ok(Config { mqtt: Mqtt::Listen(listen), .. }) => Ok(listen.rules),
            Ok(config) => panic!("{config:?}"),
            Err(mistakes) => Err(mistakes.to_string()),
        }
    }

    #[test]
    fn entries_become_rules_and_without_any_there_are_none() {
        let patterns = |texts: &[&str]| texts.iter().map(|text| Pattern::parse(text).unwrap()).collect::<Vec<_>>();
        assert_eq!(rules(""), Ok(Vec::new()));
        let entries = "[[mqtt.listen.access]]\npublish = [\"sensors/%u/#\"]\nsubscribe = [\"commands/%u/#\", \"time\"]\n\
                       [[mqtt.listen.access]]\nuser = \"t1\"\nsubscribe = [\"#\"]\ndeny = [\"secret/#\"]\n";
        let everybody = Rule {
            publish: patterns(&["sensors/%u/#"]),
            subscribe: patterns(&["commands/%u/#", "time"]),
            ..Rule::default()
        };
        let t1 = Rule {
            user: Some("t1".to_owned()),
            subscribe: patterns(&["#"]),
            deny: patterns(&["secret/#"]),
            ..Rule::default()
        };
        assert_eq!(rules(entries), Ok(vec![everybody, t1]));
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        let found = rules(
            "[[mqtt.listen.access]]\nuser = \"t2\"\npublish = [\"a\", \"a#\"]\nsubscribe = [\"$share/g/a\", \"x-%u\"]\n\
             deny = [\"%c/#\"]\nread = []\n",
        )
        .unwrap_err();
        let begins = [
            "agent.toml:7:9: mqtt.listen.access[1].user: is \"t2\": there is no such user; allowed is one of mqtt.listen.users",
            "agent.toml:8:18: mqtt.listen.access[1].publish[2]: is \"a#\": it is no topic filter",
            "agent.toml:9:15: mqtt.listen.access[1].subscribe[1]: is \"$share/g/a\": it begins with $share/",
            "agent.toml:9:29: mqtt.listen.access[1].subscribe[2]: is \"x-%u\": %u and %c must be whole levels",
            "agent.toml:10:10: mqtt.listen.access[1].deny[1]: is \"%c/#\": it has %u or %c",
            "agent.toml:11:1: mqtt.listen.access[1].read: is not known here",
        ];
        assert_eq!(found.lines().count(), begins.len(), "{found}");
        for (line, begin) in found.lines().zip(begins) {
            assert!(line.starts_with(begin), "{line}\n{begin}");
        }
    }

    /// The example's lines, taken out of their comments.
    #[test]
    fn the_example_is_right() {
        let example = include_str!("../../agent.example.toml");
        let (_, entry) = example.split_once("# [[mqtt.listen.access]]").expect("the example shows it");
        let lines = entry.lines().skip(1).take_while(|line| line.starts_with("# "));
        let entry: String = lines.map(|line| format!("{}\n", &line[2..])).collect();
        let entry = entry.replace("thermostat-1", "t1");
        let rules = rules(&format!("[[mqtt.listen.access]]\n{entry}")).unwrap();
        let [Rule { user: Some(_), publish, subscribe, deny }] = &rules[..] else { panic!("{rules:?}") };
        assert_eq!([publish.len(), subscribe.len(), deny.len()], [1, 1, 1]);
    }
}
