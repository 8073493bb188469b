//! Numbers as the report prints them.

/// The remark behind a goal in a table: empty, or `missed`.
pub(crate) const fn mark(met: bool) -> &'static str {
    if met { "" } else { "  missed" }
}

/// Rounds to a tenth.
pub(crate) fn tenth(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// Rounds to a thousandth.
pub(crate) fn thousandth(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
