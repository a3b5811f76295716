//! Parts of the module by themselves: the thread that asks for ticks, and the data that workers share.

use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use evenkeel::host::{ABSENT, SharedError};

use crate::abi::Waker;
use crate::pacer::Pacer;
use crate::shared;

/// Longer than any test.
const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(1);
const DEADLINE: Duration = Duration::from_secs(20);

/// Waits until so many ticks have been asked for.
fn until(waker: &Waker, count: u32) {
    let mut asked = waker.0.0.lock().unwrap();
    let deadline = Instant::now() + DEADLINE;
    while *asked < count {
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "{asked} of {count} ticks are asked for");
        asked = waker.0.1.wait_timeout(asked, left).unwrap().0;
    }
}

fn asked(waker: &Waker) -> u32 {
    *waker.0.0.lock().unwrap()
}

/// The first request after a rest does not wait for the rest's end, and asks for one tick.
#[test]
fn a_tick_in_a_hurry_comes_at_once_and_once() {
    let waker = Waker::default();
    let pacer = Pacer::start(waker.clone(), LONG).expect("a thread");
    for nth in 1..=50 {
        pacer.hurry();
        until(&waker, nth);
        pacer.ticked(LONG);
    }
    drop(pacer);
    assert_eq!(asked(&waker), 50);
}

#[test]
fn the_next_tick_is_asked_for_after_the_period_that_the_last_one_set() {
    let waker = Waker::default();
    let pacer = Pacer::start(waker.clone(), LONG).expect("a thread");
    pacer.hurry();
    // The period of the rest that the first request has ended is being waited for.
    for nth in 1..=4 {
        until(&waker, nth);
        pacer.ticked(SHORT);
    }
}

/// One that was asked for where it cannot come any more is asked for elsewhere.
#[test]
fn ticks_move_to_another_configuration() {
    let (gone, next) = (Waker::default(), Waker::default());
    let pacer = Pacer::start(gone.clone(), SHORT).expect("a thread");
    until(&gone, 1);
    pacer.ask(next.clone());
    until(&next, 1);
    drop(pacer);
    assert_eq!((asked(&gone), asked(&next)), (1, 1), "each is asked once until it has ticked");
}

/// Where Envoy holds a configuration while a tick of it is asked for, that may be where it lets go of it: the last of a plugin,
/// or one of several.
#[test]
fn a_configuration_may_end_while_its_tick_is_asked_for() {
    for is_last in [false, true] {
        let pacer: Arc<Mutex<Option<Pacer>>> = Arc::default();
        let (its, next) = (pacer.clone(), Waker::default());
        let (ended, end) = mpsc::channel();
        let waker = Waker::that({
            let next = next.clone();
            move || {
                let mut pacer = its.lock().unwrap();
                pacer.iter().for_each(|pacer| pacer.ask(next.clone()));
                if is_last {
                    *pacer = None;
                }
                ended.send(()).expect("it is awaited");
            }
        });
        let mut place = pacer.lock().unwrap();
        *place = Pacer::start(waker, SHORT);
        drop(place);
        end.recv_timeout(DEADLINE).expect("nothing waits for itself");
        if !is_last {
            until(&next, 1);
        }
    }
}

/// All of it in one test: it is the process's.
#[test]
fn shared_data_is_as_proxy_wasms() {
    one_value();
    values_under_a_prefix();
    of_threads_that_write_at_once_one_wins();
    there_are_so_many_keys_and_no_more();
}

fn one_value() {
    assert_eq!(shared::get("one"), None);
    assert_eq!(shared::set("one", b"1", Some(77)), Ok(()), "any version creates");
    let (value, first) = shared::get("one").expect("a value");
    assert_eq!(value, b"1");
    assert_ne!(first, 0, "which means any version");
    assert_eq!(shared::set("one", b"2", Some(first)), Ok(()));
    assert_eq!(shared::set("one", b"3", Some(first)), Err(SharedError::Conflict));
    assert_eq!(shared::get("one").expect("a value").0, b"2");
    assert_eq!(shared::set("one", b"", None), Ok(()));
    let (value, cleared) = shared::get("one").expect("a value that was cleared");
    assert_eq!(value, b"");
    assert_eq!(shared::set("one", b"4", Some(ABSENT)), Err(SharedError::Conflict), "it is there");
    assert_eq!(shared::set("one", b"4", Some(cleared)), Ok(()));
}

fn values_under_a_prefix() {
    let keys = ["a/1/fleet", "a/1/lease", "a/12/fleet", "b/1/fleet"];
    keys.iter().for_each(|key| shared::set(key, b"x", None).expect("written"));
    shared::release("a/1/");
    assert_eq!(keys.map(|key| shared::get(key).is_some()), [false, false, true, true]);
    ["a/", "b/"].into_iter().for_each(shared::release);
    assert_eq!(keys.map(|key| shared::get(key).is_some()), [false; 4]);
}

fn of_threads_that_write_at_once_one_wins() {
    shared::set("sum", &0u64.to_le_bytes(), None).expect("written");
    let add = || {
        for _ in 0..500 {
            let once = || {
                let (bytes, version) = shared::get("sum").expect("a sum");
                let sum = u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
                shared::set("sum", &(sum + 1).to_le_bytes(), Some(version))
            };
            while once().is_err() {}
        }
    };
    std::thread::scope(|scope| (0..4).for_each(|_| _ = scope.spawn(add)));
    assert_eq!(shared::get("sum").expect("a sum").0, 2000u64.to_le_bytes());
}

fn there_are_so_many_keys_and_no_more() {
    let refused = (0..70_000).find(|at| shared::set(&format!("key {at}"), b"x", None).is_err());
    assert_eq!(refused, Some(65_536 - 2));
    assert_eq!(shared::set("another", b"x", None), Err(SharedError::Refused));
    assert_eq!(shared::set("key 0", b"y", None), Ok(()), "what is there can be written");
}
