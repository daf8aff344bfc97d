//! Where the names of points stand, so that none covers another.

/// A rectangle.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Area {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) right: f64,
    pub(super) bottom: f64,
}

impl Area {
    fn shared_with(&self, other: &Self) -> f64 {
        let width = self.right.min(other.right) - self.left.max(other.left);
        let height = self.bottom.min(other.bottom) - self.top.max(other.top);
        width.max(0.0) * height.max(0.0)
    }

    fn is_within(&self, other: &Self) -> bool {
        self.left >= other.left && self.top >= other.top && self.right <= other.right && self.bottom <= other.bottom
    }
}

/// A name where it found room.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placed {
    pub(super) area: Area,
    /// Whether it is so far from its point that a line must lead there.
    pub(super) is_far: bool,
}

/// The height of a line of text, in units of the chart.
pub(super) const LINE_HEIGHT: f64 = 16.0;
/// A generous width of a letter, a wide one for scripts with wide letters.
const LETTER_WIDTH: f64 = 7.8;
const WIDE_LETTER_WIDTH: f64 = 13.5;
/// From the middle of a point to a name beside it.
const GAP: f64 = 10.0;
/// How far names are moved to find room: so many rings, each so much further out.
const RINGS: u32 = 14;
const RING_WIDTH: f64 = 13.0;
/// What it costs to cover something, and to stand across a line, against a unit of distance.
const COVERING: f64 = 1_000.0;
const CROSSING: f64 = 3.0;

/// The width of a text, not less than it will have.
pub(super) fn width_of(text: &str) -> f64 {
    // Hangul, Han, kana and the like begin about here.
    text.chars().map(|c| if c >= '\u{1100}' && c != '…' { WIDE_LETTER_WIDTH } else { LETTER_WIDTH }).sum()
}

/// Finds a place within `bounds` for each name, beside its point if there is room, else further off. `taken` are areas that
/// no name may cover, `crossed` such that it should not.
pub(super) fn place(names: &[(f64, f64, f64)], taken: &[Area], crossed: &[Area], bounds: &Area) -> Vec<Placed> {
    let mut covered = taken.to_vec();
    let mut placed = Vec::with_capacity(names.len());
    for &(x, y, width) in names {
        let cost = |candidate: &Placed| {
            let shared = |areas: &[Area]| areas.iter().map(|area| candidate.area.shared_with(area)).sum::<f64>();
            let middle = f64::midpoint(candidate.area.top, candidate.area.bottom) - y;
            let side = (candidate.area.left - x).max(x - candidate.area.right).max(0.0);
            COVERING * shared(&covered) + CROSSING * shared(crossed) + middle.hypot(side)
        };
        let best = candidates(x, y, width)
            .filter(|candidate| candidate.area.is_within(bounds))
            .min_by(|a, b| cost(a).total_cmp(&cost(b)))
            .unwrap_or_else(|| Placed { area: beside(x + GAP, y, width), is_far: false });
        covered.push(best.area);
        placed.push(best);
    }
    placed
}

fn candidates(x: f64, y: f64, width: f64) -> impl Iterator<Item = Placed> {
    (0..RINGS).flat_map(move |ring| {
        let away = RING_WIDTH * f64::from(ring);
        let (right, left, middle) = (x + GAP, x - GAP - width, x - width / 2.0);
        let out = away * 0.7;
        [
            (right + away, y),
            (left - away, y),
            (right + out, y - GAP - out),
            (right + out, y + GAP + out),
            (left - out, y - GAP - out),
            (left - out, y + GAP + out),
            (middle, y - 2.0 * GAP - away),
            (middle, y + 2.0 * GAP + away),
            (right, y - GAP - away),
            (right, y + GAP + away),
            (left, y - GAP - away),
            (left, y + GAP + away),
        ]
        .map(|(left, middle)| Placed { area: beside(left, middle, width), is_far: ring > 0 })
    })
}

fn beside(left: f64, middle: f64, width: f64) -> Area {
    Area { left, top: middle - LINE_HEIGHT / 2.0, right: left + width, bottom: middle + LINE_HEIGHT / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Area = Area { left: 0.0, top: 0.0, right: 340.0, bottom: 320.0 };

    #[test]
    fn a_lone_name_stands_on_the_right_of_its_point() {
        let [placed] = place(&[(50.0, 50.0, 70.0)], &[], &[], &BOUNDS)[..] else { panic!("one") };
        assert_eq!((placed.area.left, placed.area.right, placed.is_far), (60.0, 130.0, false));
        let [at_the_edge] = place(&[(330.0, 50.0, 70.0)], &[], &[], &BOUNDS)[..] else { panic!("one") };
        assert_eq!((at_the_edge.area.right, at_the_edge.is_far), (320.0, false));
    }

    #[test]
    fn a_dozen_names_at_nearly_one_point_do_not_cover_each_other() {
        let names: Vec<_> = (0..12).map(|n| (150.0 + f64::from(n % 4), 160.0 + f64::from(n / 4), 110.0)).collect();
        let placed = place(&names, &[], &[], &BOUNDS);
        for (number, one) in placed.iter().enumerate() {
            assert!(one.area.is_within(&BOUNDS));
            for other in &placed[number + 1..] {
                assert!(one.area.shared_with(&other.area) <= 0.0, "{one:?} {other:?}");
            }
        }
    }
}
