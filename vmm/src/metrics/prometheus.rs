//! Prometheus's text format, version 0.0.4: `bantam_<group>_<name>{id="<device>"} <value>`.

use super::source::Source;
use devices::util::metrics::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// A metric with its samples.
#[derive(Default)]
struct Family {
    kind: &'static str,
    samples: String,
}

/// Returns the text of all values of `sources` for the guest `instance`.
pub fn text(instance: &str, sources: &[Source]) -> String {
    // The format requires all samples of a name in one place.
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for source in sources {
        let device = source.id.as_deref();
        let device = device.map_or_else(String::new, |id| format!(",id=\"{}\"", escaped(id)));
        let labels = format!("{{instance=\"{}\"{device}}}", escaped(instance));
        let group = source.set.group();
        source.set.visit(&mut |name, value| {
            let mut sample = |suffix: &str, kind: &'static str, value: u64| {
                let name = format!("bantam_{group}_{name}{suffix}");
                let family = families.entry(name.clone()).or_default();
                family.kind = kind;
                // Writing to a string cannot fail.
                let _ = writeln!(family.samples, "{name}{labels} {value}");
            };
            match value {
                Value::Count(n) => sample("_total", "counter", n),
                Value::Level(n) => sample("", "gauge", n),
                Value::Latency {
                    min_us,
                    max_us,
                    sum_us,
                    count,
                } => {
                    sample("_min_us", "gauge", min_us);
                    sample("_max_us", "gauge", max_us);
                    sample("_sum_us_total", "counter", sum_us);
                    sample("_count_total", "counter", count);
                }
            }
        });
    }
    families
        .into_iter()
        .fold(String::new(), |mut text, (name, family)| {
            let _ = write!(text, "# TYPE {name} {}\n{}", family.kind, family.samples);
            text
        })
}

fn escaped(label: &str) -> String {
    label
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
