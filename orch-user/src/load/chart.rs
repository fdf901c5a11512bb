//! A run as a picture: requests offered, answered and lost per second above, times of the answers
//! below, copies of the service between them where they were watched.

use std::{
    error::Error,
    fs::File,
    ops::Range,
    path::{Path, PathBuf},
};

use plotters::{
    coord::{Shift, types::RangedCoordf64},
    prelude::*,
    style::{FontStyle, register_font},
};

use super::{
    error::LoadError,
    report::{Point, Report},
};

/// Pixels, of PNG; SVG scales.
const SIZE: (u32, u32) = (1000, 640);
/// The name that the text of the picture asks for; PNG is drawn with the font that is built in.
const FONT: &str = "sans-serif";

const BLUE_GREY: RGBColor = RGBColor(110, 120, 140);
const OFFERED: RGBColor = RGBColor(31, 119, 180);
const ANSWERED: RGBColor = RGBColor(44, 140, 44);
const LOST: RGBColor = RGBColor(200, 40, 40);
const P50: RGBColor = RGBColor(148, 103, 189);
const P99: RGBColor = RGBColor(230, 126, 20);

type Drawn = Result<(), Box<dyn Error>>;

/// A file that a chart is drawn into.
#[derive(Debug)]
pub struct Sheet {
    path: PathBuf,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Svg,
    Png,
}

impl Sheet {
    /// Makes the file; its name ends in `.svg` or `.png`.
    pub fn create(path: &Path) -> Result<Self, LoadError> {
        let ending = path.extension().and_then(|ending| ending.to_str());
        let kind = match ending.map(str::to_ascii_lowercase).as_deref() {
            Some("svg") => Kind::Svg,
            Some("png") => Kind::Png,
            _ => {
                return Err(LoadError::Usage {
                    what: format!(
                        "--chart {}: the name must end in .svg or .png",
                        path.display()
                    ),
                });
            }
        };
        let path = path.to_owned();
        match File::create(&path) {
            Ok(_) => Ok(Self { path, kind }),
            Err(source) => Err(LoadError::Write { path, source }),
        }
    }

    /// Draws a run.
    pub fn draw(self, report: &Report) -> Result<(), LoadError> {
        let drawn = match self.kind {
            Kind::Svg => draw(
                &SVGBackend::new(&self.path, SIZE).into_drawing_area(),
                report,
            ),
            Kind::Png => draw(
                &BitMapBackend::new(&self.path, SIZE).into_drawing_area(),
                report,
            ),
        };
        drawn.map_err(|error| LoadError::Draw {
            path: self.path,
            why: error.to_string(),
        })
    }
}

fn draw<B: DrawingBackend>(area: &DrawingArea<B, Shift>, report: &Report) -> Drawn
where
    B::ErrorType: 'static,
{
    // Both kinds measure their text with it, so that neither needs fonts of the host.
    register_font(FONT, FontStyle::Normal, notosans::REGULAR_TTF)
        .map_err(|_| "the built-in font cannot be read")?;
    area.fill(&WHITE)?;
    let title = format!("{}: {}", report.url, report.pattern);
    let area = area.titled(&title, (FONT, 18))?;
    let (above, below) = area.split_vertically(SIZE.1 * 55 / 100);
    draw_rates(&above, report)?;
    draw_times(&below, report)?;
    area.present()?;
    Ok(())
}

/// A diagram with seconds below and a scale from 0 to a little over `most`.
fn diagram<'a, B: DrawingBackend>(
    area: &'a DrawingArea<B, Shift>,
    report: &Report,
    most: f64,
    unit: &str,
) -> Result<ChartContext<'a, B, Cartesian2d<RangedCoordf64, RangedCoordf64>>, Box<dyn Error>>
where
    B::ErrorType: 'static,
{
    let end = report
        .series
        .last()
        .map(|point| point.at_s + point.length_s);
    let seconds: Range<f64> = 0.0..end.unwrap_or(1.0).max(1.0);
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .x_label_area_size(34)
        .y_label_area_size(64)
        .build_cartesian_2d(seconds, 0.0..(most * 1.08).max(1.0))?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLUE_GREY.mix(0.2))
        .axis_style(BLUE_GREY)
        .label_style((FONT, 13))
        .x_desc("seconds")
        .y_desc(unit)
        .draw()?;
    Ok(chart)
}

fn draw_rates<B: DrawingBackend>(area: &DrawingArea<B, Shift>, report: &Report) -> Drawn
where
    B::ErrorType: 'static,
{
    let offered = |point: &Point| point.offered as f64 / point.length_s;
    let answered = |point: &Point| point.answered as f64 / point.length_s;
    let lost = |point: &Point| point.lost as f64 / point.length_s;
    let copies = report.controller.as_ref();
    let most_copies = copies.map_or(0.0, |watched| f64::from(watched.copies_most));
    let most = most_of(report, |point| {
        offered(point).max(answered(point)).max(lost(point))
    });
    let mut chart = diagram(area, report, most.max(most_copies), "per second")?;
    line(&mut chart, "offered", OFFERED, steps(report, offered))?;
    line(&mut chart, "answered", ANSWERED, steps(report, answered))?;
    if report.lost > 0 {
        line(&mut chart, "lost", LOST, steps(report, lost))?;
    }
    if let Some(watched) = copies {
        let mut points = Vec::new();
        for (at, (from_s, copies)) in watched.copies.iter().enumerate() {
            let until_s = watched
                .copies
                .get(at + 1)
                .map_or(report.elapsed_s, |next| next.0);
            points.extend([(*from_s, f64::from(*copies)), (until_s, f64::from(*copies))]);
        }
        line(&mut chart, "copies (number)", BLUE_GREY, points)?;
    }
    legend(&mut chart)
}

fn draw_times<B: DrawingBackend>(area: &DrawingArea<B, Shift>, report: &Report) -> Drawn
where
    B::ErrorType: 'static,
{
    let most = most_of(report, |point| point.p99_ms);
    let mut chart = diagram(area, report, most, "ms to the answer")?;
    line(&mut chart, "p99", P99, steps(report, |point| point.p99_ms))?;
    line(&mut chart, "p50", P50, steps(report, |point| point.p50_ms))?;
    legend(&mut chart)
}

fn most_of(report: &Report, value: impl Fn(&Point) -> f64) -> f64 {
    report.series.iter().map(value).fold(0.0, f64::max)
}

/// A value that holds for a stretch is a level line over it.
fn steps(report: &Report, value: impl Fn(&Point) -> f64) -> Vec<(f64, f64)> {
    let ends = |point: &Point| {
        let level = value(point);
        [(point.at_s, level), (point.at_s + point.length_s, level)]
    };
    report.series.iter().flat_map(ends).collect()
}

fn line<'a, B: DrawingBackend + 'a>(
    chart: &mut ChartContext<'a, B, Cartesian2d<RangedCoordf64, RangedCoordf64>>,
    name: &str,
    colour: RGBColor,
    points: Vec<(f64, f64)>,
) -> Drawn
where
    B::ErrorType: 'static,
{
    let style = colour.stroke_width(2);
    chart
        .draw_series(LineSeries::new(points, style))?
        .label(name)
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
    Ok(())
}

fn legend<'a, B: DrawingBackend + 'a>(
    chart: &mut ChartContext<'a, B, Cartesian2d<RangedCoordf64, RangedCoordf64>>,
) -> Drawn
where
    B::ErrorType: 'static,
{
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .label_font((FONT, 13))
        .draw()?;
    Ok(())
}
