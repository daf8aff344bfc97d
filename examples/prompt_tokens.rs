//! Where the tokens of a prompt go, and how far the estimate is off, by the tokenizer of a real server.
//!
//! `cargo run --release --example prompt_tokens -- [--server http://127.0.0.1:8080] [--input FILE.jsonl]…`
//!
//! Without a server the split is the estimator's. With one (llama.cpp or vLLM, which both answer `/tokenize`) it is exact;
//! for each input the packs are counted by it, and the estimator's error is shown before and after it has learned from ten
//! requests, as it would from the `usage` of their answers.

use std::sync::{Arc, Mutex};

use clap::Parser;
use slugline::prompt::Prefix;
use slugline::prompt::tokens::{TokenEstimator, estimate};
use slugline::server::{BoxFuture, Request, Response, Transport, TransportError};
use slugline::{Categorizer, EndpointConfig, NewsItem, Taxonomy};

#[derive(Parser)]
#[command(about = "Shows where the tokens of a prompt go, and how far the estimate is off")]
struct Arguments {
    /// The root address of a llama.cpp or vLLM server, without `/v1`.
    #[arg(long)]
    server: Option<String>,
    /// The model's name, which vLLM wants.
    #[arg(long, default_value = "model")]
    model: String,
    /// A taxonomy file.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/categories/newsroom.toml"))]
    taxonomy: String,
    /// Items to count, one JSON object a line; may repeat. Default: the items of the quickstart.
    #[arg(long)]
    input: Vec<String>,
    /// The most packs of each input that are counted.
    #[arg(long, default_value_t = 200)]
    packs: usize,
}

/// Requests from which the estimator learns before its error is taken.
const LEARNED: usize = 10;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    let taxonomy = Taxonomy::load(&arguments.taxonomy)?;
    let counter =
        Counter { server: arguments.server.clone(), model: arguments.model.clone(), http: reqwest::Client::new() };
    let inputs = if arguments.input.is_empty() {
        vec![concat!(env!("CARGO_MANIFEST_DIR"), "/examples/quickstart/items.jsonl").to_owned()]
    } else {
        arguments.input
    };
    split(&taxonomy, &counter).await?;
    for input in &inputs {
        let packs = packs(&taxonomy, input, arguments.packs).await?;
        errors(input, &taxonomy, &packs, &counter).await?;
    }
    Ok(())
}

/// The reference workload: three items of about 150 tokens each.
async fn split(taxonomy: &Taxonomy, counter: &Counter) -> Result<(), Box<dyn std::error::Error>> {
    let prefix = Prefix::new(taxonomy);
    let listing = prefix.text().split_inclusive('\n').filter(|line| line.starts_with("- ")).collect::<String>();
    let sentence =
        "The council approved the plan for the harbour after a long debate, and opponents said its costs are unclear. ";
    let items = (0..3).map(|n| NewsItem::new(n.to_string(), format!("Harbour plan approved {n}"), sentence.repeat(12)));
    let user = caught(taxonomy, items.collect()).await?.pop().unwrap_or_default();

    let (listed, all, framed) =
        (counter.count(&listing).await?, counter.count(prefix.text()).await?, counter.count(&user).await?);
    let by = if counter.server.is_some() { "the server's tokenizer" } else { "the estimator" };
    println!("tokens of the reference prompt, by {by}");
    println!("  taxonomy {:?}, {} categories {listed:>6}", taxonomy.name(), taxonomy.len());
    println!("  instructions and example {:>14}", all - listed);
    println!("  three items in frames {framed:>17}");
    println!("  in all {:>32}", all + framed);
    Ok(())
}

/// The user messages that slugline makes of a file's items.
async fn packs(taxonomy: &Taxonomy, input: &str, most: usize) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let text = std::fs::read_to_string(input)?;
    let items = text.lines().take(3 * most).map(serde_json::from_str).collect::<Result<Vec<NewsItem>, _>>()?;
    caught(taxonomy, items).await
}

/// How far the prediction of whole prompts is off, fresh and after ten requests.
async fn errors(
    input: &str,
    taxonomy: &Taxonomy,
    packs: &[String],
    counter: &Counter,
) -> Result<(), Box<dyn std::error::Error>> {
    if counter.server.is_none() {
        return Ok(());
    }
    let prefix = Prefix::new(taxonomy);
    let estimator = TokenEstimator::default();
    let prefix_tokens = counter.count(prefix.text()).await?;
    let (mut fresh, mut learned, mut items_alone) = (Vec::new(), Vec::new(), Vec::new());
    for (number, user) in packs.iter().enumerate() {
        let items = counter.count(user).await?;
        let truth = (prefix_tokens + items) as f64;
        let error = |guess: usize, truth: f64| (guess as f64 / truth - 1.0).abs();
        fresh.push(error(prefix.tokens() + estimate(user), truth));
        items_alone.push(error(estimate(user), items as f64));
        if number >= LEARNED {
            learned.push(error(estimator.predict(prefix.tokens(), estimate(user)), truth));
        }
        estimator.observe(prefix.tokens(), estimate(user), (prefix_tokens + items) as u64);
    }
    println!("{input}: {} packs; error of the prediction, mean / 95th percentile / worst", packs.len());
    for (name, errors) in [
        ("items alone, uncorrected", items_alone),
        ("whole prompt, uncorrected", fresh),
        ("whole prompt, after ten requests", learned),
    ] {
        println!("  {name:<34} {}", summary(errors));
    }
    Ok(())
}

fn summary(mut errors: Vec<f64>) -> String {
    errors.sort_by(f64::total_cmp);
    let at = |share: f64| errors.get(((errors.len() as f64 * share) as usize).min(errors.len().saturating_sub(1)));
    let percent = |error: Option<&f64>| error.map_or("-".to_owned(), |error| format!("{:.1} %", 100.0 * error));
    let mean = errors.iter().sum::<f64>() / errors.len().max(1) as f64;
    format!("{} / {} / {}", percent(Some(&mean)), percent(at(0.95)), percent(errors.last()))
}

/// The user messages of a run, caught before the network.
async fn caught(taxonomy: &Taxonomy, items: Vec<NewsItem>) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    #[derive(Clone, Debug, Default)]
    struct Catch(Arc<Mutex<Vec<String>>>);

    impl Transport for Catch {
        fn send<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, Result<Response, TransportError>> {
            if let Ok(mut caught) = self.0.lock() {
                caught.push(request.items_text().to_owned());
            }
            let count = request.items_text().matches("<item id=").count();
            let objects: Vec<_> = (1..=count).map(|id| serde_json::json!({"id": id, "category": "other"})).collect();
            let content = serde_json::Value::from(objects).to_string();
            let body = serde_json::json!({"choices": [{"message": {"content": content}}]}).to_string();
            Box::pin(std::future::ready(Ok(Response::new(200, body))))
        }
    }
    let catch = Catch::default();
    let endpoint = EndpointConfig::new("catch").transport(catch.clone());
    let categorizer = Categorizer::builder(taxonomy.clone()).endpoint(endpoint).model("none").build()?;
    categorizer.categorize(items).await;
    let caught = catch.0.lock().map_err(|_| "a transport panicked")?.clone();
    Ok(caught)
}

struct Counter {
    server: Option<String>,
    model: String,
    http: reqwest::Client,
}

impl Counter {
    /// The tokens of a text, by the server's tokenizer if there is one.
    async fn count(&self, text: &str) -> Result<usize, Box<dyn std::error::Error>> {
        let Some(server) = &self.server else { return Ok(estimate(text)) };
        // llama.cpp reads `content`, vLLM reads `model` and `prompt`; each ignores the other's.
        let body =
            serde_json::json!({"content": text, "model": self.model, "prompt": text, "add_special_tokens": false});
        let request = self.http.post(format!("{}/tokenize", server.trim_end_matches('/')));
        let answer = request.header("content-type", "application/json").body(body.to_string()).send().await?;
        let answer: serde_json::Value = serde_json::from_slice(&answer.error_for_status()?.bytes().await?)?;
        let tokens = answer["tokens"].as_array().ok_or("the server's /tokenize gives no tokens")?;
        Ok(tokens.len())
    }
}
