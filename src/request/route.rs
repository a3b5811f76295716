//! The upstream that a request belongs to, by its route: when it arrives, and again when it is answered. Filters behind
//! this one can change the route in between; then the decision was made for another cluster, or not at all.

use crate::host::StreamHost;
use crate::worker::Worker;
use engine::Balancer;

/// Number of consecutive requests whose route is looked up again at their response, before only one in [`ONE_IN`] is. A
/// changed route restarts the count.
const ROUTES_IN_A_ROW: u32 = 64;
/// Number of good answers in a row whose details are read once a local reply has been found that looked good: a dead
/// endpoint that is tried again must not look well meanwhile.
const ANSWERS_IN_A_ROW: u32 = 1 << 16;
/// Between the looks there are at least half as many requests as on average: how many varies, because policies take turns.
const ONE_IN: u32 = 16;

/// Selects requests for a look that costs a host call and rarely shows anything: each of a number of requests in a row,
/// then one in [`ONE_IN`] until it shows something.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sampler {
    left: u32,
    again: u32,
    pass_over: u32,
    varied: u32,
}

impl Sampler {
    /// For requests without a decision, whose route may have changed.
    pub fn at_routes() -> Sampler {
        Sampler { left: ROUTES_IN_A_ROW, again: ROUTES_IN_A_ROW, pass_over: ONE_IN, varied: 0 }
    }

    /// For answers that look good, and may be local replies of Envoy under another status.
    pub fn at_good_answers() -> Sampler {
        Sampler { left: 0, again: ANSWERS_IN_A_ROW, pass_over: ONE_IN, varied: 0 }
    }

    pub(crate) fn takes_this_one(&mut self) -> bool {
        if self.left > 0 {
            self.left -= 1;
            return true;
        }
        self.pass_over -= 1;
        if self.pass_over > 0 {
            return false;
        }
        // A linear congruential generator; its upper bits vary well.
        self.varied = self.varied.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.pass_over = ONE_IN / 2 + (self.varied >> 16) % ONE_IN;
        true
    }

    pub(crate) fn found(&mut self) {
        self.left = self.again;
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
            let expected = worker.engine.expects(cluster);
            // Requests to clusters that are not balanced, such as a load balancer's checks, end no rest.
            worker.activity.busy |= expected;
            worker.clusters.meet(cluster, expected);
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
    if worker.route_sampler.takes_this_one()
        && let Some(upstream) = by_cluster(&worker.engine, host)
    {
        worker.route_sampler.found();
        worker.engine.rerouted(upstream);
    }
}
