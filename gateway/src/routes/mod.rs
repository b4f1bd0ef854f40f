//! The table of routes, and what answers them. Only [`dispatch`] leads to a handler behind the door, and it takes an
//! [`Authenticated`].

mod admin;
mod list;
pub(crate) mod operations;
mod put;
mod read;
mod remove;
pub(crate) mod status;
mod tree;

use std::sync::Arc;

use http::request::Parts;
use http::{Method, Request};
use hyper::body::Incoming;

use crate::app::App;
use crate::auth::Authenticated;
use crate::meters::RouteLabel;
use crate::reply::{Refusal, Reply};
use hay_client::master::MastersChange;
use hay_common::error::ErrorCode;

/// Where a path leads. What follows the route is still encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    Health,
    Ready,
    Metrics,
    Files(&'a str),
    Stream(&'a str),
    List(&'a str),
    ClusterStatus,
    Volumes,
    Volume(&'a str),
    VolumeRepair(&'a str),
    Masters(MastersChange),
    Whoami,
    Usage,
}

impl<'a> Route<'a> {
    /// The route of a raw request path.
    pub(crate) fn of(path: &'a str) -> Option<Self> {
        let Some(api) = path.strip_prefix("/api/nfs/") else {
            return match path {
                "/healthz" => Some(Self::Health),
                "/readyz" => Some(Self::Ready),
                "/metrics" => Some(Self::Metrics),
                _ => None,
            };
        };
        let (first, rest) = api.split_once('/').map_or((api, None), |(first, rest)| (first, Some(rest)));
        match (first, rest) {
            ("files", rest) => Some(Self::Files(rest.unwrap_or(""))),
            ("stream", Some(rest)) => Some(Self::Stream(rest)),
            ("list", rest) => Some(Self::List(rest.unwrap_or(""))),
            ("cluster", None | Some("status")) => Some(Self::ClusterStatus),
            ("volumes", None) => Some(Self::Volumes),
            ("volumes", Some(rest)) => Some(match rest.strip_suffix("/repair") {
                Some(id) => Self::VolumeRepair(id),
                None => Self::Volume(rest),
            }),
            ("masters", Some("add")) => Some(Self::Masters(MastersChange::Add)),
            ("masters", Some("remove")) => Some(Self::Masters(MastersChange::Remove)),
            ("whoami", None) => Some(Self::Whoami),
            ("usage", None) => Some(Self::Usage),
            _ => None,
        }
    }

    /// Whether it answers without a token.
    pub(crate) fn is_open(self, metrics_open: bool) -> bool {
        match self {
            Self::Health | Self::Ready => true,
            Self::Metrics => metrics_open,
            _ => false,
        }
    }

    /// The methods it knows.
    pub(crate) fn methods(self) -> &'static str {
        match self {
            Self::Files(_) => "GET, HEAD, PUT, DELETE",
            Self::VolumeRepair(_) | Self::Masters(_) => "POST",
            _ => "GET, HEAD",
        }
    }

    /// Whether it knows the method.
    pub(crate) fn knows(self, method: &Method) -> bool {
        self.methods().split(", ").any(|known| known == method.as_str())
    }

    /// What metrics call it.
    pub(crate) fn label(self, method: &Method) -> RouteLabel {
        match self {
            Self::Health | Self::Ready | Self::Metrics => RouteLabel::Operations,
            Self::List(_) => RouteLabel::List,
            Self::Files(_) | Self::Stream(_) => match *method {
                Method::GET => RouteLabel::Get,
                Method::HEAD => RouteLabel::Head,
                Method::PUT => RouteLabel::Put,
                Method::DELETE => RouteLabel::Delete,
                _ => RouteLabel::Refused,
            },
            _ => RouteLabel::Admin,
        }
    }
}

/// A request without its body, and its body.
pub(crate) struct Ask {
    pub(crate) head: Parts,
    pub(crate) body: Incoming,
}

impl Ask {
    /// Whether only the head of the answer is wanted.
    fn is_head(&self) -> bool {
        self.head.method == Method::HEAD
    }
}

/// Answers any request; the first refusal wins.
pub(crate) async fn answer(app: &Arc<App>, request: Request<Incoming>) -> Reply {
    let (head, body) = request.into_parts();
    // A cheap clone: the path is shared bytes.
    let uri = head.uri.clone();
    let ask = Ask { head, body };
    let replied = match Route::of(uri.path()) {
        Some(route) if route.is_open(app.config.metrics_open) => open(app, route, &ask.head.method).await,
        route => match Authenticated::from_headers(&ask.head.headers) {
            Ok(caller) => Box::pin(behind_the_door(app, caller, route, ask)).await,
            Err(failure) => Err(failure.into()),
        },
    };
    replied.unwrap_or_else(Refusal::into_reply)
}

async fn open(app: &Arc<App>, route: Route<'_>, method: &Method) -> Result<Reply, Refusal> {
    if !route.knows(method) {
        return Err(Refusal::method(route.methods()));
    }
    match route {
        Route::Health => Ok(operations::health()),
        Route::Ready => Ok(operations::ready(app).await),
        Route::Metrics => operations::metrics(app).await,
        _ => Err(Refusal::new(ErrorCode::Internal, "a guarded route was taken for an open one")),
    }
}

async fn behind_the_door(
    app: &Arc<App>,
    caller: Authenticated,
    route: Option<Route<'_>>,
    ask: Ask,
) -> Result<Reply, Refusal> {
    let refusal = match route {
        Some(route) if route.knows(&ask.head.method) => return dispatch(app, caller, route, ask).await,
        Some(route) => Refusal::method(route.methods()),
        None => Refusal::new(ErrorCode::NotFound, "there is no such route: see docs/http-api.md"),
    };
    // What exists and what does not is told to nobody without a good token.
    app.whoami(&caller).await?;
    Err(refusal)
}

async fn dispatch(
    app: &Arc<App>,
    caller: Authenticated,
    route: Route<'_>,
    ask: Ask,
) -> Result<Reply, Refusal> {
    let method = ask.head.method.clone();
    match (route, method) {
        (Route::Files(path), Method::PUT) => put::put(app, caller, path, ask).await,
        (Route::Files(path), Method::DELETE) => remove::remove(app, caller, path, &ask.head).await,
        (Route::Files(path) | Route::Stream(path), _) => read::read(app, caller, path, &ask).await,
        (Route::List(path), _) => list::list(app, caller, path, &ask.head).await,
        (Route::ClusterStatus, _) => status::cluster_status(app, &caller).await,
        (Route::Volumes, _) => admin::volumes(app, &caller, ask.head.uri.query()).await,
        (Route::VolumeRepair(id), _) => admin::volume_repair(app, &caller, id, ask.head.uri.query()).await,
        (Route::Masters(change), _) => {
            admin::change_masters(app, &caller, change, ask.head.uri.query()).await
        }
        (Route::Volume(id), _) => admin::volume(app, &caller, id).await,
        (Route::Whoami, _) => admin::whoami(app, &caller).await,
        (Route::Usage, _) => admin::usage(app, &caller).await,
        (Route::Metrics, _) => {
            app.administrator(&caller).await?;
            operations::metrics(app).await
        }
        (Route::Health | Route::Ready, _) => open(app, route, &ask.head.method).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_where_they_should() {
        for (path, expected) in [
            ("/healthz", Some(Route::Health)),
            ("/readyz", Some(Route::Ready)),
            ("/metrics", Some(Route::Metrics)),
            ("/api/nfs/files/a/b%20c", Some(Route::Files("a/b%20c"))),
            ("/api/nfs/files//x", Some(Route::Files("/x"))),
            ("/api/nfs/files/", Some(Route::Files(""))),
            ("/api/nfs/files", Some(Route::Files(""))),
            ("/api/nfs/stream/a", Some(Route::Stream("a"))),
            ("/api/nfs/list", Some(Route::List(""))),
            ("/api/nfs/list/", Some(Route::List(""))),
            ("/api/nfs/list/a/", Some(Route::List("a/"))),
            ("/api/nfs/cluster", Some(Route::ClusterStatus)),
            ("/api/nfs/cluster/status", Some(Route::ClusterStatus)),
            ("/api/nfs/volumes", Some(Route::Volumes)),
            ("/api/nfs/volumes/7", Some(Route::Volume("7"))),
            ("/api/nfs/whoami", Some(Route::Whoami)),
            ("/api/nfs/usage", Some(Route::Usage)),
            ("/", None),
            ("/healthz/", None),
            ("/healthzz", None),
            ("/healthz/deeper", None),
            ("/api/nfs", None),
            ("/api/nfs/", None),
            ("/api/nfs/filesx", None),
            ("/api/nfs/whoami/x", None),
            ("/API/nfs/files/a", None),
            ("/api/nfs/../../healthz", None),
        ] {
            assert_eq!(Route::of(path), expected, "{path}");
        }
    }

    #[test]
    fn only_health_is_open() {
        for path in [
            "/metrics",
            "/api/nfs/files/a",
            "/api/nfs/stream/a",
            "/api/nfs/list",
            "/api/nfs/cluster",
            "/api/nfs/volumes",
            "/api/nfs/volumes/1",
            "/api/nfs/whoami",
            "/api/nfs/usage",
        ] {
            assert!(!Route::of(path).unwrap().is_open(false), "{path}");
        }
        assert!(Route::Health.is_open(false) && Route::Ready.is_open(false));
        assert!(Route::Metrics.is_open(true) && !Route::Usage.is_open(true));
    }
}
