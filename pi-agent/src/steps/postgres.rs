//! The postgres step.

/// Not there yet.
///
/// # Errors
/// Always.
pub fn run<T>(
    _: &super::Job,
    _: &crate::config::Step,
    _: &T,
    _: &crate::monitor::Monitor,
) -> crate::Result<super::StepResult> {
    Err(crate::Error::new("not there yet"))
}

/// Not there yet.
///
/// # Errors
/// Always.
pub fn adopt(_: &crate::config::Settings, _: &crate::config::Step, _: &crate::config::Postgres) -> crate::Result<()> {
    Err(crate::Error::new("not there yet"))
}
