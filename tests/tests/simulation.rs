//! A short version of `cargo xtask simulate`: whatever the link does and whatever must go, each record is delivered once or
//! known to be gone.

use system_tests::simulation::{Report, simulate};
use system_tests::{Cloud, Edgectl, World};

/// Of the first ones nothing is known that was wrong; the last one found a backlog that was never delivered.
const SEEDS: [u64; 9] = [1, 2, 3, 4, 5, 6, 7, 8, 1003];

#[test]
fn each_record_is_delivered_once_or_known_to_be_gone() {
    let world = World::new().unwrap();
    let cloud = Cloud::start(&world).unwrap();
    let operator = Edgectl::new(&world, &cloud).unwrap();
    let reports: Vec<Report> = SEEDS.into_iter().map(|seed| simulate(&cloud, &operator, seed).unwrap()).collect();
    for report in &reports {
        assert!(report.is_clean(), "{report}");
    }
    // They met what they are for.
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    assert!(sum(|report| report.delivered) > 10_000 && sum(|report| report.dropped) > 1_000);
    assert!(sum(|report| report.unheard) > 100 && sum(|report| report.alarms) > 10);
    let overlapping = sum(|report| report.overlapping);
    assert!(overlapping > 30, "{overlapping} requests went while another was on its way");

    // A failure can be met again.
    let again = simulate(&cloud, &operator, 1).unwrap();
    assert_eq!((again.trace, again.requests), (reports[0].trace, reports[0].requests));
}
