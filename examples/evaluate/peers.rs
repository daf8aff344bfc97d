//! The figures of other clients, as `benches/peers/run.py --json` writes them, for points beside the settings.

use std::path::Path;

use serde::Deserialize;
use slugline::evaluate::{Interval, Point};

use super::files::about;

#[derive(Deserialize)]
struct Peers {
    clients: Vec<Peer>,
}

#[derive(Deserialize)]
struct Peer {
    client: String,
    items: u64,
    accuracy: f64,
    accuracy_95: [f64; 2],
    elapsed_s: f64,
}

/// Reads the points of a file.
pub(crate) fn read(path: &Path) -> Result<Vec<Point>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| about("open peers", path, &error))?;
    let Peers { clients } = serde_json::from_str(&text)
        .map_err(|error| format!("peers {} are no report of benches/peers: {error}", path.display()))?;
    Ok(clients.into_iter().map(Peer::point).collect())
}

impl Peer {
    fn point(self) -> Point {
        let [low, high] = self.accuracy_95;
        let items_per_second = if self.elapsed_s > 0.0 { self.items as f64 / self.elapsed_s } else { 0.0 };
        Point { name: self.client, accuracy: self.accuracy, interval: Some(Interval { low, high }), items_per_second }
    }
}
