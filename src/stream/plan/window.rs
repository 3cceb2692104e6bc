use std::fmt;

use serde::{Deserialize, Serialize};

use crate::query::compute::Expression;
use crate::stream::zone::ZoneName;

/// The longest window by the clocks of a zone: changes are looked for as far around each row.
const ZONED_MAX: i64 = 366 * 86_400_000_000;

/// Which windows a row belongs to. Spans are microseconds, all positive. As a document: `{"tumbling": {"size": 60000000}}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Window {
    /// One after the other, each as long.
    Tumbling {
        /// How long each is.
        size: i64,
        /// How far past the multiples of `size` they begin, counted from 1970.
        #[serde(default)]
        offset: i64,
        /// The zone whose clocks tell where they begin and end; `None` for UTC. A day by the clocks has 23, 24 or 25 hours.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        zone: Option<ZoneName>,
    },
    /// Each as long, one beginning after every `slide`: a row is in `size / slide` of them.
    Sliding {
        /// How long each is.
        size: i64,
        /// How far one begins after the other.
        slide: i64,
        /// How far past the multiples of `slide` they begin.
        #[serde(default)]
        offset: i64,
        /// The zone whose clocks tell where they begin and end; `None` for UTC. A day by the clocks has 23, 24 or 25 hours.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        zone: Option<ZoneName>,
    },
    /// Of rows of one key without a gap: ends that long after its last row, and two that touch become one.
    Session {
        /// How long after its last row it ends.
        gap: i64,
    },
    /// All that begin where a tumbling window of `size` begins, and end after every `step` until its end.
    Cumulate {
        /// The longest, a multiple of `step`.
        size: i64,
        /// How much longer each is than the one before.
        step: i64,
        /// How far past the multiples of `size` they begin.
        #[serde(default)]
        offset: i64,
        /// The zone whose clocks tell where they begin and end; `None` for UTC. A day by the clocks has 23, 24 or 25 hours.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        zone: Option<ZoneName>,
    },
    /// One of all time. It closes when the sources have ended.
    Global,
    /// The last `size` rows of a key, after every `slide` of them; as they come, whatever their time.
    Count {
        /// How many rows.
        size: u64,
        /// After how many rows the next one ends.
        slide: u64,
    },
    /// The one that an earlier node put into [`WINDOW_START`](super::WINDOW_START) and [`WINDOW_END`](super::WINDOW_END).
    Attached,
}

impl Window {
    /// Whether it has a start and an end in time.
    pub fn is_timed(self) -> bool {
        !matches!(self, Self::Global | Self::Count { .. })
    }

    /// The time zone whose clocks it goes by.
    pub fn zone(self) -> Option<ZoneName> {
        match self {
            Self::Tumbling { zone, .. } | Self::Sliding { zone, .. } | Self::Cumulate { zone, .. } => zone,
            Self::Session { .. } | Self::Global | Self::Count { .. } | Self::Attached => None,
        }
    }

    /// The same by the clocks of a zone, of a window that can be: a session or a count of rows looks at no clock.
    pub(in crate::stream) fn in_zone(mut self, name: Option<ZoneName>) -> Self {
        if let Self::Tumbling { zone, .. } | Self::Sliding { zone, .. } | Self::Cumulate { zone, .. } = &mut self {
            *zone = name;
        }
        self
    }

    /// The longest span that it is made of.
    pub(in crate::stream) fn span_max(self) -> i64 {
        match self {
            Self::Tumbling { size, .. } | Self::Cumulate { size, .. } => size,
            Self::Sliding { size, slide, .. } => size.max(slide),
            Self::Session { gap } => gap,
            Self::Global | Self::Count { .. } | Self::Attached => 0,
        }
    }

    /// The same, beginning that much later.
    pub(in crate::stream) fn moved(mut self, by: i64) -> Self {
        if let Self::Tumbling { size: round, offset, .. }
        | Self::Sliding { slide: round, offset, .. }
        | Self::Cumulate { size: round, offset, .. } = &mut self
        {
            *offset = *offset % *round + by % *round;
        }
        self
    }

    /// That its spans are possible.
    pub(super) fn check(self) -> Result<(), String> {
        let positive = |name: &str, span: i64| {
            // Beyond that, sums of a few of them would not fit.
            if (1..=i64::MAX / 16).contains(&span) {
                Ok(())
            } else {
                Err(format!("{name} is {span}, expected a span above 0"))
            }
        };
        if self.zone().is_some() && self.span_max() > ZONED_MAX {
            let span = Span(self.span_max());
            return Err(format!("a window of {span} by the clocks of a zone, expected at most {}", Span(ZONED_MAX)));
        }
        match self {
            Self::Tumbling { size, .. } => positive("size", size),
            Self::Sliding { size, slide, .. } => {
                positive("size", size)?;
                positive("slide", slide)?;
                if size / slide > 100_000 {
                    return Err(format!("each row would be in {} windows, expected at most 100,000", size / slide));
                }
                Ok(())
            }
            Self::Session { gap } => positive("gap", gap),
            Self::Cumulate { size, step, .. } => {
                positive("size", size)?;
                positive("step", step)?;
                if size % step != 0 {
                    return Err(format!("size is {size}, expected a multiple of step, {step}"));
                }
                if size / step > 100_000 {
                    return Err(format!("each row would be in {} windows, expected at most 100,000", size / step));
                }
                Ok(())
            }
            Self::Count { size, slide } => {
                if size == 0 || slide == 0 || slide > size {
                    return Err(format!("a count window of {size} rows every {slide}: expected 0 < slide <= size"));
                }
                Ok(())
            }
            Self::Global | Self::Attached => Ok(()),
        }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let offset = |offset: i64, zone: Option<ZoneName>| {
            let offset = if offset == 0 { String::new() } else { format!(", offset {}", Span(offset)) };
            zone.map_or(offset.clone(), |zone| format!("{offset} in {zone}"))
        };
        match *self {
            Self::Tumbling { size, offset: o, zone } => write!(f, "tumbling {}{}", Span(size), offset(o, zone)),
            Self::Sliding { size, slide, offset: o, zone } => {
                write!(f, "sliding {} every {}{}", Span(size), Span(slide), offset(o, zone))
            }
            Self::Session { gap } => write!(f, "session, gap {}", Span(gap)),
            Self::Cumulate { size, step, offset: o, zone } => {
                write!(f, "cumulate {} by {}{}", Span(size), Span(step), offset(o, zone))
            }
            Self::Global => f.write_str("global"),
            Self::Count { size, slide } if size == slide => write!(f, "every {size} rows"),
            Self::Count { size, slide } => write!(f, "last {size} rows, every {slide}"),
            Self::Attached => f.write_str("attached window"),
        }
    }
}

/// Microseconds, shown.
pub(super) struct Span(pub i64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(86_400_000_000, "d"), (3_600_000_000, "h"), (60_000_000, "min"), (1_000_000, "s"), (1_000, "ms")];
        match units.into_iter().find(|(unit, _)| self.0 != 0 && self.0 % unit == 0) {
            Some((unit, name)) => write!(f, "{} {name}", self.0 / unit),
            None => write!(f, "{} µs", self.0),
        }
    }
}

/// How often a window tells what it has so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Pace {
    /// After that many rows of a key and window.
    Count(u64),
    /// So many microseconds of `now` after the first row since it last told.
    Interval(i64),
    /// After every batch that changed it.
    Batch,
}

/// When a window tells its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Trigger {
    /// Whether windows are of the time when a row is processed (`now`), not of its event time.
    pub processing_time: bool,
    /// Before the watermark passes its end; `None` for not at all.
    pub early: Option<Pace>,
    /// After that, for rows within the allowed lateness; `None` for each of them at once.
    pub late: Option<Pace>,
    /// Whether a window forgets what it has told, so that the next telling begins at nothing.
    pub purge: bool,
}

/// What a node tells of a window that is told more than once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Output {
    /// Each window and key once, when the watermark has passed its end. Early firings and lateness are refused.
    #[default]
    Close,
    /// Every firing tells the whole window so far, as an update of the row before.
    Accumulating,
    /// Every firing tells what came since the last one.
    Discarding,
    /// As accumulating, and first takes back the row before.
    Retracting,
}

/// Which rows a window lets go of whenever it is told: they are in it no more. The window keeps its rows, each time that it is told in the order in
/// which they came, and its aggregates are made from them anew.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Evictor {
    /// Which stay.
    pub keep: Keep,
    /// Whether they go after the window was told; before it otherwise.
    #[serde(default)]
    pub after: bool,
}

/// Which rows stay in a window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Keep {
    /// The last so many that came.
    Count(u64),
    /// Those less than so many microseconds before the latest of them.
    Time(i64),
    /// Those for which a number is below a threshold, or null.
    Delta {
        /// The number, by the row's fields, and by those of the row that came last as `last_…`: `last_price - price`.
        by: Expression,
        /// The threshold.
        threshold: f64,
    },
}

/// What stands before a field's name, for the row that came last.
pub(super) const LAST: &str = "last_";

impl fmt::Display for Evictor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.keep {
            Keep::Count(rows) => write!(f, "keeping the last {rows} rows")?,
            Keep::Time(span) => write!(f, "keeping the last {}", Span(*span))?,
            Keep::Delta { by, threshold } => write!(f, "keeping rows where {by} < {threshold:?}")?,
        }
        f.write_str(if self.after { " once told" } else { "" })
    }
}
