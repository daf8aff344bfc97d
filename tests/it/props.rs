//! What the property tests share.

use std::future::Future;

use proptest::test_runner::Config;

/// Runs a future to its end in virtual time.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(future)
}

/// So many cases, or as many as `PROPTEST_CASES` in the environment says.
pub(crate) fn cases(cases: u32) -> Config {
    let config = Config::default();
    let is_set = std::env::var_os("PROPTEST_CASES").is_some();
    // A failing case is printed, shrunk; it belongs in a test of its own, not in a file of seeds.
    Config { cases: if is_set { config.cases } else { cases }, failure_persistence: None, ..config }
}
