//! See README.md. Nothing here knows of gateways: any host of Extism plug-ins can call it.

use extism_pdk::{FnResult, config, info, plugin_fn, var};
use serde_json::Value;

#[plugin_fn]
pub fn handle(input: String) -> FnResult<String> {
    let mut value: Value = serde_json::from_str(&input)?;
    let fields = config::get("fields")?.unwrap_or_default();
    let fields: Vec<&str> = fields.split(',').map(str::trim).collect();
    let covered = cover(&mut value, &fields);
    if covered > 0 {
        let total: u64 = var::get::<Vec<u8>>("covered")?
            .and_then(|bytes| bytes.try_into().ok().map(u64::from_le_bytes))
            .unwrap_or(0);
        var::set("covered", (total + covered).to_le_bytes().to_vec())?;
        info!("covered {covered} fields, {} so far", total + covered);
    }
    Ok(value.to_string())
}

/// Covers these fields at any depth; answers how many there were.
fn cover(value: &mut Value, fields: &[&str]) -> u64 {
    match value {
        Value::Object(object) => object
            .iter_mut()
            .map(|(name, value)| {
                if fields.contains(&name.as_str()) {
                    *value = Value::from("***");
                    1
                } else {
                    cover(value, fields)
                }
            })
            .sum(),
        Value::Array(array) => array.iter_mut().map(|value| cover(value, fields)).sum(),
        _ => 0,
    }
}
