//! How often the client allocates, for each request and each item.
//!
//! `cargo bench --bench allocations`
//!
//! The counts are those of a run of 2,000 requests less those of one of 1,000, so what is made once for a run does not
//! count. `in memory` is slugline over a transport that answers without sockets: what it adds around the HTTP client.
//! Log-probabilities are asked for in the row that says so alone.

#[path = "support/clients.rs"]
mod clients;
#[path = "support/fixtures.rs"]
mod fixtures;
#[path = "support/server.rs"]
mod server;

use std::alloc::System;

use slugline::EndpointConfig;
use slugline::testing::entry;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, Stats, StatsAlloc};

use self::clients::{Pack, Result, Run};
use self::fixtures::AtOnce;
use self::server::Server;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const REQUESTS: usize = 1_000;

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if server::is_wanted() {
        return Ok(runtime.block_on(server::serve())?);
    }
    let server = Server::start()?;
    println!(
        "{:<14} {:>5} {:>15} {:>12} {:>14} {:>12}",
        "what", "pack", "allocs/request", "allocs/item", "bytes/request", "bytes/item"
    );
    let at_once = AtOnce::new()?;
    for pack_size in [1, 3] {
        let items = REQUESTS * pack_size;
        let pack = Pack { size: pack_size, confidence: false };
        let bodies = runtime.block_on(clients::bodies(2 * items, pack))?;
        let url = server.base_url.as_str();
        let in_memory = || EndpointConfig::new("memory").transport(at_once.clone());
        let with_logprobs = Pack { confidence: true, ..pack };
        let runs: [(&str, &dyn Fn(usize) -> Result<Run>); 5] = [
            ("bare", &|requests| clients::bare(url, &bodies[..requests])),
            ("async-openai", &|requests| clients::async_openai(url, &bodies[..requests])),
            ("slugline", &|requests| clients::slugline(url.into(), requests * pack_size, pack)),
            ("in memory", &|requests| clients::slugline(in_memory(), requests * pack_size, pack)),
            ("  and logprobs", &|requests| clients::slugline(in_memory(), requests * pack_size, with_logprobs)),
        ];
        for (name, run) in runs {
            let count = |requests| {
                let run = run(requests)?;
                counted(|| runtime.block_on(run))
            };
            print(name, pack_size, count(2 * REQUESTS)? - count(REQUESTS)?);
        }

        let taxonomy = fixtures::taxonomy()?;
        let (news, body) = (fixtures::items(items).collect::<Vec<_>>(), fixtures::response_body(pack_size));
        let cleaning = counted(|| {
            let _tokens = news.iter().filter_map(|item| entry::clean_item(item, 150)).sum::<usize>();
            Ok(())
        })?;
        print("  cleaning", pack_size, cleaning);
        let reading = counted(|| {
            (0..REQUESTS).for_each(|_| drop(entry::read_response(200, &body, pack_size, &taxonomy)));
            Ok(())
        })?;
        print("  reading", pack_size, reading);
    }
    Ok(())
}

fn counted(run: impl FnOnce() -> Result<()>) -> Result<Stats> {
    let region = Region::new(ALLOCATOR);
    run()?;
    Ok(region.change())
}

fn print(what: &str, pack_size: usize, stats: Stats) {
    let per_request = |count: usize| count as f64 / REQUESTS as f64;
    let count = per_request(stats.allocations + stats.reallocations);
    let bytes = per_request(stats.bytes_allocated);
    let pack = pack_size as f64;
    println!("{what:<14} {pack_size:>5} {count:>15.1} {:>12.1} {bytes:>14.0} {:>12.0}", count / pack, bytes / pack);
}
