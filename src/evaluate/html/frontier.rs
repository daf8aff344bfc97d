//! Accuracy against speed.

use super::super::report::{Evaluation, Point};
use super::placing::{Area, LINE_HEIGHT, place, width_of};
use crate::page::scale::Scale;
use crate::page::text::{escape, percent, rough, shorten};

/// A size of the chart. There are two, since the text of one would be too small on a phone or too large on a desk.
struct Size {
    class: &'static str,
    width: f64,
    height: f64,
    /// With more points than this they have numbers beside them instead of names, and a list below says what they mean.
    most_names: usize,
}

const SIZES: [Size; 2] = [
    Size { class: "wide", width: 1_040.0, height: 440.0, most_names: 10 },
    Size { class: "narrow", width: 340.0, height: 380.0, most_names: 0 },
];

const MOST_NAME_CHARS: usize = 32;

const LEFT: f64 = 52.0;
const RIGHT: f64 = 8.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = 42.0;
const RADIUS: f64 = 5.0;

/// The figure, empty without points.
pub(super) fn figure(evaluation: &Evaluation) -> String {
    let mut points = evaluation.frontier();
    points.retain(|point| point.accuracy.is_finite() && point.items_per_second.is_finite());
    if points.is_empty() {
        return String::new();
    }
    let charts: String = SIZES.iter().map(|size| chart(&points, size)).collect();
    let key = key(&points);
    format!(
        "<figure class=\"frontier\">{charts}{key}<figcaption>Up and to the right is better. Full points lie on the line: none \
         beats them in both accuracy and speed. Bars are 95 % intervals of the accuracy, which does not start at \
         zero.</figcaption></figure>"
    )
}

/// The numbers of the points with what they mean.
fn key(points: &[Point]) -> String {
    let is_needed_when_wide = SIZES.iter().all(|size| points.len() > size.most_names);
    let mut out = format!("<ol class=\"{}\">", if is_needed_when_wide { "key" } else { "key narrow" });
    for (number, point) in points.iter().enumerate() {
        let (accuracy, speed) = (percent(point.accuracy), rough(point.items_per_second));
        out += &format!(
            "<li><b>{}</b><span>{}</span><i>{accuracy}</i><i>{speed}/s</i></li>",
            number + 1,
            escape(&point.name)
        );
    }
    out + "</ol>"
}

/// Whether no other point is at least as good in both and better in one.
fn is_best(point: &Point, points: &[Point]) -> bool {
    !points.iter().any(|other| {
        let (faster, better) = (other.items_per_second - point.items_per_second, other.accuracy - point.accuracy);
        faster >= 0.0 && better >= 0.0 && faster + better > 0.0
    })
}

/// A point with its place.
struct Spot<'a> {
    point: &'a Point,
    x: f64,
    y: f64,
    /// The ends of its interval, the upper one first.
    ends: Option<[f64; 2]>,
    is_best: bool,
}

fn chart(points: &[Point], size: &Size) -> String {
    let (right, bottom) = (size.width - RIGHT, size.height - BOTTOM);
    let speeds: Vec<f64> = points.iter().map(|point| point.items_per_second).collect();
    let x_scale = Scale::speed(&speeds, [LEFT, right]);
    let lows = points.iter().map(|point| point.interval.map_or(point.accuracy, |interval| interval.low));
    let highs = points.iter().map(|point| point.interval.map_or(point.accuracy, |interval| interval.high));
    let (low, high) = (lows.fold(1.0, f64::min).max(0.0), highs.fold(0.0, f64::max).min(1.0));
    let y_scale = Scale::linear(low, high, [bottom, TOP]);
    let spots: Vec<Spot<'_>> = points
        .iter()
        .map(|point| Spot {
            point,
            x: x_scale.place(point.items_per_second),
            y: y_scale.place(point.accuracy),
            ends: point.interval.map(|interval| [y_scale.place(interval.high), y_scale.place(interval.low)]),
            is_best: is_best(point, points),
        })
        .collect();

    let title = format!("Accuracy against items per second of {} settings", points.len());
    let mut svg = format!(
        "<svg class=\"{}\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{title}\">",
        size.class, size.width, size.height
    );
    for tick in y_scale.ticks() {
        let y = y_scale.place(tick);
        svg += &format!("<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>");
        let label = LEFT - 8.0;
        svg += &format!(
            "<text class=\"tick\" x=\"{label}\" y=\"{:.1}\" text-anchor=\"end\">{} %</text>",
            y + 4.0,
            short(100.0 * tick)
        );
    }
    for tick in x_scale.ticks() {
        let x = x_scale.place(tick);
        svg += &format!("<line class=\"axis\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{bottom}\" y2=\"{}\"/>", bottom + 4.0);
        svg += &format!(
            "<text class=\"tick\" x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            bottom + 18.0,
            short(tick)
        );
    }
    svg += &format!("<line class=\"axis\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{bottom}\" y2=\"{bottom}\"/>");
    svg += "<text class=\"axis-name\" x=\"0\" y=\"12\">accuracy</text>";
    svg += &format!(
        "<text class=\"axis-name\" x=\"{right}\" y=\"{}\" text-anchor=\"end\">items per second</text>",
        bottom + 37.0
    );

    let steps = steps(&spots, bottom);
    svg += &format!("<path class=\"pareto\" d=\"{}\"/>", path(&steps));
    for spot in &spots {
        svg += &marks(spot);
    }
    let bounds = Area { left: LEFT + 2.0, top: 14.0, right: size.width, bottom: bottom - 2.0 };
    svg + &names(&spots, &steps, &bounds, size) + "</svg>"
}

/// The line of the best points: what accuracy can be had at what speed.
fn steps(spots: &[Spot<'_>], bottom: f64) -> Vec<(f64, f64)> {
    let mut best: Vec<(f64, f64)> = spots.iter().filter(|spot| spot.is_best).map(|spot| (spot.x, spot.y)).collect();
    best.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut steps = Vec::new();
    let mut from = LEFT;
    for (x, y) in best {
        steps.extend([(from, y), (x, y)]);
        from = x;
    }
    steps.push((from, bottom));
    steps
}

fn path(steps: &[(f64, f64)]) -> String {
    let places: Vec<_> = steps.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
    format!("M{}", places.join(" L"))
}

fn marks(spot: &Spot<'_>) -> String {
    let Spot { point, x, y, .. } = spot;
    let class = if spot.is_best { "best" } else { "other" };
    let mut out = format!("<g class=\"{class}\">");
    let mut told =
        format!("{}: {}, {} items/s", escape(&point.name), percent(point.accuracy), rough(point.items_per_second));
    if let (Some([top, bottom]), Some(interval)) = (spot.ends, point.interval) {
        told += &format!(", 95 % interval {} to {}", percent(interval.low), percent(interval.high));
        let (left, right) = (x - 4.0, x + 4.0);
        out += &format!(
            "<path class=\"error\" d=\"M{left:.1} {top:.1} H{right:.1} M{x:.1} {top:.1} V{bottom:.1} M{left:.1} {bottom:.1} H{right:.1}\"/>"
        );
    }
    out + &format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{RADIUS}\"><title>{told}</title></circle></g>")
}

fn names(spots: &[Spot<'_>], steps: &[(f64, f64)], bounds: &Area, size: &Size) -> String {
    let point = |spot: &Spot<'_>| Area {
        left: spot.x - RADIUS - 2.0,
        top: spot.y - RADIUS - 2.0,
        right: spot.x + RADIUS + 2.0,
        bottom: spot.y + RADIUS + 2.0,
    };
    let bar = |spot: &Spot<'_>| {
        spot.ends.map(|[top, bottom]| Area {
            left: spot.x - 5.0,
            top: top - 1.0,
            right: spot.x + 5.0,
            bottom: bottom + 1.0,
        })
    };
    let step = |pair: &[(f64, f64)]| Area {
        left: pair[0].0.min(pair[1].0) - 1.0,
        top: pair[0].1.min(pair[1].1) - 1.0,
        right: pair[0].0.max(pair[1].0) + 1.0,
        bottom: pair[0].1.max(pair[1].1) + 1.0,
    };
    let taken: Vec<Area> = spots.iter().map(point).chain(spots.iter().filter_map(bar)).collect();
    let crossed: Vec<Area> = steps.windows(2).map(step).collect();
    let text = |(number, spot): (usize, &Spot<'_>)| {
        if spots.len() <= size.most_names {
            shorten(&spot.point.name, MOST_NAME_CHARS)
        } else {
            (number + 1).to_string()
        }
    };
    let texts: Vec<String> = spots.iter().enumerate().map(text).collect();
    let wanted: Vec<_> = spots.iter().zip(&texts).map(|(spot, text)| (spot.x, spot.y, width_of(text))).collect();

    let mut out = String::new();
    for ((spot, text), placed) in spots.iter().zip(&texts).zip(place(&wanted, &taken, &crossed, bounds)) {
        let Area { left, top, right, bottom } = placed.area;
        let middle = f64::midpoint(top, bottom);
        // The text is narrower than its area: it begins at the side that is nearer to its point.
        let (x, anchor) = if right <= spot.x { (right, "end") } else { (left, "start") };
        if placed.is_far {
            let end = spot.x.clamp(left, right);
            let y = if middle < spot.y { bottom - 2.0 } else { top + 2.0 };
            out += &format!(
                "<line class=\"leader\" x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{end:.1}\" y2=\"{y:.1}\"/>",
                spot.x, spot.y
            );
        }
        let baseline = middle + LINE_HEIGHT * 0.28;
        let class = if spot.is_best { "name best-name" } else { "name" };
        out += &format!(
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{baseline:.1}\" text-anchor=\"{anchor}\">{}</text>",
            escape(text)
        );
    }
    out
}

/// A number of an axis without needless zeros.
fn short(number: f64) -> String {
    // Adding a step many times over leaves dust behind the digits.
    let number = (number * 1e6).round() / 1e6;
    format!("{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(name: &str, accuracy: f64, items_per_second: f64) -> Point {
        Point { name: name.into(), accuracy, interval: None, items_per_second }
    }

    #[test]
    fn the_best_points_are_those_that_nothing_beats_in_both() {
        let points = [
            point("slow", 0.9, 1.0),
            point("worse", 0.8, 1.0),
            point("fast", 0.7, 9.0),
            point("twin", 0.7, 9.0),
            point("bad", 0.6, 8.0),
        ];
        let best: Vec<_> = points.iter().filter(|one| is_best(one, &points)).map(|one| one.name.as_str()).collect();
        assert_eq!(best, ["slow", "fast", "twin"]);
    }

    #[test]
    fn numbers_of_the_axis_have_no_dust() {
        assert_eq!([short(0.300_000_000_000_000_04), short(20.0), short(0.0)], ["0.3", "20", "0"]);
    }
}
