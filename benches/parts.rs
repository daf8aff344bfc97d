//! What each part of the client costs, from the prefix to the whole loop over a transport in memory.
//!
//! `cargo bench --bench parts`, or with `-- response` after it for the parts with that word in their names.

#[path = "support/fixtures.rs"]
mod fixtures;

use std::hint::black_box;
use std::sync::{Arc, Mutex};

use criterion::{BatchSize, Criterion, Throughput};
use slugline::prompt::Prefix;
use slugline::server::{BoxFuture, Request, Response, Transport, TransportError};
use slugline::testing::entry;
use slugline::{Categorizer, EndpointConfig, NewsItem, Taxonomy};

use self::fixtures::{AtOnce, answer_text, items, response_body, response_with_logprobs, taxonomy};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let mut criterion = Criterion::default().configure_from_args();
    let taxonomy = taxonomy()?;
    criterion.bench_function("prefix", |bencher| bencher.iter(|| Prefix::new(black_box(&taxonomy))));
    cleaning(&mut criterion);
    packing(&mut criterion);
    requests(&mut criterion, &taxonomy)?;
    answers(&mut criterion, &taxonomy);
    responses(&mut criterion, &taxonomy);
    runs(&mut criterion, &taxonomy)?;
    criterion.final_summary();
    Ok(())
}

/// One item: clean text of an agency, and the HTML of a feed.
fn cleaning(criterion: &mut Criterion) {
    let html =
        "<p>The council&rsquo;s plan was <b>approved</b> after a <a href=\"https://news.example/1\">long debate</a>. \
                Opponents said that &ldquo;the costs&rdquo; are not known.</p>\n"
            .repeat(6);
    let items = items(1).chain([NewsItem::new("html", "Council approves &amp; moves on", html)]);
    for (name, item) in ["clean/plain", "clean/html"].into_iter().zip(items) {
        criterion.bench_function(name, |bencher| bencher.iter(|| entry::clean_item(black_box(&item), 150)));
    }
}

/// A thousand items of mixed lengths.
fn packing(criterion: &mut Criterion) {
    let tokens: Vec<usize> = (0..1_000).map(|n| 40 + n * 7_919 % 110).collect();
    let mut group = criterion.benchmark_group("pack");
    group.throughput(Throughput::Elements(1_000));
    for pack_size in [1, 3, 8] {
        group.bench_function(pack_size.to_string(), |bencher| {
            bencher.iter(|| entry::pack(black_box(&tokens), pack_size, 3_000));
        });
    }
    group.finish();
}

/// The JSON of a request.
fn requests(criterion: &mut Criterion, taxonomy: &Taxonomy) -> Result<()> {
    #[derive(Clone, Debug)]
    struct Catch(AtOnce, Arc<Mutex<Option<Request>>>);

    impl Transport for Catch {
        fn send<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, std::result::Result<Response, TransportError>> {
            if let Ok(mut caught) = self.1.lock() {
                *caught = Some(request.clone());
            }
            self.0.send(request)
        }
    }
    for pack_size in [1, 3] {
        let catch = Catch(AtOnce::new()?, Arc::default());
        block_on(categorizer(taxonomy, catch.clone(), pack_size, true)?.categorize(items(pack_size)))?;
        let request = catch.1.lock().map_err(|_| "a transport panicked")?.take().ok_or("no request was sent")?;
        criterion.bench_function(&format!("request/{pack_size}"), |bencher| {
            bencher.iter(|| serde_json::to_vec(black_box(&request)));
        });
    }
    Ok(())
}

/// The text of an answer for three items, read and checked.
fn answers(criterion: &mut Criterion, taxonomy: &Taxonomy) {
    let strict = answer_text(3);
    let fenced = format!("Here are the categories:\n```json\n{strict}\n```\n");
    let cut = &strict[..strict.len() - 12];
    for (name, text, was_cut) in
        [("answer/strict", strict.as_str(), false), ("answer/salvaged", &fenced, false), ("answer/cut", cut, true)]
    {
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| entry::read_answer(black_box(text), 3, was_cut, taxonomy));
        });
    }
}

/// A whole response for three items, without and with 20 log-probabilities for each token.
fn responses(criterion: &mut Criterion, taxonomy: &Taxonomy) {
    let with_logprobs = response_with_logprobs(3, taxonomy);
    for (name, body) in [("response/plain", response_body(3)), ("response/logprobs", with_logprobs)] {
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| entry::read_response(200, black_box(&body), 3, taxonomy));
        });
    }
}

/// Three hundred items through the whole loop, without sockets.
fn runs(criterion: &mut Criterion, taxonomy: &Taxonomy) -> Result<()> {
    let items: Vec<_> = items(300).collect();
    let mut group = criterion.benchmark_group("run");
    group.throughput(Throughput::Elements(300));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for (name, pack_size, confidence) in [("1", 1, false), ("3", 3, false), ("3 with logprobs", 3, true)] {
        let categorizer = categorizer(taxonomy, AtOnce::new()?, pack_size, confidence)?;
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || items.clone(),
                |items| runtime.block_on(categorizer.categorize(items)).categorized(),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
    Ok(())
}

fn categorizer(
    taxonomy: &Taxonomy,
    transport: impl Transport + 'static,
    pack_size: usize,
    confidence: bool,
) -> Result<Categorizer> {
    let endpoint = EndpointConfig::new("memory").transport(transport);
    let builder = Categorizer::builder(taxonomy.clone()).endpoint(endpoint).model("stub").pack_size(pack_size);
    Ok(builder.confidence(confidence).concurrency(25).max_concurrency(25).build()?)
}

fn block_on<T>(future: impl Future<Output = T>) -> Result<T> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future))
}
