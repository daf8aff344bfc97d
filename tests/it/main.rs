//! Behaviour of the crate, seen from outside. One binary, a module per behaviour.

mod endpoints;
mod failures;
mod run;
mod support;
