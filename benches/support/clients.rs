//! The same requests by three clients: a bare reqwest loop, a loop over async-openai, slugline.

use std::sync::{Arc, Mutex};

use async_openai::{Client, config::OpenAIConfig, middleware::ReqwestService};
use bytes::Bytes;
use serde_json::value::RawValue;
use slugline::server::{BoxFuture, Request, Response, Transport, TransportError};
use slugline::{Categorizer, EndpointConfig, NewsItem};

use crate::fixtures::{AtOnce, items, taxonomy};

/// The requests in flight, with each client.
const IN_FLIGHT: usize = 25;

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;
/// A loop that is ready to go: making its client, the items or the bodies is not part of it.
pub(crate) type Run = BoxFuture<'static, Result<()>>;

/// What slugline is asked to do.
#[derive(Clone, Copy)]
pub(crate) struct Pack {
    pub(crate) size: usize,
    /// Whether log-probabilities are asked for, which is slugline's default.
    pub(crate) confidence: bool,
}

/// Only sends bytes and receives bytes.
pub(crate) fn bare(base_url: &str, bodies: &[Bytes]) -> Result<Run> {
    let client = reqwest::Client::builder().tcp_nodelay(true).build()?;
    let url = format!("{base_url}/chat/completions");
    let worker = move |bodies: Vec<Bytes>| {
        let (client, url) = (client.clone(), url.clone());
        async move {
            for body in bodies {
                let request = client.post(&url).header("content-type", "application/json").body(body);
                request.send().await?.error_for_status()?.bytes().await?;
            }
            Ok(())
        }
    };
    Ok(in_workers(bodies, worker))
}

/// The same through async-openai: one attempt, a body that is JSON already, an answer that stays JSON.
pub(crate) fn async_openai(base_url: &str, bodies: &[Bytes]) -> Result<Run> {
    let http = reqwest::Client::builder().tcp_nodelay(true).build()?;
    let config = OpenAIConfig::new().with_api_base(base_url).with_api_key("none");
    let client = Client::build(http.clone(), config).with_http_service(ReqwestService::new(http));
    let requests = bodies.iter().map(|body| serde_json::from_slice(body)).collect::<serde_json::Result<Vec<_>>>()?;
    let worker = move |requests: Vec<Box<RawValue>>| {
        let client = client.clone();
        async move {
            for request in requests {
                let _answer: Box<RawValue> = client.chat().create_byot(request).await?;
            }
            Ok(())
        }
    };
    Ok(in_workers(&requests, worker))
}

/// Also cleans, packs, admits, writes JSON, reads the answers and checks them.
pub(crate) fn slugline(endpoint: EndpointConfig, item_count: usize, pack: Pack) -> Result<Run> {
    let categorizer = categorizer(endpoint, pack)?;
    let items: Vec<NewsItem> = items(item_count).collect();
    Ok(Box::pin(async move {
        let report = categorizer.categorize(items).await;
        if report.categorized() != item_count {
            return Err(format!("{} of {item_count} items: {:?}", report.categorized(), report.stats.failures).into());
        }
        Ok(())
    }))
}

/// The bodies that slugline sends for these items, caught before the network.
pub(crate) async fn bodies(item_count: usize, pack: Pack) -> Result<Vec<Bytes>> {
    #[derive(Clone, Debug)]
    struct Catch {
        server: AtOnce,
        bodies: Arc<Mutex<Vec<Bytes>>>,
    }

    impl Transport for Catch {
        fn send<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, std::result::Result<Response, TransportError>> {
            let body = serde_json::to_vec(request).unwrap_or_default();
            if let Ok(mut bodies) = self.bodies.lock() {
                bodies.push(body.into());
            }
            self.server.send(request)
        }
    }
    let catch = Catch { server: AtOnce::new()?, bodies: Arc::default() };
    let endpoint = EndpointConfig::new("catch").transport(catch.clone());
    categorizer(endpoint, pack)?.categorize(items(item_count)).await;
    let bodies = catch.bodies.lock().map_err(|_| "a transport panicked")?.clone();
    Ok(bodies)
}

fn categorizer(endpoint: EndpointConfig, pack: Pack) -> Result<Categorizer> {
    let builder = Categorizer::builder(taxonomy()?).endpoint(endpoint).model("stub").pack_size(pack.size);
    Ok(builder.confidence(pack.confidence).concurrency(IN_FLIGHT).max_concurrency(IN_FLIGHT).build()?)
}

/// Shares the requests out among as many workers as there may be requests in flight.
pub(crate) fn in_workers<T, F>(requests: &[T], worker: impl Fn(Vec<T>) -> F + Send + 'static) -> Run
where
    T: Clone + Send + 'static,
    F: Future<Output = Result<()>> + Send + 'static,
{
    let share = |number| requests.iter().skip(number).step_by(IN_FLIGHT).cloned().collect();
    let shares: Vec<Vec<T>> = (0..IN_FLIGHT).map(share).collect();
    Box::pin(async move {
        let tasks: Vec<_> = shares.into_iter().map(|share| tokio::spawn(worker(share))).collect();
        for task in tasks {
            task.await??;
        }
        Ok(())
    })
}
