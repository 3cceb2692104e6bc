use std::collections::BTreeMap;

use super::handler::Tickets;
use super::spec::{BusAggregate, BusFunction, BusValue};
use crate::model::{Row, Value};
use crate::stream::AggregateFunction as Function;
use crate::stream::accumulate::{State, start};
use crate::stream::exact::Exact;
use crate::stream::rows::{Cell, Scalar};
use crate::stream::state::Writer;

/// The window of an aggregating handler that is open.
#[derive(Debug, Default)]
pub(super) struct Groups {
    groups: BTreeMap<String, Group>,
    pub events: usize,
    pub since_ms: u64,
}

#[derive(Debug)]
struct Group {
    row: Row,
    states: Vec<Option<State>>,
    tickets: Tickets,
    priority: i32,
    events: u64,
}

/// What a group has come to.
pub(super) struct Total {
    pub row: Row,
    pub tickets: Tickets,
    pub priority: i32,
}

fn function_of(value: &BusValue) -> Function {
    match value.function {
        BusFunction::Count => Function::Count,
        BusFunction::Sum => Function::Sum,
        BusFunction::Avg => Function::Avg,
        BusFunction::Min => Function::Min,
        BusFunction::Max => Function::Max,
        BusFunction::First => Function::First,
        BusFunction::Last => Function::Last,
    }
}

fn cell(value: &Value) -> Cell<'_> {
    match value {
        Value::Bool(value) => Cell::Bool(*value),
        Value::Int(int) => Cell::Int(*int),
        Value::Float(number) => Cell::Double(f64::from(*number)),
        Value::Double(number) => Cell::Double(*number),
        Value::String(text) => Cell::Text(text),
        _ => Cell::Null,
    }
}

impl Groups {
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Takes an event.
    ///
    /// # Errors
    /// A value that the aggregate cannot be of, and then nothing was taken.
    pub fn add(
        &mut self,
        spec: &BusAggregate,
        row: &Row,
        tickets: Tickets,
        priority: i32,
        now_ms: u64,
    ) -> Result<(), (String, Tickets)> {
        for (name, BusValue { function, of }) in &spec.values {
            let is_of_numbers = matches!(function, BusFunction::Sum | BusFunction::Avg);
            let value = of.as_ref().and_then(|of| row.get(of)).unwrap_or(&Value::Null);
            let fits = match (cell(value), value) {
                (Cell::Int(_) | Cell::Double(_), _) | (Cell::Null, Value::Null) => true,
                (Cell::Null, _) => *function == BusFunction::Count,
                _ => !is_of_numbers,
            };
            if !fits {
                let expected = if is_of_numbers { "a number" } else { "a scalar" };
                let field = of.as_deref().unwrap_or_default();
                return Err((format!("aggregate {name:?}: field {field:?}: {expected} expected"), tickets));
            }
        }
        let by: Row = spec.by.iter().map(|name| (name.clone(), row.get(name).cloned().unwrap_or_default())).collect();
        let key = serde_json::to_string(&by).unwrap_or_default();
        if self.groups.is_empty() {
            self.since_ms = now_ms;
        }
        let new = || {
            let states = spec.values.values().map(|_| None).collect();
            Group { row: by, states, tickets: Tickets::default(), priority, events: 0 }
        };
        let group = self.groups.entry(key).or_insert_with(new);
        group.tickets.add(tickets);
        group.priority = group.priority.max(priority);
        for (state, value) in group.states.iter_mut().zip(spec.values.values()) {
            let of = value.of.as_ref().map(|of| row.get(of).unwrap_or(&Value::Null));
            if of.is_some_and(|of| *of == Value::Null) {
                continue;
            }
            let found = of.map_or(Cell::Int(1), cell);
            let function = function_of(value);
            let state = state.get_or_insert_with(|| start(function, matches!(found, Cell::Int(_))));
            // A sum of integers that meets another number is one of doubles from then on.
            if let (State::Ints(sum, count), Cell::Double(_)) = (&*state, found) {
                let mut exact = Exact::default();
                exact.add(*sum as f64);
                *state = State::Doubles(exact, *count);
            }
            // Numbers are compared with numbers.
            let found = match (&*state, found) {
                (State::Extreme(Scalar::Double(_)), Cell::Int(int)) => Cell::Double(int as f64),
                _ => found,
            };
            if let (State::Extreme(Scalar::Int(int)), Cell::Double(_)) = (&*state, found) {
                *state = State::Extreme(Scalar::Double(*int as f64));
            }
            let order = Cell::Int(i64::try_from(group.events).unwrap_or(i64::MAX));
            state.add(function, found, order, false, &mut Writer::default());
        }
        group.events += 1;
        self.events += 1;
        Ok(())
    }

    /// Ends the window: what each group has come to.
    pub fn close(&mut self, spec: &BusAggregate) -> Vec<Total> {
        self.events = 0;
        let total = |group: Group| {
            let mut row = group.row;
            for ((name, value), state) in spec.values.iter().zip(&group.states) {
                let none = if value.function == BusFunction::Count { Value::Int(0) } else { Value::Null };
                let told =
                    state.as_ref().map_or(none, |state| Value::from(state.result(function_of(value), None).json()));
                row.insert(name.clone(), told);
            }
            Total { row, tickets: group.tickets, priority: group.priority }
        };
        std::mem::take(&mut self.groups).into_values().map(total).collect()
    }
}
