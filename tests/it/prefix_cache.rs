//! The proof of the prefix: what is reported of an endpoint's cache, and which reason is found when it falls short. Against
//! the simulated server, whose tokens are not those of any model.

use slugline::server::{CacheSource, PrefixCacheSnapshot, PrefixVerdict};
use slugline::testing::{Faults, Latency, SimulatedEngine, SimulatedServer, SimulatedServerBuilder};
use slugline::{Categorizer, CategorizerBuilder, EndpointConfig, NewsItem, Report};

use crate::categories::shipped;
use crate::spans::Listener;

fn engine(builder: impl FnOnce(SimulatedServerBuilder) -> SimulatedServerBuilder) -> SimulatedEngine {
    builder(SimulatedServer::builder().latency(Latency::reference())).engine()
}

/// A categorizer with the shipped newsroom taxonomy over these servers.
fn newsroom(servers: &[&SimulatedEngine]) -> CategorizerBuilder {
    let builder = Categorizer::builder(shipped()["newsroom"].clone()).model("simulated").seed(1);
    servers.iter().enumerate().fold(builder, |builder, (number, server)| {
        builder.endpoint(EndpointConfig::new(format!("http://{number}")).transport((*server).clone()))
    })
}

/// Items of different lengths that share no words at their start.
fn different_items(count: usize) -> Vec<NewsItem> {
    let item = |n: usize| {
        let body = format!("Report {n} of the council on its plans. ").repeat(1 + n % 7);
        NewsItem::new(format!("item-{n}"), format!("{} story", 7_919 * (n + 1)), body)
    };
    (0..count).map(item).collect()
}

async fn run(server: &SimulatedEngine, count: usize) -> PrefixCacheSnapshot {
    let report = newsroom(&[server]).build().unwrap().categorize(different_items(count)).await;
    cache_of(&report, count)
}

fn cache_of(report: &Report, count: usize) -> PrefixCacheSnapshot {
    assert_eq!(report.categorized(), count, "{:?}", report.stats);
    let cache = report.stats.endpoints[0].prefix_cache.clone();
    println!("{}", serde_json::to_string(&cache).unwrap());
    assert_eq!(cache.answers, report.stats.answered);
    cache
}

#[tokio::test(start_paused = true)]
async fn the_prefix_is_cached_at_each_endpoint_after_its_first_request() {
    let servers = [engine(|it| it), engine(|it| it)];
    let report = newsroom(&[&servers[0], &servers[1]]).build().unwrap().categorize(different_items(300)).await;
    assert_eq!(report.categorized(), 300);
    for (endpoint, server) in report.stats.endpoints.iter().zip(&servers) {
        let cache = &endpoint.prefix_cache;
        println!("{}", serde_json::to_string(cache).unwrap());
        assert!(cache.answers > 20, "{cache:?}");
        assert_eq!((cache.source, cache.block_tokens), (Some(CacheSource::Usage), Some(16)));
        assert!(cache.cached_share.unwrap() > 0.97 && cache.expected_share.unwrap() > 0.97, "{cache:?}");
        assert_eq!((cache.verdict, &cache.advice), (Some(PrefixVerdict::Fine), &None));
        // The server's own count agrees: it computed the prefix once, all else are the items'.
        let counts = server.counts();
        let cached_an_answer = counts.cached_tokens / (cache.answers - 1);
        assert!(cached_an_answer.abs_diff(cache.prefix_tokens) < 40, "{cached_an_answer} of {cache:?}");
        assert_eq!(counts.requests["/metrics"], 1);
    }
}

#[tokio::test(start_paused = true)]
async fn blocks_that_are_larger_are_expected_to_hold_less() {
    let cache = run(&engine(|it| it.prefix_cache(144, 65_536)), 90).await;
    assert_eq!(cache.block_tokens, Some(144));
    let (expected, cached) = (cache.expected_share.unwrap(), cache.cached_share.unwrap());
    assert!((expected - cached).abs() < 0.03 && expected < 0.95, "{cache:?}");

    let cache = run(&engine(|it| it.prefix_cache(528, 65_536)), 90).await;
    assert_eq!(cache.verdict, Some(PrefixVerdict::CoarseBlocks { block_tokens: 528 }));
    assert!(cache.advice.unwrap().contains("--block-size"));
    // The same without metrics: told from the counts.
    let cache = run(&engine(|it| it.prefix_cache(528, 65_536).metrics(false)), 90).await;
    assert!(matches!(cache.verdict, Some(PrefixVerdict::CoarseBlocks { .. })), "{cache:?}");
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_is_off_is_told_from_one_that_says_nothing() {
    let off = run(&engine(|it| it.prefix_cache(16, 0)), 60).await;
    assert_eq!((off.verdict, off.cached_share), (Some(PrefixVerdict::Disabled), Some(0.0)));
    assert!(off.advice.unwrap().contains("--enable-prefix-caching"));

    let silent = |it: SimulatedServerBuilder| it.faults(Faults::none().without_cached_tokens());
    let unknown = run(&engine(|it| silent(it).metrics(false)), 60).await;
    assert_eq!((unknown.verdict, unknown.cached_share), (Some(PrefixVerdict::NotReported), None));
    assert!(unknown.advice.unwrap().contains("--enable-prompt-tokens-details"));

    let counted = run(&engine(silent), 240).await;
    assert_eq!((counted.source, counted.verdict), (Some(CacheSource::Metrics), Some(PrefixVerdict::Fine)));
    assert!(counted.cached_share.unwrap() > 0.95, "{counted:?}");
}

#[tokio::test(start_paused = true)]
async fn a_prefix_below_the_minimum_of_a_provider_is_too_short() {
    let provider = |it: SimulatedServerBuilder| it.prefix_cache(128, 65_536).least_cached_tokens(1_024).metrics(false);
    let cache = run(&engine(provider), 60).await;
    assert_eq!((cache.verdict, cache.cached_share), (Some(PrefixVerdict::TooShort), Some(0.0)));
    assert!(cache.advice.unwrap().contains("1024"));
}

#[tokio::test(start_paused = true)]
async fn slots_compute_the_prefix_once_each() {
    let server = engine(|it| it.slot_cache(true).max_num_seqs(4).metrics(false));
    let categorizer = newsroom(&[&server]).build().unwrap();
    let report = categorizer.categorize(different_items(27)).await;
    let cache = cache_of(&report, 27);
    assert_eq!(cache.verdict, Some(PrefixVerdict::SlotCache));
    assert!(cache.advice.unwrap().contains("--parallel"));
    let report = categorizer.categorize(different_items(240)).await;
    assert_eq!(report.stats.endpoints[0].prefix_cache.verdict, Some(PrefixVerdict::Fine), "each slot has it now");
}

#[tokio::test(start_paused = true)]
async fn a_template_that_writes_the_time_is_found_out() {
    let cache = run(&engine(|it| it.stamped_template(true)), 60).await;
    assert_eq!((cache.verdict, cache.cached_share), (Some(PrefixVerdict::Unstable), Some(0.0)));
    assert!(cache.advice.unwrap().contains("chat template"));
}

#[tokio::test(start_paused = true)]
async fn a_prefix_that_is_evicted_is_missed() {
    let server = engine(|it| it);
    let categorizer = newsroom(&[&server]).build().unwrap();
    let report = categorizer.categorize(different_items(90)).await;
    assert_eq!(cache_of(&report, 90).verdict, Some(PrefixVerdict::Fine));
    server.set_faults(Faults::none().lose_cache_every(2));
    let report = categorizer.categorize(different_items(120)).await;
    let cache = &report.stats.endpoints[0].prefix_cache;
    assert_eq!(cache.verdict, Some(PrefixVerdict::Evicted), "{cache:?}");
}

#[tokio::test(start_paused = true)]
async fn the_log_has_one_warning_for_an_endpoint() {
    let listener = Listener::default();
    let _listening = crate::support::listen(listener.clone()).await;
    run(&engine(|it| it), 60).await;
    let warnings = || listener.said().matches("the prefix is not cached as it could be").count();
    assert_eq!(warnings(), 0);
    run(&engine(|it| it.prefix_cache(16, 0)), 300).await;
    assert_eq!(warnings(), 1);
}
