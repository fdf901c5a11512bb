//! A run as a picture: requests offered, answered and lost per second above, with copies of the
//! service where they were watched, and times of the answers below.

use plotters::{
    coord::Shift,
    prelude::{DrawingArea, DrawingBackend},
};

use super::report::{Point, Report};
use crate::chart::{
    ANSWERED, BLUE_GREY, Drawn, LOST, OFFERED, ORANGE, Picture, VIOLET, diagram, legend, line,
};

impl Picture for Report {
    fn title(&self) -> String {
        format!("{}: {}", self.url, self.pattern)
    }

    fn above<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Drawn
    where
        B::ErrorType: 'static,
    {
        let offered = |point: &Point| point.offered as f64 / point.length_s;
        let answered = |point: &Point| point.answered as f64 / point.length_s;
        let lost = |point: &Point| point.lost as f64 / point.length_s;
        let copies = self.controller.as_ref();
        let most_copies = copies.map_or(0.0, |watched| f64::from(watched.copies_most));
        let most = most_of(self, |point| {
            offered(point).max(answered(point)).max(lost(point))
        });
        let most = most.max(most_copies);
        let mut chart = diagram(area, end_s(self), most, "per second")?;
        line(&mut chart, "offered", OFFERED, steps(self, offered))?;
        line(&mut chart, "answered", ANSWERED, steps(self, answered))?;
        if self.lost > 0 {
            line(&mut chart, "lost", LOST, steps(self, lost))?;
        }
        if let Some(watched) = copies {
            let mut points = Vec::new();
            for (at, (from_s, copies)) in watched.copies.iter().enumerate() {
                let until_s = watched
                    .copies
                    .get(at + 1)
                    .map_or(self.elapsed_s, |next| next.0);
                points.extend([(*from_s, f64::from(*copies)), (until_s, f64::from(*copies))]);
            }
            line(&mut chart, "copies (number)", BLUE_GREY, points)?;
        }
        legend(&mut chart)
    }

    fn below<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Drawn
    where
        B::ErrorType: 'static,
    {
        let most = most_of(self, |point| point.p99_ms);
        let mut chart = diagram(area, end_s(self), most, "ms to the answer")?;
        line(&mut chart, "p99", ORANGE, steps(self, |point| point.p99_ms))?;
        line(&mut chart, "p50", VIOLET, steps(self, |point| point.p50_ms))?;
        legend(&mut chart)
    }
}

fn end_s(report: &Report) -> f64 {
    let end = report.series.last();
    end.map_or(1.0, |point| point.at_s + point.length_s)
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
