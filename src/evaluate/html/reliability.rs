//! The reliability diagram.

use super::super::reliability::{Reliability, ReliabilityBin};
use crate::page::scale::Scale;
use crate::page::text::{grouped, percent};

const WIDTH: f64 = 320.0;
const HEIGHT: f64 = 330.0;
const LEFT: f64 = 44.0;
const RIGHT: f64 = 312.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = 236.0;
/// Where the counts stand, below the diagram.
const COUNTS_TOP: f64 = 250.0;
const COUNTS_BOTTOM: f64 = 290.0;

/// The figure with its numbers.
pub(super) fn figure(reliability: &Reliability) -> String {
    format!(
        "<figure class=\"reliability\">{}<figcaption>Right among the items with each confidence; the dashed line is where \
         confidence is the truth. Below: how many items have it. Expected calibration error <b>{:.3}</b>, mean confidence \
         {}, right {}, Brier {:.3}.</figcaption></figure>",
        chart(reliability),
        reliability.expected_calibration_error,
        percent(reliability.mean_confidence),
        percent(reliability.accuracy),
        reliability.brier,
    )
}

fn chart(reliability: &Reliability) -> String {
    let x = Scale::linear(0.0, 1.0, [LEFT, RIGHT]);
    let y = Scale::linear(0.0, 1.0, [BOTTOM, TOP]);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"Reliability diagram, expected calibration error {:.3}\">",
        reliability.expected_calibration_error
    );
    for tick in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let (across, up) = (x.place(tick), y.place(tick));
        svg += &format!("<line class=\"grid\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{up:.1}\" y2=\"{up:.1}\"/>");
        svg += &format!(
            "<text class=\"tick\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{:.0} %</text>",
            LEFT - 8.0,
            up + 4.0,
            100.0 * tick
        );
        svg += &format!(
            "<text class=\"tick\" x=\"{across:.1}\" y=\"{}\" text-anchor=\"middle\">{tick}</text>",
            COUNTS_BOTTOM + 16.0
        );
    }
    let most = reliability.bins.iter().map(|bin| bin.items).max().unwrap_or(0).max(1);
    for bin in &reliability.bins {
        svg += &bar(bin, x, y, most);
    }
    svg += &format!("<path class=\"ideal\" d=\"M{LEFT} {BOTTOM} L{RIGHT} {TOP}\"/>");
    svg += &format!("<line class=\"axis\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{BOTTOM}\" y2=\"{BOTTOM}\"/>");
    svg +=
        &format!("<line class=\"axis\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{COUNTS_BOTTOM}\" y2=\"{COUNTS_BOTTOM}\"/>");
    svg += "<text class=\"axis-name\" x=\"0\" y=\"12\">right</text>";
    svg += &format!(
        "<text class=\"axis-name\" x=\"{RIGHT}\" y=\"{}\" text-anchor=\"end\">confidence</text>",
        HEIGHT - 5.0
    );
    svg + "</svg>"
}

fn bar(bin: &ReliabilityBin, x: Scale, y: Scale, most: u64) -> String {
    let (Some(accuracy), Some(confidence)) = (bin.accuracy, bin.mean_confidence) else { return String::new() };
    let (left, width) = (x.place(bin.low) + 1.0, x.place(bin.high) - x.place(bin.low) - 2.0);
    let middle = left + width / 2.0;
    let top = y.place(accuracy);
    let interval = bin.interval();
    let count_height = ((COUNTS_BOTTOM - COUNTS_TOP) * bin.items as f64 / most as f64).max(1.0);
    let told = format!(
        "confidence {} to {}, mean {}: {} of {} right",
        percent(bin.low),
        percent(bin.high),
        percent(confidence),
        grouped(bin.correct as i64),
        grouped(bin.items as i64)
    );
    format!(
        "<g><title>{told}</title>\
         <rect class=\"share\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{:.1}\"/>\
         <line class=\"top\" x1=\"{left:.1}\" x2=\"{:.1}\" y1=\"{top:.1}\" y2=\"{top:.1}\"/>\
         <line class=\"error\" x1=\"{middle:.1}\" x2=\"{middle:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>\
         <rect class=\"count\" x=\"{left:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{count_height:.1}\"/></g>",
        BOTTOM - top,
        left + width,
        y.place(interval.high),
        y.place(interval.low),
        COUNTS_BOTTOM - count_height,
    )
}
