//! The series of a reading as OTLP has them: the same names, labels and figures as in Prometheus' text.

use handshake_agent::model::metric::series::{Family, Kind};

use super::messages::{
    CUMULATIVE, Exemplar, Gauge, Histogram, HistogramPoint, KeyValue, Metric, MetricsRequest, NumberPoint,
    ResourceMetrics, ScopeMetrics, Sum, signed,
};
use super::origin::Origin;
use crate::figures::{self, Exposition, Filled, Sample, Times, Value};
use crate::prometheus::Seconds;

/// A reading as a message.
pub(super) fn request(exposition: &Exposition, origin: &Origin) -> MetricsRequest {
    let filled = exposition.families.iter().filter(|filled| !filled.samples.is_empty());
    let metrics = filled.map(|filled| metric(exposition, filled)).collect();
    let scope_metrics = vec![ScopeMetrics { scope: Some(origin.scope.clone()), metrics }];
    let resource = Some(origin.resource.clone());
    MetricsRequest { resource_metrics: vec![ResourceMetrics { resource, scope_metrics }] }
}

fn metric(exposition: &Exposition, Filled { family, samples }: &Filled) -> Metric {
    let mut metric = Metric {
        name: family.name.to_owned(),
        description: family.help.to_owned(),
        unit: unit(family).to_owned(),
        ..Metric::default()
    };
    let labels = |sample| {
        let labels = exposition.labels(family, sample);
        labels.map(|(name, value)| KeyValue::text(name, value)).collect::<Vec<_>>()
    };
    let (began_ns, time_ns) = (exposition.began_ns, exposition.read_ns);
    let numbers = |start_ns| {
        let number = |sample| number(sample, start_ns, time_ns, labels(sample));
        samples.iter().filter_map(number).collect()
    };
    match family.kind {
        Kind::Counter => {
            metric.sum = Some(Sum { points: numbers(began_ns), temporality: CUMULATIVE, is_monotonic: true });
        }
        Kind::Gauge => metric.gauge = Some(Gauge { points: numbers(0) }),
        Kind::Histogram => {
            let times = |sample| times(sample, began_ns, time_ns, labels(sample));
            let points = samples.iter().filter_map(times).collect();
            metric.histogram = Some(Histogram { points, temporality: CUMULATIVE });
        }
    }
    metric
}

/// By UCUM. Where Prometheus' names have a unit, receivers that name units by suffixes add none; one in braces
/// or 1 would make some of them add a suffix, so other figures have none.
fn unit(family: &Family) -> &'static str {
    let name = family.name.trim_end_matches("_total");
    match name {
        _ if name.ends_with("_seconds") => "s",
        _ if name.ends_with("_bytes") => "By",
        _ => "",
    }
}

fn number(sample: &Sample, start_ns: u64, time_ns: u64, attributes: Vec<KeyValue>) -> Option<NumberPoint> {
    let exemplars = sample.exemplar.iter().map(exemplar).collect();
    let point = NumberPoint { start_ns, time_ns, exemplars, attributes, ..NumberPoint::default() };
    match &sample.value {
        Value::Number(number) => Some(NumberPoint { as_int: Some(signed(*number)), ..point }),
        Value::Time(ns) => Some(NumberPoint { as_double: Some(seconds((*ns).into())), ..point }),
        Value::Times(_) => None,
    }
}

fn times(sample: &Sample, start_ns: u64, time_ns: u64, attributes: Vec<KeyValue>) -> Option<HistogramPoint> {
    let Value::Times(Times { up_to, count, sum_ns }) = &sample.value else { return None };
    let bounds = up_to.iter().map(|(bound, _)| seconds((*bound).into())).collect();
    let below = std::iter::once(&0).chain(up_to.iter().map(|(_, below)| below));
    let up_to_each = up_to.iter().map(|(_, up_to)| up_to).chain([count]);
    let bucket_counts = up_to_each.zip(below).map(|(up_to, below)| up_to - below).collect();
    Some(HistogramPoint {
        start_ns,
        time_ns,
        count: *count,
        sum: Some(seconds(*sum_ns)),
        bucket_counts,
        bounds,
        attributes,
    })
}

fn exemplar(exemplar: &figures::Exemplar) -> Exemplar {
    let figures::Exemplar { initiator, responder, began_ns, .. } = exemplar;
    let attributes = vec![
        KeyValue::text("initiator", initiator.to_string()),
        KeyValue::text("responder", responder.to_string()),
    ];
    Exemplar { time_ns: *began_ns, as_int: Some(1), attributes }
}

fn seconds(ns: u128) -> f64 {
    Seconds(ns).nearest()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use handshake_agent::fake::{Fake, snapshot};
    use handshake_agent::model::snapshot::Snapshot;
    use handshake_common::abi::Counter;
    use handshake_common::verdict::{Cause, Verdict};
    use prost::Message as _;

    use super::{request, seconds};
    use crate::figures::{Beside, Exemplar, Exposition, Figures, Named};
    use crate::otlp::messages::{KeyValue, Metric, MetricsRequest, NumberPoint};
    use crate::otlp::origin::Origin;
    use crate::prometheus::{Form, text};

    fn exposition() -> Exposition {
        let (mut fake, before) = (Fake::new(), snapshot());
        fake.count(Counter::Attempts, 3);
        fake.count(Counter::Completed, 2);
        fake.count(Counter::ExpiredNoAck, 1);
        let now = Snapshot::take(&mut fake, &Arc::clone(&before.context), Some(&before));
        let exemplar = Exemplar {
            verdict: Verdict::HalfOpenExpired,
            cause: Some(Cause::NoAck),
            initiator: "10.0.0.1:40000".parse().expect("an end"),
            responder: "10.0.0.2:443".parse().expect("an end"),
            began_ns: 7,
        };
        let beside =
            Beside { exemplars: vec![exemplar], dropped: vec![("otlp_metrics", 0)], ..Beside::default() };
        let labels = [("site".to_owned(), "fra".to_owned())];
        Figures::new(Named { labels: &labels, ..Named::default() }).take_in(
            &now.expect("a fake never fails"),
            &before,
            &beside,
        )
    }

    fn decoded(exposition: &Exposition) -> MetricsRequest {
        let request = request(exposition, &Origin::new("node-1", &[]));
        MetricsRequest::decode(&*request.encode_to_vec()).expect("it is a message")
    }

    fn metrics(request: &MetricsRequest) -> &[Metric] {
        &request.resource_metrics[0].scope_metrics[0].metrics
    }

    fn labels(attributes: &[KeyValue]) -> String {
        let label = |KeyValue { key, value }: &KeyValue| {
            let text = value.as_ref().and_then(|value| value.text.as_deref());
            format!("{key}=\"{}\"", text.expect("a text"))
        };
        attributes.iter().map(label).collect::<Vec<_>>().join(",")
    }

    /// Each line of Prometheus' text is a figure of the message, and each figure of the message a line.
    #[test]
    fn the_figures_are_those_of_the_text() {
        let exposition = exposition();
        let mut lines = Vec::new();
        for metric in metrics(&decoded(&exposition)) {
            let points = metric.sum.iter().flat_map(|sum| &sum.points);
            for point in points.chain(metric.gauge.iter().flat_map(|gauge| &gauge.points)) {
                let figure = point.as_int.map(|number| number as f64).or(point.as_double);
                lines.push((metric.name.clone(), labels(&point.attributes), figure.expect("it is present")));
            }
            for point in metric.histogram.iter().flat_map(|histogram| &histogram.points) {
                let labels = labels(&point.attributes);
                let bounds = point.bounds.iter().copied().chain([f64::INFINITY]);
                let mut up_to = 0;
                for (bound, count) in bounds.zip(&point.bucket_counts) {
                    up_to += count;
                    let name = format!("{}_bucket", metric.name);
                    lines.push((name, format!("{labels},le=\"{bound:e}\""), up_to as f64));
                }
                lines.push((format!("{}_sum", metric.name), labels.clone(), point.sum.expect("a sum")));
                lines.push((format!("{}_count", metric.name), labels, point.count as f64));
            }
        }
        let bound = |labels: &str| match labels.split_once("le=\"") {
            Some((before, bound)) => {
                let bound: f64 = bound.trim_end_matches('"').parse().expect("a bound");
                format!("{before}le=\"{bound:e}\"")
            }
            None => labels.to_owned(),
        };
        let text = text(&exposition, Form::Plain);
        let written: Vec<_> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| {
                let (series, figure) = line.rsplit_once(' ').expect("a figure");
                let (name, labels) = series.trim_end_matches('}').split_once('{').unwrap_or((series, ""));
                (name.to_owned(), bound(labels), figure.parse::<f64>().expect("a number"))
            })
            .collect();
        assert_eq!(lines, written);
    }

    #[test]
    fn a_point_says_what_it_is_of_and_an_exemplar_which_flow() {
        let exposition = exposition();
        let decoded = decoded(&exposition);
        let metric = |name: &str| metrics(&decoded).iter().find(|metric| metric.name == name).expect(name);
        let attempts = metric("handshake_attempts_total");
        let sum = attempts.sum.as_ref().expect("a counter");
        assert_eq!((sum.temporality, sum.is_monotonic, attempts.unit.as_str()), (2, true, ""));
        let site = vec![KeyValue::text("site", "fra")];
        let (start_ns, time_ns) = (exposition.began_ns, exposition.read_ns);
        let usual = NumberPoint { start_ns, time_ns, attributes: site, ..NumberPoint::default() };
        assert_eq!(sum.points, [NumberPoint { as_int: Some(3), ..usual.clone() }]);
        let opening = metric("handshake_opening").gauge.as_ref().expect("a gauge");
        assert_eq!(opening.points, [NumberPoint { start_ns: 0, as_int: Some(0), ..usual }]);
        let start = metric("handshake_start_time_seconds");
        let begun = start.gauge.as_ref().expect("a gauge").points[0].as_double;
        assert_eq!((begun, start.unit.as_str()), (Some(seconds(start_ns.into())), "s"));
        assert_eq!(metric("handshake_udp_bytes_total").unit, "By");
        assert_eq!(metric("handshake_latency_seconds").histogram.as_ref().expect("one").temporality, 2);
        let verdicts = metric("handshake_verdicts_total").sum.as_ref().expect("a counter");
        let exemplars: Vec<_> = verdicts.points.iter().flat_map(|point| &point.exemplars).collect();
        assert_eq!(
            labels(&exemplars[0].attributes),
            "initiator=\"10.0.0.1:40000\",responder=\"10.0.0.2:443\""
        );
        assert_eq!((exemplars.len(), exemplars[0].time_ns, exemplars[0].as_int), (1, 7, Some(1)));
    }

    /// A point of 0 takes as many bytes as one of 1: its figure is there.
    #[test]
    fn a_point_of_0_is_present_on_the_wire() {
        let point = |as_int| NumberPoint { as_int, ..NumberPoint::default() }.encoded_len();
        assert_eq!((point(None), point(Some(0)), point(Some(1))), (0, 9, 9));
    }

    #[test]
    fn the_resource_is_this_agent_on_this_node() {
        let of = |attributes: &[(&str, &str)]| {
            let attributes: Vec<_> =
                attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let resource = Origin::new("node-1", &attributes).resource;
            let text = |attribute: &KeyValue| attribute.value.as_ref().and_then(|value| value.text.clone());
            let all =
                resource.attributes.iter().map(|each| (each.key.clone(), text(each).unwrap_or_default()));
            all.collect::<Vec<_>>()
        };
        let usual = of(&[]);
        let names: Vec<&str> = usual.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["service.name", "service.version", "service.instance.id", "host.name"]);
        assert_eq!((usual[0].1.as_str(), usual[3].1.as_str()), ("handshake", "node-1"));
        assert!(usual[2].1.len() == 36 && usual[2].1.as_bytes()[14] == b'4', "a random UUID: {}", usual[2].1);
        assert_ne!(of(&[])[2], usual[2]);
        let named = of(&[("service.name", "a"), ("x", "1"), ("service.name", "b")]);
        let count = |name: &str| named.iter().filter(|(each, _)| each == name).count();
        assert!(named.contains(&("service.name".to_owned(), "b".to_owned())) && count("service.name") == 1);
        assert!(named.contains(&("x".to_owned(), "1".to_owned())) && named.len() == 5);
    }
}
