use std::collections::VecDeque;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use arrow_schema::SchemaRef;

use super::{Context, Item, Operate};
use crate::base::{Error, Result};
use crate::model::{DataType, Field};
use crate::query::compute::Computed;
use crate::stream::plan::{Lookup, Nearest, Relation};
use crate::stream::rows::{Build, Cell, Making, Rows, Scalar, View, arrow_schema, write_row};
use crate::stream::state::{Reader, Writer};

/// What a node cannot know by itself: asked of whoever runs the job, and told by [`Job::answer`](crate::stream::Job::answer). Rows behind
/// it wait, watermarks too.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The number by which the answer is told.
    pub id: u64,
    /// The node that asks.
    pub node: String,
    /// What is asked.
    pub kind: WantedKind,
}

/// What is asked of each row.
#[derive(Debug, Clone)]
pub enum WantedKind {
    /// The row of a collection that has a key, if there is one.
    Lookup {
        /// The collection.
        collection: String,
        /// A column of keys, `int64` or `varchar`.
        keys: arrow_array::ArrayRef,
        /// The fields that are wanted of it.
        fields: Vec<Field>,
        /// At which times; `None` for as it is now.
        times: Option<Arc<[i64]>>,
    },
    /// The nearest rows of a collection.
    Nearest {
        /// The collection.
        collection: String,
        /// Its vector field; `None` for its only one.
        field: Option<String>,
        /// A column of vectors.
        vectors: arrow_array::ArrayRef,
        /// How many.
        limit: u32,
        /// Which rows may be found.
        filter: Option<String>,
        /// The fields that are wanted, and after them the distance where that is wanted.
        fields: Vec<Field>,
        /// At which times; `None` for as it is now.
        times: Option<Arc<[i64]>>,
    },
    /// What a function of the host gives.
    Call {
        /// Its name.
        function: String,
        /// What it is given.
        rows: Rows,
        /// What each row that it gives has.
        fields: Vec<Field>,
    },
}

impl WantedKind {
    /// How many rows it asks about.
    pub fn len(&self) -> usize {
        match self {
            Self::Lookup { keys, .. } => arrow_array::Array::len(keys),
            Self::Nearest { vectors, .. } => arrow_array::Array::len(vectors),
            Self::Call { rows, .. } => rows.len(),
        }
    }

    /// Whether it asks about none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What was found for each row that was asked about.
#[derive(Debug, Clone)]
pub struct Answer {
    /// How many rows, for each.
    pub counts: Vec<u32>,
    /// The rows, those for the first first, with the fields that were wanted.
    pub rows: RecordBatch,
}

enum Kind {
    Lookup { lookup: Lookup, key: Computed },
    Nearest { nearest: Nearest, vector: Computed },
    Call { function: String, time: Option<usize> },
}

/// Waits for answers, and keeps the order of what it was given.
pub(super) struct Asker {
    kind: Kind,
    timed: bool,
    /// Whether a row to which nothing is found is left out.
    inner: bool,
    /// What is asked for.
    fields: Vec<Field>,
    schema: SchemaRef,
    input_fields: Vec<Field>,
    making: Making,
    waiting: VecDeque<Waiting>,
}

enum Waiting {
    /// Rows that were asked about, and the answer when it is there.
    Rows(u64, Rows, Option<Answer>),
    Watermark(i64),
}

impl Asker {
    fn new(kind: Kind, input: &Relation, gives: &Relation, inner: bool, fields: Vec<Field>) -> Self {
        Self {
            kind,
            timed: input.timed,
            inner,
            fields,
            schema: arrow_schema(&gives.fields),
            input_fields: input.fields.clone(),
            making: Making::new(&arrow_schema(&gives.fields), &gives.fields),
            waiting: VecDeque::new(),
        }
    }

    pub fn lookup(lookup: &Lookup, input: &Relation, gives: &Relation) -> Result<Self> {
        let key = lookup.key.bind(&input.fields)?;
        let fields = asked(&gives.fields[input.fields.len()..], lookup.fields.iter().map(|field| &*field.name));
        let kind = Kind::Lookup { lookup: lookup.clone(), key };
        Ok(Self::new(kind, input, gives, lookup.inner, fields))
    }

    pub fn nearest(nearest: &Nearest, input: &Relation, gives: &Relation) -> Result<Self> {
        let vector = nearest.vector.bind(&input.fields)?;
        let names = nearest.fields.iter().map(|field| &*field.name).chain(nearest.distance.as_deref());
        let fields = asked(&gives.fields[input.fields.len()..], names);
        let kind = Kind::Nearest { nearest: nearest.clone(), vector };
        Ok(Self::new(kind, input, gives, nearest.inner, fields))
    }

    pub fn call(function: &str, time: Option<&str>, gives: &Relation) -> Self {
        let kind = Kind::Call { function: function.to_owned(), time: time.and_then(|time| gives.position(time)) };
        Self::new(kind, &Relation::default(), gives, true, gives.fields.clone())
    }

    fn wanted(&self, rows: &Rows) -> WantedKind {
        let times = self.timed.then(|| rows.times.clone());
        let fields = self.fields.clone();
        match &self.kind {
            Kind::Lookup { lookup, key } => {
                let (collection, keys) = (lookup.collection.clone(), key.evaluate(&rows.batch));
                WantedKind::Lookup { collection, keys, fields, times }
            }
            Kind::Nearest { nearest, vector } => WantedKind::Nearest {
                collection: nearest.collection.clone(),
                field: nearest.field.clone(),
                vectors: vector.evaluate(&rows.batch),
                limit: nearest.limit,
                filter: nearest.filter.clone(),
                fields,
                times,
            },
            Kind::Call { function, .. } => WantedKind::Call { function: function.clone(), rows: rows.clone(), fields },
        }
    }

    /// That an answer has a count for each row and the fields that were asked for.
    fn check(&self, rows: &Rows, answer: &Answer) -> Result<()> {
        let found: u64 = answer.counts.iter().map(|count| u64::from(*count)).sum();
        if answer.counts.len() != rows.len() || found != answer.rows.num_rows() as u64 {
            return Err(Error::invalid(format!(
                "an answer for {} rows has {} counts, which come to {found}, and {} rows",
                rows.len(),
                answer.counts.len(),
                answer.rows.num_rows()
            )));
        }
        let expected = arrow_schema(&self.fields);
        let fits = answer.rows.num_columns() == self.fields.len()
            && answer
                .rows
                .columns()
                .iter()
                .zip(expected.fields())
                .all(|(column, field)| column.data_type() == field.data_type());
        if fits { Ok(()) } else { Err(Error::invalid("an answer has other fields than were asked for")) }
    }

    /// Gives what no longer waits.
    fn drain(&mut self, cx: &mut Context<'_>) {
        while let Some(first) = self.waiting.front() {
            if matches!(first, Waiting::Rows(_, _, None)) {
                break;
            }
            match self.waiting.pop_front() {
                Some(Waiting::Rows(_, rows, Some(answer))) => self.give(&rows, &answer, cx),
                Some(Waiting::Watermark(watermark)) => cx.out.push(Item::Watermark(watermark)),
                _ => {}
            }
        }
    }

    fn give(&mut self, rows: &Rows, answer: &Answer, cx: &mut Context<'_>) {
        if let Kind::Call { time, .. } = self.kind {
            let origins =
                answer.counts.iter().enumerate().flat_map(|(row, count)| std::iter::repeat_n(row, *count as usize));
            let mut times: Vec<i64> = origins.map(|row| rows.times[row]).collect();
            if let Some(at) = time {
                let column = answer.rows.column(at).as_primitive::<TimestampMicrosecondType>();
                times.iter_mut().zip(column).for_each(|(time, found)| *time = found.unwrap_or(*time));
            }
            if !times.is_empty() {
                let columns = answer.rows.columns().to_vec();
                let batch = crate::stream::rows::batch_of(&self.schema, columns, times.len());
                cx.out.push(Item::Rows(Rows { batch, times: times.into(), taken_back: None }));
            }
            return;
        }
        let (views, found) = (View::all(&rows.batch), View::all(&answer.rows));
        let mut at = 0;
        for (row, count) in answer.counts.iter().enumerate() {
            let none = usize::from(*count == 0 && !self.inner);
            for partner in 0..*count as usize + none {
                views.iter().enumerate().for_each(|(column, view)| self.making.column(column).push(view.cell(row)));
                for (column, view) in found.iter().enumerate() {
                    let cell = if none == 1 { Cell::Null } else { view.cell(at + partner) };
                    self.making.column(views.len() + column).push(cell);
                }
                self.making.end_row(rows.times[row], false);
            }
            at += *count as usize;
        }
        if let Some(rows) = self.making.finish() {
            cx.out.push(Item::Rows(rows));
        }
    }
}

/// The fields under the names that the collection has them by.
fn asked<'n>(fields: &[Field], names: impl Iterator<Item = &'n str>) -> Vec<Field> {
    fields.iter().zip(names).map(|(field, name)| Field { name: name.to_owned(), ..field.clone() }).collect()
}

impl Operate for Asker {
    fn rows(&mut self, _input: usize, rows: Rows, cx: &mut Context<'_>) -> Result<()> {
        if !rows.is_empty() {
            let id = cx.want(self.wanted(&rows));
            self.waiting.push_back(Waiting::Rows(id, rows, None));
        }
        Ok(())
    }

    fn watermark(&mut self, watermark: i64, cx: &mut Context<'_>) -> Result<()> {
        self.waiting.push_back(Waiting::Watermark(watermark));
        self.drain(cx);
        Ok(())
    }

    fn answer(&mut self, id: u64, answer: &Answer, cx: &mut Context<'_>) -> Result<bool> {
        let found =
            self.waiting.iter().position(|waiting| matches!(waiting, Waiting::Rows(other, _, None) if *other == id));
        let Some(at) = found else { return Ok(false) };
        if let Waiting::Rows(_, rows, _) = &self.waiting[at] {
            self.check(rows, answer)?;
        }
        if let Waiting::Rows(_, _, there) = &mut self.waiting[at] {
            *there = Some(answer.clone());
        }
        self.drain(cx);
        Ok(true)
    }

    fn held(&self) -> (usize, usize) {
        let rows = self.waiting.iter().filter_map(|waiting| match waiting {
            Waiting::Rows(_, rows, _) => Some(rows),
            Waiting::Watermark(_) => None,
        });
        rows.fold((0, 0), |(count, bytes), rows| (count + rows.len(), bytes + rows.batch.get_array_memory_size()))
    }

    /// The rows that wait: they are asked about again.
    fn save(&self, out: &mut Writer) {
        out.len(self.waiting.len());
        for waiting in &self.waiting {
            match waiting {
                Waiting::Watermark(watermark) => {
                    out.u8(0);
                    out.i64(*watermark);
                }
                Waiting::Rows(_, rows, _) => {
                    out.u8(1);
                    save_rows(rows, out);
                }
            }
        }
    }

    fn load(&mut self, reader: &mut Reader<'_>, cx: &mut Context<'_>) -> Result<()> {
        for _ in 0..reader.count(2)? {
            match reader.u8()? {
                0 => self.waiting.push_back(Waiting::Watermark(reader.i64()?)),
                _ => {
                    let fields = load_fields(reader, &self.input_fields)?;
                    let rows = load_rows(reader, &fields)?;
                    let id = cx.want(self.wanted(&rows));
                    self.waiting.push_back(Waiting::Rows(id, rows, None));
                }
            }
        }
        Ok(())
    }
}

const KINDS: [(DataType, u8); 6] = [
    (DataType::Bool, 0),
    (DataType::Int64, 1),
    (DataType::Double, 2),
    (DataType::Timestamp, 3),
    (DataType::Varchar { max_length: 65_535 }, 4),
    (DataType::Json, 5),
];

/// Rows with their fields: a function of the host is given whatever its input has.
fn save_rows(rows: &Rows, out: &mut Writer) {
    let schema = rows.batch.schema();
    out.len(schema.fields().len());
    for (field, column) in schema.fields().iter().zip(rows.batch.columns()) {
        out.bytes(field.name().as_bytes());
        let (kind, dim) = match column.data_type() {
            arrow_schema::DataType::Boolean => (0, 0),
            arrow_schema::DataType::Int64 => (1, 0),
            arrow_schema::DataType::Float64 => (2, 0),
            arrow_schema::DataType::Timestamp(..) => (3, 0),
            arrow_schema::DataType::FixedSizeList(_, dim) => (6, *dim as usize),
            _ => (4, 0),
        };
        out.u8(kind);
        out.len(dim);
    }
    out.len(rows.len());
    let views = View::all(&rows.batch);
    for row in 0..rows.len() {
        out.i64(rows.times[row]);
        write_row(&views, row, out);
    }
}

fn load_fields(reader: &mut Reader<'_>, known: &[Field]) -> Result<Vec<Field>> {
    let count = reader.count(3)?;
    (0..count)
        .map(|_| {
            let (name, kind, dim) = (reader.text()?, reader.u8()?, reader.len()?);
            let data_type = match KINDS.iter().find(|(_, number)| *number == kind) {
                Some((data_type, _)) => *data_type,
                None if (1..=32_768).contains(&dim) => DataType::FloatVector { dim: dim as u32 },
                None => return Err(Error::corrupt(format!("a field of kind {kind}"))),
            };
            let known = known.iter().find(|field| field.name == name).map(|field| field.data_type);
            Ok(Field::new(name, known.unwrap_or(data_type)))
        })
        .collect()
}

fn load_rows(reader: &mut Reader<'_>, fields: &[Field]) -> Result<Rows> {
    let count = reader.count(8 + fields.len())?;
    let mut columns = Build::of(fields);
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        times.push(reader.i64()?);
        for (column, field) in columns.iter_mut().zip(fields) {
            let value = Scalar::read(reader)?;
            if let (Scalar::Vector(numbers), Some(dim)) = (&value, field.data_type.dim())
                && numbers.len() != dim as usize
            {
                return Err(Error::corrupt(format!("a vector of {} numbers, expected {dim}", numbers.len())));
            }
            column.push(value.cell());
        }
    }
    let columns = columns.into_iter().map(Build::finish).collect();
    let batch = crate::stream::rows::batch_of(&arrow_schema(fields), columns, count);
    Ok(Rows { batch, times: times.into(), taken_back: None })
}
