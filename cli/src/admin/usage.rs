//! `hay usage`.

use super::fields::{size, text};
use crate::run::Context;
use crate::stop::{Exit, Stop};

/// What the tenant stores.
pub async fn usage(context: Context) -> Result<Exit, Stop> {
    let usage = context.client.usage().await?;
    if context.out.json() {
        context.out.value(&usage)?;
        return Ok(Exit::Ok);
    }
    context.out.line(format_args!("tenant        {}", text(&usage, "name")))?;
    context.out.line(format_args!("logical size  {}", size(&usage, "logical_bytes")))?;
    context.out.line(format_args!("files         {}", text(&usage, "files")))?;
    context.out.line(format_args!("directories   {}", text(&usage, "directories")))?;
    Ok(Exit::Ok)
}
