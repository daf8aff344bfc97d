//! Behaviour of the crate, seen from outside. One binary, a module per behaviour.

mod answers;
mod batch;
mod categories;
mod concurrency;
mod corpus;
mod descent;
mod embedded;
mod endpoints;
mod evaluation;
mod failures;
mod faults;
mod ledger;
mod load;
mod near_duplicates;
mod prefix_cache;
mod prompt;
mod props;
mod quality;
mod run;
mod service;
mod sockets;
mod spans;
mod streams;
mod support;
mod tuning;
