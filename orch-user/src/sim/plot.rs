//! A picture of a run: requests per second and what the copies can answer above, requests that
//! wait below.

use plotters::{
    coord::Shift,
    prelude::{
        AreaSeries, ChartBuilder, Color, DrawingArea, DrawingBackend, IntoDrawingArea, LineSeries,
        RGBColor, SVGBackend, WHITE,
    },
};

use super::outcome::{Outcome, Sample};

const SIZE: (u32, u32) = (1000, 640);
const ARRIVALS: RGBColor = RGBColor(120, 150, 190);
const CAPACITY: RGBColor = RGBColor(30, 110, 60);
const WANTED: RGBColor = RGBColor(200, 120, 20);
const WAITING: RGBColor = RGBColor(180, 50, 50);

/// Draws a run as SVG. `service_rate` is what a copy answers in a second.
pub fn svg(title: &str, outcome: &Outcome, service_rate: f64) -> Result<String, String> {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        draw(&area, title, outcome, service_rate).map_err(|error| error.to_string())?;
        area.present().map_err(|error| error.to_string())?;
    }
    Ok(text)
}

type Drawn<B> =
    Result<(), plotters::prelude::DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;

fn draw<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    title: &str,
    outcome: &Outcome,
    service_rate: f64,
) -> Drawn<B> {
    area.fill(&WHITE)?;
    let (upper, lower) = area.split_vertically(SIZE.1 * 2 / 3);
    let samples = &outcome.samples;
    let end = samples.last().map_or(1.0, |last| last.at.as_secs_f64());
    let rates = per_second(samples);
    let capacity = |copies: u16| f64::from(copies) * service_rate;
    let able: Vec<_> = samples
        .iter()
        .map(|sample| (at(sample), capacity(sample.ready)))
        .collect();
    let wanted: Vec<_> = samples
        .iter()
        .map(|sample| (at(sample), capacity(sample.wanted)))
        .collect();
    let highest = rates
        .iter()
        .chain(&able)
        .chain(&wanted)
        .map(|point| point.1);
    let highest = highest.fold(1.0, f64::max) * 1.1;
    let mut chart = ChartBuilder::on(&upper)
        .caption(title, ("sans-serif", 20))
        .margin(8)
        .x_label_area_size(24)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..end, 0.0..highest)?;
    chart
        .configure_mesh()
        .y_desc("requests/s")
        .light_line_style(WHITE)
        .draw()?;
    chart
        .draw_series(AreaSeries::new(rates, 0.0, ARRIVALS.mix(0.4)).border_style(ARRIVALS))?
        .label("arrivals")
        .legend(|at| swatch(at, ARRIVALS));
    chart
        .draw_series(LineSeries::new(able, CAPACITY.stroke_width(2)))?
        .label("what ready copies can answer")
        .legend(|at| swatch(at, CAPACITY));
    chart
        .draw_series(LineSeries::new(wanted, WANTED.stroke_width(1)))?
        .label("the same of copies wanted")
        .legend(|at| swatch(at, WANTED));
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.8))
        .draw()?;
    draw_waiting(&lower, samples, end)
}

fn draw_waiting<B: DrawingBackend>(
    lower: &DrawingArea<B, Shift>,
    samples: &[Sample],
    end: f64,
) -> Drawn<B> {
    let waiting: Vec<_> = samples
        .iter()
        .map(|sample| (at(sample), sample.waiting as f64))
        .collect();
    let most = waiting.iter().map(|point| point.1).fold(1.0, f64::max) * 1.1;
    let mut chart = ChartBuilder::on(lower)
        .margin(8)
        .x_label_area_size(30)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..end, 0.0..most)?;
    let mut mesh = chart.configure_mesh();
    mesh.x_desc("seconds")
        .y_desc("waiting")
        .light_line_style(WHITE)
        .draw()?;
    chart.draw_series(AreaSeries::new(waiting, 0.0, WAITING.mix(0.5)).border_style(WAITING))?;
    Ok(())
}

fn swatch(at: (i32, i32), colour: RGBColor) -> plotters::element::Rectangle<(i32, i32)> {
    let (x, y) = at;
    plotters::element::Rectangle::new([(x, y - 4), (x + 14, y + 4)], colour.filled())
}

fn at(sample: &Sample) -> f64 {
    sample.at.as_secs_f64()
}

/// Requests in each second.
fn per_second(samples: &[Sample]) -> Vec<(f64, f64)> {
    let whole: Vec<_> = samples
        .iter()
        .filter(|sample| sample.at.subsec_nanos() == 0)
        .collect();
    let pairs = whole.windows(2).filter_map(|pair| match pair {
        [before, after] => Some((
            at(after),
            after.requests.saturating_sub(before.requests) as f64,
        )),
        _ => None,
    });
    pairs.collect()
}
