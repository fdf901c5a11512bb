use super::*;

fn plan(pattern: Pattern, seconds: u64) -> Plan {
    Plan {
        pattern,
        duration: Some(Duration::from_secs(seconds)),
        spacing: Spacing::Even,
        seed: 1,
    }
}

fn per_second(plan: &Plan) -> Vec<usize> {
    let mut counts = vec![0; plan.length().as_secs_f64().ceil() as usize];
    for time in plan.arrivals() {
        counts[time.as_secs() as usize] += 1;
    }
    counts
}

fn poisson(mut plan: Plan, seed: u64) -> Plan {
    (plan.spacing, plan.seed) = (Spacing::Poisson, seed);
    plan
}

fn all() -> Vec<Pattern> {
    vec![
        Pattern::Deterministic,
        Pattern::Random { shortest_ms: 1 },
        Pattern::Constant { rate: 7.3 },
        Pattern::Ramp {
            from: 0.0,
            to: 50.0,
        },
        Pattern::Ramp {
            from: 50.0,
            to: 0.0,
        },
        Pattern::Spike {
            low: 0.0,
            high: 90.0,
        },
        Pattern::Sine {
            low: 0.0,
            high: 40.0,
            period: Some(Duration::from_secs(7)),
        },
        Pattern::Trace {
            trace: Trace::new(Duration::from_secs(1), vec![0, 3, 0, 0, 9, 1, 0]),
            peak: None,
        },
    ]
}

/// The known client counts a request only where its pause ends before the second does.
#[test]
fn deterministic_has_215_arrivals_in_half_a_minute() {
    let plan = plan(Pattern::Deterministic, 30);
    let expect: Vec<_> = [1, 9, 1, 9, 4, 19].iter().flat_map(|n| [*n; 5]).collect();
    assert_eq!(per_second(&plan), expect);
    assert_eq!(plan.arrivals().count(), 215);
    let ms: Vec<_> = plan.arrivals().map(|time| time.as_millis()).collect();
    assert_eq!(&ms[..8], [800, 1800, 2800, 3800, 4800, 5100, 5200, 5300]);
    assert_eq!(&ms[213..], [29_900, 29_950]);
}

#[test]
fn deterministic_repeats_itself_and_can_be_cut() {
    assert_eq!(plan(Pattern::Deterministic, 60).arrivals().count(), 430);
    assert_eq!(plan(Pattern::Deterministic, 7).arrivals().count(), 5 + 18);
}

#[test]
fn random_keeps_a_gap_for_five_seconds_and_within_its_bounds() {
    for seed in 0..50 {
        let mut plan = plan(Pattern::Random { shortest_ms: 20 }, 60);
        plan.seed = seed;
        let mut last = (0, Duration::ZERO);
        let mut gaps: Vec<(u64, u64)> = Vec::new();
        for time in plan.arrivals() {
            let gap = time.abs_diff(last.1).as_millis() as u64;
            assert!((20..=999).contains(&gap), "{gap}");
            gaps.push((last.1.as_secs() / 5, gap));
            last = (gap, time);
        }
        gaps.dedup();
        assert_eq!(gaps.len(), 12, "one gap per phase: {gaps:?}");
    }
}

#[test]
fn a_seed_gives_the_same_times_and_another_others() {
    for pattern in [
        Pattern::Random { shortest_ms: 1 },
        Pattern::Constant { rate: 100.0 },
    ] {
        let times = |seed| {
            let plan = poisson(plan(pattern.clone(), 20), seed);
            plan.arrivals().collect::<Vec<_>>()
        };
        assert_eq!(times(7), times(7));
        assert_ne!(times(7), times(8));
    }
    // Written down, so that a change of the generator does not go unseen.
    let plan = plan(Pattern::Random { shortest_ms: 1 }, 5);
    assert_eq!(
        plan.arrivals().next().map(|time| time.as_millis()),
        Some(403)
    );
}

#[test]
fn times_never_fall_and_end_before_the_end() {
    for pattern in all() {
        for spacing in [Spacing::Even, Spacing::Poisson] {
            let mut plan = plan(pattern.clone(), 21);
            plan.spacing = spacing;
            let times: Vec<_> = plan.arrivals().collect();
            assert!(times.is_sorted(), "{pattern}");
            assert!(times.iter().all(|time| *time < plan.length()), "{pattern}");
            assert!(!times.is_empty(), "{pattern}");
        }
    }
}

#[test]
fn constant_is_exact_also_where_the_rate_is_no_binary_fraction() {
    for (rate, seconds, expect) in [(0.1, 30, 3), (2.5, 4, 10), (1e4, 3, 30_000), (0.3, 10, 3)] {
        let plan = plan(Pattern::Constant { rate }, seconds);
        assert_eq!(plan.arrivals().count(), expect, "{rate}");
        assert_eq!(plan.arrivals().next(), Some(Duration::ZERO));
    }
    assert_eq!(
        plan(Pattern::Constant { rate: 0.0 }, 9).arrivals().count(),
        0
    );
}

#[test]
fn a_ramp_has_the_area_below_it() {
    for (from, to) in [(0.0, 20.0), (20.0, 0.0), (5.0, 15.0), (10.0, 10.0)] {
        let plan = plan(Pattern::Ramp { from, to }, 100);
        assert_eq!(plan.arrivals().count(), 1000, "{from} to {to}");
        let half = plan
            .arrivals()
            .filter(|time| time.as_secs() < 50)
            .count()
            .cast_signed();
        let expect = (50.0 * (from * 0.75 + to * 0.25)) as isize;
        assert!((half - expect).abs() <= 1, "{half}, not {expect}");
    }
}

#[test]
fn a_spike_lasts_from_a_third_to_a_half() {
    let plan = plan(
        Pattern::Spike {
            low: 1.0,
            high: 10.0,
        },
        30,
    );
    let counts = per_second(&plan);
    assert_eq!(counts[..10], [1; 10]);
    assert_eq!(counts[10..15], [10; 5]);
    assert_eq!(counts[15..], [1; 15]);
}

#[test]
fn a_sine_begins_low_and_has_its_mean() {
    let plan = plan(
        Pattern::Sine {
            low: 0.0,
            high: 20.0,
            period: Some(Duration::from_secs(20)),
        },
        100,
    );
    let counts = per_second(&plan);
    // The last one falls where the rate is 0: before the end, or on it.
    assert!((1000..=1001).contains(&counts.iter().sum::<usize>()));
    assert!(counts[0] <= 1 && counts[9] >= 19 && counts[10] >= 19 && counts[19] <= 1);
}

#[test]
fn a_trace_is_kept_to_the_request() {
    let counts = vec![0, 3, 0, 17, 1, 0, 250, 0];
    for minutes in [false, true] {
        let interval = Duration::from_secs(if minutes { 60 } else { 1 });
        let trace = Trace::new(interval, counts.clone());
        let mut plan = plan(Pattern::Trace { trace, peak: None }, 0);
        plan.duration = None;
        let mut seen = vec![0; counts.len()];
        for time in plan.arrivals() {
            seen[(time.as_nanos() / interval.as_nanos()) as usize] += 1;
        }
        assert_eq!(seen, counts);
        assert_eq!(plan.length(), interval * 8);
    }
}

#[test]
fn a_trace_can_be_scaled_and_cut() {
    let trace = Trace::new(Duration::from_secs(1), vec![100, 200, 50, 50]);
    let peak = Some(20.0);
    let mut plan = plan(Pattern::Trace { trace, peak }, 3);
    assert_eq!(per_second(&plan), [10, 20, 5]);
    plan.duration = Some(Duration::from_secs(99));
    assert_eq!(plan.length(), Duration::from_secs(4), "never repeated");
}

#[test]
fn poisson_has_the_rate_and_the_spread_of_chance() {
    let plan = poisson(plan(Pattern::Constant { rate: 50.0 }, 400), 3);
    let counts = per_second(&plan);
    let mean = counts.iter().sum::<usize>() as f64 / 400.0;
    let spread = counts
        .iter()
        .map(|n| (*n as f64 - mean).powi(2))
        .sum::<f64>()
        / 400.0;
    // Both are the rate, within four standard errors of a sample of 400.
    assert!((mean - 50.0).abs() < 1.5, "{mean}");
    assert!((spread / mean - 1.0).abs() < 0.3, "{spread}");
}

#[test]
fn a_file_of_counts_is_read() {
    let text = "# of a day\n\nsecond, count\n17,3\n18,0\n# a gap\n21,5\n";
    let expect = Trace::new(Duration::from_secs(1), vec![3, 0, 0, 0, 5]);
    assert_eq!(Trace::parse(text), Ok(expect));
    let trace = Trace::parse("minute,count\r\n0,7\r\n").unwrap();
    assert_eq!(trace.interval(), Duration::from_mins(1));
}

#[test]
fn a_bad_file_is_told_with_its_line() {
    for (text, expect) in [
        ("", "there is nothing in it"),
        ("second,count\n# only that\n", "there is nothing in it"),
        ("1,2\n", "line 1: the header must be"),
        ("#\nhour,count\n", "line 2: the header must be"),
        ("second,count\n1,-2\n", "line 2: `1,-2` is not"),
        ("second,count\n1;2\n", "line 2: `1;2` is not"),
        (
            "second,count\n5,1\n5,1\n",
            "line 3: interval 5 comes after 5",
        ),
        (
            "second,count\n5,1\n4,1\n",
            "line 3: interval 4 comes after 5",
        ),
        ("second,count\n0,1\n900000000,1\n", "line 3: more than"),
    ] {
        let error = Trace::parse(text).unwrap_err().to_string();
        assert!(error.starts_with(expect), "{text:?}: {error}");
    }
}
