use std::sync::Arc;

use crate::base::{Error, Result};
use crate::model::{DataType, Field, FieldPath, Schema, Step, Value, time};
use crate::query::check::Meaning;
use crate::query::expression::{Arithmetic, Literal, Operand};
use crate::query::like::Pattern;
use crate::query::{DEPTH_MAX, Filter, Parameters, parser};

use super::{Expression, Function};

/// Text of any length.
const TEXT: DataType = DataType::Varchar { max_length: 65_535 };

/// An expression whose fields are found and whose types fit: ready for any batch that has these fields in this order, by [`canonical`]
/// type.
#[derive(Debug, Clone)]
pub struct Computed {
    /// What it gives: `bool`, `int64`, `double`, `timestamp`, `varchar`, `json` or `float_vector`.
    pub data_type: DataType,
    /// Whether it may be null.
    pub nullable: bool,
    pub(super) bound: Bound,
}

#[derive(Debug, Clone)]
pub(super) enum Bound {
    Column(usize),
    Literal(Value),
    Condition(Arc<Filter>),
    Call(Function, Vec<Computed>),
    Like(Box<Computed>, Arc<Pattern>),
    Json(Function, Box<Computed>, Vec<Step>),
    Case(Vec<(Computed, Computed)>, Option<Box<Computed>>),
}

/// The type of columns that hold values of `data_type` where columns are computed: all integers are `int64`, both kinds of floats
/// `double`. `None` for what cannot be there: arrays, and vectors other than `float_vector`.
pub fn canonical(data_type: DataType) -> Option<DataType> {
    Some(match data_type {
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => DataType::Int64,
        DataType::Float | DataType::Double => DataType::Double,
        DataType::Varchar { .. } => TEXT,
        DataType::Bool | DataType::Timestamp | DataType::Json | DataType::FloatVector { .. } => data_type,
        _ => return None,
    })
}

fn refused<T>(what: impl Into<String>) -> Result<T> {
    Err(Error::invalid(what))
}

impl Expression {
    /// Finds its fields among `fields` and checks its types.
    ///
    /// # Errors
    /// `InvalidArgument` that names the part: a field that is not there, a type that a function does not take, a text that is none of
    /// the filter language (then with its [position](Error::position)), more than 128 levels.
    pub fn bind(&self, fields: &[Field]) -> Result<Computed> {
        self.bind_at(fields, 0)
    }

    fn bind_at(&self, fields: &[Field], depth: usize) -> Result<Computed> {
        if depth > DEPTH_MAX {
            return refused(format!("an expression is nested deeper than {DEPTH_MAX} levels"));
        }
        match self {
            Self::Text(text) => bind_text(text, fields),
            Self::Column(name) => column(name, fields),
            Self::Literal(value) => literal(value),
            Self::Call(function, arguments) => {
                let bound: Result<Vec<Computed>> =
                    arguments.iter().map(|argument| argument.bind_at(fields, depth + 1)).collect();
                call(*function, bound?).map_err(|error| error.context(format!("`{self}`")))
            }
            Self::Case(branches, otherwise) => {
                let mut bound = Vec::with_capacity(branches.len());
                for (condition, value) in branches {
                    let condition = condition.bind_at(fields, depth + 1)?;
                    if !condition.is(DataType::Bool) {
                        return refused(format!("`{self}`: expected a condition, got {}", condition.shown()));
                    }
                    bound.push((condition, value.bind_at(fields, depth + 1)?));
                }
                let otherwise = otherwise.as_ref().map(|value| value.bind_at(fields, depth + 1)).transpose()?;
                let data_type = common(bound.iter().map(|(_, value)| value).chain(&otherwise))
                    .map_err(|error| error.context(format!("`{self}`")))?;
                let nullable = otherwise.as_ref().is_none_or(|value| value.nullable)
                    || bound.iter().any(|(_, value)| value.nullable);
                Ok(Computed { data_type, nullable, bound: Bound::Case(bound, otherwise.map(Box::new)) })
            }
        }
    }
}

impl Computed {
    fn is_null(&self) -> bool {
        matches!(self.bound, Bound::Literal(Value::Null))
    }

    fn is(&self, data_type: DataType) -> bool {
        self.is_null() || self.data_type == data_type
    }

    fn is_number(&self) -> bool {
        self.is(DataType::Int64) || self.data_type == DataType::Double
    }

    fn shown(&self) -> &'static str {
        if self.is_null() { "null" } else { self.data_type.name() }
    }

    /// The number of the column, where it is one and nothing else.
    pub fn as_column(&self) -> Option<usize> {
        match self.bound {
            Bound::Column(at) => Some(at),
            _ => None,
        }
    }

    /// The value, where it is the same in every row.
    pub fn as_literal(&self) -> Option<&Value> {
        match &self.bound {
            Bound::Literal(value) => Some(value),
            _ => None,
        }
    }
}

fn column(name: &str, fields: &[Field]) -> Result<Computed> {
    let Some(at) = fields.iter().position(|field| field.name == name) else {
        let names: Vec<_> = fields.iter().map(|field| format!("`{}`", field.name)).collect();
        return refused(format!("there is no field `{name}`, expected one of {}", names.join(", ")));
    };
    Ok(Computed { data_type: fields[at].data_type, nullable: fields[at].nullable, bound: Bound::Column(at) })
}

fn literal(value: &Value) -> Result<Computed> {
    let (data_type, value) = match value {
        // Fits everything.
        Value::Null => (TEXT, Value::Null),
        Value::Bool(_) => (DataType::Bool, value.clone()),
        Value::Int(_) => (DataType::Int64, value.clone()),
        Value::Float(float) if float.is_finite() => (DataType::Double, Value::Double(f64::from(*float))),
        Value::Double(float) if float.is_finite() => (DataType::Double, value.clone()),
        Value::String(_) => (TEXT, value.clone()),
        Value::Vector(numbers) if !numbers.is_empty() && numbers.iter().all(|number| number.is_finite()) => {
            (DataType::FloatVector { dim: numbers.len() as u32 }, value.clone())
        }
        // A vector as JSON has it.
        Value::Json(serde_json::Value::Array(numbers)) if !numbers.is_empty() => {
            let numbers: Option<Vec<f32>> = numbers
                .iter()
                .map(|number| number.as_f64().map(|number| number as f32).filter(|number| number.is_finite()))
                .collect();
            let Some(numbers) = numbers else { return refused("a list as a literal is a vector: of finite numbers") };
            (DataType::FloatVector { dim: numbers.len() as u32 }, Value::Vector(numbers))
        }
        _ => return refused("a literal is null, a bool, a finite number, a text or a vector"),
    };
    Ok(Computed { data_type, nullable: value == Value::Null, bound: Bound::Literal(value) })
}

/// The schema for which the text of an expression over `fields` is parsed. A schema has a primary key, and a stream has none: here it is
/// one that no field is called.
fn schema_of(fields: &[Field]) -> Result<Schema> {
    let mut key = "_".to_owned();
    while fields.iter().any(|field| field.name == key) {
        key.push('_');
    }
    // The parser knows vectors only to refuse them, and a schema has few.
    let plain = fields.iter().filter(|field| !field.data_type.is_vector());
    let plain = plain.map(|field| Field { nullable: true, ..Field::new(&field.name, field.data_type) });
    Schema::new(plain.chain([Field::new(&key, DataType::Int64)]).collect(), &key, false)
}

fn bind_text(text: &str, fields: &[Field]) -> Result<Computed> {
    if let Some(name) = Expression::Text(text.to_owned()).as_column() {
        return column(name, fields);
    }
    let schema = schema_of(fields)?;
    let term = parser::parse_term(text, &schema, &Parameters::new()).map_err(|fault| fault.into_error(text))?;
    match term.meaning {
        Meaning::Condition(_) => {
            let filter = Arc::new(Filter::parse(text, &schema)?);
            Ok(Computed { data_type: DataType::Bool, nullable: false, bound: Bound::Condition(filter) })
        }
        Meaning::Value(operand) => operand_of(&operand, fields, text),
    }
}

/// An operand of the filter language as a column to compute.
fn operand_of(operand: &Operand, fields: &[Field], text: &str) -> Result<Computed> {
    match operand {
        Operand::Literal(value) => literal(&match value {
            Literal::Bool(value) => Value::Bool(*value),
            Literal::Int(int) => Value::Int(*int),
            Literal::Float(float) => Value::Double(*float),
            Literal::Text(text) => Value::String(text.clone()),
            Literal::List(values) => Value::Json(serde_json::Value::Array(values.clone())),
        }),
        Operand::Column(found) => column(&found.name, fields),
        Operand::Path(path) if path.steps.is_empty() => column(&path.column, fields),
        Operand::Path(_) => refused(format!(
            "`{text}` reads a place in JSON, whose type differs by row: call json_text, json_int or json_double"
        )),
        Operand::Arithmetic { arithmetic, left, right } => {
            let function = match arithmetic {
                Arithmetic::Add => Function::Add,
                Arithmetic::Sub => Function::Sub,
                Arithmetic::Mul => Function::Mul,
                Arithmetic::Div => Function::Div,
                Arithmetic::Rem => Function::Rem,
                other => return refused(format!("`{text}`: `{}` stands in conditions only", other.sign())),
            };
            call(function, vec![operand_of(left, fields, text)?, operand_of(right, fields, text)?])
        }
    }
}

/// The type that holds them all.
fn common<'c>(values: impl Iterator<Item = &'c Computed>) -> Result<DataType> {
    let mut data_type = None;
    for value in values.filter(|value| !value.is_null()) {
        data_type = Some(match (data_type, value.data_type) {
            (None, first) => first,
            (Some(same), other) if same == other => same,
            (Some(DataType::Int64), DataType::Double) | (Some(DataType::Double), DataType::Int64) => DataType::Double,
            (Some(DataType::Timestamp), DataType::Int64) | (Some(DataType::Int64), DataType::Timestamp) => {
                DataType::Timestamp
            }
            (Some(one), other) => {
                return refused(format!("values of one type expected, got {} and {}", one.name(), other.name()));
            }
        });
    }
    Ok(data_type.unwrap_or(TEXT))
}

/// Text beside a timestamp is one.
fn meet(arguments: &mut [Computed]) -> Result<()> {
    if arguments.iter().any(|argument| !argument.is_null() && argument.data_type == DataType::Timestamp) {
        for argument in arguments {
            if let Bound::Literal(Value::String(text)) = &argument.bound {
                let Some(micros) = time::parse(text) else {
                    return refused(format!("{text:?} is no timestamp, such as 2024-05-01T12:30:00Z"));
                };
                *argument = Computed {
                    data_type: DataType::Timestamp,
                    nullable: false,
                    bound: Bound::Literal(Value::Int(micros)),
                };
            }
        }
    }
    Ok(())
}

fn call(function: Function, mut arguments: Vec<Computed>) -> Result<Computed> {
    use Function as F;
    let (least, most) = function.arity();
    if !(least..=most).contains(&arguments.len()) {
        let expected = if least == most { format!("{least}") } else { format!("{least} to {most}") };
        return refused(format!("{} takes {expected} arguments, got {}", function.name(), arguments.len()));
    }
    let all = |arguments: &[Computed], expected: &str, fits: &dyn Fn(&Computed) -> bool| match arguments
        .iter()
        .find(|argument| !fits(argument))
    {
        Some(other) => refused(format!("{} takes {expected}, got {}", function.name(), other.shown())),
        None => Ok(()),
    };
    let number = |value: &Computed| value.is_number();
    let text = |value: &Computed| value.is(TEXT);
    let any_nullable = arguments.iter().any(|argument| argument.nullable);
    let mut nullable = any_nullable;
    let data_type = match function {
        F::Add | F::Sub | F::Mul | F::Div | F::Rem => {
            nullable = true;
            let times = arguments.iter().map(|a| !a.is_null() && a.data_type == DataType::Timestamp);
            match (function, &times.collect::<Vec<_>>()[..]) {
                (F::Sub, [true, true]) => DataType::Int64,
                (F::Add | F::Sub, [true, false]) if arguments[1].is(DataType::Int64) => DataType::Timestamp,
                (F::Add, [false, true]) if arguments[0].is(DataType::Int64) => DataType::Timestamp,
                _ => {
                    all(&arguments, "numbers", &number)?;
                    let data_type = common(arguments.iter())?;
                    if function == F::Rem && data_type == DataType::Double {
                        return refused("rem takes integers, got double");
                    }
                    if data_type == TEXT { DataType::Int64 } else { data_type }
                }
            }
        }
        F::Neg | F::Abs => {
            all(&arguments, "a number", &number)?;
            nullable = true;
            if arguments[0].is_null() { DataType::Int64 } else { arguments[0].data_type }
        }
        F::Eq | F::Ne | F::Lt | F::Le | F::Gt | F::Ge | F::In => {
            meet(&mut arguments)?;
            let data_type = common(arguments.iter())?;
            let orders = matches!(function, F::Lt | F::Le | F::Gt | F::Ge);
            if matches!(data_type, DataType::Json | DataType::FloatVector { .. })
                || (orders && data_type == DataType::Bool)
            {
                return refused(format!("{} takes no {}", function.name(), data_type.name()));
            }
            DataType::Bool
        }
        F::And | F::Or | F::Not => {
            all(&arguments, "conditions", &|value| value.is(DataType::Bool))?;
            DataType::Bool
        }
        F::IsNull => {
            nullable = false;
            DataType::Bool
        }
        F::Coalesce => {
            meet(&mut arguments)?;
            nullable = arguments.iter().all(|argument| argument.nullable);
            common(arguments.iter())?
        }
        F::NullIf => {
            nullable = true;
            meet(&mut arguments)?;
            common(arguments.iter())?;
            arguments[0].data_type
        }
        F::Least | F::Greatest => {
            meet(&mut arguments)?;
            let data_type = common(arguments.iter())?;
            if matches!(data_type, DataType::Json | DataType::FloatVector { .. } | DataType::Bool) {
                return refused(format!("{} takes no {}", function.name(), data_type.name()));
            }
            data_type
        }
        F::ToInt => {
            nullable = true;
            all(&arguments, "a number, text, bool or timestamp", &|value| {
                value.is_null()
                    || matches!(
                        value.data_type,
                        DataType::Int64 | DataType::Double | DataType::Bool | DataType::Timestamp | TEXT
                    )
            })?;
            DataType::Int64
        }
        F::ToDouble => {
            nullable = true;
            all(&arguments, "a number or text", &|value| value.is_number() || text(value))?;
            DataType::Double
        }
        F::ToText => {
            all(&arguments, "no vector", &|value| !value.data_type.is_vector())?;
            TEXT
        }
        F::ToTimestamp => {
            nullable = true;
            all(&arguments, "microseconds or text", &|value| {
                value.is(DataType::Int64) || value.is(DataType::Timestamp) || text(value)
            })?;
            DataType::Timestamp
        }
        F::Floor | F::Ceil | F::Round => {
            all(&arguments, "a number", &number)?;
            if arguments[0].is_null() { DataType::Double } else { arguments[0].data_type }
        }
        F::Sqrt => {
            nullable = true;
            all(&arguments, "a number", &number)?;
            DataType::Double
        }
        F::Concat => {
            all(&arguments, "text", &text)?;
            nullable = false;
            TEXT
        }
        F::Lower | F::Upper | F::Trim => {
            all(&arguments, "text", &text)?;
            TEXT
        }
        F::Length => {
            all(&arguments, "text", &text)?;
            DataType::Int64
        }
        F::Substring => {
            all(&arguments[..1], "text first", &text)?;
            all(&arguments[1..], "integers after the text", &|value| value.is(DataType::Int64))?;
            TEXT
        }
        F::SplitPart => {
            all(&arguments[..2], "two texts first", &text)?;
            all(&arguments[2..], "an integer last", &|value| value.is(DataType::Int64))?;
            TEXT
        }
        F::Like => {
            all(&arguments, "text", &text)?;
            let Some(Bound::Literal(Value::String(pattern))) = arguments.pop().map(|pattern| pattern.bound) else {
                return refused("like takes a literal as its pattern");
            };
            let Ok(pattern) = Pattern::new(&pattern) else {
                return refused(format!("{pattern:?} is no pattern: after `\\` comes `%`, `_` or `\\`"));
            };
            let text = Box::new(arguments.remove(0));
            return Ok(Computed { data_type: DataType::Bool, nullable, bound: Bound::Like(text, Arc::new(pattern)) });
        }
        F::TimeFloor => {
            all(&arguments[..1], "a timestamp first", &|value| value.is(DataType::Timestamp))?;
            all(&arguments[1..], "microseconds last", &|value| value.is(DataType::Int64))?;
            nullable = true;
            DataType::Timestamp
        }
        F::Year | F::Month | F::Day | F::Hour | F::Minute | F::Second => {
            all(&arguments, "a timestamp", &|value| value.is(DataType::Timestamp))?;
            DataType::Int64
        }
        F::JsonText | F::JsonInt | F::JsonDouble => {
            all(&arguments[..1], "json or text first", &|value| value.is(DataType::Json) || text(value))?;
            let Some(Value::String(path)) = arguments[1].as_literal() else {
                return refused(format!("{} takes a literal as its path", function.name()));
            };
            let steps = json_path(path)?;
            let data_type = match function {
                F::JsonText => TEXT,
                F::JsonInt => DataType::Int64,
                _ => DataType::Double,
            };
            let json = Box::new(arguments.remove(0));
            return Ok(Computed { data_type, nullable: true, bound: Bound::Json(function, json, steps) });
        }
        F::CosineDistance | F::L2Distance | F::InnerProduct | F::Norm => {
            nullable = true;
            all(&arguments, "float_vectors", &|value| value.is_null() || value.data_type.is_vector())?;
            let mut dims = arguments.iter().filter(|value| !value.is_null()).map(|value| value.data_type);
            if let (Some(left), Some(right)) = (dims.next(), dims.next())
                && left != right
            {
                return refused(format!("{} takes vectors of one length, got {left} and {right}", function.name()));
            }
            DataType::Double
        }
    };
    Ok(Computed { data_type, nullable, bound: Bound::Call(function, arguments) })
}

/// `$.a[0].b`, `a.b`, or `["a"][0]`.
fn json_path(text: &str) -> Result<Vec<Step>> {
    let inside = text.strip_prefix('$').unwrap_or(text);
    let mut path = "_".to_owned();
    for (at, part) in inside.split('.').enumerate() {
        if part.is_empty() && at == 0 {
            continue;
        }
        let (key, indexes) = part.split_at(part.find('[').unwrap_or(part.len()));
        if !key.is_empty() {
            path.push_str(&format!("[\"{}\"]", key.replace('\\', "\\\\").replace('"', "\\\"")));
        }
        path.push_str(indexes);
    }
    FieldPath::parse(&path)
        .map(|path| path.steps)
        .map_err(|_| Error::invalid(format!("{text:?} is no path; expected one such as $.a[0].b")))
}
