//! What a session does in each situation that its documentation names.

use device_sdk::{
    Action, Counters, DeviceNameError, Outgoing, PublishError, Session, Settings, StartError, Token, TopicError,
    WINDOW, WhenFull,
};

const TOPIC: &str = "sensors/d/temperature";

const SETTINGS: Settings = Settings {
    window: 4,
    when_full: WhenFull::Refuse,
    progress_timeout_ms: 1_000,
    backoff_min_ms: 100,
    backoff_max_ms: 800,
    seed: 1,
};

type Small = Session<'static, 8, 16>;

fn session(settings: Settings) -> Small {
    Session::new("d", 3, settings).unwrap()
}

fn publish(session: &mut Small, count: usize) {
    for _ in 0..count {
        session.publish(TOPIC, b"x").unwrap();
    }
}

fn connect(session: &mut Small, now: u64, session_present: bool) {
    assert_eq!(session.poll(now), Action::Connect);
    session.connected(now, session_present);
}

/// Everything that the session wants to send now, as (token, sequence, duplicate).
fn sends(session: &mut Small, now: u64) -> Vec<(Token, u64, bool)> {
    let mut sends = Vec::new();
    while let Action::Send(Outgoing { token, envelope, duplicate, .. }) = session.poll(now) {
        sends.push((token, envelope.sequence, duplicate));
    }
    sends
}

fn sequences(sends: &[(Token, u64, bool)]) -> Vec<u64> {
    sends.iter().map(|send| send.1).collect()
}

/// The time that the session waits for.
fn waits(session: &mut Small, now: u64) -> Option<u64> {
    match session.poll(now) {
        Action::Wait { until } => until,
        other => panic!("{other:?} in place of a wait"),
    }
}

#[test]
fn an_event_is_sent_with_its_identity_and_kept_until_acknowledged() {
    let mut session = session(SETTINGS);
    assert_eq!(session.publish(TOPIC, b"{}"), Ok(1));
    connect(&mut session, 0, false);
    let Action::Send(out) = session.poll(0) else { panic!("nothing is sent") };
    assert_eq!((out.topic, out.duplicate), (TOPIC, false));
    assert_eq!((out.envelope.device, out.envelope.boot), ("d", 3));
    assert_eq!((out.envelope.sequence, out.envelope.payload), (1, &b"{}"[..]));
    let token = out.token;
    assert_eq!((session.pending(), session.outstanding()), (1, 1));
    assert!(session.acknowledged(5, token));
    assert!(!session.acknowledged(6, token), "a second acknowledgement changes nothing");
    assert_eq!((session.pending(), session.outstanding()), (0, 0));
    let expected = Counters { accepted: 1, acknowledged: 1, connections: 1, ..Counters::default() };
    assert_eq!(session.counters(), expected);
    assert_eq!(waits(&mut session, 7), None);
}

#[test]
fn all_that_is_unacknowledged_is_sent_again_first_whatever_the_session_flag_says() {
    for session_present in [false, true] {
        let mut session = session(SETTINGS);
        publish(&mut session, 6);
        connect(&mut session, 0, false);
        let first = sends(&mut session, 0);
        assert_eq!(sequences(&first), [1, 2, 3, 4], "the window is 4");
        assert!(session.acknowledged(1, first[0].0));
        assert_eq!(sequences(&sends(&mut session, 1)), [5]);
        assert_eq!(sends(&mut session, 1), [], "nothing is sent twice on one connection");

        session.disconnected(2);
        let again = waits(&mut session, 2).unwrap();
        connect(&mut session, again, session_present);
        let second = sends(&mut session, again);
        assert_eq!(sequences(&second), [2, 3, 4, 5]);
        assert!(second.iter().all(|send| send.2 == session_present), "DUP belongs to an MQTT session");
        assert_eq!(session.counters().resent, 4);
    }
}

#[test]
fn an_acknowledgement_of_an_earlier_connection_counts() {
    let mut session = session(SETTINGS);
    publish(&mut session, 2);
    connect(&mut session, 0, false);
    let first = sends(&mut session, 0);
    session.disconnected(1);
    assert!(session.acknowledged(2, first[0].0));
    let again = waits(&mut session, 2).unwrap();
    connect(&mut session, again, false);
    assert_eq!(sequences(&sends(&mut session, again)), [2]);
}

#[test]
fn an_acknowledgement_of_what_was_never_sent_is_not_believed() {
    let mut other = session(SETTINGS);
    publish(&mut other, 2);
    connect(&mut other, 0, false);
    let token_of_2 = sends(&mut other, 0)[1].0;

    let mut session = session(Settings { window: 1, ..SETTINGS });
    publish(&mut session, 2);
    connect(&mut session, 0, false);
    assert_eq!(sequences(&sends(&mut session, 0)), [1]);
    assert!(!session.acknowledged(1, token_of_2));
    assert_eq!(session.pending(), 2);
}

#[test]
fn the_window_spans_sequences_when_acknowledgements_come_out_of_order() {
    let mut session = session(SETTINGS);
    publish(&mut session, 8);
    connect(&mut session, 0, false);
    let first = sends(&mut session, 0);
    for send in &first[1..] {
        assert!(session.acknowledged(1, send.0));
    }
    assert_eq!(sends(&mut session, 1), [], "5 is 4 above 1, which is not acknowledged");
    assert!(session.acknowledged(2, first[0].0));
    assert_eq!(sequences(&sends(&mut session, 2)), [5, 6, 7, 8]);
}

#[test]
fn a_connection_without_progress_is_given_up() {
    let mut session = session(SETTINGS);
    publish(&mut session, 2);
    assert_eq!(session.poll(0), Action::Connect);
    assert_eq!(waits(&mut session, 0), Some(1_000), "for an answer to the connect");
    assert_eq!(session.poll(1_000), Action::Disconnect);

    let again = waits(&mut session, 1_000).unwrap();
    connect(&mut session, again, false);
    let first = sends(&mut session, again);
    assert_eq!(waits(&mut session, again), Some(again + 1_000), "for an acknowledgement");
    assert!(session.acknowledged(again + 900, first[0].0));
    assert_eq!(waits(&mut session, again + 1_000), Some(again + 1_900), "progress moves the deadline");
    assert_eq!(session.poll(again + 1_900), Action::Disconnect);
    session.disconnected(again + 1_901);
    assert_eq!(session.pending(), 1);
}

#[test]
fn sending_more_does_not_move_the_deadline() {
    let mut session = session(SETTINGS);
    connect(&mut session, 0, false);
    publish(&mut session, 1);
    assert_eq!(sequences(&sends(&mut session, 0)), [1]);
    publish(&mut session, 1);
    assert_eq!(sequences(&sends(&mut session, 600)), [2]);
    assert_eq!(waits(&mut session, 600), Some(1_000));
}

#[test]
fn pauses_grow_until_a_connection_was_worth_something() {
    let mut session = session(SETTINGS);
    publish(&mut session, 1);
    let mut now = 0;
    let mut pauses = Vec::new();
    for _ in 0..6 {
        connect(&mut session, now, false);
        session.disconnected(now);
        let until = waits(&mut session, now).unwrap();
        pauses.push(until - now);
        now = until;
    }
    for (pause, ceiling) in pauses.iter().zip([100, 200, 400, 800, 800, 800]) {
        assert!((ceiling / 2..=ceiling).contains(pause), "{pauses:?}");
    }

    // A connection that only lasted.
    connect(&mut session, now, false);
    now += 800;
    session.disconnected(now);
    let until = waits(&mut session, now).unwrap();
    assert!(until - now <= 100);
    // A connection with an acknowledgement, after a failure.
    assert_eq!(session.poll(until), Action::Connect);
    session.disconnected(until);
    now = waits(&mut session, until).unwrap();
    connect(&mut session, now, false);
    let token = sends(&mut session, now)[0].0;
    assert!(session.acknowledged(now, token));
    session.disconnected(now);
    assert!(waits(&mut session, now).unwrap() - now <= 100);
}

#[test]
fn a_late_connack_is_ignored() {
    let mut session = session(SETTINGS);
    assert_eq!(session.poll(0), Action::Connect);
    assert_eq!(session.poll(1_000), Action::Disconnect);
    session.connected(1_001, false);
    assert_eq!(session.counters().connections, 0);
    assert!(matches!(session.poll(1_001), Action::Wait { until: Some(_) }));
}

#[test]
fn a_full_queue_refuses_and_recovers() {
    let mut session = session(SETTINGS);
    publish(&mut session, 8);
    assert!(!session.has_room());
    assert_eq!(session.publish(TOPIC, b"y"), Err(PublishError::Full { pending: 8 }));
    connect(&mut session, 0, false);
    let token = sends(&mut session, 0)[0].0;
    assert!(session.acknowledged(1, token));
    assert_eq!(session.publish(TOPIC, b"y"), Ok(9), "a refused event took no sequence");
}

#[test]
fn a_full_queue_drops_the_oldest_that_was_never_sent() {
    let mut session = session(Settings { when_full: WhenFull::DropOldestUnsent, ..SETTINGS });
    publish(&mut session, 8);
    connect(&mut session, 0, false);
    assert_eq!(sequences(&sends(&mut session, 0)), [1, 2, 3, 4]);
    session.disconnected(1);
    assert_eq!(session.publish(TOPIC, b"y"), Ok(9));
    assert_eq!(session.publish(TOPIC, b"y"), Ok(10));
    assert_eq!(session.counters().dropped, 2);

    let mut now = waits(&mut session, 1).unwrap();
    connect(&mut session, now, false);
    let mut seen = Vec::new();
    loop {
        let batch = sends(&mut session, now);
        if batch.is_empty() {
            break;
        }
        now += 1;
        for (token, sequence, _) in batch {
            seen.push(sequence);
            assert!(session.acknowledged(now, token));
        }
    }
    assert_eq!(seen, [1, 2, 3, 4, 7, 8, 9, 10], "5 and 6 are gone, and their numbers with them");
}

#[test]
fn what_was_sent_is_never_dropped() {
    let mut session = session(Settings { when_full: WhenFull::DropOldestUnsent, window: 8, ..SETTINGS });
    publish(&mut session, 8);
    connect(&mut session, 0, false);
    assert_eq!(sends(&mut session, 0).len(), 8);
    assert_eq!(session.publish(TOPIC, b"y"), Err(PublishError::Full { pending: 8 }));
    assert_eq!(session.counters().dropped, 0);
}

#[test]
fn payloads_in_postcard_and_text() {
    let mut session = session(SETTINGS);
    assert_eq!(session.publish_postcard(TOPIC, &(300_u16, "ab")), Ok(1));
    assert_eq!(session.publish_text(TOPIC, format_args!("{{\"c\":{:.1}}}", 21.25)), Ok(2));
    assert_eq!(session.publish_postcard(TOPIC, "sixteen bytes ..."), Err(PublishError::TooLarge { limit: 16 }));
    assert_eq!(session.publish_text(TOPIC, format_args!("{:17}", 1)), Err(PublishError::TooLarge { limit: 16 }));
    assert_eq!(session.publish(TOPIC, &[0; 17]), Err(PublishError::TooLarge { limit: 16 }));
    assert_eq!(session.publish(TOPIC, &[0; 16]), Ok(3));

    connect(&mut session, 0, false);
    let mut payloads = Vec::new();
    while let Action::Send(out) = session.poll(0) {
        payloads.push(out.envelope.payload.to_vec());
    }
    assert_eq!(payloads, [b"\xAC\x02\x02ab".to_vec(), br#"{"c":21.2}"#.to_vec(), vec![0; 16]]);
}

#[test]
fn topics_that_cannot_be_published_to_are_refused() {
    let mut session = session(SETTINGS);
    assert_eq!(session.publish("", b""), Err(PublishError::Topic(TopicError::Empty)));
    for (topic, character, at) in [("a/+", '+', 2), ("#", '#', 0), ("a\0", '\0', 1)] {
        let error = TopicError::Character { character, at };
        assert_eq!(session.publish(topic, b""), Err(PublishError::Topic(error)));
    }
    let long: &str = String::leak("t".repeat(65_536));
    assert_eq!(session.publish(long, b""), Err(PublishError::Topic(TopicError::TooLong { bytes: 65_536 })));
    assert_eq!(session.publish(&long[1..], b""), Ok(1));
}

#[test]
fn settings_out_of_range_are_refused() {
    let refused = |settings| Small::new("d", 1, settings).err();
    assert_eq!(refused(SETTINGS), None);
    assert_eq!(refused(Settings::new(0)), None);
    assert_eq!(refused(Settings { window: 0, ..SETTINGS }), Some(StartError::Window { window: 0 }));
    let window = WINDOW + 1;
    assert_eq!(refused(Settings { window, ..SETTINGS }), Some(StartError::Window { window }));
    assert_eq!(refused(Settings { progress_timeout_ms: 0, ..SETTINGS }), Some(StartError::ProgressTimeout));
    for (min_ms, max_ms) in [(0, 10), (11, 10)] {
        let settings = Settings { backoff_min_ms: min_ms, backoff_max_ms: max_ms, ..SETTINGS };
        assert_eq!(refused(settings), Some(StartError::Backoff { min_ms, max_ms }));
    }
    let nameless = Small::new("", 1, SETTINGS).err();
    assert_eq!(nameless, Some(StartError::Device(DeviceNameError::Empty)));
}
