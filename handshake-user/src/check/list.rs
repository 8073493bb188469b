//! `handshake check --list-metrics`: the names that expressions can use.

use std::io::{self, Write};

use handshake_agent::model::metric::{LATENCY, METRICS, SERVICE, Unit};
use handshake_agent::owner::OwnerKind;

use super::name::{FUNCTIONS, RATE, SHORT, of_workload, short};

/// Writes the list.
///
/// # Errors
///
/// Those of the writer.
pub(crate) fn write(out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "Metrics, by their paths in the JSON report; tcp. may be omitted:")?;
    for metric in METRICS.iter() {
        row(out, &metric.name, unit(metric.unit), metric.help)?;
    }
    writeln!(out, "\nShort names:")?;
    for (name, paths) in SHORT {
        row(out, name, "attempts", &paths.iter().map(|path| short(path)).collect::<Vec<_>>().join(" + "))?;
    }
    writeln!(
        out,
        "\nFunctions of a leg: syn_to_syn_ack, syn_ack_to_ack, connect, ack_to_first_byte. Those of connect are of all"
    )?;
    writeln!(out, "attempts that had a chance; p99(connect of completed) is of those that connected:")?;
    for (name, field) in FUNCTIONS {
        if let Some(metric) = LATENCY.iter().find(|metric| metric.name == field) {
            row(out, &format!("{name}(connect)"), unit(metric.unit), metric.help)?;
        }
    }
    writeln!(out, "\nRates, of a count or a sum of counts:")?;
    row(out, &format!("{RATE}(completed)"), "rate", "per second, from the command's start to its exit")?;
    let falling = METRICS.iter().filter(|metric| !metric.rises).map(|metric| short(&metric.name));
    writeln!(out, "\nThese may fall; entered.* counts the entries into each verdict and never falls:")?;
    writeln!(out, "  {}", falling.collect::<Vec<_>>().join(", "))?;
    let by_service: Vec<&str> = SERVICE.iter().map(|metric| short(&metric.name)).collect();
    writeln!(
        out,
        "\nCounted per service, by {{port=443}}, {{port=8000-8100}}, {{address=10.0.0.0/8}} or two of them:"
    )?;
    writeln!(out, "  {}", by_service.join(", "))?;
    writeln!(
        out,
        "and the functions of connect: p99(connect{{port=443}}), p99(connect of completed{{port=443}})"
    )?;
    let kinds = OwnerKind::ALL.map(|kind| format!("{{{}={}}}", kind.name(), kind.example()));
    writeln!(out, "\nCounted per workload, by {} or several of them,", kinds.join(", "))?;
    writeln!(out, "and by side, as in {{unit=nginx.service,side=responder}} or side=initiator:")?;
    let by_workload: Vec<&str> = of_workload().map(|metric| short(&metric.name)).collect();
    writeln!(out, "  {}", by_workload.join(", "))
}

fn row(out: &mut dyn Write, name: &str, unit: &str, help: &str) -> io::Result<()> {
    writeln!(out, "  {name:<39} {unit:<9} {help}")
}

const fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::Attempts => "attempts",
        Unit::Flows => "flows",
        Unit::Packets => "packets",
        Unit::Bytes => "bytes",
        Unit::Nanoseconds => "time",
        Unit::Records => "records",
        Unit::Events => "events",
        Unit::Services => "services",
    }
}
