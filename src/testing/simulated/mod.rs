//! The simulated server, from the socket down to the stand-in for a model.

mod answer;
mod cache;
mod classify;
mod complete;
mod counts;
mod engine;
mod faults;
mod hash;
mod latency;
mod prefix;
mod prompt;
mod reply;
mod request;
mod schedule;
mod server;
mod settings;
mod socket;
mod spoil;
mod tokens;

#[cfg(test)]
mod tests;

pub use self::counts::Counts;
pub use self::engine::SimulatedEngine;
pub use self::faults::{Fault, Faults, Overload, Poison};
pub use self::latency::Latency;
pub use self::reply::{Pace, SimulatedReply, SimulatedResponse};
pub use self::server::SimulatedServer;
pub use self::settings::{SimulatedServerBuilder, StructuredOutputs};
