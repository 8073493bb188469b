//! Why an expectation cannot be judged.

use std::fmt;

/// Shown where a figure is missing because there was no traffic, which must not count as success.
pub(super) const NOTHING_RAN: &str = "a gate cannot pass when nothing ran";

/// Why a figure or a judgement is unavailable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The report is not exact.
    Inexact,
    /// One of two reports, named here, is not exact.
    InexactReport(String),
    /// A share whose divisor, named here, is 0.
    OverNothing(String),
    /// A percentile, named here, without a sample.
    NoSample(String),
    /// A figure, named here, that is not in the report.
    Unknown(String),
    /// A figure, named here, that services without a row of their own contribute to.
    Folded(String),
    /// A figure, named here, of workloads in a run in which no attempt has a known owner.
    NoOwner(String),
    /// A figure, named here, that attempts may count to whose owner is not known or not told apart.
    Unowned(String),
    /// A figure, named here, of workloads on both sides: an attempt between two of them is one.
    BothSides(String),
    /// What is known of the two sides does not tell which is more: attempts may still connect in time, or
    /// neither side ever comes.
    Undecided,
    /// The change between two times of which both are only known to be longer than something.
    LowerBounds,
    /// The command took no time.
    NoTime,
    /// A value is out of range.
    TooLarge,
    /// A signal arrived, or an interface was lost.
    CutShort,
    /// No attempt and no UDP flow was seen, and that was not allowed.
    NothingRan,
    /// There is no attempt and no UDP flow in one of two reports, named here, and that was not allowed.
    NothingIn(String),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inexact => f.write_str("data was lost, the report is INEXACT"),
            Self::InexactReport(path) => write!(f, "{path} is INEXACT"),
            Self::OverNothing(divisor) => write!(f, "{divisor} is 0: {NOTHING_RAN}"),
            Self::NoSample(figure) => write!(f, "{figure} has no sample: {NOTHING_RAN}"),
            Self::Unknown(figure) => write!(f, "{figure} is not known"),
            Self::Folded(figure) => {
                write!(f, "there are too many services to count each, and {figure} may be among the others")
            }
            Self::NoOwner(figure) => {
                write!(f, "{figure} is not known: no attempt here has a known owner (see --hook)")
            }
            Self::Unowned(figure) => {
                write!(f, "there are attempts whose workload is not known, and {figure} may be among them")
            }
            Self::BothSides(figure) => {
                write!(
                    f,
                    "an attempt whose both ends are in {figure} is counted once: add side=initiator or responder"
                )
            }
            Self::Undecided => f.write_str("it is not known on which side of the limit that ends"),
            Self::LowerBounds => {
                f.write_str("both are only lower bounds, so the change between them is not known")
            }
            Self::NoTime => f.write_str("no time passed, so there is no rate"),
            Self::TooLarge => f.write_str("a value is out of range"),
            Self::CutShort => f.write_str("the check was cut short"),
            Self::NothingRan => {
                f.write_str("nothing ran: no attempt and no UDP flow was seen (--allow-nothing)")
            }
            Self::NothingIn(path) => {
                write!(f, "nothing ran: no attempt and no UDP flow is in {path} (--allow-nothing)")
            }
        }
    }
}
