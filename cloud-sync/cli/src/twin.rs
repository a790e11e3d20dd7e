//! Twins: what devices are, as functions report it.

use sync_core::api::{self, Payload, TwinQuery};

use crate::args::TwinShow;
use crate::client::{Client, path};
use crate::failure::Failure;
use crate::out::{Out, note, plain, table};
use crate::time;

pub(crate) async fn show(out: &Out, client: &Client, wanted: TwinShow) -> Result<(), Failure> {
    let TwinShow { gateway, device, limit, cursor } = wanted;
    let query = TwinQuery { device, limit: Some(limit), cursor };
    let doing = format!("asking for the devices of the gateway {gateway}");
    let answer = client.get_with(&doing, &path(&["gateways", &gateway, "twins"]), &query).await?;
    out.answer(&answer, |page: &api::Twins| {
        let rows = page.properties.iter().map(|of| {
            let value = match &of.value {
                Payload::Text(text) => text.clone(),
                Payload::Hex(hex) => format!("hex {hex}"),
            };
            [of.device.clone(), of.property.clone(), value, time::show(of.wall_us), of.function.clone()]
        });
        table(["DEVICE", "PROPERTY", "VALUE", "TIME", "FUNCTION"], rows)
    })?;
    if let (false, Some(next)) = (out.json, &answer.value.next) {
        note(&plain(&format!("there are more; go on with --cursor {next}")));
    }
    Ok(())
}
