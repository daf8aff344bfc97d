//! Which servers are asked, and this process's share of what may be asked of them.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use slugline::{Categorizer, Ledger, Taxonomy};

use crate::Result;

/// The most requests in flight that a categorizer begins with; from there it adapts.
const FIRST_CONCURRENCY: usize = 10;

/// The flags of every process that asks.
#[derive(Args)]
pub(crate) struct Asking {
    /// A model server, such as http://localhost:8000/v1; may be given several times.
    #[arg(long = "endpoint", required = true)]
    endpoints: Vec<String>,
    /// The model's name.
    #[arg(long)]
    model: String,
    /// The taxonomy, a TOML file.
    #[arg(long)]
    taxonomy: PathBuf,
    /// The most items that share a request, 1 to 16.
    #[arg(long, default_value_t = 3)]
    pack_size: usize,
    /// The seconds that one attempt may take.
    #[arg(long, default_value_t = 10)]
    timeout: u64,
    /// The file that keeps the answers. One process at a time can have it.
    #[arg(long)]
    ledger: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) quota: Quota,
}

/// What all processes together may ask of each server.
#[derive(Args, Clone, Copy)]
pub(crate) struct Quota {
    /// The most requests in flight at each server, of all executors together.
    #[arg(long, default_value = "25")]
    concurrency: NonZeroUsize,
    /// The most requests per minute to each server, of all executors together [default: no limit].
    #[arg(long)]
    requests_per_minute: Option<NonZeroU32>,
    /// How many executors there are. Each takes an equal share.
    #[arg(long, default_value = "1")]
    executors: NonZeroU32,
}

/// What one process may ask of each server.
#[derive(Debug, PartialEq)]
pub(crate) struct Share {
    pub(crate) concurrency: usize,
    pub(crate) requests_per_minute: Option<NonZeroU32>,
}

impl Asking {
    /// The categorizer of this process.
    pub(crate) fn categorizer(&self) -> Result<Categorizer> {
        let share = self.quota.share()?;
        let mut builder = Categorizer::builder(Taxonomy::load(&self.taxonomy)?)
            .model(&self.model)
            .pack_size(self.pack_size)
            .timeout(Duration::from_secs(self.timeout))
            .concurrency(share.concurrency.min(FIRST_CONCURRENCY))
            .max_concurrency(share.concurrency);
        for endpoint in &self.endpoints {
            builder = builder.endpoint(endpoint.as_str());
        }
        // Not a flag, which other users of the machine can read.
        if let Ok(key) = std::env::var("SLUGLINE_API_KEY") {
            builder = builder.api_key(key);
        }
        if let Some(rate) = share.requests_per_minute {
            builder = builder.requests_per_minute(rate);
        }
        if let Some(path) = &self.ledger {
            builder = builder.ledger(Ledger::open(path)?);
        }
        Ok(builder.build()?)
    }
}

impl Quota {
    /// The share of one executor, rounded down, so that all together never ask more than is allowed.
    ///
    /// # Errors
    /// There is less than one request for each executor.
    pub(crate) fn share(&self) -> Result<Share> {
        let concurrency = self.concurrency.get() / self.executors.get() as usize;
        if concurrency == 0 {
            return Err(format!(
                "a concurrency of {} cannot be divided among {} executors",
                self.concurrency, self.executors
            )
            .into());
        }
        let requests_per_minute = match self.requests_per_minute {
            None => None,
            Some(rate) => Some(NonZeroU32::new(rate.get() / self.executors).ok_or_else(|| {
                format!("{rate} requests per minute cannot be divided among {} executors", self.executors)
            })?),
        };
        Ok(Share { concurrency, requests_per_minute })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(concurrency: usize, requests_per_minute: Option<u32>, executors: u32) -> Result<Share, String> {
        Quota {
            concurrency: NonZeroUsize::new(concurrency).unwrap(),
            requests_per_minute: requests_per_minute.and_then(NonZeroU32::new),
            executors: NonZeroU32::new(executors).unwrap(),
        }
        .share()
        .map_err(|problem| problem.to_string())
    }

    #[test]
    fn shares_never_add_up_to_more_than_the_whole() {
        let expected = Share { concurrency: 8, requests_per_minute: NonZeroU32::new(33) };
        assert_eq!(share(25, Some(100), 3), Ok(expected));
        assert_eq!(share(25, None, 1), Ok(Share { concurrency: 25, requests_per_minute: None }));
    }

    #[test]
    fn an_executor_without_a_share_is_refused() {
        assert_eq!(share(2, None, 3), Err("a concurrency of 2 cannot be divided among 3 executors".into()));
        assert_eq!(share(3, Some(2), 3), Err("2 requests per minute cannot be divided among 3 executors".into()));
    }
}
