//! The three programs of a cluster. All of them know the function: plans name it, and do not carry it.

use std::sync::Arc;

use ballista::prelude::{SessionConfigExt, SessionContextExt};
use ballista_core::registry::BallistaFunctionRegistry;
use ballista_core::utils::default_session_builder;
use ballista_executor::executor_process::{ExecutorProcessConfig, start_executor_process};
use ballista_scheduler::cluster::BallistaCluster;
use ballista_scheduler::config::SchedulerConfig;
use ballista_scheduler::scheduler_process::start_server;
use clap::Args;
use datafusion::execution::{FunctionRegistry, SessionStateBuilder};
use datafusion::prelude::{SessionConfig, SessionContext};

use crate::asking::Asking;
use crate::categorize::{Categorize, asking_once};
use crate::{Query, Result};

/// How often an executor says that it lives, and how long it may be silent before its work is given to others.
const HEARTBEAT_SECONDS: u64 = 5;
const SILENCE_SECONDS: u64 = 20;

#[derive(Args)]
pub(crate) struct Scheduler {
    /// The address that it listens on.
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    #[arg(long, default_value_t = 50050)]
    port: u16,
    /// The executors that must have come before `/readyz` says yes.
    #[arg(long, default_value_t = 1)]
    executors: usize,
}

#[derive(Args)]
pub(crate) struct Executor {
    /// The address that it listens on, which the scheduler, the client and the other executors must reach.
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// The port for results.
    #[arg(long, default_value_t = 50051)]
    port: u16,
    /// The port for tasks.
    #[arg(long, default_value_t = 50052)]
    task_port: u16,
    #[arg(long, default_value = "127.0.0.1")]
    scheduler_host: String,
    #[arg(long, default_value_t = 50050)]
    scheduler_port: u16,
    /// The folder for results until they are fetched [default: a temporary one].
    #[arg(long)]
    work_dir: Option<String>,
    /// The partitions that are worked on at a time. They share the requests in flight, so two are enough to keep these busy.
    #[arg(long, default_value_t = 2)]
    partitions: usize,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Args)]
pub(crate) struct Client {
    /// The scheduler.
    #[arg(long, default_value = "df://127.0.0.1:50050")]
    scheduler: String,
    /// Into how many partitions the table is cut at most.
    #[arg(long, default_value_t = 16)]
    partitions: usize,
    #[command(flatten)]
    query: Query,
}

impl Scheduler {
    pub(crate) async fn run(self) -> Result<()> {
        let config = SchedulerConfig {
            external_host: self.host.clone(),
            bind_host: self.host.clone(),
            bind_port: self.port,
            min_ready_executors: self.executors,
            executor_timeout_seconds: SILENCE_SECONDS,
            expire_dead_executor_interval_seconds: HEARTBEAT_SECONDS,
            no_executors_grace_period_seconds: SILENCE_SECONDS,
            override_session_builder: Some(Arc::new(|config: SessionConfig| {
                let mut state = default_session_builder(asking_once(config))?;
                state.register_udf(Arc::new(Categorize::declared().into_udf()))?;
                Ok(state)
            })),
            ..SchedulerConfig::default()
        };
        let cluster = BallistaCluster::new_from_config(&config).await?;
        let address = format!("{}:{}", self.host, self.port).parse()?;
        Ok(start_server(cluster, address, Arc::new(config)).await?)
    }
}

impl Executor {
    pub(crate) async fn run(self) -> Result<()> {
        let mut functions = BallistaFunctionRegistry::default();
        let categorize = Categorize::by(self.asking.categorizer()?).into_udf();
        functions.scalar_functions.insert(categorize.name().to_owned(), Arc::new(categorize));
        let config = ExecutorProcessConfig {
            bind_host: self.host.clone(),
            external_host: Some(self.host),
            port: self.port,
            grpc_port: self.task_port,
            scheduler_host: self.scheduler_host,
            scheduler_port: self.scheduler_port,
            scheduler_connect_timeout_seconds: 30,
            vcores: self.partitions,
            work_dir: self.work_dir,
            executor_heartbeat_interval_seconds: HEARTBEAT_SECONDS,
            override_function_registry: Some(Arc::new(functions)),
            ..ExecutorProcessConfig::default()
        };
        Ok(start_executor_process(Arc::new(config)).await?)
    }
}

impl Client {
    pub(crate) async fn run(self) -> Result<()> {
        let config = asking_once(SessionConfig::new_with_ballista()).with_target_partitions(self.partitions);
        let state = SessionStateBuilder::new().with_config(config).with_default_features().build();
        let context = SessionContext::remote_with_state(&self.scheduler, state).await?;
        // After the session is made: making it puts Ballista's own list of functions in place of ours.
        context.register_udf(Categorize::declared().into_udf());
        self.query.run(&context).await
    }
}
