//! What the feature `metrics` of the crate counts, in Prometheus' text format, version 0.0.4: an exporter of the `metrics`
//! facade that keeps all series in memory and writes them when it is asked. For more (push, expiry, summaries) there is the
//! crate `metrics-exporter-prometheus`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::{Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit};

/// Upper bounds of the buckets of latencies, in seconds. Alerts are at 4 and 6 seconds, attempts end at 10 by default.
const BUCKETS_S: [f64; 16] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 30.0];

/// Cheap to clone; all clones share their series.
#[derive(Clone, Debug, Default)]
pub(crate) struct Prometheus(Arc<Mutex<BTreeMap<String, BTreeMap<String, Series>>>>);

#[derive(Clone, Debug)]
enum Series {
    Counter(Arc<AtomicU64>),
    /// The bits of a float.
    Gauge(Arc<AtomicU64>),
    Histogram(Arc<Buckets>),
}

/// How many values were at most each bound, and beyond the last.
#[derive(Debug, Default)]
struct Buckets {
    counts: [AtomicU64; BUCKETS_S.len() + 1],
    sum_microseconds: AtomicU64,
}

impl Prometheus {
    /// All series, those of a name together below their type.
    pub(crate) fn page(&self) -> String {
        let mut page = String::new();
        for (name, by_labels) in &*self.lock() {
            let kind = by_labels.values().next().map_or("untyped", Series::kind);
            page.push_str(&format!("# TYPE {name} {kind}\n"));
            for (labels, series) in by_labels {
                series.write(name, labels, &mut page);
            }
        }
        page
    }

    /// The series with this key, made if it is new; what is there under another type stays.
    fn series(&self, key: &Key, new: impl FnOnce() -> Series) -> Series {
        let label = |label: &metrics::Label| format!("{}=\"{}\"", label.key(), escaped(label.value()));
        let labels: Vec<String> = key.labels().map(label).collect();
        let mut families = self.lock();
        families.entry(key.name().to_owned()).or_default().entry(labels.join(",")).or_insert_with(new).clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, BTreeMap<String, Series>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recorder for Prometheus {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        match self.series(key, || Series::Counter(Arc::default())) {
            Series::Counter(value) => Counter::from_arc(value),
            _ => Counter::noop(),
        }
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        match self.series(key, || Series::Gauge(Arc::default())) {
            Series::Gauge(value) => Gauge::from_arc(value),
            _ => Gauge::noop(),
        }
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        match self.series(key, || Series::Histogram(Arc::default())) {
            Series::Histogram(value) => Histogram::from_arc(value),
            _ => Histogram::noop(),
        }
    }
}

impl HistogramFn for Buckets {
    fn record(&self, seconds: f64) {
        let at = BUCKETS_S.partition_point(|bound| *bound < seconds);
        self.counts[at].fetch_add(1, Ordering::Relaxed);
        self.sum_microseconds.fetch_add((seconds * 1e6) as u64, Ordering::Relaxed);
    }
}

impl Series {
    fn kind(&self) -> &'static str {
        match self {
            Self::Counter(_) => "counter",
            Self::Gauge(_) => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }

    fn write(&self, name: &str, labels: &str, page: &mut String) {
        let in_braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        match self {
            Self::Counter(value) => page.push_str(&format!("{name}{in_braces} {}\n", value.load(Ordering::Relaxed))),
            Self::Gauge(value) => {
                page.push_str(&format!("{name}{in_braces} {}\n", f64::from_bits(value.load(Ordering::Relaxed))));
            }
            Self::Histogram(buckets) => {
                let comma = if labels.is_empty() { "" } else { "," };
                let bounds = BUCKETS_S.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
                let mut sum = 0;
                for (bound, count) in bounds.zip(&buckets.counts) {
                    sum += count.load(Ordering::Relaxed);
                    page.push_str(&format!("{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {sum}\n"));
                }
                let seconds = buckets.sum_microseconds.load(Ordering::Relaxed) as f64 / 1e6;
                page.push_str(&format!("{name}_sum{in_braces} {seconds}\n{name}_count{in_braces} {sum}\n"));
            }
        }
    }
}

/// As the format wants it in the value of a label.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
