//! OTLP names to Prometheus names, by Prometheus's default strategy
//! (`UnderscoreEscapingWithSuffixes` with multiple underscores preserved in labels).
//!
//! Source: prometheus/otlptranslator, `metric_namer.go`, `unit_namer.go`, `label_namer.go`.

use slogate_wire::WireError;
use slogate_wire::otlp::AnyValue;

/// What decides a name's suffix besides the unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NameKind {
    /// A monotonic sum: `_total`.
    Counter,
    /// A gauge: `_ratio` where the unit is `1`.
    Gauge,
    /// Everything else.
    Other,
}

/// The Prometheus name of an OTLP metric; `None` where the name has no usable character.
pub(super) fn metric_name(name: &str, unit: &str, kind: NameKind) -> Option<String> {
    let usable = |c: char| c.is_ascii_alphanumeric() || c == ':';
    let mut tokens: Vec<String> = name
        .split(|c| !usable(c))
        .filter(|token| !token.is_empty())
        .map(str::to_owned)
        .collect();
    if tokens.is_empty() {
        return None;
    }
    let (mut main, per) = unit_suffixes(unit);
    if tokens.contains(&main) {
        main.clear();
    }
    let per = per.trim_end_matches('_').to_owned();
    if !per.is_empty() {
        main.truncate(main.trim_end_matches('_').len());
    }
    for suffix in [main, per] {
        if !suffix.is_empty() {
            tokens.push(suffix);
        }
    }
    let last = match kind {
        NameKind::Counter => Some("total"),
        NameKind::Gauge if unit == "1" => Some("ratio"),
        _ => None,
    };
    if let Some(last) = last {
        tokens.retain(|token| token != last);
        tokens.push(last.to_owned());
    }
    let joined = tokens.join("_");
    match joined.starts_with(|c: char| c.is_ascii_digit()) {
        true => Some(format!("_{joined}")),
        false => Some(joined),
    }
}

/// The unit as Prometheus metadata has it: `bytes_per_second`.
pub(super) fn unit_name(unit: &str) -> String {
    let (main, per) = unit_suffixes(unit);
    match (main.is_empty(), per.is_empty()) {
        (false, false) => format!("{main}_{per}"),
        _ => main + &per,
    }
}

fn unit_suffixes(unit: &str) -> (String, String) {
    let (main, per) = unit.split_once('/').unwrap_or((unit, ""));
    let usable = |part: &str| !part.is_empty() && !part.contains(['{', '}']);
    let (main, per) = (main.trim(), per.trim());
    let main = if usable(main) {
        clean_unit(main_unit(main))
    } else {
        String::new()
    };
    let per = if usable(per) {
        clean_unit(per_unit(per))
    } else {
        String::new()
    };
    match per.is_empty() {
        true => (main, per),
        false => (main, format!("per_{per}")),
    }
}

fn main_unit(unit: &str) -> &str {
    match unit {
        "d" => "days",
        "h" => "hours",
        "min" => "minutes",
        "s" => "seconds",
        "ms" => "milliseconds",
        "us" => "microseconds",
        "ns" => "nanoseconds",
        "By" => "bytes",
        "KiBy" => "kibibytes",
        "MiBy" => "mebibytes",
        "GiBy" => "gibibytes",
        "TiBy" => "tibibytes",
        "KBy" => "kilobytes",
        "MBy" => "megabytes",
        "GBy" => "gigabytes",
        "TBy" => "terabytes",
        "m" => "meters",
        "V" => "volts",
        "A" => "amperes",
        "J" => "joules",
        "W" => "watts",
        "g" => "grams",
        "Cel" => "celsius",
        "Hz" => "hertz",
        "1" => "",
        "%" => "percent",
        other => other,
    }
}

fn per_unit(unit: &str) -> &str {
    match unit {
        "s" => "second",
        "m" => "minute",
        "h" => "hour",
        "d" => "day",
        "w" => "week",
        "mo" => "month",
        "y" => "year",
        other => other,
    }
}

/// Unusable characters become one underscore; leading ones go.
fn clean_unit(unit: &str) -> String {
    let mut clean = String::with_capacity(unit.len());
    for c in unit.chars() {
        match c {
            c if c.is_ascii_alphanumeric() || c == ':' => clean.push(c),
            _ if clean.ends_with('_') || clean.is_empty() => {}
            _ => clean.push('_'),
        }
    }
    clean
}

/// The Prometheus label name of an attribute; `None` where nothing usable is in it.
pub(super) fn label_name(key: &str) -> Option<String> {
    let usable = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let name: String = key
        .chars()
        .map(|c| if usable(c) { c } else { '_' })
        .collect();
    if name.chars().all(|c| c == '_') {
        return None;
    }
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        return Some(format!("key_{name}"));
    }
    if name.starts_with('_') && !name.starts_with("__") {
        return Some(format!("key{name}"));
    }
    Some(name)
}

/// An attribute's value as a label value: text as it is, numbers in decimal, arrays and maps as
/// JSON, bytes in base64.
pub(super) fn value_text(value: &AnyValue<'_>) -> Result<String, WireError> {
    Ok(match value {
        AnyValue::Empty => String::new(),
        AnyValue::String(text) => (*text).to_owned(),
        AnyValue::Bool(value) => value.to_string(),
        AnyValue::Int(value) => value.to_string(),
        AnyValue::Double(value) => number_text(*value),
        AnyValue::Bytes(bytes) => base64_text(bytes),
        AnyValue::Array(_) | AnyValue::Map(_) => json_value(value)?.to_string(),
    })
}

fn base64_text(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// As JSON writes it: whole numbers without a point, very large and small ones with an exponent.
fn number_text(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else if value != 0.0 && !(1e-6..1e21).contains(&value.abs()) {
        format!("{value:e}")
    } else {
        value.to_string()
    }
}

fn json_value(value: &AnyValue<'_>) -> Result<serde_json::Value, WireError> {
    use serde_json::Value;
    Ok(match value {
        AnyValue::Empty => Value::Null,
        AnyValue::Bool(value) => Value::from(*value),
        AnyValue::Int(value) => Value::from(*value),
        AnyValue::Double(value) if value.is_finite() => Value::from(*value),
        AnyValue::Array(elements) => {
            let values = elements.values().map(|element| json_value(&element?));
            Value::Array(values.collect::<Result<_, _>>()?)
        }
        AnyValue::Map(pairs) => {
            let pairs = pairs.pairs().map(|pair| {
                let pair = pair?;
                Ok((pair.key.to_owned(), json_value(&pair.value)?))
            });
            Value::Object(pairs.collect::<Result<_, WireError>>()?)
        }
        AnyValue::String(_) | AnyValue::Double(_) | AnyValue::Bytes(_) => {
            Value::String(value_text(value)?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metric_names_follow_the_translation_table() {
        use NameKind::{Counter, Gauge, Other};
        for (name, unit, kind, want) in [
            (
                "http.server.request.duration",
                "s",
                Other,
                "http_server_request_duration_seconds",
            ),
            (
                "system.cpu.utilization",
                "1",
                Gauge,
                "system_cpu_utilization_ratio",
            ),
            (
                "system.cpu.utilization",
                "1",
                Other,
                "system_cpu_utilization",
            ),
            ("requests", "{request}", Counter, "requests_total"),
            ("a.total.b", "", Counter, "a_b_total"),
            ("x", "By/s", Other, "x_bytes_per_second"),
            ("x", "By/s", Counter, "x_bytes_per_second_total"),
            ("x_bytes", "By", Gauge, "x_bytes"),
            ("memory.usage.bytes", "By", Gauge, "memory_usage_bytes"),
            ("a__b..c", "", Other, "a_b_c"),
            ("1x", "", Other, "_1x"),
            ("rule:sum", "", Other, "rule:sum"),
            ("x", "{packet}/s", Other, "x_per_second"),
            ("x", "1/s", Other, "x_per_second"),
            ("x", "/s", Other, "x_per_second"),
            ("x", "widget$", Other, "x_widget_"),
            ("x", "widget$/m", Other, "x_widget_per_minute"),
            ("x.ratio", "1", Gauge, "x_ratio"),
            ("x", "%", Gauge, "x_percent"),
            ("x", " ms ", Other, "x_milliseconds"),
        ] {
            assert_eq!(
                metric_name(name, unit, kind).as_deref(),
                Some(want),
                "{name} {unit}"
            );
        }
        assert_eq!(metric_name("", "s", Other), None);
        assert_eq!(metric_name("_-_", "s", Other), None);
    }

    #[test]
    fn label_names_follow_the_translation_table() {
        for (key, want) in [
            ("http.method", Some("http_method")),
            ("a..b", Some("a__b")),
            ("_private", Some("key_private")),
            ("__meta", Some("__meta")),
            ("0day", Some("key_0day")),
            ("ключ.x", Some("_____x")),
            ("", None),
            ("_", None),
            ("...", None),
        ] {
            assert_eq!(label_name(key).as_deref(), want, "{key}");
        }
    }

    #[test]
    fn units_have_names_of_their_own() {
        assert_eq!(unit_name("By/s"), "bytes_per_second");
        assert_eq!(unit_name("1"), "");
        assert_eq!(unit_name("s"), "seconds");
    }

    #[test]
    fn values_become_text() {
        for (value, want) in [
            (AnyValue::Double(2.0), "2"),
            (AnyValue::Double(0.1), "0.1"),
            (AnyValue::Double(1e300), "1e300"),
            (AnyValue::Double(f64::NAN), "NaN"),
            (AnyValue::Int(-7), "-7"),
            (AnyValue::Bool(true), "true"),
            (AnyValue::Bytes(&[1, 2, 3]), "AQID"),
            (AnyValue::Empty, ""),
        ] {
            assert_eq!(value_text(&value).as_deref(), Ok(want));
        }
    }
}
