//! A whole number with a unit, such as `64MiB` or `30s`: the grammar that sizes and durations share.

/// A unit's spelling and how many base units it is.
pub(crate) type Unit = (&'static str, u64);

/// Splits `text` into its digits and the unit that follows them (which may be empty).
pub(crate) fn split(text: &str) -> Result<(u64, &str), String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err("does not begin with a whole number".to_owned());
    }
    let number = number.parse().map_err(|_| "is too large".to_owned())?;
    Ok((number, unit.trim_start()))
}

/// `number` of `unit`, in base units.
pub(crate) fn scale(number: u64, unit: &str, units: &[Unit]) -> Result<u64, String> {
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        let known: Vec<_> = units.iter().map(|(name, _)| *name).collect();
        return Err(format!("has the unit `{unit}`, expected one of {}", known.join(", ")));
    };
    number.checked_mul(*factor).ok_or_else(|| "is too large".to_owned())
}

/// The shortest spelling without loss; `units` are ordered from small to large.
pub(crate) fn format(value: u64, units: &[Unit]) -> String {
    let fitting = |(_, factor): &&Unit| value.is_multiple_of(*factor) && value >= *factor;
    let (name, factor) = units.iter().rev().find(fitting).unwrap_or(&units[0]);
    format!("{}{name}", value / factor)
}
