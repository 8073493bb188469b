"""Reads what OTLP has carried by the messages that OpenTelemetry publishes, and holds it against others.

    figures PAGE FOLDER     the latest message of metrics against a page of Prometheus
    stored PAGE EXPORT      what VictoriaMetrics has stored against such a page
    metrics FOLDER          the counts of readings and drops in all messages
    logs FOLDER             records by event and verdict
    rows FILE               rows of a file by event and verdict, by DuckDB
    chdb FILE DOCS          the same by ClickHouse's engine, by the statements that the text of docs/fleet.md has:
                            the rows of each answer, and how many attempts have an owner of their responder
"""

import collections
import json
import math
import os
import re
import sys

# VictoriaMetrics keeps decimals: a time since 1970 in ns has more digits.
DIGITS = 14

# Each reading counts and times itself.
OF_READINGS = {"handshake_readings_total", "handshake_reading_seconds"}


def bodies(folder):
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), "rb") as body:
            yield body.read()


def messages(folder, kind):
    """Each body as a message, and how many of them the official classes write in the same bytes."""
    if kind == "metrics":
        from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as service

        of = service.ExportMetricsServiceRequest
    else:
        from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as service

        of = service.ExportLogsServiceRequest
    read, same = [], 0
    for body in bodies(folder):
        message = of.FromString(body)
        same += message.SerializeToString() == body
        read.append(message)
    return read, same


def page(path):
    """The series of a page of Prometheus."""
    series = {}
    with open(path) as lines:
        for line in lines:
            if line.startswith("#"):
                continue
            found = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)\n?", line)
            name, labels, figure = found.groups()
            pairs = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels or ""))
            series[key(name, pairs)] = float(figure)
    return series


def key(name, labels):
    labels = {label: value for label, value in labels.items() if value}
    if "le" in labels:
        labels["le"] = float(labels["le"].replace("+Inf", "inf"))
    return name, frozenset(labels.items())


def exported(message):
    """The series of a message, under the names of Prometheus, and how many figures of 0 are present."""
    series, zeros = {}, 0
    text = lambda point: {each.key: each.value.string_value for each in point.attributes}
    for resource in message.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                kind = metric.WhichOneof("data")
                for point in getattr(metric, kind).data_points:
                    labels = text(point)
                    if kind == "histogram":
                        total = 0
                        for bound, count in zip([*point.explicit_bounds, float("inf")], point.bucket_counts):
                            total += count
                            series[key(metric.name + "_bucket", {**labels, "le": str(bound)})] = total
                        series[key(metric.name + "_sum", labels)] = point.sum
                        series[key(metric.name + "_count", labels)] = point.count
                    else:
                        present = point.WhichOneof("value")
                        assert present, f"{metric.name} {labels} has no figure"
                        figure = getattr(point, present)
                        zeros += figure == 0
                        series[key(metric.name, labels)] = figure
    return series, zeros


def differences(expected, found, digits=None):
    """What differs, in more than so many digits where they are said."""
    shown = lambda key: key[0] + str(dict(sorted(key[1], key=str)))
    names = {each for each in expected.keys() | found.keys() if each[0] not in OF_READINGS}
    if digits:
        close = lambda one, other: None not in (one, other) and math.isclose(one, other, rel_tol=10**-digits)
        names = {each for each in names if not close(expected.get(each), found.get(each))}
    differ = [each for each in names if expected.get(each) != found.get(each)]
    return sorted(f"{shown(each)}: {expected.get(each)}, {found.get(each)}" for each in differ)


def figures(path, folder):
    read, same = messages(folder, "metrics")
    series, zeros = exported(read[-1])
    return {
        "messages": len(read), "same": same, "series": len(series), "zeros": zeros,
        "differ": differences(page(path), series),
    }


def stored(path, export):
    expected, found, beside = page(path), {}, set()
    names = {label for _, labels in expected for label, _ in labels}
    with open(export) as lines:
        for line in lines:
            row = json.loads(line)
            labels = row["metric"]
            name = labels.pop("__name__")
            beside |= labels.keys() - names
            labels = {label: value for label, value in labels.items() if label in names}
            found[key(name, labels)] = row["values"][-1]
    return {"series": len(found), "beside": sorted(beside), "differ": differences(expected, found, DIGITS)}


def metrics(folder):
    read, same = messages(folder, "metrics")
    points = [
        (metric.name, {each.key: each.value.string_value for each in point.attributes}, point)
        for message in read
        for resource in message.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in getattr(metric, metric.WhichOneof("data")).data_points
    ]
    of = lambda is_wanted: {
        point.time_unix_nano: point.as_int for name, labels, point in points if is_wanted(name, labels)
    }
    readings = of(lambda name, _: name == "handshake_readings_total")
    dropped = of(lambda _, labels: labels.get("sink") == "otlp_metrics")
    times = [point.time_unix_nano for name, _, point in points if name == "handshake_readings_total"]
    last = max(times)
    return {
        "twice": len(times) - len(set(times)), "taken": len(readings), "readings": readings[last],
        "dropped": dropped[last], "points": sum(point.time_unix_nano == last for _, _, point in points),
    }


def logs(folder):
    read, same = messages(folder, "logs")
    by, seen = collections.Counter(), collections.Counter()
    for message in read:
        for resource in message.resource_logs:
            for scope in resource.scope_logs:
                for record in scope.log_records:
                    value = lambda each: getattr(each.value, each.value.WhichOneof("value"))
                    of = {each.key: value(each) for each in record.attributes}
                    assert record.event_name == "handshake.attempt" and not record.HasField("body"), record
                    event = of["handshake.event"]
                    by[f"{event} {of['handshake.verdict']}"] += 1
                    ends = [of[f"{end}.address"] for end in ("client", "server")]
                    ends += [of[f"{end}.port"] for end in ("client", "server")]
                    seen[(event, *ends, of["handshake.started_ns"])] += 1
    return {"messages": len(read), "same": same, "by": by, "twice": sum(seen.values()) - len(seen)}


COUNT = "select event || ' ' || verdict as what, count(*) as n from {} where event is not null group by what"


def rows(path):
    import duckdb

    return {"by": dict(duckdb.sql(COUNT.format(f"read_json_auto('{path}')")).fetchall())}


def chdb(path, docs):
    from chdb.session import Session

    session = Session()
    session.query("create database fleet")
    session.query("use fleet")

    def ask(statement):
        return [json.loads(line) for line in str(session.query(statement, "JSONCompactEachRow")).splitlines() if line]

    section = docs.split("### ClickHouse\n")[1].split("\n### ")[0]
    blocks = [rest.split("```")[0] for rest in section.split("```sql\n")[1:]]
    statements = [part.strip() for block in blocks for part in block.split(";") if part.strip()]
    files = "/var/log/handshake/events-*.jsonl.zst"
    answers = [ask(each.replace(files, path)) for each in statements]
    queries = [answer for each, answer in zip(statements, answers) if each.startswith("select")]
    return {
        "by": {what: int(n) for what, n in ask(COUNT.format("attempts"))},
        "queries": [len(rows) for rows in queries],
        "owned": int(ask("select count() from attempts where responder.owner.cgroup != ''")[0][0]),
    }


print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
