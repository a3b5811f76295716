//! Real parts on 127.0.0.1 for the demo, the benches and the end-to-end tests.
