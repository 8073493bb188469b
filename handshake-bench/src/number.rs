//! Numbers as the report has them.

/// Behind a goal.
pub(crate) const fn mark(met: bool) -> &'static str {
    if met { "" } else { "  missed" }
}

/// Rounded to a tenth.
pub(crate) fn tenth(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// Rounded to a thousandth.
pub(crate) fn thousandth(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
