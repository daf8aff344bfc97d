//! Servers and money.

use super::error::{PlanError, within};

/// What one server gives, in requests per second.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct ServerRate(f64);

impl ServerRate {
    /// A rate above 0.
    ///
    /// # Errors
    /// It is not above 0 and finite.
    pub fn new(requests_per_second: f64) -> Result<Self, PlanError> {
        let range = "above 0 and at most a million";
        within("requests per second of a server", requests_per_second, [f64::MIN_POSITIVE, 1e6], range).map(Self)
    }

    /// What the recommended step of a sweep gave, for each of its servers; none where no step is recommended.
    pub fn measured(sweep: &crate::load::Sweep) -> Option<Self> {
        let step = sweep.recommended()?;
        Self::new(step.requests_per_second / step.servers.max(1) as f64).ok()
    }

    /// In requests per second.
    pub fn requests_per_second(self) -> f64 {
        self.0
    }
}

/// How many servers a rate takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Servers {
    /// All of them busy all the time.
    pub least: u64,
    /// With the headroom.
    pub with_headroom: u64,
    /// With the headroom even while one of them is down.
    pub with_spare: u64,
}

/// The servers that a rate takes: the rate divided by what one gives, where `headroom` of that, 0 to 0.9, is left unused.
///
/// N servers behind one client that balances give N times the rate of one: slugline keeps a limit for each.
///
/// ```
/// use slugline::plan::{ServerRate, servers_needed};
///
/// // The reference deployment reckons 12 to 15 servers for 100 requests per second. With the 6 to 8 that each gives it is
/// // 13 to 17, before any headroom.
/// let least = |rate| servers_needed(100.0, ServerRate::new(rate)?, 0.0).map(|servers| servers.least);
/// assert_eq!((least(8.0)?, least(7.0)?, least(6.0)?), (13, 15, 17));
/// # Ok::<(), slugline::plan::PlanError>(())
/// ```
///
/// # Errors
/// The rate is not above 0, or the headroom not within 0 to 0.9.
pub fn servers_needed(requests_per_second: f64, server: ServerRate, headroom: f64) -> Result<Servers, PlanError> {
    let range = "above 0 and at most a billion";
    let rate = within("target rate", requests_per_second, [f64::MIN_POSITIVE, 1e9], range)?;
    let headroom = within("headroom", headroom, [0.0, 0.9], "0 to 0.9")?;
    // A hair less, so that 90 / 9 is 10 whatever the digits behind.
    let servers = |usable: f64| ((rate / (server.0 * usable)) * (1.0 - 1e-12)).ceil().max(1.0) as u64;
    let with_headroom = servers(1.0 - headroom);
    Ok(Servers { least: servers(1.0), with_headroom, with_spare: with_headroom + 1 })
}

/// What a million items cost on servers that are rented by the hour: price × servers × 1,000,000 / (3,600 × items per
/// second), in the currency of the price.
///
/// # Errors
/// The price is below 0, or the rate not above 0.
pub fn cost_per_million_items(
    price_per_server_hour: f64,
    servers: u64,
    items_per_second: f64,
) -> Result<f64, PlanError> {
    let price = within("price of a server", price_per_server_hour, [0.0, 1e9], "0 to a billion an hour")?;
    let range = "above 0 and at most a billion";
    let items = within("items per second", items_per_second, [f64::MIN_POSITIVE, 1e9], range)?;
    Ok(price * servers as f64 * 1e6 / (3_600.0 * items))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{About, LatencySummary, Step, Sweep, Targets};

    fn needed(target: f64, rate: f64, headroom: f64) -> Servers {
        servers_needed(target, ServerRate::new(rate).unwrap(), headroom).unwrap()
    }

    #[test]
    fn servers_are_whole_and_headroom_is_left() {
        assert_eq!(needed(90.0, 9.0, 0.0).least, 10);
        assert_eq!(needed(90.0, 9.0, 0.1), Servers { least: 10, with_headroom: 12, with_spare: 13 });
        assert_eq!(needed(0.1, 9.0, 0.5), Servers { least: 1, with_headroom: 1, with_spare: 2 });
    }

    #[test]
    fn a_measured_rate_is_that_of_each_server() {
        let mut sweep = Sweep::new(About::new("m"), Targets::default());
        assert_eq!(ServerRate::measured(&sweep), None);
        let mut step = Step { concurrency: 25, servers: 2, requests_per_second: 14.0, ..Step::default() };
        step.valid_items_per_second = 42.0;
        step.success_share = 1.0;
        step.latency = Some(LatencySummary { mean_s: 3.0, p95_s: 3.5, ..LatencySummary::default() });
        sweep.add(step);
        assert_eq!(ServerRate::measured(&sweep), ServerRate::new(7.0).ok());
    }

    #[test]
    fn a_million_items_cost_the_hours_they_take() {
        // 1,000,000 items at 100 a second are 2.78 hours of two servers.
        let cost = cost_per_million_items(0.5, 2, 100.0).unwrap();
        assert!((cost - 2.777_777).abs() < 1e-5, "{cost}");
    }

    #[test]
    fn nonsense_is_refused() {
        for odd in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(ServerRate::new(odd).is_err() && cost_per_million_items(1.0, 1, odd).is_err(), "{odd}");
            assert!(servers_needed(odd, ServerRate::new(1.0).unwrap(), 0.0).is_err(), "{odd}");
        }
        assert!(servers_needed(1.0, ServerRate::new(1.0).unwrap(), 1.0).is_err());
        assert!(cost_per_million_items(f64::NAN, 1, 1.0).is_err());
    }
}
