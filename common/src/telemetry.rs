//! Structured logs on stderr. Secrets never enter: tokens and keys have no `Debug` that shows them.
//!
//! Every line that is written while a request is worked on carries its id. It is asked for when a line is written
//! and not kept in a span: spans for every request and inner call took several percent of a small read's instructions.

use std::fmt;

use tracing::{Event, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::{Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// What is logged unless `HAY_LOG` says otherwise. openraft tells its whole inner life at `info`.
fn usual() -> Targets {
    Targets::new().with_default(LevelFilter::INFO).with_target("openraft", LevelFilter::WARN)
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Tells the request that the running task works for.
pub type CurrentRequest = fn() -> Option<String>;

/// Starts logging for the process. `HAY_LOG` holds the filter, as in `hay_filer=debug,info`. Does nothing where a
/// subscriber is already there.
pub fn start(format: LogFormat, request: CurrentRequest) {
    let asked = std::env::var("HAY_LOG").ok().map(|filter| filter.parse::<Targets>());
    let not_understood = asked.as_ref().is_some_and(Result::is_err);
    let filter = asked.and_then(Result::ok).unwrap_or_else(usual);
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    let started = match format {
        LogFormat::Text => {
            let lines =
                WithRequest { inner: Format::default().with_ansi(false), insert: after_time, request };
            registry.with(layer.event_format(lines)).try_init()
        }
        LogFormat::Json => {
            let lines = WithRequest { inner: Format::default().json(), insert: as_first_member, request };
            let fields = tracing_subscriber::fmt::format::JsonFields::new();
            registry.with(layer.fmt_fields(fields).event_format(lines)).try_init()
        }
    };
    if not_understood {
        tracing::warn!(
            "HAY_LOG is not understood, and the usual is logged: write it as in hay_filer=debug,info"
        );
    }
    if let Err(already) = started {
        tracing::debug!(%already, "logging was started before");
    }
}

/// Puts the request's id into lines that another format makes.
struct WithRequest<F> {
    inner: F,
    insert: fn(&str, &str) -> String,
    request: CurrentRequest,
}

impl<S, N, F> FormatEvent<S, N> for WithRequest<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut to: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Some(id) = (self.request)() else { return self.inner.format_event(context, to, event) };
        let mut line = String::new();
        self.inner.format_event(context, Writer::new(&mut line), event)?;
        to.write_str(&(self.insert)(&line, &id))
    }
}

fn after_time(line: &str, id: &str) -> String {
    match line.split_once(' ') {
        Some((time, rest)) => format!("{time} request_id={id} {rest}"),
        None => format!("request_id={id} {line}"),
    }
}

fn as_first_member(line: &str, id: &str) -> String {
    match line.strip_prefix('{') {
        // An id is letters and digits: nothing to escape.
        Some(rest) => format!("{{\"request_id\":\"{id}\",{rest}"),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_stands_behind_the_time_or_in_the_object() {
        assert_eq!(after_time("T  WARN x: y\n", "ab"), "T request_id=ab  WARN x: y\n");
        assert_eq!(
            as_first_member("{\"level\":\"WARN\"}\n", "ab"),
            "{\"request_id\":\"ab\",\"level\":\"WARN\"}\n"
        );
    }
}
