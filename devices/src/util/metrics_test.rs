use super::*;

metric_set! {
    /// A set of metrics.
    pub struct Sample = "sample" {
        /// A counter.
        things: Counter,
        /// A latency.
        things_agg: Latency,
    }
}

fn values(set: &dyn MetricSet) -> Vec<(&'static str, Value)> {
    let mut values = Vec::new();
    set.visit(&mut |name, value| values.push((name, value)));
    values
}

fn latency(min_us: u64, max_us: u64, sum_us: u64, count: u64) -> Value {
    Value::Latency {
        min_us,
        max_us,
        sum_us,
        count,
    }
}

#[test]
fn a_set_is_visited_by_name() {
    let set = Sample::default();
    assert_eq!(set.group(), "sample");
    assert_eq!(
        values(&set),
        [
            ("things", Value::Count(0)),
            ("things_agg", latency(0, 0, 0, 0))
        ]
    );
    set.things.increment();
    set.things.add_bytes(41);
    for micros in [30, 10, 20] {
        set.things_agg.record(Duration::from_micros(micros));
    }
    assert_eq!(
        values(&set),
        [
            ("things", Value::Count(42)),
            ("things_agg", latency(10, 30, 60, 3))
        ]
    );
}
