//! The upstream that a request belongs to, by its route: when it arrives, and again when it is answered. Filters behind
//! this one can change the route in between; then the decision was made for another cluster, or not at all.

use crate::host::StreamHost;
use crate::worker::Worker;
use engine::Balancer;

/// Number of consecutive requests whose route is looked up again at their response, before only one in [`ONE_IN`] is:
/// the lookup costs a host call. A changed route restarts the count.
const LOOKS: u32 = 64;
const ONE_IN: u32 = 16;

/// Selects the requests without a decision whose route is looked up again.
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

/// The index of the upstream that balances the route's cluster. The cluster's name costs a host call, so it is not read
/// if one upstream balances all clusters.
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

/// The index of the upstream that balances the cluster of the current route.
pub(crate) fn by_cluster(engine: &Balancer, host: &dyn StreamHost) -> Option<usize> {
    let cluster = host.cluster()?;
    engine.route(core::str::from_utf8(&cluster).ok()?)
}

/// For a request without a decision that is answered: counts it if its route has changed to one of the upstreams.
pub(crate) fn look_again(worker: &mut Worker, host: &dyn StreamHost) {
    if worker.looks.at_this_one()
        && let Some(upstream) = by_cluster(&worker.engine, host)
    {
        worker.looks.found();
        worker.engine.rerouted(upstream);
    }
}
