//! Serves a Qwen2 model from a GGUF file to slugline, in pure Rust.

mod chat;
mod engine;
mod grammar;
mod model;
mod server;
#[cfg(test)]
mod tiny;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Serves a chat model at /v1/chat/completions on this machine's loopback address.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// The model: a Qwen2 or Qwen2.5 with its tokenizer, best quantized as Q4_K_M
    #[arg(long, value_name = "FILE.gguf")]
    gguf: PathBuf,

    /// The name that requests give it
    #[arg(long, value_name = "NAME", default_value = "qwen")]
    model: String,

    /// The port; 0 takes a free one
    #[arg(long, value_name = "N", default_value_t = 8090)]
    port: u16,
}

#[tokio::main]
async fn main() -> ExitCode {
    match serve(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("slugline-chat-model: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(args: Args) -> Result<(), Box<dyn std::error::Error>> {
    let engine = engine::Engine::open(&args.gguf)?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", args.port)).await?;
    println!("{} is served at http://{}/v1, until Ctrl-C", args.model, listener.local_addr()?);
    let stopped = async {
        // Without the signal there is only the hard way to stop.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    axum::serve(listener, server::router(&args.model, engine)).with_graceful_shutdown(stopped).await?;
    Ok(())
}
