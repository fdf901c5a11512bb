//! How is a metric written in Prometheus' format?

use std::fmt::{self, Display, Write};

use super::durations::{BOUNDS, Durations};

pub(super) type Label<'a> = (&'a str, &'a dyn Display);

#[derive(Default)]
pub(super) struct Page {
    pub(super) text: String,
}

impl Page {
    pub(super) fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.put(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    pub(super) fn line(&mut self, name: &str, labels: &[Label<'_>], value: impl Display) {
        self.put(format_args!("{name}"));
        for (at, (label, value)) in labels.iter().enumerate() {
            let before = if at == 0 { '{' } else { ',' };
            let value = escaped(&value.to_string());
            self.put(format_args!("{before}{label}=\"{value}\""));
        }
        let after = if labels.is_empty() { "" } else { "}" };
        self.put(format_args!("{after} {value}\n"));
    }

    /// `bounds` are cumulative.
    pub(super) fn histogram(
        &mut self,
        name: &str,
        labels: &[Label<'_>],
        bounds: &[(f64, u64)],
        count: u64,
        sum: f64,
    ) {
        let bucket = format!("{name}_bucket");
        for (bound, upto) in bounds {
            let mut labels = labels.to_vec();
            labels.push(("le", bound));
            self.line(&bucket, &labels, upto);
        }
        let mut all = labels.to_vec();
        all.push(("le", &"+Inf"));
        self.line(&bucket, &all, count);
        self.line(&format!("{name}_sum"), labels, sum);
        self.line(&format!("{name}_count"), labels, count);
    }

    pub(super) fn durations(&mut self, name: &str, all: &Durations) {
        let bounds: Vec<_> = BOUNDS.into_iter().zip(all.up_to).collect();
        self.histogram(name, &[], &bounds, all.count, all.sum_s);
    }

    fn put(&mut self, text: fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.text.write_fmt(text);
    }
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
