//! The aggregates of SQL by their names.

use super::ast::{Expr, Kind};
use crate::query::compute::Expression;
use crate::query::fault::Fault;
use crate::stream::{AggregateFunction as Function, Measure, Reference};

/// The names of all aggregates.
pub(super) const NAMES: &[&str] = &[
    "approx_count_distinct",
    "array_agg",
    "avg",
    "centroid",
    "collect",
    "count",
    "drift",
    "first_value",
    "last_value",
    "max",
    "median",
    "min",
    "nearest_to_centroid",
    "quantile",
    "spread",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "sum",
    "top_k",
    "var_pop",
    "var_samp",
    "variance",
];

/// The longest list when none is asked for.
const LIST: u32 = 1_000;

/// An aggregate with its arguments.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Called {
    pub(super) function: Function,
    pub(super) input: Option<Expression>,
    pub(super) by: Option<Expression>,
}

/// Whether `expr` is an aggregate itself.
pub(super) fn is(expr: &Expr) -> bool {
    match &expr.kind {
        Kind::CountAll => true,
        Kind::Call { name, .. } => NAMES.contains(&&**name),
        _ => false,
    }
}

/// Whether there is one in it.
pub(super) fn has(expr: &Expr) -> bool {
    is(expr) || expr.kind.parts().into_iter().any(has)
}

/// The aggregate that `expr` is, whose arguments come to what `value` tells.
pub(super) fn called(expr: &Expr, value: &dyn Fn(&Expr) -> Result<Expression, Fault>) -> Result<Called, Fault> {
    let Kind::Call { name, distinct, arguments } = &expr.kind else {
        return Ok(Called { function: Function::Count, input: None, by: None });
    };
    let wrong = |expected: &str| {
        Err(Fault::new(expr.at, format!("`{name}` takes {expected}, got {} arguments", arguments.len())))
    };
    if *distinct && name != "count" && name != "min" && name != "max" {
        return Err(Fault::unsupported(expr.at, &format!("`{name}(DISTINCT …)`")));
    }
    let number = |argument: &Expr, expected: &str| match argument.kind {
        Kind::Int(number) => Ok(number as f64),
        Kind::Float(number) => Ok(number),
        _ => Err(Fault::new(argument.at, format!("found `{argument}`, expected {expected}"))),
    };
    let whole = |argument: &Expr| match argument.kind {
        Kind::Int(number @ 1..=100_000) => Ok(number as u32),
        _ => Err(Fault::new(argument.at, format!("found `{argument}`, expected 1 to 100000"))),
    };
    let Some((first, rest)) = arguments.split_first() else { return wrong("a value") };
    let mut by = None;
    let function = match (&**name, rest) {
        ("count", []) if *distinct => Function::CountDistinct,
        ("count", []) => Function::Count,
        ("sum", []) => Function::Sum,
        ("min", []) => Function::Min,
        ("max", []) => Function::Max,
        ("avg", []) => Function::Avg,
        ("variance" | "var_samp", []) => Function::Variance { sample: true },
        ("var_pop", []) => Function::Variance { sample: false },
        ("stddev" | "stddev_samp", []) => Function::StdDev { sample: true },
        ("stddev_pop", []) => Function::StdDev { sample: false },
        ("median", []) => Function::Quantile(0.5),
        ("quantile", [share]) => Function::Quantile(number(share, "a share from 0 to 1")?),
        ("approx_count_distinct", []) => Function::ApproxCountDistinct,
        ("first_value", []) => Function::First,
        ("last_value", []) => Function::Last,
        ("first_value" | "last_value", [order]) => {
            by = Some(value(order)?);
            if name == "first_value" { Function::First } else { Function::Last }
        }
        ("array_agg" | "collect", []) => Function::Collect { limit: LIST },
        ("array_agg" | "collect", [limit]) => Function::Collect { limit: whole(limit)? },
        ("top_k", [limit]) => Function::Top { limit: whole(limit)?, ascending: false },
        ("top_k", [limit, order]) => {
            by = Some(value(order)?);
            Function::Top { limit: whole(limit)?, ascending: false }
        }
        ("centroid", []) => Function::Centroid,
        ("spread", []) => Function::Spread,
        ("drift", []) => Function::Drift { reference: Reference::Previous, measure: Measure::Cosine },
        ("nearest_to_centroid", [vector]) => {
            by = Some(value(vector)?);
            Function::Nearest
        }
        ("quantile", _) => return wrong("a value and a share"),
        ("top_k", _) => return wrong("a value, how many, and what to order by"),
        ("nearest_to_centroid", _) => return wrong("a value and a vector"),
        ("first_value" | "last_value", _) => return wrong("a value, and what to order by"),
        ("array_agg" | "collect", _) => return wrong("a value, and how many"),
        _ => return wrong("one value"),
    };
    Ok(Called { function, input: Some(value(first)?), by })
}
