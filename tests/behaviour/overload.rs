//! Where the endpoints that are left cannot carry the load, ejected ones get a part of it.

use std::collections::{BTreeMap, VecDeque};

use crate::scene::{Ending, address, begin, config, load, ms, respond, target};
use crate::world::{Plugin, Stream, World};

/// Endpoints, each of which works on one request at a time, in the order of arrival.
const ENDPOINTS: usize = 3;
/// What a request takes.
const WORK_MS: usize = 20;
/// A request comes after so many milliseconds: three endpoints are 83 % busy, two cannot carry it.
const EVERY_MS: usize = 8;

/// What the first endpoint got in each second, of which it fails all requests from the third one on.
fn given_to_the_failing_one<W: World>(world: &mut W, workers: &[Plugin], seconds: usize) -> Vec<usize> {
    let mut queues: BTreeMap<String, VecDeque<(W::Stream, usize)>> = BTreeMap::new();
    let mut given = vec![0; seconds];
    for now in 0..1000 * seconds {
        world.advance(ms(1));
        if now % EVERY_MS == 0 {
            let mut stream = begin(world, workers[now / EVERY_MS % workers.len()]);
            let to = target(&stream);
            let failing = to == address(0);
            given[now / 1000] += usize::from(failing);
            if failing && now >= 2000 {
                respond(&mut stream, &Ending::status("503"));
                stream.log();
                stream.done();
            } else {
                queues.entry(to).or_default().push_back((stream, now + WORK_MS));
            }
        }
        for queue in queues.values_mut() {
            if queue.front().is_some_and(|(_, due)| *due <= now)
                && let Some((mut stream, _)) = queue.pop_front()
            {
                respond(&mut stream, &Ending::good());
                stream.log();
                stream.done();
                if let Some((_, due)) = queue.front_mut() {
                    *due = (*due).max(now + WORK_MS);
                }
            }
        }
        if now % 5 == 0 {
            workers.iter().for_each(|worker| world.tick(*worker));
        }
    }
    given
}

fn what_the_others_cannot_carry_goes_to_the_ejected<W: World>(mut world: W) {
    let json = config(ENDPOINTS, r#""slow_start":"0s""#, "");
    for workers in [1, 2] {
        let workers: Vec<Plugin> = (0..workers)
            .map(|_| {
                let thread = world.thread();
                load(&mut world, thread, &json)
            })
            .collect();
        let given = given_to_the_failing_one(&mut world, &workers, 10);
        // Of 125 a second 25 are too many for the others.
        assert!(given[6..].iter().sum::<usize>() > 4 * 10, "{} workers: {given:?}", workers.len());
    }
}

both!(what_the_others_cannot_carry_goes_to_the_ejected);
