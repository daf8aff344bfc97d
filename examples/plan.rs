//! How many servers a rate takes, whether a model's KV cache fits a GPU, and what a million items cost.
//!
//! ```text
//! cargo run --release --example plan -- --target 100 --per-server 6,7,8                        # from figures
//! cargo run --release --example plan -- --target 100 --sweep load.json --price 0.35            # from a load test
//! cargo run --release --example plan -- --model-config config.json --gpu-gb 16 --weights-gb 5 \
//!     --shared-prefix-tokens 650 --in-flight 10,25,50,100                                      # memory
//! cargo run --release --example plan -- --model-config config.json --vllm-log vllm.log         # the formula checked
//! ```
//!
//! The formulas and their sources are in `slugline::plan`. `--help` explains the flags.

#[path = "support/aligned.rs"]
mod aligned;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use slugline::load::Sweep;
use slugline::plan::{
    Fit, GpuMemory, KvCacheLog, KvDtype, ModelShape, PlanError, ServerRate, Workload, cost_per_million_items, fit,
    servers_needed,
};

use self::aligned::aligned;

/// Plans servers, memory and cost. Each part is printed when its figures are given.
#[derive(Debug, Parser)]
#[command(name = "plan", version)]
struct Args {
    /// The requests per second that are wanted
    #[arg(long, value_name = "R")]
    target: Option<f64>,

    /// What one server gives, in requests per second; several to see the range
    #[arg(long, value_name = "R,R,...", value_delimiter = ',')]
    per_server: Vec<f64>,

    /// What the example load_test wrote with --json: the recommended step is what a server gives
    #[arg(long, value_name = "FILE.json", conflicts_with = "per_server")]
    sweep: Option<PathBuf>,

    /// The share of each server that is left unused
    #[arg(long, value_name = "SHARE", default_value_t = 0.1)]
    headroom: f64,

    /// The items of a request [default: as measured in the sweep, else 3]
    #[arg(long, value_name = "N")]
    items_per_request: Option<f64>,

    /// What a server costs an hour, in any currency
    #[arg(long, value_name = "PRICE")]
    price: Option<f64>,

    /// The model's config.json, as Hugging Face has it
    #[arg(long, value_name = "FILE.json", conflicts_with_all = ["layers", "kv_heads", "head_size"])]
    model_config: Option<PathBuf>,

    /// The model's layers
    #[arg(long, value_name = "N", requires_all = ["kv_heads", "head_size"])]
    layers: Option<u32>,

    /// The heads of keys and values in a layer
    #[arg(long, value_name = "N", requires = "layers")]
    kv_heads: Option<u32>,

    /// The numbers of a head
    #[arg(long, value_name = "N", requires = "layers")]
    head_size: Option<u32>,

    /// The type of the cache's numbers, such as bfloat16 or fp8 [default: the model's, else 16 bits]
    #[arg(long, value_name = "TYPE", value_parser = dtype)]
    kv_dtype: Option<KvDtype>,

    /// The memory of the GPU, in 10⁹ bytes
    #[arg(long, value_name = "GB", requires = "weights_gb")]
    gpu_gb: Option<f64>,

    /// The memory of the model's weights, in 10⁹ bytes
    #[arg(long, value_name = "GB", requires = "gpu_gb")]
    weights_gb: Option<f64>,

    /// What activations, CUDA graphs and the runtime take, in 10⁹ bytes: an allowance, vLLM logs what it measured
    #[arg(long, value_name = "GB", default_value_t = 1.5)]
    overhead_gb: f64,

    /// The prompt tokens of a request
    #[arg(long, value_name = "N", default_value_t = 1_100)]
    prompt_tokens: u64,

    /// The output tokens of a request
    #[arg(long, value_name = "N", default_value_t = 200)]
    output_tokens: u64,

    /// The tokens at the start of the prompt that all requests share
    #[arg(long, value_name = "N", default_value_t = 650)]
    shared_prefix_tokens: u64,

    /// The tokens of a block of the cache: 16 with vLLM on a GPU
    #[arg(long, value_name = "N", default_value_t = 16)]
    block_tokens: u64,

    /// The requests in flight at the server
    #[arg(long, value_name = "N,N,...", value_delimiter = ',', default_value = "10,25,50,100")]
    in_flight: Vec<u64>,

    /// The log of vLLM's start, to check the formula against
    #[arg(long, value_name = "FILE.log")]
    vllm_log: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(parts) if parts.is_empty() => {
            eprintln!("error: nothing to plan: --target, --model-config or --layers begin a part (try --help)");
            ExitCode::FAILURE
        }
        Ok(parts) => {
            print!("{}", parts.join("\n"));
            ExitCode::SUCCESS
        }
        Err(reason) => {
            eprintln!("error: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<Vec<String>, String> {
    let mut parts = Vec::new();
    if let Some(target) = args.target {
        parts.push(servers(args, target)?);
    }
    if let Some(shape) = shape(args)? {
        parts.push(memory(args, &shape).map_err(|error| error.to_string())?);
        if let Some(path) = &args.vllm_log {
            parts.push(check(args, &shape, path)?);
        }
    }
    Ok(parts)
}

/// The servers that the target takes, and what they cost.
fn servers(args: &Args, target: f64) -> Result<String, String> {
    let sweep = args.sweep.as_deref().map(read_sweep).transpose()?;
    let mut rates = args
        .per_server
        .iter()
        .map(|rate| ServerRate::new(*rate))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| error.to_string())?;
    let mut items_per_request = args.items_per_request.unwrap_or(3.0);
    let mut out = String::new();
    if let Some(sweep) = &sweep {
        let none = || format!("the sweep recommends no step: {}", sweep.advice.reason);
        rates.push(ServerRate::measured(sweep).ok_or_else(none)?);
        let step = sweep.recommended().ok_or_else(none)?;
        if args.items_per_request.is_none() && step.answered > 0 {
            items_per_request = step.valid_items as f64 / step.answered as f64;
        }
        out += &format!("measured: {}\n\n", sweep.advice.reason);
    }
    if rates.is_empty() {
        return Err("--target needs --per-server or --sweep".to_owned());
    }
    let head = ["a server gives", "servers", "with headroom", "and one spare", "items/s", "per million items"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for rate in rates {
        let servers = servers_needed(target, rate, args.headroom).map_err(|error| error.to_string())?;
        let items_per_second = target * items_per_request;
        let cost = match args.price {
            None => "-".to_owned(),
            Some(price) => {
                let cost = cost_per_million_items(price, servers.with_headroom, items_per_second)
                    .map_err(|error| error.to_string())?;
                format!("{cost:.2}")
            }
        };
        rows.push(vec![
            format!("{:.2} requests/s", rate.requests_per_second()),
            servers.least.to_string(),
            servers.with_headroom.to_string(),
            servers.with_spare.to_string(),
            format!("{items_per_second:.0}"),
            cost,
        ]);
    }
    let headroom = 100.0 * args.headroom;
    out += &format!("servers for {target} requests/s, with {headroom:.0} % headroom\n{}", aligned(&rows));
    Ok(out)
}

fn read_sweep(path: &Path) -> Result<Sweep, String> {
    Sweep::from_json(&read(path)?).map_err(|error| format!("{}: {error}", path.display()))
}

fn shape(args: &Args) -> Result<Option<ModelShape>, String> {
    if let Some(path) = &args.model_config {
        return ModelShape::from_config_json(&read(path)?, args.kv_dtype).map(Some).map_err(|error| error.to_string());
    }
    let (Some(layers), Some(kv_heads), Some(head_size)) = (args.layers, args.kv_heads, args.head_size) else {
        return Ok(None);
    };
    let dtype = args.kv_dtype.unwrap_or(KvDtype::Bits16);
    ModelShape::new(layers, kv_heads, head_size, dtype).map(Some).map_err(|error| error.to_string())
}

/// What the cache takes, and where the GPU is known, whether it fits.
fn memory(args: &Args, shape: &ModelShape) -> Result<String, PlanError> {
    let workload = Workload::new(args.prompt_tokens, args.output_tokens)?
        .shared_prefix(args.shared_prefix_tokens)
        .block_tokens(args.block_tokens)?;
    let gpu = match (args.gpu_gb, args.weights_gb) {
        (Some(total), Some(weights)) => {
            Some(GpuMemory::new(bytes(total), bytes(weights))?.overhead(bytes(args.overhead_gb)))
        }
        _ => None,
    };
    let mut out = format!(
        "KV cache of requests of {} + {} tokens, the first {} shared: {} bytes a token\n",
        args.prompt_tokens,
        args.output_tokens,
        args.shared_prefix_tokens.min(args.prompt_tokens),
        shape.bytes_per_token()
    );
    // Without a GPU one of any size serves for the sums alone.
    let any = GpuMemory::new(2, 1)?;
    let fits: Vec<Fit> =
        args.in_flight.iter().map(|requests| fit(shape, &workload, gpu.as_ref().unwrap_or(&any), *requests)).collect();
    if let Some(first) = fits.first() {
        out += &format!("a request alone {}\n", megabytes(first.request_bytes));
        if gpu.is_some() {
            out += &format!(
                "the GPU has {} for the cache at 0.95 of its memory: at most {} requests\n",
                megabytes(first.most_bytes),
                first.most_requests
            );
        }
    }
    let head = ["in flight", "nothing shared", "prefix once", "fits", "--max-num-seqs", "--gpu-memory-utilization"];
    let mut rows = vec![head[..if gpu.is_some() { 6 } else { 3 }].iter().map(ToString::to_string).collect::<Vec<_>>()];
    for fit in &fits {
        let mut row = vec![fit.requests.to_string(), megabytes(fit.bytes_without_sharing), megabytes(fit.bytes)];
        if gpu.is_some() {
            let dash = || "-".to_owned();
            row.push(if fit.fits() { "yes" } else { "no" }.to_owned());
            row.push(fit.max_num_seqs.map_or_else(dash, |seqs| seqs.to_string()));
            row.push(fit.gpu_memory_utilization.map_or_else(dash, |share| format!("{share:.2} or more")));
        }
        rows.push(row);
    }
    Ok(out + &aligned(&rows))
}

/// The formula beside what vLLM logged.
fn check(args: &Args, shape: &ModelShape, path: &Path) -> Result<String, String> {
    let log = KvCacheLog::parse(&read(path)?).map_err(|error| error.to_string())?;
    let expected = log.expected_tokens(shape, args.block_tokens);
    let expected =
        expected.map_or_else(|| "unknown, since the log has no memory".to_owned(), |tokens| tokens.to_string());
    Ok(format!(
        "vLLM logged a cache of {} tokens; by the formula, in blocks of {}: {expected}\n",
        log.tokens, args.block_tokens
    ))
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

fn bytes(gigabytes: f64) -> u64 {
    (gigabytes * 1e9) as u64
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn dtype(name: &str) -> Result<KvDtype, String> {
    KvDtype::from_name(name).ok_or_else(|| "not known: float16, bfloat16, float32 or fp8".to_owned())
}
