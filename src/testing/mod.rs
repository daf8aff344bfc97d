//! A **simulated** server for tests, examples and load experiments, with the feature `testing`.
//!
//! Nothing here is a language model. [`SimulatedServer`] speaks the wire format of vLLM's OpenAI-compatible server, and
//! picks categories by counting the words that an item shares with the taxonomy in the prompt. Its labels, confidences
//! and latencies say nothing about any real model; what it is good for is everything around the model: whether every
//! item gets its own outcome, what a client does when the server fails, and how it behaves under load.
//!
//! Three things can be set independently:
//! - how fast it is: [`Latency`], from no waiting at all to the figures of a reference server;
//! - what it accepts: [`StructuredOutputs`], context length, queue length, log-probabilities, a key;
//! - how it fails: [`Faults`], each with a rate, decided by a seed and the bytes of the request, so that a run can be
//!   repeated.
//!
//! All waiting goes through tokio's clock. Under a paused clock drive the [`SimulatedEngine`] directly, without sockets.

pub mod entry;
mod in_memory;
mod scripted;
mod simulated;

pub use self::scripted::{Asked, Reply, ScriptedTransport};
pub use self::simulated::{
    Counts, Fault, Faults, Latency, Overload, Pace, Poison, SimulatedEngine, SimulatedReply, SimulatedResponse,
    SimulatedServer, SimulatedServerBuilder, StructuredOutputs,
};
