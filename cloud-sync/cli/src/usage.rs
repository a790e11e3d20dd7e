//! What functions used and measured.

use sync_core::api::{MetricPage, MetricQuery, MetricValue, UsagePage, UsageQuery};

use crate::args::{Metrics, Usage};
use crate::client::Client;
use crate::failure::Failure;
use crate::out::{Out, note, plain, table};
use crate::time;

pub(crate) async fn usage(out: &Out, client: &Client, wanted: Usage) -> Result<(), Failure> {
    let Usage { gateway, function, device, from, to, by, limit, cursor } = wanted;
    let query = UsageQuery { gateway, function, device, from, to, by: Some(by), limit: Some(limit), cursor };
    let answer = client.get_with("asking what functions used", "/usage", &query).await?;
    out.answer(&answer, |page: &UsagePage| {
        let rows = page.usage.iter().map(|row| {
            let keys = [row.from_us.map(time::show), row.gateway.clone(), row.function.clone(), row.device.clone()];
            let [begins, gateway, function, device] = keys.map(|key| match key {
                None => "-".to_owned(),
                Some(key) if key.is_empty() => "(others)".to_owned(),
                Some(key) => key,
            });
            [
                begins,
                gateway,
                function,
                device,
                row.invocations.to_string(),
                row.failed.to_string(),
                row.fuel.to_string(),
                format!("{:.3}", row.busy_us as f64 / 1e6),
                (row.memory_peak_bytes / 1_024).to_string(),
                row.bytes_in.to_string(),
                row.bytes_out.to_string(),
                (row.state_peak_bytes / 1_024).to_string(),
            ]
        });
        let header = [
            "FROM",
            "GATEWAY",
            "FUNCTION",
            "DEVICE",
            "RUNS",
            "FAILED",
            "FUEL",
            "BUSY S",
            "PEAK KIB",
            "BYTES IN",
            "BYTES OUT",
            "STATE KIB",
        ];
        table(header, rows)
    })?;
    more(out, answer.value.next.as_deref());
    Ok(())
}

pub(crate) async fn metrics(out: &Out, client: &Client, wanted: Metrics) -> Result<(), Failure> {
    let Metrics { gateway, function, name, from, to, by, limit, cursor } = wanted;
    let query = MetricQuery { gateway, function, name, from, to, by, limit: Some(limit), cursor };
    let answer = client.get_with("asking what functions measured", "/metrics", &query).await?;
    out.answer(&answer, |page: &MetricPage| {
        let rows = page.metrics.iter().map(|row| {
            let none = || "-".to_owned();
            let begins = row.from_us.map_or_else(none, time::show);
            let gateway = row.gateway.clone().unwrap_or_else(none);
            let values = match &row.value {
                MetricValue::Counter(sum) => [none(), sum.to_string(), none(), none(), none(), none(), none()],
                MetricValue::Observed(of) => {
                    let [min, p50, p90, p99, max] = [of.min, of.p50, of.p90, of.p99, of.max].map(short);
                    [of.count.to_string(), short(of.sum), min, p50, p90, p99, max]
                }
            };
            let [count, sum, min, p50, p90, p99, max] = values;
            [row.function.clone(), row.name.clone(), begins, gateway, count, sum, min, p50, p90, p99, max]
        });
        table(["FUNCTION", "NAME", "FROM", "GATEWAY", "COUNT", "SUM", "MIN", "P50", "P90", "P99", "MAX"], rows)
    })?;
    more(out, answer.value.next.as_deref());
    Ok(())
}

/// Four digits, for percentiles are no more exact than that; all of a whole number.
fn short(value: f64) -> String {
    if value.fract() == 0.0 {
        return value.to_string();
    }
    let before = value.abs().log10().floor() as i32 + 1;
    let places = usize::try_from(4 - before).unwrap_or(0);
    format!("{value:.places$}")
}

fn more(out: &Out, next: Option<&str>) {
    if let (false, Some(next)) = (out.json, next) {
        note(&plain(&format!("there are more; go on with --cursor {next}")));
    }
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn numbers_are_as_long_as_they_are_exact() {
        let shown = [21.456_78, -0.001_234_56, 123_456.789, 40.0, 1e20].map(short);
        assert_eq!(shown, ["21.46", "-0.001235", "123457", "40", "100000000000000000000"]);
    }
}
