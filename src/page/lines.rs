//! Charts of lines over a common axis, wide for a desk and narrow for a phone.

use super::scale::Scale;
use super::text::{escape, rough};

/// A chart.
pub(crate) struct Chart<'a> {
    /// What it shows, for those who do not see it.
    pub(crate) title: &'a str,
    /// The name and unit of the upright axis.
    pub(crate) y_name: &'a str,
    /// The name and unit of the other one.
    pub(crate) x_name: &'a str,
    pub(crate) lines: Vec<Line<'a>>,
    /// What the upright axis reaches at least; it begins at the first.
    pub(crate) y_range: [f64; 2],
    /// A range that is expected at a place, drawn as a bar behind the lines.
    pub(crate) expected: Vec<(f64, [f64; 2])>,
    /// A place to be marked, with its word.
    pub(crate) mark: Option<(f64, &'a str)>,
    /// The places to be named on the axis; none for round numbers.
    pub(crate) x_ticks: Vec<f64>,
    pub(crate) has_points: bool,
    /// Marks of places with a word each, such as the beginnings of parts.
    pub(crate) parts: Vec<(f64, String)>,
    /// How numbers of the upright axis are written.
    pub(crate) y_tick: fn(f64) -> String,
    /// Whether it is a line over time, filled, across the whole page.
    pub(crate) is_filled: bool,
}

/// A line with its name and its style: `first`, `second` or `third`.
pub(crate) struct Line<'a> {
    pub(crate) name: &'a str,
    pub(crate) class: &'a str,
    pub(crate) points: Vec<(f64, f64)>,
}

struct Size {
    class: &'static str,
    width: f64,
    height: f64,
}

/// Beside another chart, and across the whole page.
const SIZES: [Size; 2] =
    [Size { class: "wide", width: 540.0, height: 300.0 }, Size { class: "narrow", width: 340.0, height: 300.0 }];
const WHOLE_SIZES: [Size; 2] =
    [Size { class: "wide", width: 1_040.0, height: 300.0 }, Size { class: "narrow", width: 340.0, height: 260.0 }];

const LEFT: f64 = 46.0;
/// Room for the names of the lines at their ends.
const RIGHT: f64 = 72.0;
const TOP: f64 = 36.0;
const BOTTOM: f64 = 42.0;
/// The least distance between two names at the ends of lines, and of two numbers along the axis.
const NAME_HEIGHT: f64 = 15.0;
const LEAST_TICK_DISTANCE: f64 = 26.0;
/// A generous width of a letter.
const LETTER_WIDTH: f64 = 7.5;

/// The figure, empty without points. The caption is markup.
pub(crate) fn figure(chart: &Chart<'_>, caption: &str) -> String {
    if chart.lines.iter().all(|line| line.points.is_empty()) {
        return String::new();
    }
    let sizes = if chart.is_filled { &WHOLE_SIZES } else { &SIZES };
    let charts: String = sizes.iter().map(|size| draw(chart, size)).collect();
    format!("<figure class=\"lines\">{charts}<figcaption>{caption}</figcaption></figure>")
}

fn draw(chart: &Chart<'_>, size: &Size) -> String {
    // A line without a name needs no room for one.
    let names_width = if chart.lines.iter().all(|line| line.name.is_empty()) { 10.0 } else { RIGHT };
    let (right, bottom) = (size.width - names_width, size.height - BOTTOM);
    let points = || chart.lines.iter().flat_map(|line| line.points.iter().copied());
    let xs: Vec<f64> = points().map(|(x, _)| x).collect();
    let highs = points().map(|(_, y)| y).chain(chart.expected.iter().map(|(_, range)| range[1]));
    let lows = points().map(|(_, y)| y);
    let y_scale = Scale::linear(
        lows.fold(chart.y_range[0], f64::min),
        highs.filter(|y| y.is_finite()).fold(chart.y_range[1], f64::max),
        [bottom, TOP],
    );
    let x_scale = if chart.is_filled {
        Scale::exact(0.0, xs.iter().copied().fold(0.0, f64::max), [LEFT, right])
    } else {
        Scale::steps(&xs, [LEFT + 8.0, right - 4.0])
    };

    let mut svg = format!(
        "<svg class=\"{}\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">",
        size.class,
        size.width,
        size.height,
        escape(chart.title)
    );
    for tick in y_scale.ticks() {
        let y = y_scale.place(tick);
        svg += &format!("<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>");
        svg += &format!(
            "<text class=\"tick\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            y + 4.0,
            (chart.y_tick)(tick)
        );
    }
    let ticks = if chart.x_ticks.is_empty() { x_scale.ticks() } else { chart.x_ticks.clone() };
    svg += &x_axis(&ticks, x_scale, right, bottom);
    svg += &format!("<text class=\"axis-name\" x=\"0\" y=\"12\">{}</text>", escape(chart.y_name));
    svg += &format!(
        "<text class=\"axis-name\" x=\"{right}\" y=\"{}\" text-anchor=\"end\">{}</text>",
        bottom + 37.0,
        escape(chart.x_name)
    );
    for (place, [low, high]) in &chart.expected {
        let (x, top, end) = (x_scale.place(*place), y_scale.place(*high), y_scale.place(*low));
        let told = format!("expected {} to {}", rough(*low), rough(*high));
        svg += &format!(
            "<rect class=\"expected\" x=\"{:.1}\" y=\"{top:.1}\" width=\"12\" height=\"{:.1}\" rx=\"2\"><title>{told}</title></rect>",
            x - 6.0,
            end - top
        );
    }
    if let Some((place, word)) = chart.mark {
        let x = x_scale.place(place);
        svg += &format!("<line class=\"mark\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>");
        svg += &format!(
            "<text class=\"mark-name\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            TOP - 6.0,
            escape(word)
        );
    }
    for line in &chart.lines {
        svg += &draw_line(line, x_scale, y_scale, chart, bottom);
    }
    svg + &parts(chart, x_scale, bottom) + &names(chart, y_scale, right) + "</svg>"
}

/// Where parts begin, with their words where there is room for them.
fn parts(chart: &Chart<'_>, x_scale: Scale, bottom: f64) -> String {
    let mut svg = String::new();
    let mut free_from = 0.0;
    for (place, word) in &chart.parts {
        let x = x_scale.place(*place);
        svg += &format!("<line class=\"part\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>");
        if x >= free_from {
            svg += &format!(
                "<text class=\"line-name\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                x + 4.0,
                TOP + 12.0,
                escape(word)
            );
            free_from = x + 8.0 + LETTER_WIDTH * word.chars().count() as f64;
        }
    }
    svg
}

/// The axis with as many numbers as there is room for, the last one first: it is the end of what was tried.
fn x_axis(ticks: &[f64], scale: Scale, right: f64, bottom: f64) -> String {
    let mut svg = format!("<line class=\"axis\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{bottom}\" y2=\"{bottom}\"/>");
    let mut free_until = f64::INFINITY;
    for tick in ticks.iter().rev() {
        let x = scale.place(*tick);
        svg += &format!("<line class=\"axis\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{bottom}\" y2=\"{}\"/>", bottom + 4.0);
        if free_until - x >= LEAST_TICK_DISTANCE {
            let number = (tick * 1e6).round() / 1e6;
            svg += &format!(
                "<text class=\"tick\" x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{number}</text>",
                bottom + 18.0
            );
            free_until = x;
        }
    }
    svg
}

fn draw_line(line: &Line<'_>, x_scale: Scale, y_scale: Scale, chart: &Chart<'_>, bottom: f64) -> String {
    let mut places: Vec<String> = Vec::new();
    for (x, y) in &line.points {
        places.push(format!("{:.1} {:.1}", x_scale.place(*x), y_scale.place(*y)));
    }
    let (Some(first), Some(last)) = (line.points.first(), line.points.last()) else { return String::new() };
    let mut svg = String::new();
    if chart.is_filled {
        svg += &format!(
            "<path class=\"area\" d=\"M{:.1} {bottom} L{} L{:.1} {bottom} Z\"/>",
            x_scale.place(first.0),
            places.join(" L"),
            x_scale.place(last.0)
        );
    }
    svg += &format!("<path class=\"line {}\" d=\"M{}\"/>", line.class, places.join(" L"));
    if chart.has_points {
        for (x, y) in &line.points {
            svg += &format!(
                "<circle class=\"dot {}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\"><title>{} at {x}: {}</title></circle>",
                line.class,
                x_scale.place(*x),
                y_scale.place(*y),
                escape(line.name),
                (chart.y_tick)(*y)
            );
        }
    }
    svg
}

/// The names of the lines at their ends, moved apart where they would cover each other.
fn names(chart: &Chart<'_>, y_scale: Scale, right: f64) -> String {
    let end = |line: &Line<'_>| line.points.last().map(|(_, y)| y_scale.place(*y));
    let mut ends: Vec<(f64, &Line<'_>)> = chart.lines.iter().filter_map(|line| Some((end(line)?, line))).collect();
    ends.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut svg = String::new();
    let mut free_from = 0.0_f64;
    for (y, line) in ends {
        let y = y.max(free_from);
        free_from = y + NAME_HEIGHT;
        svg += &format!(
            "<text class=\"line-name\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            right + 6.0,
            y + 4.0,
            escape(line.name)
        );
    }
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(lines: Vec<Line<'_>>) -> Chart<'_> {
        Chart {
            title: "<t>",
            y_name: "y",
            x_name: "x",
            lines,
            y_range: [0.0, 1.0],
            expected: vec![(1.0, [0.5, 2.0])],
            mark: Some((1.0, "here")),
            x_ticks: vec![1.0, 2.0],
            has_points: true,
            parts: Vec::new(),
            y_tick: rough,
            is_filled: false,
        }
    }

    #[test]
    fn lines_are_drawn_twice_and_no_input_becomes_markup() {
        let line = |name, y| Line { name, class: "first", points: vec![(1.0, y), (2.0, y)] };
        let figure = figure(&chart(vec![line("<a>", 1.0), line("b", 1.01)]), "caption");
        assert_eq!(figure.matches("<svg").count(), 2);
        assert!(!figure.contains("<a>") && !figure.contains("<t>") && figure.contains("&lt;a&gt;"));
        assert!(!figure.contains("NaN") && !figure.contains("inf"), "{figure}");
    }

    #[test]
    fn without_points_there_is_no_figure_and_one_point_is_enough() {
        assert_eq!(figure(&chart(Vec::new()), ""), "");
        let one = chart(vec![Line { name: "a", class: "first", points: vec![(1.0, 0.0)] }]);
        assert!(figure(&one, "").contains("<circle") && !figure(&one, "").contains("NaN"));
    }
}
