//! The client's own cost: slugline beside a bare reqwest loop that posts the same bodies to a server that answers at once.
//!
//! `cargo bench --bench overhead`
//!
//! The server is this program once more, as a process of its own, so the CPU time of this process is the client's alone.
//! Items per CPU second are what one core can do. The bare loop only sends bytes and receives bytes; the loop over
//! async-openai, which slugline is built on, also builds the request and reads the answer as raw JSON; slugline also cleans,
//! packs, admits, writes JSON, reads the answers and checks them.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use slugline::server::{BoxFuture, Request, Response, Transport, TransportError};
use slugline::{Categorizer, EndpointConfig, NewsItem, Taxonomy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const ITEMS: usize = 30_000;
const IN_FLIGHT: usize = 25;
/// Of each kind of run the best of so many is taken, since the machine is shared.
const ROUNDS: usize = 3;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // One thread on both sides: what one core can do, without the cost of waking another.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if std::env::args().any(|argument| argument == "--serve") {
        return runtime.block_on(serve());
    }
    let server = Server::start()?;
    println!("{:<12} {:>5} {:>16} {:>16} {:>8}", "client", "pack", "items/CPU s", "items/s", "of bare");
    for pack_size in [1, 3] {
        let bodies = runtime.block_on(bodies(pack_size))?;
        let mut bare = Figures::default();
        let mut client = Figures::default();
        let mut ours = Figures::default();
        for _ in 0..ROUNDS {
            bare = bare.max(measure(|| runtime.block_on(bare_loop(&server.base_url, &bodies)))?);
            client = client.max(measure(|| runtime.block_on(client_loop(&server.base_url, &bodies)))?);
            ours = ours.max(measure(|| runtime.block_on(slugline_run(&server.base_url, pack_size)))?);
        }
        for (name, figures) in [("bare", &bare), ("async-openai", &client), ("slugline", &ours)] {
            let share = figures.items_per_cpu_second / bare.items_per_cpu_second;
            println!(
                "{name:<12} {pack_size:>5} {:>16.0} {:>16.0} {share:>8.2}",
                figures.items_per_cpu_second, figures.items_per_second
            );
        }
    }
    Ok(())
}

#[derive(Clone, Default)]
struct Figures {
    items_per_cpu_second: f64,
    items_per_second: f64,
}

impl Figures {
    fn max(self, other: Self) -> Self {
        if other.items_per_cpu_second > self.items_per_cpu_second { other } else { self }
    }
}

fn measure(
    run: impl FnOnce() -> Result<(), Box<dyn std::error::Error>>,
) -> Result<Figures, Box<dyn std::error::Error>> {
    let (cpu, start) = (cpu_time()?, Instant::now());
    run()?;
    let (cpu, wall) = (cpu_time()?.saturating_sub(cpu), start.elapsed());
    let rate = |time: Duration| ITEMS as f64 / time.as_secs_f64();
    Ok(Figures { items_per_cpu_second: rate(cpu), items_per_second: rate(wall) })
}

/// The CPU time of this process, user and system, from Linux's /proc: in hundredths of a second.
fn cpu_time() -> Result<Duration, Box<dyn std::error::Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).ok_or("no CPU time in /proc");
    Ok(Duration::from_millis((ticks(11)? + ticks(12)?) * 10))
}

fn taxonomy() -> Result<Taxonomy, slugline::TaxonomyError> {
    Taxonomy::load(concat!(env!("CARGO_MANIFEST_DIR"), "/categories/newsroom.toml"))
}

fn items() -> impl Iterator<Item = NewsItem> {
    let body =
        "The council approved the plan after a long debate. Opponents said that the costs are not known. ".repeat(6);
    (0..ITEMS).map(move |n| NewsItem::new(n.to_string(), format!("Story number {n}"), body.as_str()))
}

async fn slugline_run(base_url: &str, pack_size: usize) -> Result<(), Box<dyn std::error::Error>> {
    let categorizer = Categorizer::builder(taxonomy()?)
        .endpoint(base_url)
        .model("stub")
        .pack_size(pack_size)
        .concurrency(IN_FLIGHT)
        .max_concurrency(IN_FLIGHT)
        .build()?;
    let report = categorizer.categorize(items()).await;
    if report.categorized() != ITEMS {
        return Err(format!("{} of {ITEMS} items: {:?}", report.categorized(), report.stats.failures).into());
    }
    Ok(())
}

async fn bare_loop(base_url: &str, bodies: &Arc<Vec<bytes::Bytes>>) -> Result<(), Box<dyn std::error::Error>> {
    let client = reqwest::Client::builder().tcp_nodelay(true).build()?;
    let url = format!("{base_url}/chat/completions");
    let tasks: Vec<_> = (0..IN_FLIGHT)
        .map(|worker| {
            let (client, url, bodies) = (client.clone(), url.clone(), Arc::clone(bodies));
            tokio::spawn(async move {
                for body in bodies.iter().skip(worker).step_by(IN_FLIGHT) {
                    let request = client.post(&url).header("content-type", "application/json").body(body.clone());
                    request.send().await?.error_for_status()?.bytes().await?;
                }
                Ok::<(), reqwest::Error>(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(())
}

/// The same through async-openai: one attempt, a body that is JSON already, an answer that stays JSON.
async fn client_loop(base_url: &str, bodies: &Arc<Vec<bytes::Bytes>>) -> Result<(), Box<dyn std::error::Error>> {
    use async_openai::{Client, config::OpenAIConfig, error::OpenAIError, middleware::ReqwestService};
    use serde_json::value::RawValue;

    let http = reqwest::Client::builder().tcp_nodelay(true).build()?;
    let config = OpenAIConfig::new().with_api_base(base_url).with_api_key("none");
    let client = Client::build(http.clone(), config).with_http_service(ReqwestService::new(http));
    let tasks: Vec<_> = (0..IN_FLIGHT)
        .map(|worker| {
            let (client, bodies) = (client.clone(), Arc::clone(bodies));
            tokio::spawn(async move {
                for body in bodies.iter().skip(worker).step_by(IN_FLIGHT) {
                    let request: &RawValue =
                        serde_json::from_slice(body).map_err(|e| OpenAIError::InvalidArgument(e.to_string()))?;
                    let _answer: Box<RawValue> = client.chat().create_byot(request).await?;
                }
                Ok::<(), OpenAIError>(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(())
}

/// The bodies that slugline sends for these items, caught before the network.
async fn bodies(pack_size: usize) -> Result<Arc<Vec<bytes::Bytes>>, Box<dyn std::error::Error>> {
    #[derive(Clone, Debug, Default)]
    struct Catch(Arc<Mutex<Vec<bytes::Bytes>>>);

    impl Transport for Catch {
        fn send<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, Result<Response, TransportError>> {
            let body = serde_json::to_vec(request).unwrap_or_default();
            let answer = answer_to(&body);
            if let Ok(mut bodies) = self.0.lock() {
                bodies.push(body.into());
            }
            Box::pin(std::future::ready(Ok(Response::new(200, answer))))
        }
    }
    let catch = Catch::default();
    let endpoint = EndpointConfig::new("catch").transport(catch.clone());
    let categorizer =
        Categorizer::builder(taxonomy()?).endpoint(endpoint).model("stub").pack_size(pack_size).build()?;
    categorizer.categorize(items()).await;
    let bodies = catch.0.lock().map_err(|_| "a transport panicked")?.clone();
    Ok(Arc::new(bodies))
}

/// The answer to a request body: the same label for every item in it.
fn answer_to(body: &[u8]) -> String {
    let count = body.windows(9).filter(|window| *window == b"<item id=").count();
    let objects: Vec<_> = (1..=count).map(|id| format!("{{\\\"id\\\":{id},\\\"category\\\":\\\"sport\\\"}}")).collect();
    format!(
        "{{\"id\":\"stub\",\"choices\":[{{\"index\":0,\"message\":{{\"role\":\"assistant\",\"content\":\"[{}]\"}},\
         \"finish_reason\":\"stop\"}}],\"usage\":{{\"prompt_tokens\":1100,\"completion_tokens\":40}}}}",
        objects.join(",")
    )
}

/// The stub as a child process, killed when dropped.
struct Server {
    child: Child,
    base_url: String,
}

impl Server {
    fn start() -> Result<Self, Box<dyn std::error::Error>> {
        let mut child = Command::new(std::env::current_exe()?).arg("--serve").stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no output of the stub")?).read_line(&mut line)?;
        Ok(Self { child, base_url: line.trim().to_owned() })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn serve() -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}/v1", listener.local_addr()?);
    std::io::stdout().flush()?;
    loop {
        let (socket, _) = listener.accept().await?;
        tokio::spawn(async move {
            // An error ends the connection, which is all that a stub has to do about it.
            let _ = answer_all(socket).await;
        });
    }
}

/// Just enough HTTP/1.1 for our own requests: a head, a content length, a body.
async fn answer_all(mut socket: TcpStream) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let mut buffer: Vec<u8> = Vec::with_capacity(64 * 1024);
    loop {
        let (head, length) = loop {
            if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&buffer[..end]).to_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
                break (end + 4, length.unwrap_or(0_usize));
            }
            if socket.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        while buffer.len() < head + length {
            if socket.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        let body = answer_to(&buffer[head..head + length]);
        buffer.drain(..head + length);
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        socket.write_all(answer.as_bytes()).await?;
    }
}
