//! Draws tables as bar charts, each to its own scale.

use crate::report::{Entry, Table, figure};

const WIDTH: f64 = 760.0;
const NAMES: f64 = 150.0;
const BARS: f64 = 480.0;
const BAR: f64 = 18.0;
const STEP: f64 = 24.0;
const HEADING: f64 = 34.0;

/// Returns an SVG of the medians.
pub fn svg(tables: &[Table]) -> String {
    let mut body = String::new();
    let mut y = 8.0;
    for table in tables {
        y += HEADING;
        body += &text(
            8.0,
            y - 10.0,
            "bold",
            &format!("{}, {}", table.title, table.unit),
        );
        let medians = table.entries.iter().filter_map(Entry::median);
        let longest = medians.fold(0.0, f64::max);
        for (index, entry) in table.entries.iter().enumerate() {
            body += &text(8.0, y + 14.0, "normal", entry.name);
            let Some(median) = entry.median() else {
                body += &text(NAMES, y + 14.0, "normal", "not measured");
                y += STEP;
                continue;
            };
            // Every bar is visible.
            let len = (median / longest.max(f64::MIN_POSITIVE) * BARS).max(1.0);
            let colour = if index == 0 { "#c2410c" } else { "#94a3b8" };
            body += &format!(
                "<rect x=\"{NAMES}\" y=\"{y:.0}\" width=\"{len:.1}\" height=\"{BAR}\" fill=\"{colour}\"/>\n"
            );
            body += &text(NAMES + len + 6.0, y + 14.0, "normal", &figure(median));
            y += STEP;
        }
    }
    let height = y + 12.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n{body}</svg>\n"
    )
}

fn text(x: f64, y: f64, weight: &str, words: &str) -> String {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    format!("<text x=\"{x:.0}\" y=\"{y:.0}\" font-weight=\"{weight}\">{words}</text>\n")
}
