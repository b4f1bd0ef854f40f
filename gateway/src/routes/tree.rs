//! Which tree a path names: the caller's own, or one named in front.

use hay_common::error::{ErrorCode, Failure};

use crate::app::App;
use crate::auth::Authenticated;
use crate::request::path::TreePath;

/// Reads the path of a request and makes sure that it lies in the caller's own tree.
///
/// # Errors
/// `invalid_path`; `not_found` for another tenant's tree, whether or not there is such a tenant.
pub(super) async fn own_path(app: &App, caller: &Authenticated, raw: &str) -> Result<TreePath, Failure> {
    let path = TreePath::parse(raw)?;
    if let Some(name) = path.tenant()
        && app.whoami(caller).await?.tenant_name != name
    {
        return Err(Failure::new(ErrorCode::NotFound, "no tree of that tenant is open to this token"));
    }
    Ok(path)
}
