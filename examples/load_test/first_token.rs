//! The time to the first token. Answers are not streamed to this client, so it is the servers' own figure, where they give it:
//! a mean over all that they answered during the step, its warm-up and other clients included.

use std::time::Duration;

use super::prometheus::Page;

/// The servers' histograms of the time to the first token: vLLM's and SGLang's.
const NAMES: [&str; 2] = ["vllm:time_to_first_token_seconds", "sglang:time_to_first_token_seconds"];
const TIMEOUT: Duration = Duration::from_secs(2);

/// Looks at the servers.
pub(crate) struct FirstTokens {
    client: Option<reqwest::Client>,
    urls: Vec<reqwest::Url>,
}

/// What has been counted since the servers were started.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counted {
    sum_s: f64,
    count: f64,
}

impl Counted {
    /// The mean of what has been counted since then.
    pub(crate) fn mean_since(&self, before: &Self) -> Option<f64> {
        let count = self.count - before.count;
        (count > 0.0).then(|| (self.sum_s - before.sum_s) / count)
    }
}

impl FirstTokens {
    pub(crate) fn of(base_urls: &[String]) -> Self {
        let url = |base_url: &String| reqwest::Url::parse(base_url).ok()?.join("/metrics").ok();
        let client = reqwest::Client::builder().timeout(TIMEOUT).redirect(reqwest::redirect::Policy::none()).build();
        Self { client: client.ok(), urls: base_urls.iter().filter_map(url).collect() }
    }

    /// What all servers have counted. Those that do not say count nothing.
    pub(crate) async fn look(&self) -> Counted {
        let mut counted = Counted::default();
        for url in &self.urls {
            let Some(page) = self.page(url.clone()).await else { continue };
            for name in NAMES {
                counted.sum_s += page.sum(&format!("{name}_sum")).unwrap_or(0.0);
                counted.count += page.sum(&format!("{name}_count")).unwrap_or(0.0);
            }
        }
        counted
    }

    async fn page(&self, url: reqwest::Url) -> Option<Page> {
        super::prometheus::fetch(self.client.as_ref()?, url).await.ok()
    }
}
