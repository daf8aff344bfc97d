//! From numbers to places in a chart.

/// One axis: values from `low` to `high`, drawn from one place to another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    is_log: bool,
}

/// From this ratio of the greatest to the smallest value on, an axis is logarithmic.
const LOG_RATIO: f64 = 30.0;
/// The same for steps, whose distances say less than their factors.
const STEPS_LOG_RATIO: f64 = 8.0;
/// About so many ticks are wanted.
const TICKS: f64 = 5.0;

impl Scale {
    /// A linear axis that has at least these values.
    pub(crate) fn linear(low: f64, high: f64, [from, to]: [f64; 2]) -> Self {
        let step = step(low, high);
        let (low, high) = ((low / step).floor() * step, (high / step).ceil() * step);
        Self { low, high: if high > low { high } else { low + step }, from, to, is_log: false }
    }

    /// An axis for speeds: linear from zero, or logarithmic where the values are far apart.
    pub(crate) fn speed(values: &[f64], range: [f64; 2]) -> Self {
        let greatest = values.iter().copied().fold(0.0, f64::max);
        let smallest = values.iter().copied().fold(f64::INFINITY, f64::min);
        if smallest > 0.0 && greatest / smallest >= LOG_RATIO {
            let (low, high) = (10_f64.powf((smallest * 0.8).log10().floor()), greatest * 1.5);
            return Self { low, high, from: range[0], to: range[1], is_log: true };
        }
        // Room for the names on the right.
        Self::linear(0.0, if greatest > 0.0 { greatest * 1.1 } else { 1.0 }, range)
    }

    /// An axis for steps that grow by factors: logarithmic where they are far apart, linear from zero otherwise.
    pub(crate) fn steps(values: &[f64], range: [f64; 2]) -> Self {
        let greatest = values.iter().copied().fold(0.0, f64::max);
        let smallest = values.iter().copied().filter(|value| *value > 0.0).fold(f64::INFINITY, f64::min);
        if smallest.is_finite() && greatest / smallest >= STEPS_LOG_RATIO {
            return Self { low: smallest, high: greatest, from: range[0], to: range[1], is_log: true };
        }
        Self::exact(0.0, greatest, range)
    }

    /// A linear axis from one value to another, which need not be round.
    pub(crate) fn exact(low: f64, high: f64, [from, to]: [f64; 2]) -> Self {
        Self { low, high: if high > low { high } else { low + 1.0 }, from, to, is_log: false }
    }

    /// The place of a value, within the axis.
    pub(crate) fn place(&self, value: f64) -> f64 {
        let value = value.clamp(self.low, self.high);
        let share = if self.is_log {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.from + share * (self.to - self.from)
    }

    /// Values to mark.
    pub(crate) fn ticks(&self) -> Vec<f64> {
        if self.is_log {
            let decades = (self.low.log10().round() as i32)..=(self.high.log10().floor() as i32);
            let marks = |decade: i32| [1.0, 3.0].map(|first| first * 10_f64.powi(decade));
            return decades.flat_map(marks).filter(|mark| *mark <= self.high).collect();
        }
        let step = step(self.low, self.high);
        // A hair more, so that rounding loses no tick at the end.
        let count = ((self.high - self.low) / step * 1.000_001).floor() as u32;
        (0..=count).map(|number| self.low + step * f64::from(number)).collect()
    }
}

/// A step of 1, 2 or 5 times a power of ten.
fn step(low: f64, high: f64) -> f64 {
    let rough = ((high - low) / TICKS).max(1e-6);
    let power = 10_f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| rough <= factor * power * 1.001).unwrap_or(10.0);
    factor * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_the_ends_are_reached() {
        let scale = Scale::linear(0.61, 0.83, [300.0, 20.0]);
        let ticks: Vec<_> = scale.ticks().iter().map(|tick| format!("{tick:.2}")).collect();
        assert_eq!(ticks, ["0.60", "0.65", "0.70", "0.75", "0.80", "0.85"]);
        for (value, place) in [(0.60, 300.0), (0.85, 20.0), (2.0, 20.0)] {
            assert!((scale.place(value) - place).abs() < 1e-9, "{value}");
        }
    }

    #[test]
    fn speeds_that_are_far_apart_are_drawn_by_their_logarithm() {
        let scale = Scale::speed(&[0.5, 60.0], [0.0, 100.0]);
        assert_eq!(
            scale.ticks().iter().map(|tick| format!("{tick:.1}")).collect::<Vec<_>>().join(" "),
            "0.1 0.3 1.0 3.0 10.0 30.0"
        );
        assert!(scale.place(0.5) > 0.0 && scale.place(60.0) < 100.0);
        assert!(Scale::speed(&[5.0, 60.0], [0.0, 100.0]).ticks()[0].abs() < 1e-9);
    }

    #[test]
    fn steps_that_grow_by_factors_are_evenly_far_apart_and_reach_both_ends() {
        let scale = Scale::steps(&[1.0, 10.0, 100.0], [0.0, 100.0]);
        assert_eq!([1.0, 10.0, 100.0].map(|step| scale.place(step).round() as i32), [0, 50, 100]);
        let near = Scale::steps(&[2.0, 4.0], [0.0, 100.0]);
        assert_eq!([0.0, 2.0, 4.0].map(|step| near.place(step).round() as i32), [0, 50, 100]);
        for odd in [Scale::steps(&[], [0.0, 1.0]), Scale::steps(&[3.0], [0.0, 1.0]), Scale::steps(&[0.0], [0.0, 1.0])] {
            assert!(odd.place(3.0).is_finite(), "{odd:?}");
        }
    }

    #[test]
    fn an_axis_without_extent_has_one_all_the_same() {
        for scale in
            [Scale::linear(0.5, 0.5, [0.0, 1.0]), Scale::speed(&[0.0], [0.0, 1.0]), Scale::speed(&[], [0.0, 1.0])]
        {
            assert!(scale.place(0.5).is_finite() && scale.ticks().len() >= 2, "{scale:?}");
        }
    }
}
