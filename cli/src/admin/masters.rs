//! `hay cluster members`, `add-master` and `remove-master`.

use std::time::Duration;

use serde_json::{Value, json};

use super::fields::{at, list, table, text};
use crate::ask::is_confirmed;
use crate::run::Context;
use crate::stop::{Exit, Stop};

/// The masters, one a line.
pub async fn cluster_members(context: Context) -> Result<Exit, Stop> {
    let status = context.client.cluster().await?;
    let masters = list(&status, &["masters"]);
    if context.out.json() {
        context.out.value(&json!({ "masters": masters }))?;
        return Ok(Exit::Ok);
    }
    let mut rows = table(&["ID", "ADDRESS", "PART", "LACKS", "HEARD", "PROBLEM"]);
    for member in masters {
        let lag = member.get("lag").and_then(Value::as_u64);
        rows.add_row([
            text(member, "id"),
            text(member, "address"),
            part(member).to_owned(),
            lag.map_or_else(|| "-".to_owned(), |lag| format!("{lag} entries")),
            heard(member),
            text(member, "problem"),
        ]);
    }
    context.out.line(format_args!("{}", rows.trim_fmt()))?;
    Ok(Exit::Ok)
}

fn part(member: &Value) -> &'static str {
    let is = |name: &str| at(member, &[name]).and_then(Value::as_bool) == Some(true);
    match (is("leader"), is("voter")) {
        (true, _) => "leads",
        (false, true) => "votes",
        (false, false) => "follows",
    }
}

fn heard(member: &Value) -> String {
    match member.get("last_heard_ms_ago").and_then(Value::as_u64) {
        Some(ms) => format!("{:.1?} ago", Duration::from_millis(ms)),
        None => "-".to_owned(),
    }
}

/// Gives a master that follows a vote.
pub async fn add_master(name: &str, dry_run: bool, context: Context) -> Result<Exit, Stop> {
    let changed = context.client.masters_change("add", name, dry_run).await?;
    let does = if dry_run { "would get a vote" } else { "has a vote now" };
    say(&changed, does, &context)
}

/// Takes a master out of the group.
pub async fn remove_master(name: &str, dry_run: bool, yes: bool, context: Context) -> Result<Exit, Stop> {
    let would = context.client.masters_change("remove", name, true).await?;
    if dry_run {
        return say(&would, "would be removed", &context);
    }
    let master = would.get("master").unwrap_or(&Value::Null);
    let (id, address) = (text(master, "id"), text(master, "address"));
    let question = format!("Remove master {id} at {address} for good? Its directory can't be used again.");
    let unasked =
        "a removed master can't come back with its directory, and there is no terminal to ask on: add --yes";
    if !yes && !is_confirmed(&question, unasked)? {
        return Err(Stop::local("nothing was removed"));
    }
    // By its id: another may have come to its address meanwhile.
    let changed = context.client.masters_change("remove", &id, false).await?;
    say(&changed, "is removed", &context)
}

fn say(changed: &Value, does: &str, context: &Context) -> Result<Exit, Stop> {
    if context.out.json() {
        context.out.value(changed)?;
        return Ok(Exit::Ok);
    }
    let master = changed.get("master").unwrap_or(&Value::Null);
    context.out.line(format_args!(
        "master {} at {} {does}; {} of the masters have a vote, before {}",
        text(master, "id"),
        text(master, "address"),
        text(changed, "voters_after"),
        text(changed, "voters_before"),
    ))?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::scripted::{Act, answer, play};
    use crate::output::Output;
    use hay_common::clock::SystemClock;

    const WOULD: &[u8] = br#"{"dry_run":true,"master":{"id":"18446744073709551615","address":"a:1","leader":false,"voter":true},
        "voters_before":3,"voters_after":2}"#;

    #[tokio::test]
    async fn a_removal_is_by_the_id_that_was_shown() {
        let answers = [answer("200 OK", "", WOULD), answer("200 OK", "", WOULD)];
        let (client, log) = play(answers.into_iter().map(Act::Answer).collect()).await;
        let context = Context { client, out: Output::new(true), clock: SystemClock::shared() };
        assert_eq!(remove_master("a:1", false, true, context).await, Ok(Exit::Ok));
        let log = log.lock();
        assert!(
            log[0].head.starts_with("POST /api/nfs/masters/remove?master=a%3A1&dry_run=true"),
            "{}",
            log[0].head
        );
        let asked = "POST /api/nfs/masters/remove?master=18446744073709551615&dry_run=false";
        assert!(log[1].head.starts_with(asked), "{}", log[1].head);
    }

    #[test]
    fn parts_are_told_apart() {
        let member = |leader, voter| json!({ "leader": leader, "voter": voter });
        assert_eq!(part(&member(true, true)), "leads");
        assert_eq!(part(&member(false, true)), "votes");
        assert_eq!(part(&member(false, false)), "follows");
        assert_eq!(heard(&json!({ "last_heard_ms_ago": 1500 })), "1.5s ago");
    }
}
