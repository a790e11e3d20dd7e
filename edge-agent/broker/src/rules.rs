//! Who may publish and subscribe to what.

/// What clients may publish and receive, as one rule of [`Options::rules`](crate::Options::rules) says it.
///
/// Without any rule everything is allowed. With one or more, a client may do what a rule that is about it allows, and
/// nothing else. The rules that are about a client add up, and what one of them denies no other one allows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// The user name that it is about; `None`: every client.
    pub user: Option<String>,
    /// Topics that may be published, also by a will.
    pub publish: Vec<Pattern>,
    /// Topics that may be subscribed to. A subscription is granted if one of these patterns covers all topics that its
    /// filter can match: with `a/#`, a client may subscribe to `a/+` but not to `+/b`.
    pub subscribe: Vec<Pattern>,
    /// Topics that may be neither published nor received, without placeholders. A wider subscription, such as `#`, is
    /// granted where it is allowed, and these topics are left out of it.
    pub deny: Vec<Pattern>,
}

/// A topic filter in a [`Rule`]. A level that is `%u` stands for the name of the authenticated user, one that is `%c` for
/// the client identifier. As in a subscription, a wildcard at the beginning does not reach topics that begin with `$`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Box<str>);

/// Why a text is no [`Pattern`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// It is empty, too long, or has a wildcard in a wrong place (section 4.7).
    #[error("it is no topic filter: + must be a whole level, # the last one")]
    Filter,
    /// It names a group of subscribers.
    #[error("it begins with $share/; write the filter behind the group's name, which counts for groups, too")]
    Shared,
    /// `%u` or `%c` stands beside something else.
    #[error("%u and %c must be whole levels, or the names of two clients could make the same topic")]
    Placeholder,
}

const USER: &str = "%u";
const CLIENT: &str = "%c";

impl Pattern {
    /// Takes a topic filter, with placeholders or without.
    ///
    /// # Errors
    /// [`PatternError`] says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text == "$share" || text.starts_with("$share/") {
            return Err(PatternError::Shared);
        }
        if !mqtt5_protocol::validation::is_valid_topic_filter(text) {
            return Err(PatternError::Filter);
        }
        let beside = |level: &str| ![USER, CLIENT].contains(&level) && (level.contains(USER) || level.contains(CLIENT));
        if text.split('/').any(beside) {
            return Err(PatternError::Placeholder);
        }
        Ok(Self(text.into()))
    }

    /// Whether it means something else for each client.
    pub fn has_placeholder(&self) -> bool {
        self.0.split('/').any(|level| [USER, CLIENT].contains(&level))
    }

    /// The filter for one client. `None` if a placeholder has no value for it, or one that would not be one plain level: a
    /// client that calls itself `#` gets nothing by it.
    fn fill(&self, user: Option<&str>, client_id: &str) -> Option<Box<str>> {
        let plain = |name: &str| !name.is_empty() && !name.starts_with('$') && !name.contains(['/', '+', '#']);
        let level = |level| match level {
            USER => user.filter(|name| plain(name)),
            CLIENT => Some(client_id).filter(|name| plain(name)),
            level => Some(level),
        };
        let levels: Option<Vec<&str>> = self.0.split('/').map(level).collect();
        Some(levels?.join("/").into())
    }
}

/// What one client may do.
#[derive(Debug, Default)]
pub(crate) struct Rights {
    /// `None`: there are no rules.
    lists: Option<Lists>,
}

/// Filters without placeholders.
#[derive(Debug, Default)]
struct Lists {
    publish: Vec<Box<str>>,
    subscribe: Vec<Box<str>>,
    deny: Vec<Box<str>>,
}

impl Rights {
    pub(crate) fn of(rules: &[Rule], user: Option<&str>, client_id: &str) -> Self {
        if rules.is_empty() {
            return Self::default();
        }
        let mut lists = Lists::default();
        for rule in rules.iter().filter(|rule| rule.user.is_none() || rule.user.as_deref() == user) {
            let filled = |patterns: &[Pattern]| -> Vec<_> {
                patterns.iter().filter_map(|pattern| pattern.fill(user, client_id)).collect()
            };
            lists.publish.extend(filled(&rule.publish));
            lists.subscribe.extend(filled(&rule.subscribe));
            lists.deny.extend(filled(&rule.deny));
        }
        Self { lists: Some(lists) }
    }

    /// Whether it may publish to a topic name.
    pub(crate) fn may_publish(&self, topic: &str) -> bool {
        self.lists.as_ref().is_none_or(|lists| one_covers(&lists.publish, topic) && !one_covers(&lists.deny, topic))
    }

    /// Whether it may subscribe with a filter, without the group of a shared subscription. A filter of which all is
    /// denied is refused rather than granted for nothing.
    pub(crate) fn may_subscribe(&self, filter: &str) -> bool {
        self.lists.as_ref().is_none_or(|lists| one_covers(&lists.subscribe, filter) && !one_covers(&lists.deny, filter))
    }

    /// Whether it may get a message that one of its subscriptions, all of them granted, matches.
    pub(crate) fn may_receive(&self, topic: &str) -> bool {
        self.lists.as_ref().is_none_or(|lists| !one_covers(&lists.deny, topic))
    }
}

fn one_covers(filters: &[Box<str>], what: &str) -> bool {
    filters.iter().any(|filter| covers(filter, what))
}

/// Whether every topic that `narrow` matches is matched by `wide`. Both are topic filters; a topic name is one that
/// matches itself.
fn covers(wide: &str, narrow: &str) -> bool {
    // As the first level `#` matches what `+/#` does, every topic that does not begin with `$`: there is no level above it. The
    // level above that of `/#` would be the empty topic, which there is not either.
    let rooted = |filter| match filter {
        "#" => "+/#",
        "/#" => "/+/#",
        filter => filter,
    };
    let (mut wide, mut narrow) = (rooted(wide).split('/'), rooted(narrow).split('/'));
    let mut first = true;
    loop {
        match (wide.next(), narrow.next()) {
            // Also the level above (section 4.7.1.2).
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(level)) if level != "#" && !(first && level.starts_with('$')) => {}
            (Some(wide), Some(narrow)) if wide == narrow => {}
            _ => return false,
        }
        first = false;
    }
}

#[cfg(test)]
mod tests {
    use mqtt5_protocol::topic_matches_filter;
    use proptest::prelude::*;

    use super::*;

    fn patterns(texts: &[&str]) -> Vec<Pattern> {
        texts.iter().map(|text| Pattern::parse(text).expect("a pattern")).collect()
    }

    fn filter() -> impl Strategy<Value = String> {
        let level = prop_oneof![Just("a"), Just("b"), Just(""), Just("$s"), Just("+")];
        (proptest::collection::vec(level, 0..4), any::<bool>()).prop_filter_map("empty", |(mut levels, hash)| {
            if hash {
                levels.push("#");
            }
            let text = levels.join("/");
            (!text.is_empty()).then_some(text)
        })
    }

    /// Every topic of up to five levels; `z` stands for all names that no filter knows.
    fn topics() -> Vec<String> {
        let mut all = Vec::new();
        let mut longest = vec![String::new()];
        for depth in 0..5 {
            let joint = if depth == 0 { "" } else { "/" };
            longest = longest
                .iter()
                .flat_map(|begin| ["a", "b", "", "$s", "z"].map(|level| format!("{begin}{joint}{level}")))
                .collect();
            all.extend(longest.iter().filter(|topic| !topic.is_empty()).cloned());
        }
        all
    }

    proptest! {
        /// It covers exactly when there is no topic that shows the contrary. Five levels are enough to show it, for the
        /// filters have four.
        #[test]
        fn covers_means_that_no_topic_is_left_out(wide in filter(), narrow in filter()) {
            thread_local!(static TOPICS: Vec<String> = topics());
            let left_out = TOPICS.with(|topics| {
                let left_out = |topic: &str| topic_matches_filter(topic, &narrow) && !topic_matches_filter(topic, &wide);
                topics.iter().find(|topic| left_out(topic)).cloned()
            });
            prop_assert_eq!(covers(&wide, &narrow), left_out.is_none(), "{} {} {:?}", wide, narrow, left_out);
        }

        /// A name cannot make a pattern reach further than one level that is the name itself.
        #[test]
        fn a_name_reaches_one_level(user in "[ab/+#$%uc]{0,4}", client in "[ab/+#$%uc]{0,4}", narrow in filter()) {
            let pattern = Pattern::parse("x/%u/%c/y").expect("a pattern");
            if let Some(filled) = pattern.fill(Some(&user), &client) {
                prop_assert_eq!(&*filled, format!("x/{user}/{client}/y"));
                prop_assert_eq!(filled.split('/').count(), 4);
                prop_assert!(!filled.contains(['+', '#']));
            }
            let first = Pattern::parse("%c/#").expect("a pattern").fill(None, &client);
            if first.is_some_and(|filled| covers(&filled, &narrow)) {
                prop_assert_eq!(narrow.split('/').next(), Some(client.as_str()));
                prop_assert!(!narrow.starts_with('$'));
            }
        }
    }

    #[test]
    fn patterns_are_taken_or_refused() {
        for text in ["a", "#", "a/+/%u/#", "%c", "$SYS/#", "100%", "%x/a"] {
            assert!(Pattern::parse(text).is_ok(), "{text:?}");
        }
        for (text, error) in [
            ("", PatternError::Filter),
            ("a#", PatternError::Filter),
            ("#/a", PatternError::Filter),
            ("a\0", PatternError::Filter),
            ("$share/g/a", PatternError::Shared),
            ("dev-%u/a", PatternError::Placeholder),
            ("a/%c%u", PatternError::Placeholder),
        ] {
            assert_eq!(Pattern::parse(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn rules_add_up_and_what_is_denied_stays_denied() {
        let rules = [
            Rule { publish: patterns(&["s/%u/#"]), subscribe: patterns(&["c/%c"]), ..Rule::default() },
            Rule {
                user: Some("ada".to_owned()),
                subscribe: patterns(&["#", "$SYS/#"]),
                deny: patterns(&["secret/#"]),
                ..Rule::default()
            },
        ];
        let ada = Rights::of(&rules, Some("ada"), "id");
        let bob = Rights::of(&rules, Some("bob"), "id");
        assert!(ada.may_publish("s/ada/x") && !ada.may_publish("s/bob/x") && !ada.may_publish("x"));
        assert!(ada.may_subscribe("#") && ada.may_subscribe("$SYS/x") && !ada.may_subscribe("$other/x"));
        assert!(!ada.may_subscribe("secret/+") && !ada.may_receive("secret") && ada.may_receive("other"));
        assert!(bob.may_subscribe("c/id") && !bob.may_subscribe("c/+") && !bob.may_subscribe("#"));
        assert!(bob.may_receive("secret"), "the denial is about somebody else");
        let hash = Rights::of(&rules, Some("#"), "+");
        assert!(!hash.may_publish("s/x/y") && !hash.may_publish("s/#/y") && !hash.may_subscribe("c/+"));
        assert!(!Rights::of(&rules, None, "id").may_publish("s/%u/x"));
        assert!(Rights::of(&[], None, "id").may_publish("anything"));
        assert!(!Rights::of(&[Rule::default()], None, "id").may_publish("anything"));
    }
}
