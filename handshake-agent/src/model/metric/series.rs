//! The families of series that an exporter shows: the exported name, the kind, and what it means. A metric
//! names its family and its labels; what is counted without a place in a report has a family too.
//!
//! A counter never falls. So a verdict that attempts leave again is counted by its *entries*; how many have it
//! now is a gauge, and how many left it is a counter of its own:
//!
//! ```text
//! attempts = Σ verdicts − Σ revised + opening + half_open
//! ```

/// What a scraper may do with a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only rises while the agent runs, and begins anew with the next.
    Counter,
    /// It rises and falls.
    Gauge,
    /// Counters by the bounds of a time.
    Histogram,
}

impl Kind {
    /// Its name in an exposition.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Series of one name.
#[derive(Debug)]
pub struct Family {
    /// The exported name.
    pub name: &'static str,
    /// What may be done with it.
    pub kind: Kind,
    /// What it means.
    pub help: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// The family of the same figure of one service, if there is one. It has the label `service`, and those
    /// of these labels that it names.
    pub of_service: Option<&'static Self>,
    /// That of one workload, likewise. It has the labels `workload` and `side`.
    pub of_workload: Option<&'static Self>,
}

/// The place of a figure among the exported series.
#[derive(Clone, Debug)]
pub struct Series {
    /// Its family.
    pub family: &'static Family,
    /// The values of the family's labels.
    pub labels: Vec<&'static str>,
}

macro_rules! families {
    ($(
        $(#[$of:ident $(, $of_workload:ident)?])?
        $constant:ident $kind:ident $name:literal [$($label:literal),*] $help:literal;
    )*) => {
        $(
            #[doc = $help]
            pub static $constant: Family = Family {
                name: $name,
                kind: Kind::$kind,
                help: $help,
                labels: &[$($label),*],
                of_service: families!(@of $($of)?),
                of_workload: families!(@of $($($of_workload)?)?),
            };
        )*
        /// All families, in the order of an exposition.
        pub static FAMILIES: &[&Family] = &[$(&$constant),*];
    };
    (@of) => { None };
    (@of $of:ident) => { Some(&$of) };
}

families! {
    BUILD_INFO Gauge "handshake_build_info" ["version"]
        "1, with the version of handshake";
    EXACT Gauge "handshake_exact" []
        "1 where nothing was lost between the latest two readings: every verdict is the wire's";
    LOST Counter "handshake_lost_total" ["what"]
        "what made reports inexact, by reason";
    PACKETS Counter "handshake_packets_total" ["class"]
        "packets at all hooks by class";
    INTERFACE_PACKETS Counter "handshake_interface_packets_total" ["interface"]
        "packets at the hooks of an interface that is watched now, of 16 at most";
    FILTERED Counter "handshake_filtered_packets_total" []
        "packets of flows that --port and --net exclude";
    COPIES Counter "handshake_copies_total" []
        "SYNs and SYN+ACKs that the same hook saw less than 10 ms before";
    #[SERVICE_ATTEMPTS, WORKLOAD_ATTEMPTS]
    ATTEMPTS Counter "handshake_attempts_total" []
        "SYNs that began an attempt; each attempt has exactly one verdict";
    #[SERVICE_VERDICTS, WORKLOAD_VERDICTS]
    VERDICTS Counter "handshake_verdicts_total" ["verdict", "cause"]
        "attempts that came to a verdict, also those that left it again";
    REVISED Counter "handshake_revised_total" ["verdict"]
        "attempts that left a verdict again: the RST or ICMP error was forged or early";
    #[SERVICE_STANDING, WORKLOAD_VERDICTS]
    STANDING Gauge "handshake_standing" ["verdict"]
        "attempts that have a verdict now which they may leave again";
    OPENING Gauge "handshake_opening" []
        "open for less than --half-open-after: not a problem yet";
    #[SERVICE_HALF_OPEN]
    HALF_OPEN Gauge "handshake_half_open" ["cause"]
        "open for longer than --half-open-after, by cause";
    NEVER_REPEATED Gauge "handshake_half_open_never_repeated" []
        "half-open attempts whose SYN came once, though every stack repeats it within 3 s";
    WAITING Gauge "handshake_half_open_waiting" []
        "half-open attempts whose initiator may still wait";
    GAVE_UP Gauge "handshake_half_open_gave_up" []
        "half-open attempts whose initiator has given up";
    SILENT Gauge "handshake_silent" []
        "completed connections whose server has been silent since the client's data, for --half-open-after";
    LATE Counter "handshake_late_total" []
        "attempts that were completed more than --half-open-after after the first SYN";
    UNBEGUN Counter "handshake_unbegun_flows_total" ["verdict"]
        "TCP flows whose SYN was not seen, outside the identity";
    SIGNS Counter "handshake_signs_total" ["sign"]
        "what is counted beside the verdicts and ends nothing";
    LATENCY Histogram "handshake_latency_seconds" ["leg"]
        "times of a handshake's legs; the sum is right to 1/32";
    EXCLUDED Counter "handshake_latency_excluded_total" ["leg"]
        "attempts without a usable time of a leg (Karn's rule)";
    #[SERVICE_UDP_FLOWS]
    UDP_FLOWS Counter "handshake_udp_flows_total" []
        "UDP flows by 5-tuple";
    UDP_VERDICTS Counter "handshake_udp_verdicts_total" ["verdict"]
        "UDP flows that came to a verdict, also those that left it again";
    UDP_STANDING Gauge "handshake_udp_standing" ["verdict"]
        "UDP flows that have a verdict now which they may leave again";
    UDP_PACKETS Counter "handshake_udp_packets_total" []
        "packets of UDP flows in both directions";
    UDP_BYTES Counter "handshake_udp_bytes_total" []
        "bytes of the UDP flows' IP packets";
    TABLE_SLOTS Gauge "handshake_table_slots" []
        "slots of the flow tables";
    TABLE_USED Gauge "handshake_table_used" []
        "slots that hold a record";
    TABLE_EVICTIONS Counter "handshake_table_evictions_total" ["kind"]
        "records that were evicted for others";
    SERVICES_EVICTED Counter "handshake_services_evicted_total" []
        "services whose row another service took: from then on they are in the service `other`";
    SERVICE_ATTEMPTS Counter "handshake_service_attempts_total" ["service"]
        "attempts by the name of their service";
    SERVICE_VERDICTS Counter "handshake_service_verdicts_total" ["service", "verdict"]
        "attempts of a service that ended for good, by verdict";
    SERVICE_STANDING Gauge "handshake_service_standing" ["service", "verdict"]
        "attempts of a service that have a verdict now which they may leave again";
    SERVICE_HALF_OPEN Gauge "handshake_service_half_open" ["service", "cause"]
        "attempts of a service that are half-open, by cause";
    SERVICE_UDP_FLOWS Counter "handshake_service_udp_flows_total" ["service"]
        "UDP flows by the name of their service";
    WORKLOAD_ATTEMPTS Counter "handshake_workload_attempts_total" ["workload", "side"]
        "attempts by the name of the workload that began them (initiator) or was asked (responder)";
    WORKLOAD_VERDICTS Counter "handshake_workload_verdicts_total" ["workload", "side", "verdict"]
        "attempts of a workload that came to a verdict, also those that left it again";
    EXPORT_DROPPED Counter "handshake_export_dropped_total" ["sink"]
        "what an exporter dropped: its reader was too slow, or refused it";
    READINGS Counter "handshake_readings_total" []
        "readings of the kernel's maps for exporters";
    READING_SECONDS Gauge "handshake_reading_seconds" []
        "how long the latest reading took";
    START_TIME Gauge "handshake_start_time_seconds" []
        "when counting began, seconds since the Unix epoch: counters begin anew there";
}
