use serde_json::Value as Json;

/// One value of one field.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Absent.
    Null,
    /// `bool`.
    Bool(bool),
    /// `int64`.
    Int(i64),
    /// `double`.
    Double(f64),
    /// `varchar`.
    String(String),
    /// `json`: any JSON value. A JSON `null` is [`Value::Null`].
    Json(Json),
    /// `float_vector`: `dim` numbers.
    Vector(Vec<f32>),
}
