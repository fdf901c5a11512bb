//! Pictures of what happened over time, as SVG or PNG: the sheet, its diagrams and their lines.
//! `load/chart.rs` and `sim/plot.rs` say what is on them.

use std::{
    error::Error,
    fs::File,
    io,
    path::{Path, PathBuf},
};

use plotters::{
    coord::{Shift, types::RangedCoordf64},
    prelude::*,
    style::{FontStyle, register_font},
};

/// Pixels, of PNG; SVG scales.
const SIZE: (u32, u32) = (1000, 640);
/// The name that the text of the picture asks for; PNG is drawn with the font that is built in.
const FONT: &str = "sans-serif";

/// Axes, and what is no measurement.
pub const BLUE_GREY: RGBColor = RGBColor(110, 120, 140);
/// What clients ask for.
pub const OFFERED: RGBColor = RGBColor(31, 119, 180);
/// What is done for them, or can be.
pub const ANSWERED: RGBColor = RGBColor(44, 140, 44);
/// What is lost, or waits.
pub const LOST: RGBColor = RGBColor(200, 40, 40);
/// Anything else.
pub const VIOLET: RGBColor = RGBColor(148, 103, 189);
/// The same.
pub const ORANGE: RGBColor = RGBColor(230, 126, 20);

/// Whether it was drawn.
pub type Drawn = Result<(), Box<dyn Error>>;
/// Two axes from 0 on: seconds, and a scale.
pub type Diagram<'a, B> = ChartContext<'a, B, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub enum ChartError {
    /// The kind of picture is told by the name, and this one tells none.
    #[error("{}: the name of a picture must end in .svg or .png", path.display())]
    Ending {
        /// Its path.
        path: PathBuf,
    },
    /// The file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It could not be drawn.
    #[error("cannot draw {}: {why}", path.display())]
    Draw {
        /// Its path.
        path: PathBuf,
        /// What the drawing library says.
        why: String,
    },
}

/// What is on a sheet: a diagram above, and one below.
pub trait Picture {
    /// What it shows, in a line.
    fn title(&self) -> String;

    /// Draws the upper diagram.
    fn above<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Drawn
    where
        B::ErrorType: 'static;

    /// Draws the lower one.
    fn below<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Drawn
    where
        B::ErrorType: 'static;
}

/// A file that a picture is drawn into.
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
    pub fn create(path: &Path) -> Result<Self, ChartError> {
        let ending = path.extension().and_then(|ending| ending.to_str());
        let path = path.to_owned();
        let kind = match ending.map(str::to_ascii_lowercase).as_deref() {
            Some("svg") => Kind::Svg,
            Some("png") => Kind::Png,
            _ => return Err(ChartError::Ending { path }),
        };
        match File::create(&path) {
            Ok(_) => Ok(Self { path, kind }),
            Err(source) => Err(ChartError::Write { path, source }),
        }
    }

    /// Draws into it.
    pub fn draw(self, picture: &impl Picture) -> Result<(), ChartError> {
        let drawn = match self.kind {
            Kind::Svg => draw(SVGBackend::new(&self.path, SIZE), picture),
            Kind::Png => draw(BitMapBackend::new(&self.path, SIZE), picture),
        };
        drawn.map_err(|error| ChartError::Draw {
            path: self.path,
            why: error.to_string(),
        })
    }
}

fn draw<B: DrawingBackend>(backend: B, picture: &impl Picture) -> Drawn
where
    B::ErrorType: 'static,
{
    // Both kinds measure their text with it, so that neither needs fonts of the host.
    register_font(FONT, FontStyle::Normal, notosans::REGULAR_TTF)
        .map_err(|_| "the built-in font cannot be read")?;
    let area = backend.into_drawing_area();
    area.fill(&WHITE)?;
    let area = area.titled(&picture.title(), (FONT, 18))?;
    let (above, below) = area.split_vertically(SIZE.1 * 55 / 100);
    picture.above(&above)?;
    picture.below(&below)?;
    area.present()?;
    Ok(())
}

/// A diagram with so many seconds below, and a scale from 0 to a little over `most`.
pub fn diagram<'a, B: DrawingBackend>(
    area: &'a DrawingArea<B, Shift>,
    seconds: f64,
    most: f64,
    unit: &str,
) -> Result<Diagram<'a, B>, Box<dyn Error>>
where
    B::ErrorType: 'static,
{
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .x_label_area_size(34)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..seconds.max(1.0), 0.0..(most * 1.08).max(1.0))?;
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

/// A line through these points.
pub fn line<'a, B: DrawingBackend + 'a>(
    chart: &mut Diagram<'a, B>,
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

/// The same, with what is below it filled.
pub fn hill<'a, B: DrawingBackend + 'a>(
    chart: &mut Diagram<'a, B>,
    name: &str,
    colour: RGBColor,
    points: Vec<(f64, f64)>,
) -> Drawn
where
    B::ErrorType: 'static,
{
    let (inside, style) = (colour.mix(0.25), colour.stroke_width(1));
    chart
        .draw_series(AreaSeries::new(points, 0.0, inside).border_style(style))?
        .label(name)
        .legend(move |(x, y)| Rectangle::new([(x, y - 4), (x + 18, y + 4)], inside.filled()));
    Ok(())
}

/// The names of what is in the diagram.
pub fn legend<'a, B: DrawingBackend + 'a>(chart: &mut Diagram<'a, B>) -> Drawn
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
