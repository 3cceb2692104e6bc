//! What `WITH` says of sources and sinks.

use serde_json::{Map, Value as Json};

use super::ast::{Expr, Kind, Name, Setting};
use super::{Origin, time};
use crate::base::Timestamp;
use crate::query::Parameters;
use crate::query::fault::{Fault, closest};
use crate::stream::SourceMode;

type Result<T, E = Fault> = std::result::Result<T, E>;

/// The connector whose sources are collections as they change, and whose sinks are collections.
const COLLECTION: &str = "collection";
/// The connector whose sources are push streams.
const STREAM: &str = "stream";
/// The connector whose sources are files of the server.
const FILES: &str = "files";
/// The connector whose sinks keep rows for the application.
const APPLICATION: &str = "application";
/// Before the options of any other connector.
const OPTIONS: &str = "options.";

/// What is said of a source.
#[derive(Default)]
pub(super) struct SourceSettings {
    /// Where its rows come from; `None` when that is not said.
    pub origin: Option<Origin>,
    /// After how many microseconds it is idle.
    pub idle: Option<i64>,
    /// Whether rows of the collection are taken back when they change, and where that is said.
    pub changes: Option<usize>,
}

/// What is said of a sink.
#[derive(Clone, Default)]
pub(super) struct SinkSettings {
    /// The collection that takes the rows; `None` for the application.
    pub collection: Option<String>,
    /// The columns by which rows are told apart, and where each is named.
    pub keys: Option<Vec<(String, usize)>>,
    /// The collection that takes what is not taken, and where it is named.
    pub dead_letters: Option<(String, usize)>,
    /// How many rows are kept for the application, and where that is said.
    pub keep_rows: Option<(usize, usize)>,
}

/// Options as they were given, and which were looked at.
struct Given<'s> {
    settings: &'s [Setting],
    parameters: &'s Parameters,
    known: Vec<&'static str>,
}

/// Case and underscores make no other option: `commit_time` is `commitTime`.
fn plain(key: &str) -> String {
    key.chars().filter(|c| *c != '_').map(|c| c.to_ascii_lowercase()).collect()
}

impl<'s> Given<'s> {
    fn new(settings: &'s [Setting], parameters: &'s Parameters) -> Result<Self> {
        for (at, one) in settings.iter().enumerate() {
            if settings[..at].iter().any(|other| plain(&other.key.text) == plain(&one.key.text)) {
                return Err(Fault::new(one.key.at, format!("the option `{}` is given twice", one.key.text)));
            }
        }
        Ok(Self { settings, parameters, known: vec![] })
    }

    fn take(&mut self, key: &'static str) -> Option<&'s Expr> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.settings.iter().find(|one| plain(&one.key.text) == plain(key)).map(|one| &one.value)
    }

    fn json(&self, value: &Expr) -> Result<Json> {
        let wrong = |expected: &str| Err(Fault::new(value.at, format!("found `{value}`, expected {expected}")));
        Ok(match &value.kind {
            Kind::Text(text) => text.clone().into(),
            Kind::Int(number) => (*number).into(),
            Kind::Float(number) => (*number).into(),
            Kind::Bool(flag) => (*flag).into(),
            Kind::List(list) => Json::Array(list.iter().map(|one| self.json(one)).collect::<Result<_>>()?),
            Kind::Parameter(name) => match self.parameters.get(name) {
                Some(given) => serde_json::to_value(given).unwrap_or_default(),
                None => {
                    return Err(Fault::new(value.at, format!("found parameter `{name}`, which was given no value")));
                }
            },
            _ => return wrong("a text, a number, TRUE, FALSE or a list of them"),
        })
    }

    fn text(&mut self, key: &'static str) -> Result<Option<(String, usize)>> {
        let Some(value) = self.take(key) else { return Ok(None) };
        match self.json(value)? {
            Json::String(text) if !text.is_empty() => Ok(Some((text, value.at))),
            _ => Err(Fault::new(value.at, format!("found `{value}`, expected a text of `{key}`"))),
        }
    }

    /// A text, or a list of texts; none of them empty.
    fn texts(&mut self, key: &'static str) -> Result<Option<Vec<(String, usize)>>> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let values = match &value.kind {
            Kind::List(list) => list.iter().collect(),
            _ => vec![value],
        };
        let mut texts = vec![];
        for one in values {
            let found = match self.json(one)? {
                Json::Array(list) => list,
                one => vec![one],
            };
            for text in found {
                match text {
                    Json::String(text) if !text.is_empty() => texts.push((text, one.at)),
                    _ => return Err(Fault::new(one.at, format!("found `{one}`, expected a text, or a list of texts"))),
                }
            }
        }
        if texts.is_empty() {
            return Err(Fault::new(value.at, format!("found `{value}`, expected one text at least")));
        }
        Ok(Some(texts))
    }

    fn number(&mut self, key: &'static str) -> Result<Option<f64>> {
        let Some(value) = self.take(key) else { return Ok(None) };
        match self.json(value)?.as_f64() {
            Some(number) if number > 0.0 => Ok(Some(number)),
            _ => Err(Fault::new(value.at, format!("found `{value}`, expected a number over 0"))),
        }
    }

    fn count(&mut self, key: &'static str) -> Result<Option<(usize, usize)>> {
        let Some(value) = self.take(key) else { return Ok(None) };
        match self.json(value)?.as_u64().and_then(|count| usize::try_from(count).ok()) {
            Some(count) if count > 0 => Ok(Some((count, value.at))),
            _ => Err(Fault::new(value.at, format!("found `{value}`, expected a whole number over 0"))),
        }
    }

    fn flag(&mut self, key: &'static str) -> Result<Option<usize>> {
        let Some(value) = self.take(key) else { return Ok(None) };
        match self.json(value)? {
            Json::Bool(flag) => Ok(flag.then_some(value.at)),
            _ => Err(Fault::new(value.at, format!("found `{value}`, expected TRUE or FALSE"))),
        }
    }

    /// A positive span, in microseconds.
    fn span(&mut self, key: &'static str) -> Result<Option<i64>> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let span = match &value.kind {
            Kind::Interval(span) => Some(*span),
            _ => self.json(value)?.as_str().and_then(|text| time::interval(text, None)),
        };
        match span {
            Some(span) if span > 0 => Ok(Some(span)),
            _ => Err(Fault::new(value.at, format!("found `{value}`, expected a time such as `30 seconds`"))),
        }
    }

    /// The options of a connector that only it knows.
    fn options(&mut self) -> Result<Json> {
        self.known.push("options.…");
        let mut options = Map::new();
        for one in self.settings {
            if let Some(name) = one.key.text.strip_prefix(OPTIONS) {
                options.insert(name.to_owned(), self.json(&one.value)?);
            }
        }
        Ok(if options.is_empty() { Json::Null } else { Json::Object(options) })
    }

    /// That nothing is said that nobody looked at.
    fn check(self) -> Result<()> {
        let is_known = |one: &&Setting| {
            let of_connector = one.key.text.starts_with(OPTIONS) && self.known.contains(&"options.…");
            of_connector || self.known.iter().any(|known| plain(known) == plain(&one.key.text))
        };
        let Some(one) = self.settings.iter().find(|one| !is_known(one)) else { return Ok(()) };
        let hint = match closest(&one.key.text, self.known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => {
                let known: Vec<_> = self.known.iter().map(|known| format!("`{known}`")).collect();
                format!("expected {}", known.join(", "))
            }
        };
        Err(Fault::new(one.key.at, format!("found the option `{}`, which is none here: {hint}", one.key.text)))
    }
}

/// What is said of the source `name`.
pub(super) fn source(settings: &[Setting], parameters: &Parameters, name: &Name) -> Result<SourceSettings> {
    let mut given = Given::new(settings, parameters)?;
    let mut told = SourceSettings { idle: given.span("idle")?, ..SourceSettings::default() };
    let Some((connector, _)) = given.text("connector")? else {
        given.check()?;
        return Ok(told);
    };
    let mut origin = Origin::default();
    if connector == COLLECTION {
        let collection = given.text("collection")?.map(|(text, _)| text);
        origin.collection = Some(collection.unwrap_or_else(|| name.text.clone()));
        origin.since = since(&mut given)?;
        origin.pace = given.number("pace")?;
        origin.commit_time = given.text("commitTime")?.map(|(text, _)| text);
        told.changes = given.flag("changes")?;
    } else {
        origin.mode = mode(&mut given)?;
        origin.pace = given.number("pace")?;
        match &*connector {
            STREAM => {
                let stream = given.text("stream")?.map(|(text, _)| text);
                origin.options = serde_json::json!({ "stream": stream.as_ref().unwrap_or(&name.text) });
            }
            FILES => {
                let Some(paths) = given.texts("paths")? else {
                    return Err(Fault::new(
                        name.at,
                        format!("the files of `{}` are not named: expected `paths`", name.text),
                    ));
                };
                let paths: Vec<String> = paths.into_iter().map(|(path, _)| path).collect();
                origin.options = serde_json::json!({ "paths": paths });
                if let Some((format, _)) = given.text("format")? {
                    origin.options["format"] = format.into();
                }
            }
            _ => origin.options = given.options()?,
        }
        origin.connector = Some(connector);
    }
    told.origin = Some(origin);
    given.check()?;
    Ok(told)
}

fn since(given: &mut Given<'_>) -> Result<Option<String>> {
    let Some(value) = given.take("since") else { return Ok(None) };
    if let Kind::Timestamp(micros) = value.kind {
        let Some(ms) = u64::try_from(micros / 1_000).ok().filter(|ms| Timestamp::new(*ms, 0).physical_ms() == *ms)
        else {
            return Err(Fault::new(value.at, format!("found `{value}`, which is no time of a write")));
        };
        return Ok(Some(Timestamp::new(ms, 0).0.to_string()));
    }
    match given.json(value)?.as_str() {
        Some(text) if matches!(text, "now" | "full" | "earliest") || text.parse::<u64>().is_ok() => {
            Ok(Some(text.to_owned()))
        }
        _ => {
            let expected = "'full', 'now', 'earliest', a TIMESTAMP or the number of a hybrid time in quotes";
            Err(Fault::new(value.at, format!("found `{value}`, expected {expected}")))
        }
    }
}

fn mode(given: &mut Given<'_>) -> Result<SourceMode> {
    let mode = given.text("mode")?;
    let every = given.take("every").map(|value| value.at);
    let every_ms = given.span("every")?.map(|micros| u64::try_from(micros / 1_000).unwrap_or(0).max(1));
    match (mode.as_ref().map(|(mode, at)| (&**mode, *at)), every_ms) {
        (Some(("nearRealTime", _)), Some(every_ms)) => Ok(SourceMode::NearRealTime { every_ms }),
        (Some(("nearRealTime", at)), None) => {
            Err(Fault::new(at, "the mode `nearRealTime` needs `every`, such as `every = '1 second'`"))
        }
        (_, Some(_)) => Err(Fault::new(every.unwrap_or(0), "`every` is of the mode `nearRealTime`")),
        (None | Some(("realTime", _)), None) => Ok(SourceMode::RealTime),
        (Some(("batch", _)), None) => Ok(SourceMode::Batch),
        (Some((mode, at)), None) => {
            let hint = closest(mode, ["realTime", "nearRealTime", "batch"].into_iter());
            let hint = hint.map_or(String::new(), |near| format!(": did you mean `{near}`?"));
            let message = format!("found the mode `{mode}`, expected `realTime`, `nearRealTime` or `batch`{hint}");
            Err(Fault::new(at, message))
        }
    }
}

/// What is said of the sink `name`.
pub(super) fn sink(settings: &[Setting], parameters: &Parameters, name: &Name) -> Result<SinkSettings> {
    let mut given = Given::new(settings, parameters)?;
    let mut told = SinkSettings::default();
    match given.text("connector")?.as_ref().map(|(connector, at)| (&**connector, *at)) {
        None | Some((COLLECTION, _)) => {
            let collection = given.text("collection")?.map(|(text, _)| text);
            told.collection = Some(collection.unwrap_or_else(|| name.text.clone()));
        }
        Some((APPLICATION, _)) => told.keep_rows = given.count("keepRows")?,
        Some((other, at)) => {
            let message =
                format!("found the connector `{other}`, expected `{COLLECTION}` or `{APPLICATION}` of a sink");
            return Err(Fault::new(at, message));
        }
    }
    told.keys = given.texts("keys")?;
    told.dead_letters = given.text("deadLetters")?;
    given.check()?;
    Ok(told)
}
