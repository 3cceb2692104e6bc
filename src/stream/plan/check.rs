use std::collections::BTreeSet;

use super::aggregate::{Aggregate, AggregateFunction as Function, Measure};
use super::node::{
    Dedupe, Join, JoinKind, JoinScope, Nearness, Node, Operator, Plan, Source, SourceField, Top, WindowAggregate,
};
use super::window::{Evictor, Keep, LAST, Output, Pace, Window};
use super::{WINDOW_END, WINDOW_START};
use crate::base::{Error, Result};
use crate::model::schema::check_name;
use crate::model::{DataType, Field};
use crate::query::compute::{Computed, Expression, canonical};
use crate::stream::zone::Zones;

/// Most nodes of a plan.
const NODES_MAX: usize = 1_000;
/// Most fields between two nodes.
const FIELDS_MAX: usize = 63;
/// The longest list that an aggregate makes.
const LIST_MAX: u32 = 100_000;
const TEXT: DataType = DataType::Varchar { max_length: 65_535 };

/// What a node gives.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Relation {
    /// Its fields, in order.
    pub fields: Vec<Field>,
    /// Whether rows have an event time. (It goes along with them, whatever their fields are.)
    pub timed: bool,
    /// Whether a row may be an update of an earlier one without saying of which: only a sink with keys can take these.
    pub updates: bool,
    /// Whether rows may be taken back.
    pub retracts: bool,
}

impl Relation {
    /// Whether rows have the bounds of their window.
    pub fn is_windowed(&self) -> bool {
        [WINDOW_START, WINDOW_END]
            .iter()
            .all(|name| self.fields.iter().any(|field| field.name == *name && field.data_type == DataType::Timestamp))
    }

    /// The number of the field of that name.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.name == name)
    }

    fn find(&self, name: &str) -> Result<usize> {
        self.position(name).ok_or_else(|| {
            let names: Vec<_> = self.fields.iter().map(|field| format!("`{}`", field.name)).collect();
            Error::invalid(format!("there is no field `{name}`, expected one of {}", names.join(", ")))
        })
    }
}

/// A plan that was checked: by node, the numbers of its inputs and what it gives.
#[derive(Debug, Clone)]
pub(in crate::stream) struct Checked {
    pub inputs: Vec<Vec<usize>>,
    pub relations: Vec<Relation>,
    /// By node, the nodes that take its rows and as which of their inputs.
    pub outputs: Vec<Vec<(usize, usize)>>,
}

fn refused<T>(what: impl Into<String>) -> Result<T> {
    Err(Error::invalid(what))
}

impl Plan {
    /// What each node gives, in the order of the nodes.
    ///
    /// # Errors
    /// `InvalidArgument` that names the node and the field: names that are none, repeated or not there; inputs of another number or of
    /// other types; expressions that do not fit; windows without a time, or that are not possible; results that change where only final
    /// ones can be taken.
    pub fn check(&self) -> Result<Vec<Relation>> {
        self.checked().map(|checked| checked.relations)
    }

    /// That there are the time zones that its windows name.
    ///
    /// # Errors
    /// `InvalidArgument` that names the node and the zone.
    pub fn check_zones(&self, zones: Zones) -> Result<()> {
        for node in &self.nodes {
            let window = match &node.operator {
                Operator::Window { window, .. } => window,
                Operator::Aggregate(aggregate) => &aggregate.window,
                Operator::Join(Join { scope: JoinScope::Window(window), .. }) => window,
                _ => continue,
            };
            if let Some(zone) = window.zone() {
                zones.check(zone).map_err(|error| error.context(format!("node {:?}", node.name)))?;
            }
        }
        Ok(())
    }

    pub(in crate::stream) fn checked(&self) -> Result<Checked> {
        if self.nodes.is_empty() || self.nodes.len() > NODES_MAX {
            return refused(format!("a plan has 1 to {NODES_MAX} nodes, this one {}", self.nodes.len()));
        }
        let mut names = BTreeSet::new();
        let mut checked = Checked { inputs: vec![], relations: vec![], outputs: vec![vec![]; self.nodes.len()] };
        for (at, node) in self.nodes.iter().enumerate() {
            let context = |error: Error| error.context(format!("node {:?}", node.name));
            if node.name.is_empty() || node.name.len() > 255 || !names.insert(node.name.as_str()) {
                return refused(format!("node {at}: its name {:?} is empty, too long or not its own", node.name));
            }
            let mut inputs = vec![];
            for (index, input) in node.inputs.iter().enumerate() {
                let Some(from) = self.nodes[..at].iter().position(|other| other.name == *input) else {
                    return refused(format!("node {:?}: its input {input:?} is no node before it", node.name));
                };
                if matches!(self.nodes[from].operator, Operator::Sink(_)) {
                    return refused(format!("node {:?}: its input {input:?} is a sink", node.name));
                }
                checked.outputs[from].push((at, index));
                inputs.push(from);
            }
            let given: Vec<&Relation> = inputs.iter().map(|from| &checked.relations[*from]).collect();
            let relation = self.relation(node, &given).map_err(context)?;
            check_fields(&relation).map_err(context)?;
            checked.inputs.push(inputs);
            checked.relations.push(relation);
        }
        Ok(checked)
    }

    fn relation(&self, node: &Node, given: &[&Relation]) -> Result<Relation> {
        let expected = match &node.operator {
            Operator::Source(_) => 0..=0,
            Operator::Join(_) => 2..=2,
            Operator::Union => 2..=255,
            Operator::Sink(_) => {
                // Late rows may be all that it takes.
                let late = self.nodes.iter().any(|other| match &other.operator {
                    Operator::Aggregate(aggregate) => aggregate.late.as_deref() == Some(&node.name),
                    _ => false,
                });
                usize::from(!late)..=1
            }
            _ => 1..=1,
        };
        if !expected.contains(&given.len()) {
            return refused(format!("it takes {} inputs, got {}", expected.start(), given.len()));
        }
        let input = given.first().copied().cloned().unwrap_or_default();
        match &node.operator {
            Operator::Source(source) => source_relation(source),
            Operator::Filter { condition } => {
                only_final(&input, "a filter", true)?;
                is_condition(condition, &input.fields)?;
                Ok(input)
            }
            Operator::Project { columns } => Ok(Relation { fields: compute_fields(columns, &input)?, ..input }),
            Operator::Unnest { field, item } => {
                only_final(&input, "unnest", true)?;
                let at = input.find(field)?;
                if input.fields[at].data_type != DataType::Json {
                    return refused(format!(
                        "unnest takes a json field, `{field}` is {}",
                        input.fields[at].data_type.name()
                    ));
                }
                let mut fields = input.fields.clone();
                fields.push(field_of(item)?);
                Ok(Relation { fields, ..input })
            }
            Operator::Window { window, processing_time } => {
                window.check().map_err(Error::invalid)?;
                if !window.is_timed() || matches!(window, Window::Session { .. } | Window::Attached) {
                    return refused(format!("rows are given no {window}: expected tumbling, sliding or cumulate"));
                }
                only_final(&input, "a window", true)?;
                has_time(&input, *processing_time)?;
                let mut fields = input.fields.clone();
                fields.extend(window_fields());
                Ok(Relation { fields, timed: true, ..input })
            }
            Operator::Aggregate(aggregate) => self.aggregate_relation(aggregate, &input),
            Operator::Join(join) => join_relation(join, given[0], given[1]),
            Operator::Lookup(lookup) => {
                only_final(&input, "a join with a collection", false)?;
                let key = lookup.key.bind(&input.fields)?;
                if !matches!(key.data_type, DataType::Int64 | TEXT) {
                    return refused(format!("a key is int64 or varchar, `{}` is {}", lookup.key, key.data_type.name()));
                }
                beside(input, &lookup.fields, !lookup.inner)
            }
            Operator::Nearest(nearest) => {
                only_final(&input, "a join with nearest neighbours", false)?;
                let vector = nearest.vector.bind(&input.fields)?;
                if !vector.data_type.is_vector() {
                    return refused(format!(
                        "`{}` is {}, expected a float_vector",
                        nearest.vector,
                        vector.data_type.name()
                    ));
                }
                if !(1..=16_384).contains(&nearest.limit) {
                    return refused(format!("limit is {}, expected 1 to 16,384", nearest.limit));
                }
                let mut relation = beside(input, &nearest.fields, !nearest.inner)?;
                if let Some(name) = &nearest.distance {
                    let field = Field::new(name, DataType::Double);
                    relation.fields.push(if nearest.inner { field } else { field.nullable() });
                }
                Ok(relation)
            }
            Operator::Distinct { keys } => {
                only_final(&input, "distinct", false)?;
                check_keys(keys, &input)?;
                Ok(input)
            }
            Operator::Dedupe(dedupe) => dedupe_relation(dedupe, input),
            Operator::Top(top) => top_relation(top, input),
            Operator::Union => {
                for other in &given[1..] {
                    let same =
                        |(left, right): (&Field, &Field)| left.name == right.name && left.data_type == right.data_type;
                    if other.fields.len() != input.fields.len() || !input.fields.iter().zip(&other.fields).all(same) {
                        return refused("its inputs have other fields than each other");
                    }
                }
                let any = |of: fn(&Relation) -> bool| given.iter().any(|relation| of(relation));
                let mut fields = input.fields.clone();
                for (at, field) in fields.iter_mut().enumerate() {
                    field.nullable = given.iter().any(|relation| relation.fields[at].nullable);
                }
                Ok(Relation {
                    fields,
                    timed: given.iter().all(|relation| relation.timed),
                    updates: any(|relation| relation.updates),
                    retracts: any(|relation| relation.retracts),
                })
            }
            Operator::Call { fields, time, .. } => {
                only_final(&input, "a function of the host", false)?;
                let fields = fields.iter().map(field_of).collect::<Result<Vec<_>>>()?;
                let relation =
                    Relation { fields, timed: input.timed || time.is_some(), updates: false, retracts: false };
                if let Some(time) = time {
                    is_time(&relation, time)?;
                }
                Ok(relation)
            }
            Operator::Sink(sink) => {
                for key in sink.keys.iter().filter(|_| !given.is_empty()) {
                    input.find(key)?;
                }
                if input.updates && sink.keys.is_empty() {
                    return refused("later rows replace earlier ones: name the fields by which, as its keys");
                }
                Ok(input)
            }
        }
    }

    fn aggregate_relation(&self, aggregate: &WindowAggregate, input: &Relation) -> Result<Relation> {
        let WindowAggregate { window, keys, aggregates, trigger, lateness, output, late, evictor } = aggregate;
        window.check().map_err(Error::invalid)?;
        check_keys(keys, input)?;
        if *window == Window::Attached {
            if !input.is_windowed() {
                return refused(format!("rows have no `{WINDOW_START}` and `{WINDOW_END}`"));
            }
        } else if window.is_timed() {
            has_time(input, trigger.processing_time)?;
        }
        if trigger.processing_time && !window.is_timed() {
            return refused(format!("a window that is {window} is of no time"));
        }
        if *lateness < 0 {
            return refused(format!("lateness is {lateness}, expected 0 or more"));
        }
        for pace in [trigger.early, trigger.late].into_iter().flatten() {
            if matches!(pace, Pace::Count(0) | Pace::Interval(..=0)) {
                return refused("a trigger after nothing: expected 1 or more");
            }
        }
        if *output == Output::Close
            && (*lateness > 0 || trigger.early.is_some())
            && !matches!(window, Window::Count { .. })
        {
            return refused("a window that is told once can be neither early nor late: choose another output");
        }
        only_final(input, "a window", aggregates.iter().all(|aggregate| aggregate.function.subtracts()))?;
        if input.retracts && matches!(window, Window::Session { .. } | Window::Count { .. }) {
            return refused(format!("rows that may be taken back cannot be in {window} windows"));
        }
        if let Some(evictor) = evictor {
            check_evictor(evictor, *window, input).map_err(|error| error.context("its evictor"))?;
        }
        if let Some(late) = late {
            match self.node(late).map(|node| &node.operator) {
                Some(Operator::Sink(_)) => {}
                _ => return refused(format!("late rows go to a sink, {late:?} is none")),
            }
        }
        let mut fields: Vec<Field> = keys
            .iter()
            .filter(|key| *window != Window::Attached || !is_bound(key))
            .map(|key| Field { default: None, ..input.fields[input.position(key).unwrap_or_default()].clone() })
            .collect();
        if window.is_timed() {
            fields.extend(window_fields());
        }
        for aggregate in aggregates {
            let field = aggregate_field(aggregate, input)
                .map_err(|error| error.context(format!("aggregate {:?}", aggregate.name)))?;
            fields.push(field);
        }
        let changing = !matches!(window, Window::Count { .. });
        Ok(Relation {
            fields,
            timed: true,
            updates: changing && *output == Output::Accumulating,
            retracts: changing && *output == Output::Retracting,
        })
    }
}

fn check_evictor(evictor: &Evictor, window: Window, input: &Relation) -> Result<()> {
    if matches!(window, Window::Count { .. }) {
        return refused("a window of a count of rows lets go of its rows by itself");
    }
    if input.retracts {
        return refused("rows that may be taken back are in no window that keeps its rows");
    }
    match &evictor.keep {
        Keep::Count(0) => refused("it keeps 0 rows, expected 1 or more"),
        Keep::Time(span) if !(1..=i64::MAX / 16).contains(span) => {
            refused(format!("it keeps {span} microseconds, expected a span above 0"))
        }
        Keep::Count(_) | Keep::Time(_) => Ok(()),
        Keep::Delta { by, threshold } => {
            let bound = by.bind(&delta_fields(&input.fields)?)?;
            if !matches!(bound.data_type, DataType::Int64 | DataType::Double) {
                return refused(format!("`{by}` is {}, expected a number", bound.data_type.name()));
            }
            if threshold.is_nan() {
                return refused("its threshold is no number");
            }
            Ok(())
        }
    }
}

/// The fields of a row, and those of the row that came last.
pub(in crate::stream) fn delta_fields(fields: &[Field]) -> Result<Vec<Field>> {
    let last = fields.iter().map(|field| Field { name: format!("{LAST}{}", field.name), ..field.clone() });
    let both: Vec<Field> = fields.iter().cloned().chain(last).collect();
    match fields.iter().find(|field| both[fields.len()..].iter().any(|last| last.name == field.name)) {
        Some(field) => refused(format!("`{}` is a field, and what another is called of the last row", field.name)),
        None => Ok(both),
    }
}

/// That rows are final; rows that may be taken back are taken with `retracts`.
fn only_final(input: &Relation, what: &str, retracts: bool) -> Result<()> {
    if input.updates {
        return refused(format!("{what} cannot follow rows that replace each other: have them retracted"));
    }
    if input.retracts && !retracts {
        return refused(format!("{what} cannot follow rows that may be taken back"));
    }
    Ok(())
}

fn has_time(input: &Relation, processing_time: bool) -> Result<()> {
    if input.timed || processing_time {
        return Ok(());
    }
    refused("rows have no event time: name the source's time field, or choose processing time")
}

fn is_bound(name: &str) -> bool {
    name == WINDOW_START || name == WINDOW_END
}

fn window_fields() -> [Field; 2] {
    [WINDOW_START, WINDOW_END].map(|name| Field::new(name, DataType::Timestamp))
}

fn is_condition(condition: &Expression, fields: &[Field]) -> Result<()> {
    let bound = condition.bind(fields)?;
    if bound.data_type == DataType::Bool {
        return Ok(());
    }
    refused(format!("`{condition}` is {}, expected a condition", bound.data_type.name()))
}

fn is_time(relation: &Relation, time: &str) -> Result<()> {
    let at = relation.find(time)?;
    if relation.fields[at].data_type == DataType::Timestamp {
        return Ok(());
    }
    refused(format!("`{time}` is {}, expected a timestamp as the event time", relation.fields[at].data_type.name()))
}

fn check_keys(keys: &[String], input: &Relation) -> Result<()> {
    for (at, key) in keys.iter().enumerate() {
        let field = &input.fields[input.find(key)?];
        if field.data_type.is_vector() || field.data_type == DataType::Json {
            return refused(format!("the key `{key}` is {}, expected a scalar", field.data_type.name()));
        }
        if keys[..at].contains(key) {
            return refused(format!("the key `{key}` occurs twice"));
        }
    }
    Ok(())
}

fn check_fields(relation: &Relation) -> Result<()> {
    let fields = &relation.fields;
    if fields.len() > FIELDS_MAX {
        return refused(format!("{} fields, expected at most {FIELDS_MAX}", fields.len()));
    }
    for (at, field) in fields.iter().enumerate() {
        check_name(&field.name).map_err(Error::invalid)?;
        if fields[..at].iter().any(|other| other.name == field.name) {
            return refused(format!("the field `{}` occurs twice", field.name));
        }
    }
    Ok(())
}

fn field_of(field: &SourceField) -> Result<Field> {
    let wrong =
        |expected: &str| refused(format!("the field `{}` is {:?}, expected {expected}", field.name, field.type_name));
    let data_type = match (&*field.type_name, field.dim) {
        ("float_vector", Some(dim @ 1..=32_768)) => DataType::FloatVector { dim },
        ("float_vector", _) => return wrong("a dim of 1 to 32,768"),
        ("bool", _) => DataType::Bool,
        ("int8" | "int16" | "int32" | "int64", _) => DataType::Int64,
        ("float" | "double", _) => DataType::Double,
        ("timestamp", _) => DataType::Timestamp,
        ("varchar", _) => TEXT,
        ("json", _) => DataType::Json,
        _ => return wrong("bool, int64, double, timestamp, varchar, json or float_vector"),
    };
    debug_assert_eq!(canonical(data_type), Some(data_type));
    Ok(Field { nullable: field.nullable, ..Field::new(&field.name, data_type) })
}

fn source_relation(source: &Source) -> Result<Relation> {
    let fields = source.fields.iter().map(field_of).collect::<Result<Vec<_>>>()?;
    let relation = Relation { fields, timed: source.time.is_some(), updates: false, retracts: source.changes };
    if let Some(time) = &source.time {
        is_time(&relation, time)?;
    }
    if source.watermark.delay < 0 || source.watermark.idle.is_some_and(|idle| idle <= 0) {
        return refused("the delay of a watermark is 0 or more, and it is idle after more than 0");
    }
    Ok(relation)
}

/// The fields of computed columns.
fn compute_fields(columns: &[(String, Expression)], input: &Relation) -> Result<Vec<Field>> {
    columns
        .iter()
        .map(|(name, value)| {
            let Computed { data_type, nullable, .. } =
                value.bind(&input.fields).map_err(|error| error.context(format!("column {name:?}")))?;
            Ok(Field { nullable, ..Field::new(name, data_type) })
        })
        .collect()
}

/// The input, and fields of another beside it.
fn beside(input: Relation, others: &[SourceField], nullable: bool) -> Result<Relation> {
    let others = others.iter().map(field_of).collect::<Result<Vec<_>>>()?;
    let fields = both(&input.fields, &others, false, nullable);
    Ok(Relation { fields, ..input })
}

fn both(left: &[Field], right: &[Field], left_nullable: bool, right_nullable: bool) -> Vec<Field> {
    let mut fields: Vec<Field> =
        left.iter().map(|field| Field { nullable: field.nullable || left_nullable, ..field.clone() }).collect();
    for field in right {
        let taken = left.iter().any(|other| other.name == field.name);
        let name = if taken { format!("right_{}", field.name) } else { field.name.clone() };
        fields.push(Field { name, nullable: field.nullable || right_nullable, ..field.clone() });
    }
    fields
}

fn join_relation(join: &Join, left: &Relation, right: &Relation) -> Result<Relation> {
    only_final(left, "a join", false)?;
    only_final(right, "a join", false)?;
    for (l, r) in &join.keys {
        let (left_field, right_field) = (&left.fields[left.find(l)?], &right.fields[right.find(r)?]);
        check_keys(std::slice::from_ref(l), left)?;
        if left_field.data_type != right_field.data_type {
            return refused(format!(
                "`{l}` is {} and `{r}` is {}: expected one type",
                left_field.data_type.name(),
                right_field.data_type.name()
            ));
        }
    }
    // The bounds of windows are told once, after the rest.
    let without_bounds = |relation: &Relation| -> Vec<Field> {
        relation.fields.iter().filter(|field| !is_bound(&field.name)).cloned().collect()
    };
    let (mut left_fields, mut right_fields) = (left.fields.clone(), right.fields.clone());
    match join.scope {
        JoinScope::Window(window) => {
            window.check().map_err(Error::invalid)?;
            if !window.is_timed() || matches!(window, Window::Session { .. }) {
                return refused(format!(
                    "rows are joined in no {window}: expected tumbling, sliding or cumulate windows"
                ));
            }
            if window == Window::Attached {
                if !left.is_windowed() || !right.is_windowed() {
                    return refused(format!("its inputs have no `{WINDOW_START}` and `{WINDOW_END}`"));
                }
            } else {
                has_time(left, false)?;
                has_time(right, false)?;
            }
            left_fields = without_bounds(left);
            right_fields = without_bounds(right);
        }
        JoinScope::Interval { lower, upper } => {
            if lower > upper || lower.unsigned_abs().max(upper.unsigned_abs()) > i64::MAX as u64 / 16 {
                return refused(format!("an interval from {lower} to {upper}"));
            }
            has_time(left, false)?;
            has_time(right, false)?;
        }
        JoinScope::Unbounded if join.kind != JoinKind::Inner => {
            return refused("without a window or an interval nothing ever has no partner: only inner joins");
        }
        JoinScope::Unbounded => {}
    }
    let (left_null, right_null) = match join.kind {
        JoinKind::Left => (false, true),
        JoinKind::Right => (true, false),
        JoinKind::Full => (true, true),
        _ => (false, false),
    };
    let pair = both(&left_fields, &right_fields, left_null, right_null);
    if let Some(condition) = &join.condition {
        is_condition(condition, &pair)?;
    }
    let mut fields = if matches!(join.kind, JoinKind::Semi | JoinKind::Anti) { left_fields } else { pair };
    if matches!(join.scope, JoinScope::Window(_)) {
        fields.extend(window_fields());
    }
    Ok(Relation { fields, timed: left.timed && right.timed, updates: false, retracts: false })
}

fn dedupe_relation(dedupe: &Dedupe, input: Relation) -> Result<Relation> {
    only_final(&input, "dedupe", false)?;
    has_time(&input, false)?;
    check_keys(&dedupe.keys, &input)?;
    let vector = &input.fields[input.find(&dedupe.vector)?];
    if !vector.data_type.is_vector() {
        return refused(format!("`{}` is {}, expected a float_vector", dedupe.vector, vector.data_type.name()));
    }
    let radius_max = if dedupe.metric == Nearness::Cosine { 2.0 } else { f64::MAX };
    if !(0.0..=radius_max).contains(&dedupe.radius) {
        return refused(format!("radius is {}, expected 0 to {radius_max:?}", dedupe.radius));
    }
    if !(0..=i64::MAX / 16).contains(&dedupe.within) {
        return refused(format!("within is {} microseconds, expected 0 to {}", dedupe.within, i64::MAX / 16));
    }
    let mut relation = input;
    if let Some(duplicates) = &dedupe.duplicates {
        let of = &relation.fields[relation.find(&duplicates.of)?];
        if of.data_type.is_vector() || of.data_type == DataType::Json {
            return refused(format!("`{}` is {}, expected a scalar", duplicates.of, of.data_type.name()));
        }
        let of = of.data_type;
        relation.fields.push(Field::new(&duplicates.name, of).nullable());
        if let Some(distance) = &duplicates.distance {
            relation.fields.push(Field::new(distance, DataType::Double).nullable());
        }
    }
    Ok(relation)
}

fn top_relation(top: &Top, input: Relation) -> Result<Relation> {
    only_final(&input, "the first rows by an order", false)?;
    check_keys(&top.keys, &input)?;
    for (value, _) in &top.order {
        let bound = value.bind(&input.fields)?;
        if matches!(bound.data_type, DataType::Json | DataType::FloatVector { .. }) {
            return refused(format!("`{value}` is {}, which has no order", bound.data_type.name()));
        }
    }
    let closes = input.is_windowed() && top.keys.iter().any(|key| key == WINDOW_END);
    if !closes && (top.limit == 0 || top.rank.is_some()) {
        return refused(format!(
            "all rows, and their places, are known of a window only: have `{WINDOW_END}` among its keys"
        ));
    }
    if top.limit > LIST_MAX {
        return refused(format!("limit is {}, expected at most {LIST_MAX}", top.limit));
    }
    let mut relation = input;
    relation.retracts = !closes;
    if let Some(rank) = &top.rank {
        relation.fields.push(Field::new(rank, DataType::Int64));
    }
    Ok(relation)
}

fn aggregate_field(aggregate: &Aggregate, input: &Relation) -> Result<Field> {
    let bind = |value: &Option<Expression>| value.as_ref().map(|value| value.bind(&input.fields)).transpose();
    let (value, by) = (bind(&aggregate.input)?, bind(&aggregate.by)?);
    if let Some(filter) = &aggregate.filter {
        is_condition(filter, &input.fields)?;
    }
    let name = aggregate.function.name();
    let given = match &value {
        Some(value) => value.data_type,
        None if aggregate.function == Function::Count => DataType::Int64,
        None => return refused(format!("{name} of what? It has no input")),
    };
    let needs = |fits: bool, expected: &str| {
        if fits { Ok(()) } else { refused(format!("{name} takes {expected}, got {}", given.name())) }
    };
    let is_number = matches!(given, DataType::Int64 | DataType::Double);
    let plain = matches!(given, DataType::Int64 | DataType::Double | DataType::Timestamp | TEXT);
    if let Some(by) = &by {
        let fits = match aggregate.function {
            Function::Nearest => by.data_type.is_vector(),
            Function::First | Function::Last | Function::Top { .. } => {
                matches!(by.data_type, DataType::Int64 | DataType::Double | DataType::Timestamp | TEXT)
            }
            _ => return refused(format!("{name} has no order")),
        };
        if !fits {
            return refused(format!("{name} cannot go by {}", by.data_type.name()));
        }
    }
    let (data_type, nullable) = match aggregate.function {
        Function::Count | Function::CountDistinct | Function::ApproxCountDistinct => (DataType::Int64, false),
        Function::Sum => {
            needs(is_number, "numbers")?;
            (given, true)
        }
        Function::Min | Function::Max => {
            needs(plain, "numbers, texts or timestamps")?;
            (given, true)
        }
        Function::Avg | Function::Variance { .. } | Function::StdDev { .. } => {
            needs(is_number, "numbers")?;
            (DataType::Double, true)
        }
        Function::Quantile(share) => {
            needs(is_number, "numbers")?;
            if !(0.0..=1.0).contains(&share) {
                return refused(format!("a quantile is 0 to 1, got {share}"));
            }
            (DataType::Double, true)
        }
        Function::First | Function::Last => (given, true),
        Function::Collect { limit } | Function::Top { limit, .. } => {
            if !(1..=LIST_MAX).contains(&limit) {
                return refused(format!("limit is {limit}, expected 1 to {LIST_MAX}"));
            }
            if matches!(aggregate.function, Function::Top { .. }) && by.is_none() {
                needs(plain, "numbers, texts or timestamps, or an order")?;
            }
            (DataType::Json, false)
        }
        Function::Centroid => {
            needs(given.is_vector(), "vectors")?;
            (given, true)
        }
        Function::Spread => {
            needs(given.is_vector(), "vectors")?;
            (DataType::Double, true)
        }
        Function::Drift { measure, .. } => {
            needs(given.is_vector(), "vectors")?;
            if let Measure::Discrepancy { sample } = measure
                && !(2..=1_024).contains(&sample)
            {
                return refused(format!("a sample of {sample} vectors, expected 2 to 1,024"));
            }
            (DataType::Double, true)
        }
        Function::Nearest => {
            if by.is_none() {
                return refused("nearest takes the vector to compare as its `by`");
            }
            (given, true)
        }
    };
    Ok(Field { nullable, ..Field::new(&aggregate.name, data_type) })
}
