//! The figures of a running job at an address, in Prometheus' text format, for a scraper or for the example `monitor`.

use std::net::SocketAddr;

use axum::Router;
use axum::routing::get;
use slugline::StatsHandle;
use tokio::net::TcpListener;

use super::exporter::Prometheus;

/// Exports what is measured from now on; to be called before the categorizer is made.
pub(crate) fn export() -> Result<Prometheus, String> {
    let figures = Prometheus::default();
    metrics::set_global_recorder(figures.clone()).map_err(|error| format!("cannot export figures: {error}"))?;
    Ok(figures)
}

/// Takes the address, which another job may have.
pub(crate) async fn listen(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|error| format!("cannot listen on {address}: {error}"))
}

/// Serves `/metrics` until the program ends.
pub(crate) fn serve(listener: TcpListener, figures: Prometheus, run: StatsHandle) {
    let page = move || {
        // The look sets the gauges of the run.
        run.snapshot();
        let page = figures.page();
        async move { page }
    };
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/metrics", get(page))).await });
}
