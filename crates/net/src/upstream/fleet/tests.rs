//! What a name server's answers and the checks' results make of a fleet. No socket but for the last test's look-up.
use super::*;

fn address(last: u8) -> Address {
    (format!("10.0.0.{last}"), 9001)
}

fn dns() -> Fleet {
    Fleet::new(&Addresses::Dns { host: "orders.internal".into(), port: 9001, refresh: Duration::from_secs(5) })
}

fn check(fleet: &Fleet, version: u64, last: &[u8]) {
    let members = fleet.members();
    assert_eq!(members.version, version);
    assert_eq!(members.addresses, last.iter().map(|last| address(*last)).collect::<Vec<_>>());
}

#[test]
fn a_failed_or_empty_look_up_keeps_the_last_good_answer() {
    let fleet = dns();
    assert!(!fleet.is_known());
    fleet.resolved(Err("no such name".into()));
    assert!(!fleet.is_known());
    fleet.resolved(Ok(vec![address(2), address(1)]));
    check(&fleet, 1, &[1, 2]);
    fleet.resolved(Err("timed out".into()));
    fleet.resolved(Ok(Vec::new()));
    check(&fleet, 1, &[1, 2]);
    assert_eq!(fleet.status().look_ups_failed, 3);
}

#[test]
fn only_another_set_of_addresses_is_a_change() {
    let fleet = dns();
    fleet.resolved(Ok(vec![address(2), address(1), address(2)]));
    fleet.resolved(Ok(vec![address(1), address(2)]));
    check(&fleet, 1, &[1, 2]);
    fleet.resolved(Ok(vec![address(2), address(3)]));
    check(&fleet, 2, &[2, 3]);
}

#[test]
fn a_name_has_a_bounded_number_of_endpoints() {
    let fleet = dns();
    fleet.resolved(Ok((0..=255).map(address).collect()));
    assert_eq!(fleet.members().addresses.len(), ADDRESSES_MAX);
    assert_eq!(fleet.status().endpoints.len(), ADDRESSES_MAX);
}

#[test]
fn illness_follows_its_endpoint_over_changes_of_the_fleet() {
    let fleet = dns();
    let turn = |last, is_well: bool| {
        let failure = (!is_well).then(|| "it answered 500".to_owned());
        fleet.probed(&address(last), &Probed { failure, turned: Some(is_well) });
    };
    fleet.resolved(Ok(vec![address(1), address(2), address(3)]));
    turn(2, false);
    assert_eq!(fleet.members().well(), 0b101);
    fleet.resolved(Ok(vec![address(2), address(3)]));
    assert_eq!(fleet.members().well(), 0b10);
    assert_eq!(fleet.status().endpoints[0], ("10.0.0.2:9001".to_owned(), State::Ill));
    turn(2, true);
    assert_eq!(fleet.members().well(), 0b11);
    let status = fleet.status();
    assert_eq!((status.checks_passed, status.checks_failed), (1, 1));
}

#[test]
fn an_endpoint_that_left_ill_comes_back_well_and_leaves_nothing_behind() {
    let fleet = dns();
    let ill = |last| fleet.probed(&address(last), &Probed { failure: Some("as asked".into()), turned: Some(false) });
    fleet.resolved(Ok(vec![address(1), address(2)]));
    ill(2);
    fleet.resolved(Ok(vec![address(1)]));
    assert!(lock(&fleet.ill).is_empty());
    // The last check may end after its endpoint has gone.
    ill(2);
    fleet.resolved(Ok(vec![address(1), address(2)]));
    assert_eq!(fleet.members().well(), 0b11);
}

#[test]
fn an_endpoint_put_aside_by_a_worker_is_told() {
    let fleet = Fleet::new(&Addresses::Listed(vec![address(1), address(2)]));
    fleet.members().eject(1, fleet.now_ms() + 60_000);
    let states: Vec<State> = fleet.status().endpoints.into_iter().map(|(_, state)| state).collect();
    assert_eq!(states, [State::Well, State::Ejected]);
    fleet.members().eject(0, 0);
    assert_eq!(fleet.status().endpoints[0].1, State::Well, "that time is over");
}

#[tokio::test]
async fn who_asks_before_the_first_answer_waits_for_it_and_no_longer() {
    let fleet = dns();
    let short = Duration::from_millis(10);
    let found = fleet.known(short).await.unwrap_err().to_string();
    assert!(found.contains("dns:orders.internal:9001") && found.contains("said nothing"), "{found}");
    fleet.resolved(Err("no such name".into()));
    let found = fleet.known(Duration::from_secs(60)).await.unwrap_err().to_string();
    assert!(found.contains("no such name"), "{found}");
    fleet.resolved(Ok(vec![address(1)]));
    fleet.known(short).await.unwrap();
}
