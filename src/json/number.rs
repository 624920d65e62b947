//! Numbers: integers as they stand, floats with the fewest digits.

use super::error::{JsonError, MAX_DIGITS};

/// Writes a number of JSON in canonical form.
pub(super) fn write_number(out: &mut String, text: &str) -> Result<(), JsonError> {
    match text {
        "-0" => out.push('0'),
        text if text.contains(['.', 'e', 'E']) => write_float(out, text)?,
        text if text.trim_start_matches('-').len() > MAX_DIGITS => {
            return Err(JsonError::IntegerTooLong);
        }
        text => out.push_str(text),
    }
    Ok(())
}

fn write_float(out: &mut String, text: &str) -> Result<(), JsonError> {
    // A JSON number is always a Rust float literal; what is too large reads as infinite.
    let value: f64 = text.parse().unwrap_or(f64::INFINITY);
    let number = serde_json::Number::from_f64(value).ok_or(JsonError::NumberTooLarge)?;
    if value == 0.0 {
        out.push('0');
        return Ok(());
    }
    if value < 0.0 {
        out.push('-');
    }
    let integral = value.fract() == 0.0 && value.abs() < 1e21;
    Decimal::shortest(&number).write(out, integral);
    Ok(())
}

/// A number in decimal: its digits, the first and last of which are not zero, and the exponent of
/// the first.
struct Decimal {
    digits: String,
    exponent: i32,
}

impl Decimal {
    /// The fewest digits that read back as the double. Of two such numbers that are equally near it
    /// is the one whose last digit is even, as in Python and ECMAScript; Rust's own formatting takes
    /// the larger.
    fn shortest(number: &serde_json::Number) -> Self {
        let text = number.to_string();
        let text = text.trim_start_matches('-');
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        let significant = all.trim_start_matches('0');
        let zeros = all.len() - significant.len();
        // Both lengths are below 400, and the exponent of a double is a small number.
        let exponent: i32 = exponent.parse().unwrap_or(0);
        let exponent = exponent + whole.len() as i32 - 1 - zeros as i32;
        Self { digits: significant.trim_end_matches('0').to_owned(), exponent }
    }

    fn write(&self, out: &mut String, integral: bool) {
        match self.exponent {
            exponent if integral => {
                let zeros = (exponent as usize + 1).saturating_sub(self.digits.len());
                out.push_str(&self.digits);
                out.extend(std::iter::repeat_n('0', zeros));
            }
            exponent @ -4..=-1 => {
                out.push_str("0.");
                out.extend(std::iter::repeat_n('0', exponent.unsigned_abs() as usize - 1));
                out.push_str(&self.digits);
            }
            exponent @ 0..=15 => {
                // A number that is not integral has a digit behind the point.
                let (whole, fraction) = self.digits.split_at(exponent as usize + 1);
                out.push_str(&format!("{whole}.{fraction}"));
            }
            exponent => self.write_with_exponent(out, exponent),
        }
    }

    /// `1e-07`, `1.5e+300`: the exponent has a sign and at least two digits.
    fn write_with_exponent(&self, out: &mut String, exponent: i32) {
        let (first, rest) = self.digits.split_at(1);
        let point = if rest.is_empty() { "" } else { "." };
        let sign = if exponent < 0 { '-' } else { '+' };
        out.push_str(&format!("{first}{point}{rest}e{sign}{:02}", exponent.abs()));
    }
}
