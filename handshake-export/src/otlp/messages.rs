//! The messages of OTLP that are used here, with the field numbers of opentelemetry-proto 1.x. What is one of
//! several fields there is an optional field here: the bytes are the same, and a number that is 0 is present.
//! Fields stand in the order of their numbers, as encoders of the official messages write them.

use prost::Message;

/// A value of an attribute.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct AnyValue {
    /// Where it is a text.
    #[prost(string, optional, tag = "1")]
    pub text: Option<String>,
    /// Where it is a number.
    #[prost(int64, optional, tag = "3")]
    pub number: Option<i64>,
    /// Where it is several.
    #[prost(message, optional, tag = "5")]
    pub several: Option<ArrayValue>,
}

/// Several values.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ArrayValue {
    /// The values.
    #[prost(message, repeated, tag = "1")]
    pub values: Vec<AnyValue>,
}

/// An attribute.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct KeyValue {
    /// Its name.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Its value.
    #[prost(message, optional, tag = "2")]
    pub value: Option<AnyValue>,
}

/// What the figures and events are of.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Resource {
    /// What is known of it.
    #[prost(message, repeated, tag = "1")]
    pub attributes: Vec<KeyValue>,
}

/// The program that tells them.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Scope {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its version.
    #[prost(string, tag = "2")]
    pub version: String,
}

/// What is posted to `/v1/metrics`.
#[derive(Clone, PartialEq, Message)]
pub struct MetricsRequest {
    /// One.
    #[prost(message, repeated, tag = "1")]
    pub resource_metrics: Vec<ResourceMetrics>,
}

/// The figures of a resource.
#[derive(Clone, PartialEq, Message)]
pub struct ResourceMetrics {
    /// The resource.
    #[prost(message, optional, tag = "1")]
    pub resource: Option<Resource>,
    /// One.
    #[prost(message, repeated, tag = "2")]
    pub scope_metrics: Vec<ScopeMetrics>,
}

/// The figures of a program.
#[derive(Clone, PartialEq, Message)]
pub struct ScopeMetrics {
    /// The program.
    #[prost(message, optional, tag = "1")]
    pub scope: Option<Scope>,
    /// Its metrics.
    #[prost(message, repeated, tag = "2")]
    pub metrics: Vec<Metric>,
}

/// A metric: one of three kinds.
#[derive(Clone, PartialEq, Message)]
pub struct Metric {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// What it means.
    #[prost(string, tag = "2")]
    pub description: String,
    /// Its unit, by UCUM.
    #[prost(string, tag = "3")]
    pub unit: String,
    /// Where it rises and falls.
    #[prost(message, optional, tag = "5")]
    pub gauge: Option<Gauge>,
    /// Where it is a counter.
    #[prost(message, optional, tag = "7")]
    pub sum: Option<Sum>,
    /// Where it counts times.
    #[prost(message, optional, tag = "9")]
    pub histogram: Option<Histogram>,
}

/// A figure that rises and falls.
#[derive(Clone, PartialEq, Message)]
pub struct Gauge {
    /// Its points.
    #[prost(message, repeated, tag = "1")]
    pub points: Vec<NumberPoint>,
}

/// `AGGREGATION_TEMPORALITY_CUMULATIVE`: from the start on.
pub const CUMULATIVE: i32 = 2;

/// A sum.
#[derive(Clone, PartialEq, Message)]
pub struct Sum {
    /// Its points.
    #[prost(message, repeated, tag = "1")]
    pub points: Vec<NumberPoint>,
    /// From when on it sums: [`CUMULATIVE`].
    #[prost(int32, tag = "2")]
    pub temporality: i32,
    /// Whether it only rises.
    #[prost(bool, tag = "3")]
    pub is_monotonic: bool,
}

/// The figure of a series.
#[derive(Clone, PartialEq, Message)]
pub struct NumberPoint {
    /// When counting began, ns since the Unix epoch; 0 for what is no count.
    #[prost(fixed64, tag = "2")]
    pub start_ns: u64,
    /// When it was read.
    #[prost(fixed64, tag = "3")]
    pub time_ns: u64,
    /// The figure, where it is a time.
    #[prost(double, optional, tag = "4")]
    pub as_double: Option<f64>,
    /// Flows that it counts.
    #[prost(message, repeated, tag = "5")]
    pub exemplars: Vec<Exemplar>,
    /// The figure, where it is a number.
    #[prost(sfixed64, optional, tag = "6")]
    pub as_int: Option<i64>,
    /// The labels.
    #[prost(message, repeated, tag = "7")]
    pub attributes: Vec<KeyValue>,
}

/// One of what a figure counts.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Exemplar {
    /// When it was.
    #[prost(fixed64, tag = "2")]
    pub time_ns: u64,
    /// What it counts for.
    #[prost(sfixed64, optional, tag = "6")]
    pub as_int: Option<i64>,
    /// Which one it is.
    #[prost(message, repeated, tag = "7")]
    pub attributes: Vec<KeyValue>,
}

/// A histogram.
#[derive(Clone, PartialEq, Message)]
pub struct Histogram {
    /// Its points.
    #[prost(message, repeated, tag = "1")]
    pub points: Vec<HistogramPoint>,
    /// From when on it counts: [`CUMULATIVE`].
    #[prost(int32, tag = "2")]
    pub temporality: i32,
}

/// The times of a series.
#[derive(Clone, PartialEq, Message)]
pub struct HistogramPoint {
    /// When counting began, ns since the Unix epoch.
    #[prost(fixed64, tag = "2")]
    pub start_ns: u64,
    /// When it was read.
    #[prost(fixed64, tag = "3")]
    pub time_ns: u64,
    /// All times.
    #[prost(fixed64, tag = "4")]
    pub count: u64,
    /// Their sum.
    #[prost(double, optional, tag = "5")]
    pub sum: Option<f64>,
    /// How many lie in each bucket; the last has what is above all bounds.
    #[prost(fixed64, repeated, tag = "6")]
    pub bucket_counts: Vec<u64>,
    /// The upper bounds, which belong to their buckets.
    #[prost(double, repeated, tag = "7")]
    pub bounds: Vec<f64>,
    /// The labels.
    #[prost(message, repeated, tag = "9")]
    pub attributes: Vec<KeyValue>,
}

/// What is posted to `/v1/logs`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct LogsRequest {
    /// One.
    #[prost(message, repeated, tag = "1")]
    pub resource_logs: Vec<ResourceLogs>,
}

/// The events of a resource.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ResourceLogs {
    /// The resource.
    #[prost(message, optional, tag = "1")]
    pub resource: Option<Resource>,
    /// One.
    #[prost(message, repeated, tag = "2")]
    pub scope_logs: Vec<ScopeLogs>,
}

/// The events that a program tells.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ScopeLogs {
    /// The program.
    #[prost(message, optional, tag = "1")]
    pub scope: Option<Scope>,
    /// Its events.
    #[prost(message, repeated, tag = "2")]
    pub records: Vec<LogRecord>,
}

/// `SEVERITY_NUMBER_INFO`.
pub const INFO: i32 = 9;
/// `SEVERITY_NUMBER_WARN`.
pub const WARN: i32 = 13;

/// An event. It has a name and attributes, and no body.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct LogRecord {
    /// When it was, ns since the Unix epoch.
    #[prost(fixed64, tag = "1")]
    pub time_ns: u64,
    /// [`INFO`] or [`WARN`].
    #[prost(int32, tag = "2")]
    pub severity: i32,
    /// The same in words.
    #[prost(string, tag = "3")]
    pub severity_text: String,
    /// What is known of it.
    #[prost(message, repeated, tag = "6")]
    pub attributes: Vec<KeyValue>,
    /// When it was found.
    #[prost(fixed64, tag = "11")]
    pub observed_ns: u64,
    /// What kind of event it is.
    #[prost(string, tag = "12")]
    pub event_name: String,
}

/// The answer to what was posted; those to metrics and logs look the same.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Answer {
    /// What was not taken; absent where all was.
    #[prost(message, optional, tag = "1")]
    pub partial: Option<Partial>,
}

/// What was not taken.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Partial {
    /// Points or records that were not.
    #[prost(int64, tag = "1")]
    pub rejected: i64,
    /// Why, or a warning where it was all.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// The body of a refusal: `google.rpc.Status`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Status {
    /// A code of gRPC.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// Why.
    #[prost(string, tag = "2")]
    pub message: String,
}

impl AnyValue {
    fn of_text(text: impl Into<String>) -> Self {
        Self { text: Some(text.into()), ..Self::default() }
    }
}

impl KeyValue {
    /// A text.
    pub fn text(key: &str, value: impl Into<String>) -> Self {
        Self::of(key, AnyValue::of_text(value))
    }

    /// A number; what is larger than OTLP's numbers is the largest of them.
    pub fn number(key: &str, value: u64) -> Self {
        Self::of(key, AnyValue { number: Some(signed(value)), ..AnyValue::default() })
    }

    /// Several texts.
    pub fn texts(key: &str, values: &[&str]) -> Self {
        let values = values.iter().map(|value| AnyValue::of_text(*value)).collect();
        Self::of(key, AnyValue { several: Some(ArrayValue { values }), ..AnyValue::default() })
    }

    fn of(key: &str, value: AnyValue) -> Self {
        Self { key: key.to_owned(), value: Some(value) }
    }
}

/// A count as OTLP has it: it has no larger one.
pub(super) fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
