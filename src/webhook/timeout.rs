//! How long the caller of a review waits: the API server says it as `?timeout=`, a Go duration.

use std::time::Duration;

/// The longest that a body is waited for, and where nothing is said: the API server's default for webhooks.
const LONGEST: Duration = Duration::from_secs(10);

/// The timeout in a query.
pub fn of(query: &str) -> Duration {
    let given = query.split('&').find_map(|parameter| parameter.strip_prefix("timeout="));
    given.and_then(go_duration).filter(|given| !given.is_zero()).unwrap_or(LONGEST).min(LONGEST)
}

/// As `time.ParseDuration` of Go, without signs: `1m30s`, `1.5h`, `500ms`.
fn go_duration(mut text: &str) -> Option<Duration> {
    let mut sum = Duration::ZERO;
    while !text.is_empty() {
        let is_digit = |c: char| c.is_ascii_digit() || c == '.';
        let (number, rest) = text.split_at(text.find(|c| !is_digit(c))?);
        let (unit, rest) = rest.split_at(rest.find(is_digit).unwrap_or(rest.len()));
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" | "μs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
        (sum, text) = (sum.checked_add(part)?, rest);
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_read_as_go_writes_it() {
        for (text, millis) in
            [("5s", 5_000), ("500ms", 500), ("1m30s", 90_000), ("1h0m0.5s", 3_600_500), ("2.5s", 2_500)]
        {
            assert_eq!(go_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(go_duration("7µs"), Some(Duration::from_micros(7)));
        for text in ["5", "s", ".s", "-5s", "5 s", "5d", "1.2.3s", "5s1", "99999999999999999999h", "1e9s"] {
            assert_eq!(go_duration(text), None, "{text}");
        }
    }

    #[test]
    fn the_longest_timeout_holds_where_none_or_more_is_said() {
        assert_eq!(of("timeout=5s"), Duration::from_secs(5));
        assert_eq!(of("a=b&timeout=300ms&c"), Duration::from_millis(300));
        for query in ["", "timeout=", "timeout=0s", "timeout=soon", "timeout=1h", "xtimeout=1s"] {
            assert_eq!(of(query), LONGEST, "{query}");
        }
    }
}
