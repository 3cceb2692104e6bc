use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::Value;
use super::column::Column;
use crate::base::{Error, Result};

/// Most fields of one schema.
const FIELDS_MAX: usize = 64;
/// Most vector fields of one schema.
const VECTORS_MAX: usize = 4;
/// Bytes of a field's name.
const NAME_BYTES_MAX: usize = 255;
/// Numbers of a vector.
const DIM_MAX: u32 = 32_768;
/// Bytes of a `varchar`.
const LENGTH_MAX: u32 = 65_535;

/// The type of a field, by the names that Milvus uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DataType {
    /// `bool`
    Bool,
    /// `int64`
    Int64,
    /// `double`, 64 bits; finite.
    Double,
    /// `varchar`: UTF-8 of at most `max_length` bytes.
    Varchar {
        /// In bytes, 1 to 65,535.
        max_length: u32,
    },
    /// `json`: any JSON value, stored as text.
    Json,
    /// `float_vector`: `dim` 32-bit floats, each finite.
    FloatVector {
        /// 1 to 32,768.
        dim: u32,
    },
}

impl DataType {
    /// The name by which schemas are written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Int64 => "int64",
            Self::Double => "double",
            Self::Varchar { .. } => "varchar",
            Self::Json => "json",
            Self::FloatVector { .. } => "float_vector",
        }
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Varchar { max_length } => write!(f, "varchar({max_length})"),
            Self::FloatVector { dim } => write!(f, "float_vector({dim})"),
            other => f.write_str(other.name()),
        }
    }
}

/// One field of a schema.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// ASCII letters, digits and underscores, not starting with a digit; at most 255 bytes.
    pub name: String,
    /// Its type.
    pub data_type: DataType,
    /// Whether a row may lack it. Never true for the primary key and for vectors.
    pub nullable: bool,
    /// What a row that lacks it gets; fits `data_type`. A `null` given to a field that is not nullable counts as lacking.
    pub default: Option<Value>,
}

impl Field {
    /// A field that every row must have.
    pub fn new(name: impl Into<String>, data_type: DataType) -> Self {
        Self { name: name.into(), data_type, nullable: false, default: None }
    }

    /// The same field, which a row may lack.
    #[must_use]
    pub fn nullable(mut self) -> Self {
        self.nullable = true;
        self
    }

    /// The same field with what a row that lacks it gets.
    #[must_use]
    pub fn with_default(mut self, default: impl Into<Value>) -> Self {
        self.default = Some(default.into());
        self
    }
}

/// The fields of a collection, checked as a whole when it is made: a `Schema` that exists is valid.
///
/// Written as JSON or MessagePack it is a map:
///
/// ```
/// # use eddydb::model::{DataType, Schema};
/// let schema: Schema = serde_json::from_str(
///     r#"{
///         "fields": [
///             {"name": "id", "type": "int64", "primaryKey": true},
///             {"name": "title", "type": "varchar", "maxLength": 200},
///             {"name": "done", "type": "bool", "nullable": true, "default": false},
///             {"name": "embedding", "type": "float_vector", "dim": 384}
///         ],
///         "dynamic": true
///     }"#,
/// )?;
/// assert_eq!(schema.primary_key().data_type, DataType::Int64);
/// # Ok::<(), serde_json::Error>(())
/// ```
///
/// `primaryKey`, `nullable` and `dynamic` may be left out when false, `maxLength` when it is the most that there is.
/// Keys that are not in this list are refused.
#[derive(Debug, Clone, PartialEq)]
pub struct Schema {
    fields: Vec<Field>,
    primary_key: usize,
    dynamic: bool,
}

impl Schema {
    /// A schema of `fields`, the primary key among them by name; `dynamic` keeps unknown names of a row as JSON.
    ///
    /// # Errors
    /// `InvalidArgument` that names the field: an empty, overlong, ill-formed or repeated name; a primary key that is
    /// missing, not `int64` or `varchar`, nullable or with a default; a nullable or defaulted vector; a dimension or
    /// length out of range; a default of another type; more than 64 fields or 4 vector fields.
    pub fn new(mut fields: Vec<Field>, primary_key: &str, dynamic: bool) -> Result<Self> {
        if fields.len() > FIELDS_MAX {
            return Err(Error::invalid(format!("{} fields; a schema has at most {FIELDS_MAX}", fields.len())));
        }
        for at in 0..fields.len() {
            let (before, rest) = fields.split_at_mut(at);
            let field = &mut rest[0];
            check_name(&field.name).map_err(|what| Error::invalid(format!("field {at}: {what}")))?;
            if before.iter().any(|other| other.name == field.name) {
                return Err(Error::invalid(format!("field {:?} occurs twice", field.name)));
            }
            check_field(field).map_err(|what| Error::invalid(format!("field {:?}: {what}", field.name)))?;
        }
        let vectors = fields.iter().filter(|field| matches!(field.data_type, DataType::FloatVector { .. })).count();
        if vectors > VECTORS_MAX {
            return Err(Error::invalid(format!("{vectors} vector fields; a schema has at most {VECTORS_MAX}")));
        }
        let Some(at) = fields.iter().position(|field| field.name == primary_key) else {
            return Err(Error::invalid(format!(
                "primary key {primary_key:?} is no field; there are {}",
                names(fields.iter().map(|field| field.name.as_str()))
            )));
        };
        let key = &fields[at];
        let refused = |what: &str| Err(Error::invalid(format!("field {primary_key:?}: a primary key {what}")));
        match key.data_type {
            DataType::Int64 | DataType::Varchar { .. } => {}
            other => return refused(&format!("is int64 or varchar, got {}", other.name())),
        }
        if key.nullable {
            return refused("cannot be nullable");
        }
        if key.default.is_some() {
            return refused("cannot have a default");
        }
        Ok(Self { fields, primary_key: at, dynamic })
    }

    /// The fields in order.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// The field of that name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// The field that identifies a row.
    pub fn primary_key(&self) -> &Field {
        &self.fields[self.primary_key]
    }

    /// Whether names that are not in the schema are kept.
    pub fn dynamic(&self) -> bool {
        self.dynamic
    }

    /// The vector fields with their dimensions, in order.
    pub fn vectors(&self) -> impl Iterator<Item = (&Field, usize)> {
        self.fields.iter().filter_map(|field| match field.data_type {
            DataType::FloatVector { dim } => Some((field, dim as usize)),
            _ => None,
        })
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let first_ok = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if name.len() > NAME_BYTES_MAX {
        let start: String = name.chars().take(20).collect();
        Err(format!("the name {start:?}… has {} bytes, at most {NAME_BYTES_MAX} are allowed", name.len()))
    } else if !first_ok || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        Err(format!("the name {name:?} must be letters, digits and underscores, and not start with a digit"))
    } else {
        Ok(())
    }
}

/// Checks one field, and brings its default into the form that rows have.
fn check_field(field: &mut Field) -> Result<(), String> {
    match field.data_type {
        DataType::Varchar { max_length } if !(1..=LENGTH_MAX).contains(&max_length) => {
            return Err(format!("maxLength is {max_length}, but must be 1 to {LENGTH_MAX}"));
        }
        DataType::FloatVector { dim } if !(1..=DIM_MAX).contains(&dim) => {
            return Err(format!("dim is {dim}, but must be 1 to {DIM_MAX}"));
        }
        DataType::FloatVector { .. } if field.nullable => return Err("a vector cannot be nullable".to_owned()),
        DataType::FloatVector { .. } if field.default.is_some() => {
            return Err("a vector cannot have a default".to_owned());
        }
        _ => {}
    }
    if field.default == Some(Value::Null) {
        field.default = None;
    }
    if let Some(default) = field.default.take() {
        field.default =
            Some(Column::normalize(field.data_type, &default).map_err(|what| format!("its default: {what}"))?);
    }
    Ok(())
}

/// `"a", "b"`: names as messages list them.
pub(super) fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let listed: Vec<String> = names.map(|name| format!("{name:?}")).collect();
    if listed.is_empty() { "none".to_owned() } else { listed.join(", ") }
}

impl Serialize for Schema {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Maps by hand, because compact MessagePack writes structs as arrays, in which nothing can be left out.
        let fields: Vec<FieldForm<'_>> =
            self.fields.iter().enumerate().map(|(at, field)| FieldForm(field, at == self.primary_key)).collect();
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("fields", &fields)?;
        map.serialize_entry("dynamic", &self.dynamic)?;
        map.end()
    }
}

struct FieldForm<'a>(&'a Field, bool);

impl Serialize for FieldForm<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(field, primary_key) = *self;
        let sized = matches!(field.data_type, DataType::Varchar { .. } | DataType::FloatVector { .. });
        let entries = 2
            + usize::from(primary_key)
            + usize::from(sized)
            + usize::from(field.nullable)
            + usize::from(field.default.is_some());
        let mut map = serializer.serialize_map(Some(entries))?;
        map.serialize_entry("name", &field.name)?;
        map.serialize_entry("type", field.data_type.name())?;
        if primary_key {
            map.serialize_entry("primaryKey", &true)?;
        }
        match field.data_type {
            DataType::Varchar { max_length } => map.serialize_entry("maxLength", &max_length)?,
            DataType::FloatVector { dim } => map.serialize_entry("dim", &dim)?,
            _ => {}
        }
        if field.nullable {
            map.serialize_entry("nullable", &true)?;
        }
        if let Some(default) = &field.default {
            map.serialize_entry("default", default)?;
        }
        map.end()
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct SchemaText {
    fields: Vec<FieldText>,
    #[serde(default)]
    dynamic: bool,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct FieldText {
    name: String,
    #[serde(rename = "type")]
    type_name: String,
    #[serde(default)]
    primary_key: bool,
    max_length: Option<u32>,
    dim: Option<u32>,
    #[serde(default)]
    nullable: bool,
    default: Option<Value>,
}

impl FieldText {
    fn into_field(self) -> Result<Field, String> {
        let data_type = match self.type_name.as_str() {
            "bool" => DataType::Bool,
            "int64" => DataType::Int64,
            "double" => DataType::Double,
            "json" => DataType::Json,
            "varchar" => DataType::Varchar { max_length: self.max_length.unwrap_or(LENGTH_MAX) },
            "float_vector" => DataType::FloatVector { dim: self.dim.ok_or("a float_vector needs its dim")? },
            other => {
                return Err(format!(
                    "unknown type {other:?}, expected bool, int64, double, varchar, json or float_vector"
                ));
            }
        };
        if self.max_length.is_some() && !matches!(data_type, DataType::Varchar { .. }) {
            return Err(format!("maxLength is for varchar, not for {}", data_type.name()));
        }
        if self.dim.is_some() && !matches!(data_type, DataType::FloatVector { .. }) {
            return Err(format!("dim is for float_vector, not for {}", data_type.name()));
        }
        Ok(Field { name: self.name, data_type, nullable: self.nullable, default: self.default })
    }
}

impl<'de> Deserialize<'de> for Schema {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = SchemaText::deserialize(deserializer)?;
        let mut keys = text.fields.iter().filter(|field| field.primary_key).map(|field| field.name.clone());
        let key = keys
            .next()
            .ok_or_else(|| D::Error::custom("no field has \"primaryKey\": true; the one that identifies a row must"))?;
        if let Some(second) = keys.next() {
            return Err(D::Error::custom(format!(
                "{key:?} and {second:?} are primary keys, but there can be one only"
            )));
        }
        let fields = text
            .fields
            .into_iter()
            .map(|field| {
                let name = field.name.clone();
                field.into_field().map_err(|what| D::Error::custom(format!("field {name:?}: {what}")))
            })
            .collect::<Result<Vec<_>, _>>()?;
        Self::new(fields, &key, text.dynamic).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::tests::any_schema;

    fn refused(fields: Vec<Field>, words: &[&str]) {
        let error = Schema::new(fields, "id", false).unwrap_err();
        assert_eq!(error.kind(), crate::base::ErrorKind::InvalidArgument);
        words.iter().for_each(|word| assert!(error.message().contains(word), "{word:?} not in {error}"));
    }

    fn id() -> Field {
        Field::new("id", DataType::Int64)
    }

    #[test]
    fn each_wrong_schema_is_named() {
        let vector = |name: &str, dim| Field::new(name, DataType::FloatVector { dim });
        refused(vec![], &["\"id\"", "none"]);
        refused(vec![Field::new("key", DataType::Int64)], &["\"id\"", "\"key\""]);
        refused(vec![id(), Field::new("", DataType::Bool)], &["field 1", "\"\""]);
        refused(vec![id(), Field::new("1a", DataType::Bool)], &["\"1a\"", "digit"]);
        refused(vec![id(), Field::new("$meta", DataType::Json)], &["$meta"]);
        refused(vec![id(), Field::new("ä", DataType::Bool)], &["letters"]);
        refused(vec![id(), Field::new("x".repeat(256), DataType::Bool)], &["256 bytes", "255"]);
        refused(vec![id(), id()], &["\"id\" occurs twice"]);
        refused(vec![id().nullable()], &["nullable"]);
        refused(vec![id().with_default(1)], &["default"]);
        refused(vec![Field::new("id", DataType::Double)], &["int64 or varchar", "double"]);
        refused(vec![id(), Field::new("t", DataType::Varchar { max_length: 0 })], &["\"t\"", "maxLength is 0"]);
        refused(vec![id(), Field::new("t", DataType::Varchar { max_length: 65_536 })], &["65536", "65535"]);
        refused(vec![id(), vector("v", 0)], &["\"v\"", "dim is 0"]);
        refused(vec![id(), vector("v", 32_769)], &["32769"]);
        refused(vec![id(), vector("v", 2).nullable()], &["\"v\"", "nullable"]);
        refused(vec![id(), vector("v", 2).with_default(vec![0.0, 0.0])], &["\"v\"", "default"]);
        refused(vec![id(), Field::new("n", DataType::Int64).with_default("x")], &["\"n\"", "default", "int64"]);
        refused(vec![id(), Field::new("n", DataType::Double).with_default(f64::NAN)], &["\"n\"", "NaN"]);
        let long = Field::new("t", DataType::Varchar { max_length: 2 }).with_default("abc");
        refused(vec![id(), long], &["\"t\"", "3 bytes"]);
        refused((0..65).map(|n| Field::new(format!("f{n}"), DataType::Bool)).collect(), &["65 fields", "64"]);
        let vectors = (0..5).map(|n| vector(&format!("v{n}"), 2)).chain([id()]).collect();
        refused(vectors, &["5 vector fields", "4"]);
    }

    #[test]
    fn each_wrong_text_is_named() {
        for (text, words) in [
            (r#"{"fields":[{"name":"id","type":"int64"}]}"#, "primaryKey"),
            (r#"{"fields":[{"name":"id","type":"int64","primaryKey":true,"primary":1}]}"#, "unknown field `primary`"),
            (r#"{"fields":[],"dynamic":false,"x":1}"#, "unknown field `x`"),
            (r#"{"fields":[{"name":"id","type":"int32","primaryKey":true}]}"#, "\"int32\""),
            (r#"{"fields":[{"name":"id","type":"int64","primaryKey":true,"dim":3}]}"#, "dim is for float_vector"),
            (
                r#"{"fields":[{"name":"id","type":"int64","primaryKey":true,"maxLength":3}]}"#,
                "maxLength is for varchar",
            ),
            (
                r#"{"fields":[{"name":"id","type":"int64","primaryKey":true},{"name":"v","type":"float_vector"}]}"#,
                "field \"v\": a float_vector needs its dim",
            ),
            (
                r#"{"fields":[{"name":"a","type":"int64","primaryKey":true},{"name":"b","type":"int64","primaryKey":true}]}"#,
                "one only",
            ),
        ] {
            let error = serde_json::from_str::<Schema>(text).unwrap_err().to_string();
            assert!(error.contains(words), "{words:?} not in {error}");
        }
    }

    #[test]
    fn an_integer_default_fits_a_double() {
        let schema = Schema::new(vec![id(), Field::new("d", DataType::Double).with_default(1)], "id", false).unwrap();
        assert_eq!(schema.field("d").unwrap().default, Some(Value::Double(1.0)));
    }

    proptest! {
        #[test]
        fn round_trip(schema in any_schema()) {
            let text = serde_json::to_string(&schema).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Schema>(&text).unwrap(), &schema);
            for bytes in [rmp_serde::to_vec(&schema).unwrap(), rmp_serde::to_vec_named(&schema).unwrap()] {
                prop_assert_eq!(&rmp_serde::from_slice::<Schema>(&bytes).unwrap(), &schema);
            }
        }
    }
}
