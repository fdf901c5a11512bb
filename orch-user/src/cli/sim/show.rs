//! Scores as a table.

use crate::{
    sim::study::{Mean, Score},
    table::{Side, Table},
};

/// A row for each.
pub(super) fn table(scores: &[Score]) -> Table {
    let mut table = Table::new(&[
        ("POLICY", Side::Left),
        ("REQUESTS", Side::Right),
        ("LOST", Side::Right),
        ("REFUSED", Side::Right),
        ("LATE", Side::Right),
        ("LATE%", Side::Right),
        ("COPY-S", Side::Right),
        ("ACTIONS", Side::Right),
        ("REVERSALS", Side::Right),
        ("P50", Side::Right),
        ("P99", Side::Right),
        ("UNDER", Side::Right),
        ("OVER", Side::Right),
    ]);
    for score in scores {
        table.row(vec![
            score.policy.clone(),
            number(score.arrivals, 0),
            number(score.unanswered, 1),
            number(score.refused, 0),
            number(score.late, 1),
            number(score.late_percent, 1),
            number(score.copy_seconds, 0),
            number(score.actions, 1),
            number(score.reversals, 1),
            format!("{:.2}s", score.p50_s.mean),
            format!("{:.2}s", score.p99_s.mean),
            number(score.under, 2),
            number(score.over, 2),
        ]);
    }
    table
}

fn number(mean: Mean, digits: usize) -> String {
    if mean.plus_minus == 0.0 {
        return format!("{:.digits$}", mean.mean);
    }
    format!("{:.digits$}±{:.digits$}", mean.mean, mean.plus_minus)
}
