//! Charts, as SVG: bars to compare, lines for what goes on.

use std::fmt::Write as _;

use super::page::number;
use super::row::Samples;

/// In units of the drawing, which are pixels where nobody scales it.
const WIDTH: f64 = 720.0;
const LEFT: f64 = 250.0;
const RIGHT: f64 = 90.0;
const TOP: f64 = 44.0;
const BAR: f64 = 26.0;
const PLOT: f64 = 200.0;

/// Readable on white and on black.
const OURS: &str = "#2f81f7";
const THEIRS: &str = "#8b949e";
const LINES: [&str; 2] = [OURS, "#d29922"];

/// A drawing.
#[derive(Clone, Debug)]
pub(super) struct Chart {
    /// Of its file.
    pub(super) name: String,
    /// What it shows.
    pub(super) title: String,
    unit: &'static str,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Bars(Vec<Bar>),
    Lines(Vec<Line>),
}

/// The median of some values as a bar, with a line from the least to the greatest.
#[derive(Clone, Debug)]
pub(super) struct Bar {
    label: String,
    value: f64,
    spread: (f64, f64),
    ours: bool,
}

impl Bar {
    pub(super) fn new(label: impl Into<String>, values: &Samples, ours: bool) -> Self {
        Self { label: label.into(), value: values.median(), spread: values.spread(), ours }
    }
}

/// A line with a scale of its own, from 0.
#[derive(Clone, Debug)]
pub(super) struct Line {
    label: String,
    points: Vec<(f64, f64)>,
}

impl Line {
    pub(super) fn new(label: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self { label: label.into(), points }
    }
}

impl Chart {
    pub(super) fn bars(name: impl Into<String>, title: impl Into<String>, unit: &'static str, bars: Vec<Bar>) -> Self {
        Self { name: name.into(), title: title.into(), unit, what: What::Bars(bars) }
    }

    pub(super) fn lines(
        name: impl Into<String>,
        title: impl Into<String>,
        unit: &'static str,
        lines: Vec<Line>,
    ) -> Self {
        Self { name: name.into(), title: title.into(), unit, what: What::Lines(lines) }
    }

    /// The drawing, as a file.
    pub(super) fn svg(&self) -> String {
        let (body, height) = match &self.what {
            What::Bars(bars) => (draw_bars(bars, self.unit), TOP + BAR * bars.len() as f64 + 14.0),
            What::Lines(lines) => (draw_lines(lines, self.unit), TOP + PLOT + 50.0),
        };
        let title = escape(&self.title);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
             height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\" fill=\"#6e7781\" role=\"img\" \
             aria-label=\"{title}\">\n<text x=\"8\" y=\"22\" font-size=\"15\" font-weight=\"bold\">{title}</text>\n\
             {body}</svg>\n"
        )
    }
}

fn draw_bars(bars: &[Bar], unit: &str) -> String {
    let most = bars.iter().map(|bar| bar.spread.1).fold(f64::MIN_POSITIVE, f64::max);
    let scale = (WIDTH - LEFT - RIGHT) / most;
    let mut svg = String::new();
    for (number_of, Bar { label, value, spread: (least, greatest), ours }) in bars.iter().enumerate() {
        let (y, width) = (TOP + BAR * number_of as f64, value * scale);
        let (middle, color) = (y + BAR / 2.0, if *ours { OURS } else { THEIRS });
        let (from, to) = (LEFT + least * scale, LEFT + greatest * scale);
        let _ = write!(
            svg,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n\
             <rect x=\"{LEFT}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{}\" fill=\"{color}\"/>\n\
             <path d=\"M{from:.1} {middle:.1}H{to:.1}\" stroke=\"#d29922\" stroke-width=\"2\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\">{} {unit}</text>\n",
            LEFT - 8.0,
            middle + 4.5,
            escape(label),
            y + 4.0,
            BAR - 8.0,
            to.max(LEFT + width) + 6.0,
            middle + 4.5,
            number(*value),
        );
    }
    svg
}

fn draw_lines(lines: &[Line], unit: &str) -> String {
    let (left, bottom, width) = (16.0, TOP + PLOT, WIDTH - 32.0);
    let furthest = lines.iter().flat_map(|line| &line.points).map(|(x, _)| *x).fold(f64::MIN_POSITIVE, f64::max);
    let mut svg = format!("<path d=\"M{left} {bottom}H{}\" stroke=\"#6e7781\"/>\n", left + width);
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{} {unit}</text>",
        left + width,
        bottom + 18.0,
        number(furthest)
    );
    for (at, (Line { label, points }, color)) in lines.iter().zip(LINES.iter().cycle()).enumerate() {
        // A third of the room stays above, so that two lines seldom lie on each other.
        let most = points.iter().map(|(_, y)| *y).fold(f64::MIN_POSITIVE, f64::max) * (1.2 + 0.6 * at as f64);
        let point = |(x, y): &(f64, f64)| format!("{:.1},{:.1}", left + x / furthest * width, bottom - y / most * PLOT);
        let path: Vec<String> = points.iter().map(point).collect();
        let (first, last) = (points.first().map_or(0.0, |p| p.1), points.last().map_or(0.0, |p| p.1));
        let _ = write!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>\n\
             <text x=\"{}\" y=\"{}\" fill=\"{color}\">{}: {} at first, {} in the end</text>\n",
            path.join(" "),
            left + 330.0 * at as f64,
            bottom + 38.0,
            escape(label),
            number(first),
            number(last),
        );
    }
    svg
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_fills_its_room_and_names_are_escaped() {
        let bars = vec![
            Bar::new("a & b", &Samples(vec![50.0]), true),
            Bar::new("c", &Samples(vec![100.0, 80.0, 60.0]), false),
        ];
        let svg = Chart::bars("x", "A <b>", "s", bars).svg();
        assert!(svg.contains("a &amp; b") && svg.contains("A &lt;b>"), "{svg}");
        // 380 is what is left for bars; the greatest value, not the median, fills it.
        assert!(svg.contains("width=\"190.0\"") && svg.contains("width=\"304.0\"") && svg.contains("H630.0"), "{svg}");
        assert!(svg.ends_with("</svg>\n"));
    }

    #[test]
    fn a_line_goes_through_its_points() {
        let line = Line::new("cost", vec![(1.0, 5.0), (2.0, 5.0)]);
        let svg = Chart::lines("x", "title", "events", vec![line]).svg();
        assert!(svg.contains("points=\"360.0,77.3 704.0,77.3\""), "{svg}");
        assert!(svg.contains("cost: 5.00 at first, 5.00 in the end"), "{svg}");
    }
}
