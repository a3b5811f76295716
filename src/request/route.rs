//! Which upstream a request belongs to: by its route when it comes, and by its route when it is answered. Filters behind
//! this one can change it in between, and then the decision was for another cluster, or there was none.

use crate::host::StreamHost;
use crate::worker::Worker;
use engine::Balancer;

/// So many requests in a row are looked at again when they are answered before only one in [`ONE_IN`] is: a look at the
/// route costs a trip to the host. One that is found starts this anew.
const LOOKS: u32 = 64;
const ONE_IN: u32 = 16;

/// Which requests without a decision are looked at again.
#[derive(Debug)]
pub(crate) struct Looks {
    left: u32,
    passed_over: u32,
}

impl Default for Looks {
    fn default() -> Looks {
        Looks { left: LOOKS, passed_over: 0 }
    }
}

impl Looks {
    fn at_this_one(&mut self) -> bool {
        if self.left > 0 {
            self.left -= 1;
            return true;
        }
        self.passed_over = (self.passed_over + 1) % ONE_IN;
        self.passed_over == 0
    }

    fn found(&mut self) {
        self.left = LOOKS;
    }
}

/// The upstream that balances the route's cluster. The name costs a trip to the host, so it is not asked for
/// where one entry balances all.
pub(crate) fn of(worker: &mut Worker, host: &dyn StreamHost) -> Option<usize> {
    worker.engine.route_any().or_else(|| {
        let cluster = host.cluster()?;
        let cluster = core::str::from_utf8(&cluster).ok()?;
        let upstream = worker.engine.route(cluster);
        if upstream.is_none() && !cluster.is_empty() {
            worker.engine.pass_by();
            worker.clusters.meet(cluster, worker.engine.expects(cluster));
        }
        upstream
    })
}

/// The upstream that balances the cluster of the route as it is now.
pub(crate) fn by_cluster(engine: &Balancer, host: &dyn StreamHost) -> Option<usize> {
    let cluster = host.cluster()?;
    engine.route(core::str::from_utf8(&cluster).ok()?)
}

/// A request without a decision is answered: counts it where its route has become one of ours.
pub(crate) fn look_again(worker: &mut Worker, host: &dyn StreamHost) {
    if worker.looks.at_this_one()
        && let Some(upstream) = by_cluster(&worker.engine, host)
    {
        worker.looks.found();
        worker.engine.rerouted(upstream);
    }
}
