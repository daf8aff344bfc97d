//! Behaviour of the crate, seen from outside. One binary, a module per behaviour.

mod alerts;
mod answers;
mod batch;
mod categories;
mod concurrency;
mod corpus;
mod dashboards;
mod descent;
mod endpoints;
mod evaluation;
mod failures;
mod faults;
mod feeds;
mod ledger;
mod load;
mod near_duplicates;
mod prefix_cache;
mod prompt;
mod props;
mod quality;
mod run;
mod service;
mod several;
mod sockets;
mod spans;
mod stats;
mod streams;
mod support;
mod tuning;

#[path = "../../examples/support/exporter.rs"]
mod exporter;
