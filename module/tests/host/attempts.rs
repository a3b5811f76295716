//! Hosts for attempts that no call has named one for: what the engine names, what of that Envoy's health, priorities and retry policy
//! allow, and what is drawn where the engine names nothing.

use std::collections::BTreeMap;
use std::process::Command;

use testbed::serde_json::{Value, json};

use crate::balancer::{Attempt, Host, Lb, Level, Policy};
use crate::envoy::{self, MEANWHILE, Meanwhile};
use crate::scene::{Listener, said};
use crate::stream::Stream;

const ALL: [&str; 3] = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"];
const MANY: usize = 200;
const ALONE: &str = "EVENKEEL_TEST_ALONE";

/// A filter of this name with these members of its only upstream, and a cluster `web` that asks it.
fn asking(name: &str, upstream: &Value) -> (Listener, Policy, Lb) {
    let listener = Listener::new(name, &json!({}), upstream);
    let policy = Policy::of(name).expect("a policy");
    let lb = policy.balance("web", vec![Level::of(&ALL)]);
    (listener, policy, lb)
}

fn without(excluded: &[&str]) -> Attempt {
    Attempt { excluded: excluded.iter().map(|host| (*host).to_owned()).collect(), ..Attempt::default() }
}

/// How often each host is chosen.
fn chosen(lb: &Lb, times: usize, attempt: &Attempt) -> BTreeMap<String, usize> {
    let mut chosen = BTreeMap::new();
    for _ in 0..times {
        *chosen.entry(lb.choose(attempt).expect("a host")).or_default() += 1;
    }
    chosen
}

fn hosts(chosen: &BTreeMap<String, usize>) -> Vec<&str> {
    chosen.keys().map(String::as_str).collect()
}

/// Five standard deviations of Binomial(`of`, `part`) around its mean.
fn about(count: usize, of: usize, part: f64) -> bool {
    let mean = of as f64 * part;
    (count as f64 - mean).abs() < 5.0 * (mean * (1.0 - part)).sqrt()
}

fn unhealthy(level: &[&str], out: &[&str]) -> Level {
    let mut level = Level::of(level);
    level.hosts.iter_mut().for_each(|host| host.healthy = !out.contains(&host.address.as_str()));
    level
}

#[test]
fn a_retry_goes_where_the_engine_says_and_not_where_it_was() {
    let (_listener, policy, lb) = asking("a retry", &json!({}));
    assert_eq!(hosts(&chosen(&lb, MANY, &Attempt::default())), ALL);
    assert_eq!(hosts(&chosen(&lb, MANY, &without(&ALL[..1]))), ALL[1..]);
    assert_eq!(hosts(&chosen(&lb, MANY, &without(&ALL[1..]))), ALL[..1]);
    assert_eq!(policy.counted("engine"), 3 * MANY as u64);
}

#[test]
fn of_filters_of_one_name_that_one_is_asked_which_balances_the_cluster() {
    let (_web, policy, lb) = asking("two of a name", &json!({}));
    let _api = Listener::new("two of a name", &json!({}), &json!({ "cluster": "api-*" }));
    let other = policy.balance("api-1", vec![Level::of(&ALL)]);
    assert_eq!(hosts(&chosen(&lb, MANY, &without(&ALL[..1]))), ALL[1..]);
    assert_eq!(hosts(&chosen(&other, MANY, &without(&ALL[..1]))), ALL[1..]);
    assert_eq!(policy.counted("engine"), 2 * MANY as u64);
    let third = policy.balance("third", vec![Level::of(&ALL)]);
    chosen(&third, MANY, &Attempt::default());
    assert_eq!(policy.counted("fallback_no_upstream"), MANY as u64);
}

/// Envoy takes all of them for healthy.
#[test]
fn an_endpoint_that_the_engine_has_ejected_gets_no_retry() {
    let (listener, policy, lb) = asking("ejected", &json!({ "health": { "max_ejected_percent": 50 } }));
    for _ in 0..100 {
        let stream = Stream::open(&listener.0);
        assert!(stream.request(&[]));
        let host = stream.state().hosts.last().cloned().expect("a host");
        stream.answer(&host, if host == ALL[0] { "500" } else { "200" }, &[], true);
        stream.complete();
        stream.destroy();
    }
    assert_eq!(hosts(&chosen(&lb, MANY, &Attempt::default())), ALL[1..]);
    assert_eq!(hosts(&chosen(&lb, MANY, &without(&ALL[1..2]))), ALL[2..]);
    assert_eq!(policy.counted("engine"), 2 * MANY as u64);
    // There is no other: the retry policy excludes what the engine names, and then what is drawn.
    assert_eq!(hosts(&chosen(&lb, MANY, &without(&ALL[1..]))), ALL[..1]);
    assert_eq!(policy.counted("fallback_refused"), MANY as u64);
}

#[test]
fn a_choice_counts_as_no_decision() {
    let (listener, _policy, lb) = asking("counts", &json!({}));
    listener.serve("200", &[]);
    let counts = || {
        let status = listener.status();
        (status["upstreams"][0]["decisions"].clone(), listener.of_endpoints("requests"))
    };
    let before = counts();
    chosen(&lb, MANY, &Attempt::default());
    assert_eq!(counts(), before);
}

#[test]
fn what_envoy_takes_for_unhealthy_is_passed_over_and_comes_back() {
    let (_listener, policy, lb) = asking("unhealthy", &json!({}));
    lb.update(vec![unhealthy(&ALL, &ALL[..1])]);
    assert_eq!(hosts(&chosen(&lb, MANY, &Attempt::default())), ALL[1..]);
    lb.update(vec![Level::of(&ALL)]);
    assert_eq!(hosts(&chosen(&lb, MANY, &Attempt::default())), ALL);
    assert_eq!(policy.counted("engine"), 2 * MANY as u64);
    lb.update(vec![unhealthy(&ALL, &ALL)]);
    assert_eq!(lb.choose(&Attempt::default()), None);
    assert_eq!(policy.counted("no_healthy_host"), 1);
}

/// The indices of all healthy hosts behind it shift; the stand-in for Envoy ends the process at an index that is none.
#[test]
fn health_that_has_changed_before_the_update_misleads_nothing() {
    let (_listener, policy, lb) = asking("shifted", &json!({}));
    lb.change(vec![unhealthy(&ALL, &ALL[..1])]);
    assert_eq!(hosts(&chosen(&lb, MANY, &Attempt::default())), ALL[1..], "by the fallback, if need be");
    assert_eq!(policy.counted("engine") + policy.counted("fallback_refused"), MANY as u64);
    lb.update(vec![unhealthy(&ALL, &ALL[1..])]);
    lb.change(vec![Level::of(&ALL)]);
    for excluded in [&ALL[..1], &ALL[1..2], &ALL[2..]] {
        let chosen = chosen(&lb, MANY, &without(excluded));
        assert!(!chosen.is_empty());
    }
}

#[test]
fn hosts_come_and_go() {
    let (_listener, policy, lb) = asking("come and go", &json!({}));
    lb.update(vec![Level::of(&[ALL[2], "10.9.9.9:80"])]);
    assert_eq!(hosts(&chosen(&lb, MANY, &Attempt::default())), ALL[2..]);
    assert_eq!(policy.counted("engine"), MANY as u64);
    lb.update(vec![Level::of(&["10.9.9.9:80"])]);
    assert_eq!(hosts(&chosen(&lb, MANY, &Attempt::default())), ["10.9.9.9:80"]);
    assert_eq!(policy.counted("fallback_refused"), MANY as u64);
    lb.update(vec![]);
    assert_eq!(lb.choose(&Attempt::default()), None);
    lb.update(vec![Level::default(), Level::of(&ALL[..1])]);
    assert_eq!(lb.choose(&Attempt::default()).as_deref(), Some(ALL[0]));
}

#[test]
fn where_the_engine_has_nothing_to_say_a_host_is_drawn_and_the_reason_counted() {
    let listener = Listener::new("nothing to say", &json!({}), &json!({}));
    let observing = Listener::new("observing", &json!({ "mode": "observe" }), &json!({}));
    let by_header = Listener::new("by header", &json!({ "steering": { "header": "x-to" } }), &json!({}));
    let left = Attempt { named: Some("0.0.0.0:0".into()), ..Attempt::default() };
    let unusable = Attempt { named: Some("10.0.0.1:81".into()), ..Attempt::default() };
    for (filter, cluster, attempt, reason) in [
        ("nothing to say", "web", &unusable, "engine"),
        ("nothing to say", "web", &left, "fallback_left"),
        ("nothing to say", "another", &unusable, "fallback_no_upstream"),
        ("no such filter", "web", &unusable, "fallback_no_plugin"),
        ("observing", "web", &unusable, "fallback_left"),
        ("by header", "web", &unusable, "fallback_left"),
    ] {
        let policy = Policy::of(filter).expect("a policy");
        let lb = policy.balance(cluster, vec![Level::of(&ALL)]);
        let chosen = chosen(&lb, MANY, attempt);
        assert_eq!(hosts(&chosen), ALL, "{filter}, {cluster}");
        assert_eq!(policy.counted(reason), MANY as u64, "{filter}, {cluster}: {reason}");
    }
    assert_eq!(said("cluster web: no HTTP filter of this module has the filter_name no such filter"), 1);
    drop((listener, observing, by_header));
}

/// What a filter leaves to the cluster's policy is not asked of the engine once more.
#[test]
fn a_request_that_the_filter_leaves_to_envoy_is_marked_for_the_policy() {
    let admin = json!({ "endpoints": { "envoy_admin": { "cluster": "admin", "interval": "200ms" } } });
    let listener = Listener::new("marked", &json!({}), &admin);
    let _policy = Policy::of("marked").expect("a policy");
    let stream = Stream::open(&listener.0);
    assert!(stream.request(&[]), "no endpoint is known");
    assert!(stream.state().left && stream.state().hosts.is_empty());
    stream.complete();
    stream.destroy();
    let steered = Listener::new("marked, steered", &json!({}), &json!({}));
    let stream = Stream::open(&steered.0);
    assert!(stream.request(&[]));
    assert!(!stream.state().left && stream.state().hosts.len() == 1);
    stream.complete();
    stream.destroy();
}

#[test]
fn the_fallback_draws_by_weight_and_keeps_to_the_exclusions() {
    let policy = Policy::of("no such filter").expect("a policy");
    let mut level = Level::of(&ALL);
    level.hosts[2].weight = 3;
    let lb = policy.balance("web", vec![level.clone()]);
    let drawn = chosen(&lb, 5000, &Attempt::default());
    assert!(about(drawn[ALL[2]], 5000, 0.6) && about(drawn[ALL[0]], 5000, 0.2), "{drawn:?}");
    assert_eq!(hosts(&chosen(&lb, 2000, &without(&ALL[1..]))), ALL[..1]);
    assert_eq!(hosts(&chosen(&lb, MANY, &without(&ALL))), ALL, "a failed host rather than none");
    // The weights are those of other hosts now.
    lb.change(vec![Level::of(&ALL[..2])]);
    let drawn = chosen(&lb, 5000, &Attempt::default());
    assert!(about(drawn[ALL[0]], 5000, 0.5), "{drawn:?}");
}

#[test]
fn priorities_get_their_loads_and_the_engine_keeps_to_them() {
    let (_listener, policy, lb) = asking("priorities", &json!({}));
    lb.update(vec![Level::of(&ALL[..1]), Level::of(&ALL[1..])]);
    assert_eq!(hosts(&chosen(&lb, MANY, &Attempt::default())), ALL[..1], "the engine names all of them");
    assert_eq!(policy.counted("engine"), MANY as u64);
    let random = Policy::of("no such filter").expect("a policy");
    let (near, far) = (["a:1", "b:1", "c:1", "d:1"], ["e:1"]);
    for (out, part) in [(&near[..1], 1.0), (&near[..2], 0.7), (&near[..3], 0.35), (&near[..], 0.0)] {
        let lb = random.balance("web", vec![unhealthy(&near, out), Level::of(&far)]);
        let drawn = chosen(&lb, 5000, &Attempt::default());
        let there = 5000 - drawn.get(far[0]).copied().unwrap_or(0);
        assert!(
            about(there, 5000, part) || (there as f64 / 5000.0 - part).abs() < 1e-9,
            "{out:?}: {drawn:?}"
        );
    }
    // With too few of all, the loads are shared out among them.
    let lb = random.balance("web", vec![unhealthy(&near, &near[..3]), unhealthy(&far, &far)]);
    assert_eq!(hosts(&chosen(&lb, MANY, &Attempt::default())), near[3..]);
}

/// As in Envoy: of 15 priorities with one healthy host of 35, each gets 6 of 100 requests, and the first 10 more.
#[test]
fn what_rounding_leaves_goes_to_the_first_priority() {
    let random = Policy::of("no such filter").expect("a policy");
    let level = |priority: usize| {
        let all: Vec<String> = (0..35).map(|host| format!("{priority}-{host}:1")).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        unhealthy(&all, &all[1..])
    };
    let lb = random.balance("web", (0..15).map(level).collect());
    let drawn = chosen(&lb, 5000, &Attempt::default());
    for priority in 0..15 {
        let part = if priority == 0 { 0.16 } else { 0.06 };
        let count = drawn.get(&format!("{priority}-0:1")).copied().unwrap_or(0);
        assert!(about(count, 5000, part), "{priority}: {drawn:?}");
    }
}

#[test]
fn localities_get_their_weights_by_what_of_them_is_healthy() {
    let policy = Policy::of("no such filter").expect("a policy");
    let host = |address: &str, zone: &'static str| Host { zone, ..Host::new(address) };
    let mut hosts = vec![host("a1", "a"), host("b1", "b"), host("b2", "b"), host("b3", "b")];
    let zones = vec![("a", 3), ("b", 1)];
    let lb = policy.balance("web", vec![Level { hosts: hosts.clone(), zones: zones.clone() }]);
    let drawn = chosen(&lb, 6000, &Attempt::default());
    assert!(about(drawn["a1"], 6000, 0.75) && about(drawn["b1"], 6000, 1.0 / 12.0), "{drawn:?}");
    // One of three: 1.4 / 3 of the weight of 1.
    hosts[1].healthy = false;
    hosts[2].healthy = false;
    lb.update(vec![Level { hosts: hosts.clone(), zones }]);
    let drawn = chosen(&lb, 6000, &Attempt::default());
    assert!(about(drawn["b3"], 6000, 1.4 / 3.0 / (3.0 + 1.4 / 3.0)), "{drawn:?}");
    // Without weights the zones do not count.
    lb.update(vec![Level { hosts, zones: vec![("a", 0), ("b", 0)] }]);
    let drawn = chosen(&lb, 6000, &Attempt::default());
    assert!(about(drawn["b3"], 6000, 0.5), "{drawn:?}");
}

#[test]
fn a_panic_costs_no_attempt_and_the_worker_is_back_after_a_tick() {
    let (listener, policy, lb) = asking("panics again", &json!({}));
    let provoked = Attempt { headers: vec![("x-evenkeel-test-panic-again", "please")], ..Attempt::default() };
    assert!(lb.choose(&provoked).is_some());
    assert_eq!(policy.counted("fallback_panic"), 1);
    // Until then the worker is not to be had.
    let next = lb.choose(&Attempt::default());
    assert!(next.is_some());
    assert_eq!(policy.counted("fallback_busy"), 1);
    listener.tick();
    assert_eq!(said("panicked, 1 of 5 times"), 1);
    assert!(lb.choose(&Attempt::default()).is_some());
    assert_eq!(policy.counted("engine"), 1);
    listener.serve("200", &[]);
    assert_eq!(listener.stat("panics_total", None), 1);
}

/// A tick holds its worker while it sends a call, and the call's cluster may ask the same worker for a host.
#[test]
fn a_call_of_a_tick_gets_a_host_at_once() {
    let admin = json!({ "endpoints": {
        "static": ALL, "envoy_admin": { "cluster": "web", "interval": "200ms" },
    } });
    let (listener, policy, lb) = asking("within a tick", &admin);
    MEANWHILE.set(Some(Meanwhile::Chooses(Box::new(move || {
        assert!(lb.choose(&Attempt::default()).is_some());
    }))));
    listener.call();
    assert_eq!(policy.counted("fallback_busy"), 1);
}

/// The next in the order of the key, and the same for every retry.
#[test]
fn a_retry_with_a_key_goes_to_the_next_owner_of_the_key() {
    let sticky = json!({ "policy": "consistent_hash", "affinity": { "header": "x-user" } });
    let (_listener, policy, lb) = asking("keys", &sticky);
    for user in ["alice", "bob", "carol", "dave"] {
        let of = |excluded: &[&str]| Attempt { headers: vec![("x-user", user)], ..without(excluded) };
        let owner = chosen(&lb, MANY, &of(&[]));
        assert_eq!(owner.len(), 1, "{owner:?}");
        let owner = owner.into_keys().next().unwrap();
        let next = chosen(&lb, MANY, &of(&[&owner]));
        assert_eq!(next.len(), 1, "{next:?}");
        assert_ne!(next.into_keys().next().unwrap(), owner);
    }
    assert_eq!(policy.counted("engine"), 8 * MANY as u64);
}

#[test]
fn a_choice_costs_as_much_among_ten_thousand_hosts_as_among_ten() {
    let calls = |name: &str, hosts: usize| {
        let addresses: Vec<String> = (0..hosts).map(|n| format!("10.1.{}.{}:80", n / 250, n % 250)).collect();
        let level = Level::of(&addresses.iter().map(String::as_str).collect::<Vec<_>>());
        let (_listener, policy, _) = asking(name, &json!({ "endpoints": { "static": addresses } }));
        let random = Policy::of("no such filter").expect("a policy");
        let most = |policy: &Policy, attempt: &Attempt| {
            let lb = policy.balance("web", vec![level.clone()]);
            let choose = |_| {
                let before = lb.calls();
                assert!(lb.choose(attempt).is_some());
                lb.calls() - before
            };
            (0..20).map(choose).max().unwrap_or_default()
        };
        let found = (most(&policy, &Attempt::default()), most(&random, &Attempt::default()));
        assert_eq!(policy.counted("engine"), 20);
        found
    };
    let few = calls("few hosts", 10);
    assert_eq!(calls("many hosts", 10_000), few);
    assert!(few.0 <= 12 && few.1 <= 12, "{few:?}");
}

#[test]
fn a_policy_whose_text_is_no_filters_name_is_refused() {
    for text in [r#"{"filter_name":"evenkeel"}"#, r#""evenkeel""#, "[]"] {
        assert!(Policy::of(text).is_none(), "{text}");
    }
    assert_eq!(said("configuration refused: lb_policy_config: found JSON"), 3);
    assert!(Policy::of("").is_some());
}

/// A filter's configuration may come after the cluster, be replaced and go.
#[test]
fn the_face_asks_whichever_configuration_is_the_latest() {
    let policy = Policy::of("comes later").expect("a policy");
    let lb = policy.balance("web", vec![Level::of(&ALL)]);
    lb.choose(&Attempt::default());
    assert_eq!(policy.counted("fallback_no_plugin"), 1);
    let first = Listener::new("comes later", &json!({}), &json!({}));
    assert_eq!(hosts(&chosen(&lb, MANY, &Attempt::default())), ALL);
    assert_eq!(policy.counted("engine"), MANY as u64);
    let second = Listener::new("comes later", &json!({}), &json!({ "endpoints": { "static": [ALL[0]] } }));
    assert_eq!(hosts(&chosen(&lb, MANY, &Attempt::default())), ALL[..1]);
    drop((first, second));
    lb.choose(&Attempt::default());
    assert_eq!(policy.counted("fallback_no_plugin"), 2);
}

/// In a process of its own, because the other tests have filters as well.
#[test]
fn without_a_name_the_only_filter_is_asked() {
    if std::env::var_os(ALONE).is_none() {
        let own = std::env::current_exe().expect("a path");
        let name = "attempts::without_a_name_the_only_filter_is_asked";
        let run = Command::new(own).args(["--exact", name]).env(ALONE, "1").output().expect("it runs");
        let said = String::from_utf8_lossy(&run.stdout);
        assert!(run.status.success() && said.contains("1 passed"), "{said}{run:?}");
        return;
    }
    let one = Listener::new("one", &json!({}), &json!({}));
    let policy = Policy::of(" ").expect("a policy");
    let lb = policy.balance("web", vec![Level::of(&ALL)]);
    chosen(&lb, MANY, &Attempt::default());
    assert_eq!(policy.counted("engine"), MANY as u64);
    let _two = Listener::new("two", &json!({}), &json!({}));
    chosen(&lb, MANY, &Attempt::default());
    assert_eq!(policy.counted("fallback_no_plugin"), MANY as u64);
    assert_eq!(said("not exactly one HTTP filter of this module is there to be asked"), 1);
    drop(one);
    chosen(&lb, MANY, &Attempt::default());
    assert_eq!(policy.counted("engine"), 2 * MANY as u64);
    assert_eq!(envoy::logged().iter().filter(|(level, _)| *level == 5).count(), 0);
}
