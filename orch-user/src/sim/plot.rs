//! A simulated run as a picture: requests per second and what the copies can answer above, requests
//! that wait below.

use std::time::Duration;

use plotters::{
    coord::Shift,
    prelude::{DrawingArea, DrawingBackend},
};

use super::outcome::{Outcome, Sample};
use crate::{
    beat::BEAT,
    chart::{ANSWERED, Drawn, LOST, OFFERED, ORANGE, Picture, diagram, hill, legend, line},
};

/// Arrivals are drawn by the second.
const SECOND: Duration = Duration::from_secs(1);
/// Most points of a line: two for each pixel.
const POINTS: usize = 2000;

/// A run, and what is needed to draw it.
#[derive(Clone, Debug)]
pub struct Plot {
    /// Who decided.
    pub policy: String,
    /// What became of it.
    pub outcome: Outcome,
    /// What a copy answers in a second.
    pub service_rate: f64,
}

impl Picture for Plot {
    fn title(&self) -> String {
        let (policy, run) = (&self.policy, &self.outcome);
        format!(
            "{policy}: {} requests, {} without an answer, {:.0} copy-seconds",
            run.arrivals,
            run.unanswered(),
            run.copy_s()
        )
    }

    fn above<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Drawn
    where
        B::ErrorType: 'static,
    {
        let capacity = |copies: u16| f64::from(copies) * self.service_rate;
        let arrivals = self.per_second();
        let ready = self.points(|sample| capacity(sample.ready));
        let wanted = self.points(|sample| capacity(sample.wanted));
        let all = [&arrivals, &ready, &wanted].into_iter().flatten();
        let most = all.map(|point| point.1).fold(0.0, f64::max);
        let mut chart = diagram(area, self.end_s(), most, "requests per second")?;
        hill(&mut chart, "arrivals", OFFERED, arrivals)?;
        line(&mut chart, "copies wanted could answer", ORANGE, wanted)?;
        line(&mut chart, "ready copies can answer", ANSWERED, ready)?;
        legend(&mut chart)
    }

    fn below<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Drawn
    where
        B::ErrorType: 'static,
    {
        let waiting = self.points(|sample| sample.waiting as f64);
        let most = waiting.iter().map(|point| point.1).fold(0.0, f64::max);
        let mut chart = diagram(area, self.end_s(), most, "requests that wait")?;
        hill(&mut chart, "backlog", LOST, waiting)?;
        legend(&mut chart)
    }
}

impl Plot {
    fn end_s(&self) -> f64 {
        let last = self.outcome.samples.last();
        last.map_or(1.0, |last| last.at.as_secs_f64())
    }

    /// A value over time. Of readings that would fall on one pixel, the highest is drawn.
    fn points(&self, value: impl Fn(&Sample) -> f64) -> Vec<(f64, f64)> {
        let point = |sample: &Sample| (sample.at.as_secs_f64(), value(sample));
        thinned(self.outcome.samples.iter().map(point).collect(), 1)
    }

    /// Requests in each second, as a level line over it.
    fn per_second(&self) -> Vec<(f64, f64)> {
        let samples = self.outcome.samples.iter();
        let beats = (SECOND.as_nanos() / BEAT.as_nanos()) as usize;
        let whole: Vec<_> = samples.step_by(beats).collect();
        let pairs = whole.windows(2).filter_map(|pair| match pair {
            [before, after] => {
                let count = after.requests.saturating_sub(before.requests) as f64;
                Some([
                    (before.at.as_secs_f64(), count),
                    (after.at.as_secs_f64(), count),
                ])
            }
            _ => None,
        });
        // A level line keeps both of its ends.
        thinned(pairs.flatten().collect(), 2)
    }
}

/// The highest of each so many neighbours, and whole groups of them where they belong together.
fn thinned(points: Vec<(f64, f64)>, group: usize) -> Vec<(f64, f64)> {
    let stride = points.len().div_ceil(POINTS * group) * group;
    if stride <= group {
        return points;
    }
    let highest = |some: &[(f64, f64)]| {
        let most = some.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1));
        most.unwrap_or_default()
    };
    points.chunks(stride).map(highest).collect()
}
