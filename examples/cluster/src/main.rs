//! slugline as an SQL function of DataFusion, on one machine or on a Ballista cluster. See README.md.

mod asking;
mod categorize;
mod cluster;
mod generate;
mod rows;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};

use crate::asking::Asking;
use crate::categorize::{Categorize, asking_once};
use crate::cluster::{Client, Executor, Scheduler};
use crate::generate::Generate;

/// What is asked when nothing else is said.
const SQL: &str = "SELECT id, c['category'] AS category, c['confidence'] AS confidence, c['error'] AS error \
                   FROM (SELECT *, categorize(title, body) AS c FROM news)";

/// The threads that plan recurse over the query, deeply in a debug build.
const STACK_BYTES: usize = 32 * 1024 * 1024;

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

#[derive(Parser)]
#[command(about = "categorize(title, body) as an SQL function: in one process, or on a Ballista cluster")]
enum Command {
    /// Runs a query in this process, with DataFusion alone.
    Local {
        #[command(flatten)]
        query: Query,
        #[command(flatten)]
        asking: Asking,
    },
    /// Runs a query on the cluster.
    Client(Client),
    /// Hands tasks to executors. It asks no server itself.
    Scheduler(Scheduler),
    /// Runs tasks, and asks the servers.
    Executor(Box<Executor>),
    #[command(flatten)]
    Files(Files),
}

#[derive(Subcommand)]
enum Files {
    /// Writes a folder of Parquet files with invented news items.
    Generate(Generate),
    /// Checks that a result has exactly one row for each item.
    Check {
        /// The Parquet file or folder that was asked about.
        #[arg(long)]
        news: PathBuf,
        /// The Parquet file that the query wrote.
        #[arg(long)]
        result: PathBuf,
    },
}

/// What is asked, and where the answer goes.
#[derive(clap::Args)]
struct Query {
    /// The Parquet file or folder that is the table `news`.
    #[arg(long)]
    news: PathBuf,
    /// The query.
    #[arg(long, default_value = SQL)]
    sql: String,
    /// The Parquet file that the rows are written to.
    #[arg(long)]
    out: PathBuf,
}

fn main() -> Result<()> {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    let command = Command::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(STACK_BYTES).build()?;
    runtime.block_on(async {
        // On a worker, since the main thread has the stack that the system gives it.
        tokio::spawn(run(command)).await?
    })
}

async fn run(command: Command) -> Result<()> {
    match command {
        Command::Local { query, asking } => {
            let context = SessionContext::new_with_config(asking_once(SessionConfig::new()));
            context.register_udf(Categorize::by(asking.categorizer()?).into_udf());
            query.run(&context).await
        }
        Command::Client(client) => client.run().await,
        Command::Scheduler(scheduler) => scheduler.run().await,
        Command::Executor(executor) => executor.run().await,
        Command::Files(Files::Generate(generate)) => generate.run(),
        Command::Files(Files::Check { news, result }) => {
            println!("{}", rows::check(&news, &result).await?);
            Ok(())
        }
    }
}

impl Query {
    /// Runs the query in a session that has the function, and writes the rows.
    async fn run(&self, context: &SessionContext) -> Result<()> {
        let begun = std::time::Instant::now();
        // Executors have a working directory of their own.
        let news = self.news.canonicalize().map_err(|error| format!("{}: {error}", self.news.display()))?;
        context.register_parquet("news", news.to_string_lossy(), ParquetReadOptions::default()).await?;
        let rows = rows::write(context.sql(&self.sql).await?, &self.out).await?;
        println!("{rows} rows in {:.1} s, written to {}", begun.elapsed().as_secs_f64(), self.out.display());
        Ok(())
    }
}
