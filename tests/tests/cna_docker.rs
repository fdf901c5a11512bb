//! The example `cna` under its known load, in containers.

use orch_tests::{cna, orch::Kind::Docker};

#[test]
fn containers_do_as_they_were_simulated() {
    cna::agree(Docker, None);
}
