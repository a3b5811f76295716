//! A new configuration: its worker takes over what the one before it has learnt.

use super::Worker;
use crate::host::Host;
use crate::sharing::snapshot::Snapshot;
use engine::time::Time;

impl Worker {
    /// Takes over what the worker of an older configuration has learnt.
    #[inline(never)]
    pub fn take_over(&mut self, host: &dyn Host, old: &mut Worker, now: Time) {
        // A configuration for other clusters asks under other keys, where there is no answer yet.
        let known = self.discovery.take_over(&old.discovery);
        self.rebuild_endpoints(host, &known, now);
        self.engine.take_over(&mut old.engine, now);
        if self.snapshot == Snapshot::default() {
            self.snapshot = old.snapshot.clone();
            self.snapshot.retain(&self.engine);
            self.snapshot.apply(&mut self.engine);
        }
        self.guarding.take_over(&old.guarding);
        // Requests that come before the first tick are not steered either where the guard has stepped aside.
        self.obey_guards(now);
        self.membership.shard_before = Some((old.membership.shard, now));
    }
}
