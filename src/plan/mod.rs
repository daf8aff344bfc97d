//! How many servers a rate takes, and how much memory.
//!
//! Everything here is arithmetic on figures that are given or were [measured](crate::load); the example `plan` prints it. Each
//! formula names its source.
//!
//! ```
//! use slugline::plan::{GpuMemory, KvDtype, ModelShape, ServerRate, Workload, fit, servers_needed};
//!
//! // 100 requests per second from servers of 7: with a tenth of headroom, and one server more than needed for a failure.
//! let servers = servers_needed(100.0, ServerRate::new(7.0)?, 0.1)?;
//! assert_eq!((servers.least, servers.with_headroom, servers.with_spare), (15, 16, 17));
//!
//! // Qwen2.5-7B as vLLM keeps it: 28 layers, 4 KV heads of 128, 16 bits: 56 KiB for each token.
//! let shape = ModelShape::new(28, 4, 128, KvDtype::Bits16)?;
//! assert_eq!(shape.bytes_per_token(), 57_344);
//!
//! // The reference workload on a GPU of 16 GB with 5 GB of weights.
//! let workload = Workload::new(1_100, 200)?.shared_prefix(650);
//! let gpu = GpuMemory::new(16_000_000_000, 5_000_000_000)?;
//! let fit = fit(&shape, &workload, &gpu, 50);
//! assert!(fit.fits());
//! # Ok::<(), slugline::plan::PlanError>(())
//! ```

mod error;
mod memory;
mod servers;
mod shape;
mod vllm_log;

pub use self::error::PlanError;
pub use self::memory::{Fit, GpuMemory, Workload, fit};
pub use self::servers::{ServerRate, Servers, cost_per_million_items, servers_needed};
pub use self::shape::{KvDtype, ModelShape};
pub use self::vllm_log::KvCacheLog;
