//! A bad network: whatever the ways between devices, gateway and control plane do, what devices were told is acknowledged
//! reaches the cloud, once.

use std::thread;

use system_tests::chaos::{Status, Storm, ToCloud, ToGateway, endure};

/// Every fault of a storm struck, and nothing is lost, doubled or contradicted.
fn assert_endured(seed: u64, storm: &Storm) {
    let report = endure(seed, storm).unwrap();
    assert!(report.is_clean(), "{report}\n{storm:?}");
    let struck: u64 = report.happened.values().sum();
    assert_eq!(struck, (storm.to_cloud.len() + storm.to_gateway.len()) as u64, "{report}\n{storm:?}");
    assert!(report.acknowledged > 0, "{report}");
}

fn on_the_way_to_the_cloud(fault: ToCloud, times: usize, passing: u32) {
    assert_endured(0, &Storm::on_the_way_to_the_cloud(fault, times, passing));
}

fn on_the_way_to_the_gateway(fault: ToGateway, times: usize, passing: u32) {
    assert_endured(0, &Storm::on_the_way_to_the_gateway(fault, times, passing));
}

#[test]
fn records_come_late() {
    on_the_way_to_the_cloud(ToCloud::Delay, 6, 1);
}

#[test]
fn records_come_twice() {
    on_the_way_to_the_cloud(ToCloud::Duplicate, 10, 1);
}

#[test]
fn records_are_overtaken_by_later_ones() {
    on_the_way_to_the_cloud(ToCloud::Overtaken, 3, 2);
}

#[test]
fn the_control_plane_falls_silent() {
    on_the_way_to_the_cloud(ToCloud::HalfOpen, 2, 2);
}

#[test]
fn the_control_plane_reads_slowly() {
    on_the_way_to_the_cloud(ToCloud::SlowReader, 4, 1);
}

#[test]
fn the_control_planes_answer_breaks_off() {
    on_the_way_to_the_cloud(ToCloud::CutAnswer, 3, 2);
}

#[test]
fn something_in_between_answers() {
    let statuses = [
        Status::TooManyRequests,
        Status::TooManyRequestsRetryAfter,
        Status::InternalServerError,
        Status::Unavailable,
        Status::UnavailableRetryAfter,
    ];
    // Side by side, since agents mostly wait.
    thread::scope(|scope| {
        for status in statuses {
            scope.spawn(move || on_the_way_to_the_cloud(ToCloud::Answer(status), 2, 0));
        }
    });
}

#[test]
fn events_come_late() {
    on_the_way_to_the_gateway(ToGateway::Delay, 6, 10);
}

#[test]
fn events_come_twice() {
    on_the_way_to_the_gateway(ToGateway::Duplicate, 40, 2);
}

#[test]
fn events_are_overtaken_by_their_retries() {
    on_the_way_to_the_gateway(ToGateway::Overtaken, 6, 10);
}

#[test]
fn the_gateway_falls_silent() {
    on_the_way_to_the_gateway(ToGateway::HalfOpen, 2, 20);
}

#[test]
fn a_device_reads_no_acknowledgements_for_a_while() {
    on_the_way_to_the_gateway(ToGateway::SlowReader, 4, 20);
}

#[test]
fn an_acknowledgement_breaks_off() {
    on_the_way_to_the_gateway(ToGateway::CutAnswer, 6, 10);
}

#[test]
fn everything_at_once() {
    // Side by side, since devices mostly wait for a gateway that is silent.
    thread::scope(|scope| {
        for seed in [1, 2, 3] {
            scope.spawn(move || assert_endured(seed, &Storm::draw(seed, 1)));
        }
    });
}
