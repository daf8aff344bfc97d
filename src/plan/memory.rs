//! The memory of a GPU: what the KV cache of so many requests takes, and whether it fits.

use super::error::{PlanError, within};
use super::shape::ModelShape;

/// The tokens of a request.
///
/// Default: no shared prefix, blocks of 16 tokens, which are vLLM's on a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "names carry their unit")]
pub struct Workload {
    prompt_tokens: u64,
    output_tokens: u64,
    shared_prefix_tokens: u64,
    block_tokens: u64,
}

/// The most tokens of a prompt or an answer.
const MOST_TOKENS: u64 = 100_000_000;
const RANGE_OF_TOKENS: &str = "1 to 100,000,000";

impl Workload {
    /// Requests with so many prompt and output tokens.
    ///
    /// # Errors
    /// One is 0 or absurdly large.
    pub fn new(prompt_tokens: u64, output_tokens: u64) -> Result<Self, PlanError> {
        within("prompt tokens", prompt_tokens as f64, [1.0, MOST_TOKENS as f64], RANGE_OF_TOKENS)?;
        within("output tokens", output_tokens as f64, [1.0, MOST_TOKENS as f64], RANGE_OF_TOKENS)?;
        Ok(Self { prompt_tokens, output_tokens, shared_prefix_tokens: 0, block_tokens: 16 })
    }

    /// The tokens at the start of the prompt that all requests share, with prefix caching on. At most the prompt. Default: 0.
    #[must_use]
    pub fn shared_prefix(mut self, tokens: u64) -> Self {
        self.shared_prefix_tokens = tokens.min(self.prompt_tokens);
        self
    }

    /// The tokens of a block of the cache.
    ///
    /// # Errors
    /// It is 0 or larger than any server has.
    pub fn block_tokens(mut self, tokens: u64) -> Result<Self, PlanError> {
        within("block tokens", tokens as f64, [1.0, 65_536.0], "1 to 65,536")?;
        self.block_tokens = tokens;
        Ok(self)
    }

    /// The blocks that all requests share: the whole ones of the prefix. A block that it fills in part belongs to each
    /// request alone (<https://docs.vllm.ai/en/stable/design/prefix_caching.html>).
    fn shared_blocks(&self) -> u64 {
        self.shared_prefix_tokens / self.block_tokens
    }

    /// The blocks of one request alone, at its end.
    fn own_blocks(&self) -> u64 {
        let tokens = self.prompt_tokens + self.output_tokens - self.shared_blocks() * self.block_tokens;
        tokens.div_ceil(self.block_tokens)
    }
}

/// The memory of a GPU and what stands in it beside the cache, in bytes.
///
/// Default: an overhead of 1.5 GB, for activations, CUDA graphs and the runtime. That is an allowance and no measurement:
/// vLLM measures its own at its start and logs what is left for the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "names carry their unit")]
pub struct GpuMemory {
    total_bytes: u64,
    weights_bytes: u64,
    overhead_bytes: u64,
}

/// From this share of its memory on a GPU has none left for anything else.
const MOST_UTILIZATION: f64 = 0.95;
const MOST_BYTES: f64 = 1e15;

impl GpuMemory {
    /// A GPU with so much memory, of which the model's weights take a part.
    ///
    /// # Errors
    /// A figure is 0 or absurdly large, or the weights alone do not fit.
    pub fn new(total_bytes: u64, weights_bytes: u64) -> Result<Self, PlanError> {
        within("memory of the GPU", total_bytes as f64, [1.0, MOST_BYTES], "1 byte to a petabyte")?;
        let range = "above 0 and below the memory of the GPU";
        within("memory of the weights", weights_bytes as f64, [1.0, (total_bytes - 1) as f64], range)?;
        Ok(Self { total_bytes, weights_bytes, overhead_bytes: 1_500_000_000 })
    }

    /// What activations, CUDA graphs and the runtime take. Default: 1.5 GB.
    #[must_use]
    pub fn overhead(mut self, bytes: u64) -> Self {
        self.overhead_bytes = bytes;
        self
    }

    /// What is left for the KV cache when so much of the memory, 0 to 1, may be used: that share of the total − weights −
    /// overhead. Source: `determine_available_memory` in vLLM's `gpu_worker.py`.
    pub fn kv_cache_bytes(&self, gpu_memory_utilization: f64) -> u64 {
        let usable = (self.total_bytes as f64 * gpu_memory_utilization.clamp(0.0, 1.0)) as u64;
        usable.saturating_sub(self.weights_bytes).saturating_sub(self.overhead_bytes)
    }
}

/// What the cache of a number of requests takes, and how to set the server for it.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Fit {
    /// The requests in flight.
    pub requests: u64,
    /// What one request takes alone, the shared prefix included.
    pub request_bytes: u64,
    /// What all take when nothing is shared.
    pub bytes_without_sharing: u64,
    /// What all take, the shared blocks counted once.
    pub bytes: u64,
    /// What the GPU has for the cache when 0.95 of it is used.
    pub most_bytes: u64,
    /// The most requests whose cache fits then.
    pub most_requests: u64,
    /// The `--max-num-seqs` to set: the requests in flight with a quarter of room, in steps of 8, but no more than fit; none
    /// where they do not fit. vLLM lets those beyond wait.
    pub max_num_seqs: Option<u64>,
    /// The least `--gpu-memory-utilization`, in hundredths, with which `max_num_seqs` requests fit; none where they do not.
    pub gpu_memory_utilization: Option<f64>,
}

impl Fit {
    /// Whether the cache of all requests fits. Where it does not, vLLM preempts some of them and computes them again.
    pub fn fits(&self) -> bool {
        self.requests <= self.most_requests
    }
}

/// Works out what `requests` in flight take: bytes of a token × tokens of a block × (shared blocks + requests × own blocks).
/// A request counts with all its output, as at its end.
pub fn fit(shape: &ModelShape, workload: &Workload, gpu: &GpuMemory, requests: u64) -> Fit {
    let block_bytes = shape.bytes_per_token().saturating_mul(workload.block_tokens);
    let (shared, own) = (workload.shared_blocks(), workload.own_blocks());
    let bytes_of = |requests: u64| block_bytes.saturating_mul(shared.saturating_add(own.saturating_mul(requests)));
    let alone = block_bytes.saturating_mul(shared.saturating_add(own));

    let most_bytes = gpu.kv_cache_bytes(MOST_UTILIZATION);
    let most_requests = (most_bytes / block_bytes).saturating_sub(shared) / own;
    let with_room = requests.saturating_add(requests / 4).div_ceil(8).saturating_mul(8);
    let max_num_seqs = (requests <= most_requests).then(|| with_room.min(most_requests).max(requests));
    let utilization = |requests: u64| {
        let bytes = gpu.weights_bytes.saturating_add(gpu.overhead_bytes).saturating_add(bytes_of(requests));
        ((100.0 * bytes as f64 / gpu.total_bytes as f64).ceil() / 100.0).min(MOST_UTILIZATION)
    };
    Fit {
        requests,
        request_bytes: alone,
        bytes_without_sharing: alone.saturating_mul(requests),
        bytes: bytes_of(requests),
        most_bytes,
        most_requests,
        max_num_seqs,
        gpu_memory_utilization: max_num_seqs.map(utilization),
    }
}

#[cfg(test)]
mod tests {
    use super::super::shape::KvDtype;
    use super::*;

    fn qwen_7b() -> ModelShape {
        ModelShape::new(28, 4, 128, KvDtype::Bits16).unwrap()
    }

    #[test]
    fn a_shared_prefix_is_counted_once() {
        let gpu = GpuMemory::new(16_000_000_000, 5_000_000_000).unwrap();
        let workload = Workload::new(1_100, 200).unwrap();
        let alone = fit(&qwen_7b(), &workload, &gpu, 50);
        // 1,300 tokens are 82 blocks of 16.
        assert_eq!(alone.request_bytes, 82 * 16 * 57_344);
        assert_eq!((alone.bytes, alone.bytes_without_sharing), (50 * alone.request_bytes, 50 * alone.request_bytes));
        // 650 tokens are 40 whole blocks, and 660 tokens are left to each request: 42 blocks.
        let shared = fit(&qwen_7b(), &workload.shared_prefix(650), &gpu, 50);
        assert_eq!(shared.request_bytes, alone.request_bytes);
        assert_eq!(shared.bytes, (40 + 50 * 42) * 16 * 57_344);
        assert!(shared.most_requests > 3 * alone.most_requests / 2);
    }

    #[test]
    fn settings_are_given_where_they_fit() {
        let gpu = GpuMemory::new(16_000_000_000, 5_000_000_000).unwrap();
        let workload = Workload::new(1_100, 200).unwrap().shared_prefix(650);
        let shape = qwen_7b();
        let fifty = fit(&shape, &workload, &gpu, 50);
        assert_eq!(fifty.max_num_seqs, Some(64));
        let utilization = fifty.gpu_memory_utilization.unwrap();
        let kept = |utilization| fit(&shape, &workload, &gpu, 64).bytes <= gpu.kv_cache_bytes(utilization);
        assert!(kept(utilization) && !kept(utilization - 0.01), "{utilization}");
        let most = fit(&shape, &workload, &gpu, fifty.most_requests);
        assert!(most.fits() && most.bytes <= most.most_bytes && most.max_num_seqs == Some(most.requests));
        let beyond = fit(&shape, &workload, &gpu, fifty.most_requests + 1);
        assert!(!beyond.fits() && beyond.max_num_seqs.is_none() && beyond.gpu_memory_utilization.is_none());
    }

    #[test]
    fn nonsense_is_refused_and_nothing_overflows() {
        assert!(Workload::new(0, 1).is_err() && Workload::new(1, 0).is_err() && Workload::new(u64::MAX, 1).is_err());
        assert!(Workload::new(1, 1).unwrap().block_tokens(0).is_err());
        assert!(GpuMemory::new(0, 1).is_err() && GpuMemory::new(5, 5).is_err() && GpuMemory::new(5, 0).is_err());
        let small = GpuMemory::new(1_000, 999).unwrap().overhead(u64::MAX);
        let workload = Workload::new(MOST_TOKENS, MOST_TOKENS).unwrap().shared_prefix(u64::MAX);
        let fit = fit(&qwen_7b(), &workload, &small, u64::MAX);
        assert!(!fit.fits() && fit.most_requests == 0 && fit.bytes == u64::MAX);
    }
}
