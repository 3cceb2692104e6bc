use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::base::{Error, Result};

/// The most sources, and the most handlers.
const NAMES_MAX: usize = 1_000;
/// The most routes, and the most cases of a handler.
const ROUTES_MAX: usize = 1_000;
/// The longest name, in bytes.
const NAME_BYTES_MAX: usize = 255;
/// The most events that wait for a handler.
const QUEUE_MAX: usize = 1_000_000;
/// A day, in milliseconds: nothing waits longer.
const WAIT_MS_MAX: u64 = 86_400_000;

/// What a bus does: where events come from, who handles them, and which go to whom. As JSON, in a file or over HTTP:
/// `{"sources": {"notes": {"collection": "notes"}}, "handlers": {"mail": {"function": "mail"}}, "routes": [{"to": ["mail"]}]}`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BusSpec {
    /// Where events come from, by the name that they have in events and routes.
    pub sources: BTreeMap<String, BusSource>,
    /// Who handles them.
    pub handlers: BTreeMap<String, BusHandler>,
    /// Which events go to whom.
    pub routes: Vec<BusRoute>,
    /// The collection that takes what no handler has managed, and why; `dead_letters` with `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead_letters: Option<String>,
}

/// Where events come from: a collection as it changes, a push stream, or, without either, the application, which publishes them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BusSource {
    /// The collection whose changes are events: none is lost, some may come again after a crash.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collection: Option<String>,
    /// The push stream whose rows are events: none is lost, some may come again after a crash.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// Where the changes of a collection begin when the source is new: `now` (also with `None`), `full`, `earliest`, a token, or a hybrid time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Whether events have the row before the change.
    pub before: bool,
    /// Which fields of the collection's rows; all but vectors with `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_fields: Option<Vec<String>>,
    /// How many events are read at once; a transaction is never split.
    pub batch_size: usize,
}

impl Default for BusSource {
    fn default() -> Self {
        Self { collection: None, stream: None, since: None, before: false, output_fields: None, batch_size: 256 }
    }
}

impl BusSource {
    /// Whether the application publishes its events: they are in memory alone.
    pub fn is_application(&self) -> bool {
        self.collection.is_none() && self.stream.is_none()
    }
}

/// Who handles events: one of `function`, `cases`, `collection` and `stream`, one event at a time, or many with `batch` or `aggregate`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BusHandler {
    /// A function of the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// The function of the first case whose filter is true.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cases: Vec<BusCase>,
    /// The function of events that are none of the cases; with `None` they are done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otherwise: Option<String>,
    /// A collection: rows are put into it, those of deletes deleted from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collection: Option<String>,
    /// A push stream: rows are pushed into it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// Many events in one call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<BusBatch>,
    /// What many events come to, in place of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aggregate: Option<BusAggregate>,
    /// What happens when it fails.
    pub retry: BusRetry,
    /// How many events wait for it. A source that would bring more is read no further meanwhile; for what the application publishes
    /// there is `overflow`.
    pub queue: usize,
    /// What happens to an event of the application that finds no room.
    pub overflow: BusOverflow,
    /// How many calls run at once.
    pub concurrency: u32,
    /// Whether an event that waits for its next try holds up those behind it.
    pub ordered: bool,
    /// A call that takes longer has failed.
    pub timeout_ms: u64,
}

impl Default for BusHandler {
    fn default() -> Self {
        Self {
            function: None,
            cases: vec![],
            otherwise: None,
            collection: None,
            stream: None,
            batch: None,
            aggregate: None,
            retry: BusRetry::default(),
            queue: 10_000,
            overflow: BusOverflow::default(),
            concurrency: 1,
            ordered: false,
            timeout_ms: 30_000,
        }
    }
}

/// Events for which a filter is true, and the function for them.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BusCase {
    /// Of the row.
    pub filter: String,
    /// Who handles it.
    pub function: String,
}

/// When a call is made. One of the three is enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BusBatch {
    /// So many events wait; no call has more.
    pub events: usize,
    /// They take so many bytes, about; no call has more, but for one event that is larger.
    pub bytes: usize,
    /// The oldest has waited so long, in milliseconds.
    pub delay_ms: u64,
}

impl Default for BusBatch {
    fn default() -> Self {
        Self { events: 100, bytes: 1 << 20, delay_ms: 100 }
    }
}

/// What many events come to, by the clock: a window begins with an event, and ends when it has enough of them or has been open so long.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BusAggregate {
    /// The fields by which events are told apart; all are one group without any.
    pub by: Vec<String>,
    /// What is told of each group, by name.
    pub values: BTreeMap<String, BusValue>,
    /// A window ends with so many events.
    pub events: usize,
    /// A window ends after so many milliseconds.
    pub delay_ms: u64,
    /// A window ends with so many groups.
    pub groups: usize,
}

impl Default for BusAggregate {
    fn default() -> Self {
        Self { by: vec![], values: BTreeMap::new(), events: 100_000, delay_ms: 1_000, groups: 1_000 }
    }
}

/// A value of a group.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BusValue {
    /// What it is.
    pub function: BusFunction,
    /// Of which field: events where it is null are left out. `None` only for `count`, which then counts events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
}

/// How many values become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BusFunction {
    /// How many.
    #[default]
    Count,
    /// Of numbers.
    Sum,
    /// The mean of numbers.
    Avg,
    /// The least number or text.
    Min,
    /// The greatest number or text.
    Max,
    /// That of the event that came first.
    First,
    /// That of the event that came last.
    Last,
}

/// What happens when a handler fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BusRetry {
    /// How often an event is tried, at most; then it is a dead letter.
    pub attempts: u32,
    /// The longest wait before the second try; twice as long before each further one. Waits are drawn from 0 on.
    pub delay_ms: u64,
    /// No wait is longer.
    pub delay_ms_max: u64,
}

impl Default for BusRetry {
    fn default() -> Self {
        Self { attempts: 5, delay_ms: 200, delay_ms_max: 30_000 }
    }
}

/// What happens to an event of the application for which a handler has no room. Those of collections and push streams wait where they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BusOverflow {
    /// It is not taken, by no handler: whoever publishes is told `unavailable`.
    #[default]
    Refuse,
    /// It is taken in place of the oldest event of the application that waits for this handler.
    DropOldest,
    /// It is left out for this handler.
    DropNewest,
}

/// Which events go to which handlers. An event goes along every route that it fits, and to a handler once.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BusRoute {
    /// Only those of these sources.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<String>,
    /// Only those of these kinds: `insert`, `update`, `delete` and `read` of collections, `push` of push streams, what the application calls
    /// its own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<String>,
    /// Only those whose key fits, as by `like`: `%` stands for any text. Of keys that are numbers, their decimal text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_pattern: Option<String>,
    /// Only those of whose row this is true: the row after the change, of a delete that before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Events of a greater one are handled first, whenever they came.
    pub priority: i32,
    /// The handlers.
    pub to: Vec<String>,
}

impl BusSpec {
    /// The specification in a JSON text.
    ///
    /// # Errors
    /// `InvalidArgument` that names the member, and says what was found there and what was expected.
    pub fn from_json(text: &str) -> Result<Self> {
        let spec = Self::parse(text)?;
        spec.check()?;
        Ok(spec)
    }

    /// The same, unchecked: one that was checked when it was stored.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut reader = serde_json::Deserializer::from_str(text);
        let spec: Self = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
            let path = error.path().to_string();
            Error::invalid(format!("the bus: {path}: {}", error.into_inner()))
        })?;
        reader.end().map_err(|error| Error::invalid(format!("the bus: {error}")))?;
        Ok(spec)
    }

    /// The collection for dead letters.
    pub fn letters(&self) -> &str {
        self.dead_letters.as_deref().unwrap_or("dead_letters")
    }

    /// That it can be, as far as that is known without collections: filters are checked with the fields of their sources.
    ///
    /// # Errors
    /// `InvalidArgument` that names the member.
    pub fn check(&self) -> Result<()> {
        self.check_members().map_err(|error| error.context("the bus"))
    }

    fn check_members(&self) -> Result<()> {
        within("sources", self.sources.len(), 0, NAMES_MAX)?;
        within("handlers", self.handlers.len(), 0, NAMES_MAX)?;
        within("routes", self.routes.len(), 0, ROUTES_MAX)?;
        if self.dead_letters.as_deref() == Some("") {
            return wrong("deadLetters", "a name expected, got \"\"");
        }
        for (name, source) in &self.sources {
            check_name(&format!("sources.{name}"), name)?;
            source.check(&format!("sources.{name}"))?;
        }
        for (name, handler) in &self.handlers {
            check_name(&format!("handlers.{name}"), name)?;
            handler.check(&format!("handlers.{name}"))?;
        }
        for (at, route) in self.routes.iter().enumerate() {
            let unknown = |member: String, what: &str, name: &str, known: Vec<&String>| {
                let known: Vec<&str> = known.into_iter().map(String::as_str).collect();
                wrong(&member, &format!("no {what} {name:?}; there are: {}", known.join(", ")))
            };
            if route.to.is_empty() {
                return wrong(&format!("routes[{at}].to"), "a handler at least expected, got none");
            }
            if let Some((of, name)) = route.to.iter().enumerate().find(|(_, name)| !self.handlers.contains_key(*name)) {
                return unknown(format!("routes[{at}].to[{of}]"), "handler", name, self.handlers.keys().collect());
            }
            if let Some((of, name)) = route.from.iter().enumerate().find(|(_, name)| !self.sources.contains_key(*name))
            {
                return unknown(format!("routes[{at}].from[{of}]"), "source", name, self.sources.keys().collect());
            }
        }
        Ok(())
    }
}

fn wrong<T>(member: &str, what: &str) -> Result<T> {
    Err(Error::invalid(format!("{member}: {what}")))
}

fn within<N: PartialOrd + std::fmt::Display>(member: &str, value: N, least: N, most: N) -> Result<()> {
    if value < least || value > most {
        return wrong(member, &format!("{least} to {most} expected, got {value}"));
    }
    Ok(())
}

fn check_name(member: &str, name: &str) -> Result<()> {
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(fits) {
        let expected = format!("a name of 1 to {NAME_BYTES_MAX} bytes of letters, digits, '_', '-' and '.' expected");
        return wrong(member, &format!("{expected}, got {name:?}"));
    }
    Ok(())
}

impl BusSource {
    fn check(&self, member: &str) -> Result<()> {
        if self.collection.is_some() && self.stream.is_some() {
            return wrong(member, "one of `collection` and `stream` expected, got both");
        }
        let of_collection =
            [("since", self.since.is_some()), ("before", self.before), ("outputFields", self.output_fields.is_some())];
        if self.collection.is_none()
            && let Some((name, _)) = of_collection.iter().find(|(_, is_set)| *is_set)
        {
            return wrong(&format!("{member}.{name}"), "only of a collection");
        }
        within(&format!("{member}.batchSize"), self.batch_size, 1, 100_000)
    }
}

impl BusHandler {
    fn check(&self, member: &str) -> Result<()> {
        let targets = [
            ("function", self.function.is_some()),
            ("cases", !self.cases.is_empty()),
            ("collection", self.collection.is_some()),
            ("stream", self.stream.is_some()),
        ];
        let named: Vec<&str> = targets.iter().filter(|(_, is_set)| *is_set).map(|(name, _)| *name).collect();
        if named.len() != 1 {
            let got = if named.is_empty() { "none".to_owned() } else { named.join(" and ") };
            return wrong(
                member,
                &format!("one of `function`, `cases`, `collection` and `stream` expected, got {got}"),
            );
        }
        if self.otherwise.is_some() && self.cases.is_empty() {
            return wrong(&format!("{member}.otherwise"), "only beside `cases`");
        }
        within(&format!("{member}.cases"), self.cases.len(), 0, ROUTES_MAX)?;
        for (at, case) in self.cases.iter().enumerate() {
            if case.function.is_empty() {
                return wrong(&format!("{member}.cases[{at}].function"), "the name of a function expected, got \"\"");
            }
        }
        if self.batch.is_some() && self.aggregate.is_some() {
            return wrong(member, "one of `batch` and `aggregate` expected, got both");
        }
        if let Some(batch) = &self.batch {
            within(&format!("{member}.batch.events"), batch.events, 1, 100_000)?;
            within(&format!("{member}.batch.bytes"), batch.bytes, 1, 64 << 20)?;
            within(&format!("{member}.batch.delayMs"), batch.delay_ms, 0, WAIT_MS_MAX)?;
            within(&format!("{member}.batch.events (`queue` holds as many)"), batch.events, 1, self.queue)?;
        }
        if let Some(aggregate) = &self.aggregate {
            let member = format!("{member}.aggregate");
            if !self.cases.is_empty() {
                return wrong(&member, "not beside `cases`");
            }
            if self.stream.is_none() && self.collection.is_none() && self.function.is_none() {
                return wrong(&member, "a function, a collection or a stream expected");
            }
            within(&format!("{member}.events"), aggregate.events, 1, 10_000_000)?;
            within(&format!("{member}.groups"), aggregate.groups, 1, 100_000)?;
            within(&format!("{member}.delayMs"), aggregate.delay_ms, 0, WAIT_MS_MAX)?;
            if aggregate.values.is_empty() {
                return wrong(&format!("{member}.values"), "a value at least expected, got none");
            }
            for (name, value) in &aggregate.values {
                let member = format!("{member}.values.{name}");
                if value.of.is_none() && value.function != BusFunction::Count {
                    return wrong(&format!("{member}.of"), "a field expected, got none");
                }
                if aggregate.by.contains(name) {
                    return wrong(&member, "another name expected: it is one of `by`");
                }
            }
        }
        within(&format!("{member}.retry.attempts"), self.retry.attempts, 1, 1_000)?;
        within(&format!("{member}.retry.delayMs"), self.retry.delay_ms, 0, WAIT_MS_MAX)?;
        within(&format!("{member}.retry.delayMsMax"), self.retry.delay_ms_max, self.retry.delay_ms, WAIT_MS_MAX)?;
        within(&format!("{member}.queue"), self.queue, 1, QUEUE_MAX)?;
        within(&format!("{member}.concurrency"), self.concurrency, 1, 1_000)?;
        if self.ordered && self.concurrency > 1 {
            return wrong(&format!("{member}.concurrency"), "1 expected beside `ordered`");
        }
        within(&format!("{member}.timeoutMs"), self.timeout_ms, 1, WAIT_MS_MAX)
    }
}
