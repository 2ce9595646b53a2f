//! Compares the strategies: the load per worker, and the weight moved by a change of the fleet.
//!
//! `cargo run --release --example plan_picture` writes `docs/plans.svg`.

#[path = "../tests/support/fleets.rs"]
mod support;

use std::fmt::Write as _;

use divvy::strategy::{ConsistentHash, RoundRobin, Sticky, Strategy, WeightedConsistentHash};
use support::{Fleet, workers};

const BEFORE: usize = 100;
const AFTER: usize = 110;
const PARTITIONS: usize = 3_000;

const WIDTH: f64 = 960.0;
const PANEL_WIDTH: f64 = 212.0;
const PANEL_GAP: f64 = 20.0;
const LEFT: f64 = 44.0;
const CHART_TOP: f64 = 118.0;
const CHART_HEIGHT: f64 = 190.0;
const LEVEL_MAX: f64 = 3.0;
const BARS_TOP: f64 = 380.0;
const HEIGHT: f64 = 496.0;

struct Panel {
    name: String,
    color: &'static str,
    /// Load of each worker as a multiple of the mean, largest first.
    levels: Vec<f64>,
    moved: f64,
}

fn main() -> std::io::Result<()> {
    let strategies: [(&dyn Strategy, &str); 4] = [
        (&Sticky::new(), "#0f766e"),
        (&WeightedConsistentHash::new(), "#b45309"),
        (&ConsistentHash::new(), "#9f1239"),
        (&RoundRobin, "#475569"),
    ];
    let panels: Vec<Panel> = strategies
        .map(|(strategy, color)| panel(strategy, color))
        .into();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/plans.svg");
    std::fs::write(path, draw(&panels))?;
    println!("{path}");
    Ok(())
}

fn panel(strategy: &dyn Strategy, color: &'static str) -> Panel {
    let mut fleet = Fleet::new("heavy", BEFORE, PARTITIONS);
    fleet.step(strategy, workers(0..BEFORE));
    let verdict = fleet.step(strategy, workers(0..AFTER));
    let mut levels = verdict.levels;
    let mean = levels.iter().sum::<f64>() / levels.len() as f64;
    levels.iter_mut().for_each(|level| *level /= mean);
    levels.sort_by(|a, b| b.total_cmp(a));
    Panel {
        name: strategy.name().replace('_', " "),
        color,
        levels,
        moved: verdict.moved,
    }
}

fn draw(panels: &[Panel]) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    text(
        &mut svg,
        LEFT,
        32.0,
        17.0,
        "600",
        "#0f172a",
        "start",
        "From 100 to 110 workers",
    );
    let subtitle = "3 000 partitions, 150 of them 100 to 500 times as heavy as the rest";
    text(
        &mut svg, LEFT, 53.0, 13.0, "400", "#475569", "start", subtitle,
    );
    for (number, panel) in panels.iter().enumerate() {
        let x = LEFT + number as f64 * (PANEL_WIDTH + PANEL_GAP);
        draw_levels(&mut svg, panel, x, number == 0);
    }
    let label = "load of each worker, largest first; the line is the mean";
    let y = CHART_TOP + CHART_HEIGHT + 20.0;
    text(&mut svg, LEFT, y, 12.0, "400", "#64748b", "start", label);
    draw_movement(&mut svg, panels);
    svg + "</svg>\n"
}

fn draw_levels(svg: &mut String, panel: &Panel, x: f64, with_axis: bool) {
    let bottom = CHART_TOP + CHART_HEIGHT;
    let y = |level: f64| bottom - level.min(LEVEL_MAX) / LEVEL_MAX * CHART_HEIGHT;
    text(
        svg,
        x,
        CHART_TOP - 30.0,
        13.0,
        "600",
        panel.color,
        "start",
        &panel.name,
    );
    let fullest = format!("most loaded {:.2} × mean", panel.levels[0]);
    let right = x + PANEL_WIDTH;
    text(
        svg,
        x,
        CHART_TOP - 12.0,
        12.0,
        "400",
        "#475569",
        "start",
        &fullest,
    );
    for level in 1..=LEVEL_MAX as u32 {
        let y = y(f64::from(level));
        if level != 1 {
            line(svg, x, y, right, "#e2e8f0", 1.0);
        }
        if with_axis {
            text(
                svg,
                x - 8.0,
                y + 4.0,
                12.0,
                "400",
                "#64748b",
                "end",
                &format!("{level}×"),
            );
        }
    }
    let step = PANEL_WIDTH / panel.levels.len() as f64;
    for (worker, &level) in panel.levels.iter().enumerate() {
        let (left, top) = (x + worker as f64 * step, y(level));
        rect(svg, left, top, step * 0.8, bottom - top, panel.color);
    }
    line(svg, x, bottom, right, "#94a3b8", 1.0);
    line(svg, x, y(1.0), right, "#0f172a", 1.0);
}

fn draw_movement(svg: &mut String, panels: &[Panel]) {
    let (left, row) = (LEFT + 190.0, 24.0);
    let scale = (WIDTH - left - 90.0) / panels.iter().map(|p| p.moved).fold(0.0, f64::max);
    text(
        svg,
        LEFT,
        BARS_TOP - 14.0,
        13.0,
        "600",
        "#0f172a",
        "start",
        "weight moved",
    );
    for (number, panel) in panels.iter().enumerate() {
        let y = BARS_TOP + number as f64 * row;
        text(
            svg,
            left - 10.0,
            y + 13.0,
            12.0,
            "400",
            "#0f172a",
            "end",
            &panel.name,
        );
        rect(svg, left, y, panel.moved * scale, row - 8.0, panel.color);
        let share = format!("{:.1} %", panel.moved * 100.0);
        let end = left + panel.moved * scale + 8.0;
        text(svg, end, y + 13.0, 12.0, "400", "#475569", "start", &share);
    }
}

fn rect(svg: &mut String, x: f64, y: f64, width: f64, height: f64, color: &str) {
    // Writing to a String cannot fail; neither can it below.
    let _ = writeln!(
        svg,
        "<rect x=\"{x:.2}\" y=\"{y:.2}\" width=\"{width:.2}\" height=\"{height:.2}\" fill=\"{color}\"/>"
    );
}

fn line(svg: &mut String, x: f64, y: f64, end: f64, color: &str, width: f64) {
    let _ = writeln!(
        svg,
        "<line x1=\"{x:.2}\" y1=\"{y:.2}\" x2=\"{end:.2}\" y2=\"{y:.2}\" stroke=\"{color}\" stroke-width=\"{width}\"/>"
    );
}

#[allow(clippy::too_many_arguments)] // one line of text has that many attributes
fn text(
    svg: &mut String,
    x: f64,
    y: f64,
    size: f64,
    weight: &str,
    color: &str,
    anchor: &str,
    content: &str,
) {
    let _ = writeln!(
        svg,
        "<text x=\"{x:.2}\" y=\"{y:.2}\" font-size=\"{size}\" font-weight=\"{weight}\" \
         fill=\"{color}\" text-anchor=\"{anchor}\">{content}</text>"
    );
}
