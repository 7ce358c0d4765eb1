//! `isle status`: what the running nodes say of themselves.

use comfy_table::{Table, presets};
use http::Method;
use serde_json::{Map, Value, json};

use crate::args::StatusArgs;
use crate::nodes::{Api, Request, To};
use crate::output::{self, Failure};

pub(crate) async fn status(args: StatusArgs) -> Result<(), Failure> {
    let api = Api::new(&args.nodes);
    let mut nodes = Vec::new();
    for (to, role) in
        [(To::Writer, "writer"), (To::Reader, "reader"), (To::Tailer, "tailer"), (To::Compactor, "compactor")]
    {
        for base in api.bases(to)? {
            nodes.push(ask(&api, role, &base).await);
        }
    }
    if args.nodes.json {
        output::line(&json!({"nodes": nodes}).to_string())?;
    } else {
        output::line(&table(&nodes))?;
    }
    if nodes.iter().all(|n| n.get("error").is_some()) {
        return Err(Failure::new("no node answers"));
    }
    Ok(())
}

async fn ask(api: &Api, role: &str, base: &isle_service::client::BaseUrl) -> Map<String, Value> {
    let mut node = Map::new();
    node.insert("role".to_owned(), role.into());
    node.insert("address".to_owned(), base.to_string().into());
    match status_of(api, base).await {
        Ok(status) => node.insert("status".to_owned(), status),
        Err(error) => node.insert("error".to_owned(), error.into()),
    };
    if let Ok(metrics) = metrics_of(api, base).await {
        // Not `sum()`, whose empty sum is minus zero.
        let sum = |name: &str| samples(&metrics, name).fold(0.0, |a, b| a + b);
        node.insert("store_requests".to_owned(), sum("isle_store_requests_total").into());
        node.insert("store_cost_usd".to_owned(), sum("isle_store_cost_usd_total").into());
    }
    node
}

async fn status_of(api: &Api, base: &isle_service::client::BaseUrl) -> Result<Value, String> {
    let answer = api.send(base, &Request::new(Method::GET, "/v1/status")).await.map_err(|e| e.to_string())?;
    answer.json().await.map_err(|e| e.to_string())
}

async fn metrics_of(api: &Api, base: &isle_service::client::BaseUrl) -> Result<String, String> {
    let answer = api.send(base, &Request::new(Method::GET, "/metrics")).await.map_err(|e| e.to_string())?;
    let bytes = answer.bytes(16 << 20).await.map_err(|e| e.to_string())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The values of a metric, over all its labels.
fn samples<'a>(metrics: &'a str, name: &'a str) -> impl Iterator<Item = f64> + 'a {
    let lines = metrics.lines().filter(move |l| {
        l.strip_prefix(name).is_some_and(|rest| rest.starts_with('{') || rest.starts_with(' '))
    });
    lines.filter_map(|l| l.rsplit(' ').next()?.parse().ok())
}

fn table(nodes: &[Map<String, Value>]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    table.set_header(["role", "address", "what it says", "store requests", "cost so far, USD"]);
    for node in nodes {
        let says = match (node.get("error"), node.get("status")) {
            (Some(error), _) => format!("unreachable: {}", error.as_str().unwrap_or_default()),
            (_, Some(status)) => facts(status),
            _ => String::new(),
        };
        let number = |name: &str, digits: usize| {
            node.get(name).and_then(Value::as_f64).map_or_else(|| "-".to_owned(), |n| format!("{n:.digits$}"))
        };
        let text = |name: &str| node.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        table.add_row([
            text("role"),
            text("address"),
            says,
            number("store_requests", 0),
            number("store_cost_usd", 6),
        ]);
    }
    table.to_string()
}

/// The plain members of a status, a few to the line; nested ones a line each.
fn facts(status: &Value) -> String {
    let Some(members) = status.as_object() else { return status.to_string() };
    let (nested, plain): (Vec<_>, Vec<_>) = members.iter().partition(|(_, v)| v.is_object() || v.is_array());
    let plain: Vec<String> =
        plain.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| format!("{k} {}", bare(v))).collect();
    let mut lines: Vec<String> = plain.chunks(4).map(|c| c.join(", ")).collect();
    lines.extend(nested.into_iter().filter(|(_, v)| !is_empty(v)).map(|(k, v)| format!("{k}: {v}")));
    lines.join("\n")
}

fn bare(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(n) if n.is_f64() => format!("{:.2}", n.as_f64().unwrap_or_default()),
        other => other.to_string(),
    }
}

fn is_empty(value: &Value) -> bool {
    value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_its_labels_and_not_over_its_namesakes() {
        let text =
            "# TYPE a_total counter\na_total{op=\"put\"} 2\na_total{op=\"get\"} 3.5\na_total_extra 9\n";
        assert_eq!(samples(text, "a_total").sum::<f64>(), 5.5);
    }
}
