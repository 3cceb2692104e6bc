use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value as Json;

use super::Value;
use super::column::Column;
use super::partition::{PARTITION_COLUMN, PARTITIONS_MAX};
use super::text::Analyzer;
use crate::base::{Error, Result};

/// Most fields of one schema.
const FIELDS_MAX: usize = 64;
/// Most vector fields of one schema.
const VECTORS_MAX: usize = 4;
/// Bytes of a field's name.
const NAME_BYTES_MAX: usize = 255;
/// Numbers of a vector.
const DIM_MAX: u32 = 32_768;
/// Bits of a `binary_vector`.
const BITS_MAX: u32 = 262_144;
/// Bytes of a `varchar`.
const LENGTH_MAX: u32 = 65_535;
/// Bytes of a primary key that is made: two numbers of 64 bits in base 32.
const AUTO_ID_LENGTH: u32 = 26;
/// How many partitions a key makes when nothing is said, as in Milvus.
const KEY_PARTITIONS: u16 = 16;
/// A hundred years.
const TTL_SECONDS_MAX: u64 = 100 * 365 * 24 * 60 * 60;
/// Values of an `array`.
const CAPACITY_MAX: u32 = 4_096;

/// The type of a field, by the names that Milvus uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DataType {
    /// `bool`
    Bool,
    /// `int8`
    Int8,
    /// `int16`
    Int16,
    /// `int32`
    Int32,
    /// `int64`
    Int64,
    /// `float`, 32 bits; finite.
    Float,
    /// `double`, 64 bits; finite.
    Double,
    /// `timestamp`: an instant, as microseconds since 1970 in UTC, of the years 1 to 9999.
    Timestamp,
    /// `varchar`: UTF-8 of at most `max_length` bytes.
    Varchar {
        /// In bytes, 1 to 65,535.
        max_length: u32,
    },
    /// `json`: any JSON value, stored as text.
    Json,
    /// `array`: at most `max_capacity` values of one type, none of them null.
    Array {
        /// The type of its values.
        element: Element,
        /// 1 to 4,096.
        max_capacity: u32,
    },
    /// `float_vector`: `dim` 32-bit floats, each finite.
    FloatVector {
        /// 1 to 32,768.
        dim: u32,
    },
    /// `float16_vector`: `dim` floats of 16 bits (IEEE 754 binary16), each finite.
    Float16Vector {
        /// 1 to 32,768.
        dim: u32,
    },
    /// `bfloat16_vector`: `dim` floats of 16 bits that are the upper half of 32-bit ones, each finite.
    BFloat16Vector {
        /// 1 to 32,768.
        dim: u32,
    },
    /// `int8_vector`: `dim` integers from -128 to 127.
    Int8Vector {
        /// 1 to 32,768.
        dim: u32,
    },
    /// `binary_vector`: `dim` bits, eight a byte.
    BinaryVector {
        /// 8 to 262,144, a multiple of 8.
        dim: u32,
    },
    /// `sparse_float_vector`: at most 32,768 pairs of an index below 2^32 - 1 and a finite 32-bit float, by ascending index.
    SparseFloatVector,
}

/// What an [`DataType::Array`] holds: the scalar types but `json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Element {
    /// `bool`
    Bool,
    /// `int8`
    Int8,
    /// `int16`
    Int16,
    /// `int32`
    Int32,
    /// `int64`
    Int64,
    /// `float`
    Float,
    /// `double`
    Double,
    /// `timestamp`
    Timestamp,
    /// `varchar`
    Varchar {
        /// In bytes, 1 to 65,535.
        max_length: u32,
    },
}

impl From<Element> for DataType {
    fn from(element: Element) -> Self {
        match element {
            Element::Bool => Self::Bool,
            Element::Int8 => Self::Int8,
            Element::Int16 => Self::Int16,
            Element::Int32 => Self::Int32,
            Element::Int64 => Self::Int64,
            Element::Float => Self::Float,
            Element::Double => Self::Double,
            Element::Timestamp => Self::Timestamp,
            Element::Varchar { max_length } => Self::Varchar { max_length },
        }
    }
}

impl DataType {
    /// The name by which schemas are written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Int8 => "int8",
            Self::Int16 => "int16",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::Float => "float",
            Self::Double => "double",
            Self::Timestamp => "timestamp",
            Self::Varchar { .. } => "varchar",
            Self::Json => "json",
            Self::Array { .. } => "array",
            Self::FloatVector { .. } => "float_vector",
            Self::Float16Vector { .. } => "float16_vector",
            Self::BFloat16Vector { .. } => "bfloat16_vector",
            Self::Int8Vector { .. } => "int8_vector",
            Self::BinaryVector { .. } => "binary_vector",
            Self::SparseFloatVector => "sparse_float_vector",
        }
    }

    /// Whether its values are vectors.
    pub const fn is_vector(self) -> bool {
        self.dim().is_some() || matches!(self, Self::SparseFloatVector)
    }

    /// The dimension of a vector that has one.
    pub const fn dim(self) -> Option<u32> {
        match self {
            Self::FloatVector { dim }
            | Self::Float16Vector { dim }
            | Self::BFloat16Vector { dim }
            | Self::Int8Vector { dim }
            | Self::BinaryVector { dim } => Some(dim),
            _ => None,
        }
    }

    /// The smallest and the greatest integer of a type whose values are integers.
    pub(crate) const fn int_range(self) -> Option<(i64, i64)> {
        Some(match self {
            Self::Int8 => (i8::MIN as i64, i8::MAX as i64),
            Self::Int16 => (i16::MIN as i64, i16::MAX as i64),
            Self::Int32 => (i32::MIN as i64, i32::MAX as i64),
            Self::Int64 => (i64::MIN, i64::MAX),
            Self::Timestamp => super::time::RANGE,
            _ => return None,
        })
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Varchar { max_length } => write!(f, "varchar({max_length})"),
            Self::Array { element, max_capacity } => {
                write!(f, "array({}, {max_capacity})", Self::from(*element))
            }
            other => match other.dim() {
                Some(dim) => write!(f, "{}({dim})", other.name()),
                None => f.write_str(other.name()),
            },
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
    /// Whether a row may lack it. Never true for the primary key.
    pub nullable: bool,
    /// What a row that lacks it gets; fits `data_type`. A `null` given to a field that is not nullable counts as lacking.
    pub default: Option<Value>,
    /// Of a `varchar`, how its text becomes the terms of a full-text index; `None` for a field that has none.
    pub analyzer: Option<Arc<Analyzer>>,
}

impl Field {
    /// A field that every row must have.
    pub fn new(name: impl Into<String>, data_type: DataType) -> Self {
        Self { name: name.into(), data_type, nullable: false, default: None, analyzer: None }
    }

    /// Whether its values are kept apart from the Arrow columns, row-major, as graphs want them: every `float_vector` that no
    /// row lacks. Other vectors are Arrow columns like scalars.
    pub fn is_apart(&self) -> bool {
        matches!(self.data_type, DataType::FloatVector { .. }) && !self.nullable
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

    /// The same field with a full-text index.
    #[must_use]
    pub fn with_analyzer(mut self, analyzer: Analyzer) -> Self {
        self.analyzer = Some(Arc::new(analyzer));
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
/// `"autoId": true` on the primary key has the collection make the keys of rows that lack theirs. An array names the type of its
/// values: `{"name": "tags", "type": "array", "elementType": "varchar", "maxLength": 40,
/// "maxCapacity": 16}`. `primaryKey`, `nullable` and `dynamic` may be left out when false, `maxLength` and `maxCapacity` when
/// they are the most that there is.
/// `"enableAnalyzer": true` on a `varchar`, or `"analyzer"` with how its text becomes terms (see [`Analyzer`]), gives it a full-text
/// index. `"partitionKey": true` on an `int64` or `varchar` field has its values assign rows to one of `"numPartitions"` partitions (16
/// when it is left out, at most 1,024), and `"partitioned": true` says that rows have partitions by name.
/// Keys that are not in this list are refused.
#[derive(Debug, Clone, PartialEq)]
pub struct Schema {
    /// The fields, and [`PARTITION_COLUMN`] after them where rows have partitions by name.
    columns: Vec<Field>,
    primary_key: usize,
    dynamic: bool,
    auto_id: bool,
    ttl_seconds: Option<u64>,
    /// The field that assigns rows to partitions, and how many there are.
    partition_key: Option<(usize, u16)>,
    partitioned: bool,
}

impl Schema {
    /// A schema of `fields`, the primary key among them by name; `dynamic` keeps unknown names of a row as JSON.
    ///
    /// # Errors
    /// `InvalidArgument` that names the field: an empty, overlong, ill-formed or repeated name; a primary key that is
    /// missing, not `int64` or `varchar`, nullable or with a default; a dimension, capacity or length out of range; a default of another type; more than 64 fields or 4 vector fields.
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
        let vectors = fields.iter().filter(|field| field.data_type.is_vector()).count();
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
        Ok(Self {
            columns: fields,
            primary_key: at,
            dynamic,
            auto_id: false,
            ttl_seconds: None,
            partition_key: None,
            partitioned: false,
        })
    }

    /// The same, where the values of a field assign rows to so many partitions (16 with `None`): see
    /// [`partition_of_key`](super::partition_of_key).
    ///
    /// # Errors
    /// `InvalidArgument` for a field that is not there, is the primary key, nullable, or neither `int64` nor `varchar`; for a number
    /// that is not 1 to 1,024; for a schema whose partitions have names.
    pub fn with_partition_key(mut self, field: &str, partitions: Option<u16>) -> Result<Self> {
        let partitions = partitions.unwrap_or(KEY_PARTITIONS);
        let refused = |what: &str| Err(Error::invalid(format!("partition key {field:?}: {what}")));
        let Some(at) = self.fields().iter().position(|other| other.name == field) else {
            return refused("no such field");
        };
        let key = &self.columns[at];
        match key.data_type {
            _ if at == self.primary_key => return refused("it is the primary key"),
            _ if key.nullable => return refused("it cannot be nullable"),
            DataType::Int64 | DataType::Varchar { .. } => {}
            other => return refused(&format!("it is int64 or varchar, got {}", other.name())),
        }
        if !(1..=PARTITIONS_MAX).contains(&usize::from(partitions)) {
            return refused(&format!("numPartitions is {partitions}, but must be 1 to {PARTITIONS_MAX}"));
        }
        if self.partitioned {
            return refused("the partitions of this collection have names");
        }
        self.partition_key = Some((at, partitions));
        Ok(self)
    }

    /// The same, whose rows can be in partitions that have names.
    ///
    /// # Errors
    /// `InvalidArgument` when a key assigns them.
    pub fn with_partitions(mut self) -> Result<Self> {
        if let Some((field, _)) = self.partition_key() {
            return Err(Error::invalid(format!(
                "the field {:?} assigns rows to partitions: none can be named",
                field.name
            )));
        }
        if !self.partitioned {
            let name = PARTITION_COLUMN.to_owned();
            let data_type = DataType::Varchar { max_length: NAME_BYTES_MAX as u32 };
            self.columns.push(Field::new(name, data_type).nullable());
            self.partitioned = true;
        }
        Ok(self)
    }

    /// Whether both are the same, whether or not rows have partitions by name.
    pub fn is_like(&self, other: &Self) -> bool {
        let plain = |schema: &Self| {
            let columns = schema.fields().to_vec();
            Self { columns, partitioned: false, ..schema.clone() }
        };
        plain(self) == plain(other)
    }

    /// Whether rows can be in partitions that have names.
    pub fn partitioned(&self) -> bool {
        self.partitioned
    }

    /// The field that assigns rows to partitions, and how many there are.
    pub fn partition_key(&self) -> Option<(&Field, u16)> {
        self.partition_key.map(|(at, partitions)| (&self.columns[at], partitions))
    }

    /// The column that tells the partition of a row, where there is one.
    pub(crate) fn partition_column(&self) -> Option<&str> {
        self.partition_key().map(|(field, _)| &*field.name).or(self.partitioned.then_some(PARTITION_COLUMN))
    }

    /// The same, where a row that lacks its primary key gets one from the collection that takes it.
    ///
    /// # Errors
    /// `InvalidArgument` for a `varchar` key that is too short for one: 26 bytes.
    pub fn with_auto_id(mut self) -> Result<Self> {
        match self.primary_key().data_type {
            DataType::Varchar { max_length } if max_length < AUTO_ID_LENGTH => Err(Error::invalid(format!(
                "field {:?}: maxLength is {max_length}, but autoId makes keys of {AUTO_ID_LENGTH} bytes",
                self.primary_key().name
            ))),
            _ => {
                self.auto_id = true;
                Ok(self)
            }
        }
    }

    /// The same with one more field, which rows may lack: those that are there already read as if they had been written without
    /// it.
    ///
    /// # Errors
    /// `InvalidArgument` as of [`Schema::new`], for a field that is neither nullable nor has a default, and for a vector that is
    /// not nullable.
    pub fn with_field(&self, field: Field) -> Result<Self> {
        if !field.nullable && (field.default.is_none() || field.data_type.is_vector()) {
            let what = if field.data_type.is_vector() { "nullable" } else { "nullable or has a default" };
            return Err(Error::invalid(format!(
                "field {:?}: rows that are there lack it, so a {} that is added is {what}",
                field.name, field.data_type
            )));
        }
        let fields = self.fields().iter().cloned().chain([field]).collect();
        let schema = Self::new(fields, &self.primary_key().name, self.dynamic)?;
        let (auto_id, ttl_seconds, partition_key) = (self.auto_id, self.ttl_seconds, self.partition_key);
        let schema = Self { auto_id, ttl_seconds, partition_key, ..schema };
        if self.partitioned { schema.with_partitions() } else { Ok(schema) }
    }

    /// The same, whose rows expire so long after they were written; never with `None`.
    ///
    /// # Errors
    /// `InvalidArgument` for 0 seconds, and for more than a hundred years.
    pub fn with_ttl(mut self, seconds: Option<u64>) -> Result<Self> {
        if let Some(seconds) = seconds.filter(|seconds| !(1..=TTL_SECONDS_MAX).contains(seconds)) {
            return Err(Error::invalid(format!("ttlSeconds is {seconds}, but must be 1 to {TTL_SECONDS_MAX}")));
        }
        self.ttl_seconds = seconds;
        Ok(self)
    }

    /// After how many seconds its rows expire.
    pub fn ttl_seconds(&self) -> Option<u64> {
        self.ttl_seconds
    }

    /// Whether a row may lack its primary key.
    pub fn auto_id(&self) -> bool {
        self.auto_id
    }

    /// The fields in order.
    pub fn fields(&self) -> &[Field] {
        &self.columns[..self.columns.len() - usize::from(self.partitioned)]
    }

    /// The field of that name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields().iter().find(|field| field.name == name)
    }

    /// The fields, and after them [`PARTITION_COLUMN`] where rows have partitions by name.
    pub(crate) fn columns(&self) -> &[Field] {
        &self.columns
    }

    /// The field or column of that name.
    pub(crate) fn column(&self, name: &str) -> Option<&Field> {
        self.columns.iter().find(|field| field.name == name)
    }

    /// The field that identifies a row.
    pub fn primary_key(&self) -> &Field {
        &self.columns[self.primary_key]
    }

    /// Whether names that are not in the schema are kept.
    pub fn dynamic(&self) -> bool {
        self.dynamic
    }

    /// The vector fields with their dimensions, 0 for sparse ones, in order.
    pub fn vectors(&self) -> impl Iterator<Item = (&Field, usize)> {
        let vectors = self.columns.iter().filter(|field| field.data_type.is_vector());
        vectors.map(|field| (field, field.data_type.dim().unwrap_or(0) as usize))
    }
}

pub(crate) fn check_name(name: &str) -> Result<(), String> {
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
        DataType::Varchar { max_length } | DataType::Array { element: Element::Varchar { max_length }, .. }
            if !(1..=LENGTH_MAX).contains(&max_length) =>
        {
            return Err(format!("maxLength is {max_length}, but must be 1 to {LENGTH_MAX}"));
        }
        DataType::Array { max_capacity, .. } if !(1..=CAPACITY_MAX).contains(&max_capacity) => {
            return Err(format!("maxCapacity is {max_capacity}, but must be 1 to {CAPACITY_MAX}"));
        }
        DataType::BinaryVector { dim } if !(8..=BITS_MAX).contains(&dim) || !dim.is_multiple_of(8) => {
            return Err(format!("dim is {dim}, but must be a multiple of 8 from 8 to {BITS_MAX}"));
        }
        DataType::BinaryVector { .. } => {}
        vector if vector.dim().is_some_and(|dim| !(1..=DIM_MAX).contains(&dim)) => {
            return Err(format!("dim is {}, but must be 1 to {DIM_MAX}", vector.dim().unwrap_or(0)));
        }
        _ => {}
    }
    if field.analyzer.is_some() && !matches!(field.data_type, DataType::Varchar { .. }) {
        return Err(format!("analyzer is for varchar, not for {}", field.data_type.name()));
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
        let mut map = serializer.serialize_map(Some(self.entries()))?;
        self.serialize_entries(&mut map)?;
        map.end()
    }
}

impl Schema {
    /// How many entries [`Schema::serialize_entries`] writes.
    pub(crate) fn entries(&self) -> usize {
        let optional = [self.ttl_seconds.is_some(), self.partition_key.is_some(), self.partitioned];
        2 + optional.into_iter().map(usize::from).sum::<usize>()
    }

    /// What it is written as, for maps that say more than that.
    pub(crate) fn serialize_entries<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        let fields: Vec<FieldForm<'_>> = self
            .fields()
            .iter()
            .enumerate()
            .map(|(at, field)| FieldForm {
                field,
                primary_key: at == self.primary_key,
                auto_id: at == self.primary_key && self.auto_id,
                partition_key: self.partition_key.is_some_and(|(key, _)| key == at),
            })
            .collect();
        map.serialize_entry("fields", &fields)?;
        map.serialize_entry("dynamic", &self.dynamic)?;
        if let Some(seconds) = self.ttl_seconds {
            map.serialize_entry("ttlSeconds", &seconds)?;
        }
        if let Some((_, partitions)) = self.partition_key {
            map.serialize_entry("numPartitions", &partitions)?;
        }
        if self.partitioned {
            map.serialize_entry("partitioned", &true)?;
        }
        Ok(())
    }
}

/// A field, and what the schema says of it.
struct FieldForm<'a> {
    field: &'a Field,
    primary_key: bool,
    /// Whether that is made where a row lacks it.
    auto_id: bool,
    partition_key: bool,
}

impl Serialize for FieldForm<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { field, primary_key, auto_id, partition_key } = *self;
        let parts = TypeParts::from(field.data_type);
        let sizes = [("maxLength", parts.max_length), ("maxCapacity", parts.max_capacity), ("dim", parts.dim)];
        let entries = 2
            + usize::from(primary_key)
            + usize::from(auto_id)
            + usize::from(partition_key)
            + usize::from(parts.element_type.is_some())
            + sizes.iter().filter(|(_, size)| size.is_some()).count()
            + usize::from(field.analyzer.is_some())
            + usize::from(field.nullable)
            + usize::from(field.default.is_some());
        let mut map = serializer.serialize_map(Some(entries))?;
        map.serialize_entry("name", &field.name)?;
        map.serialize_entry("type", field.data_type.name())?;
        if primary_key {
            map.serialize_entry("primaryKey", &true)?;
        }
        if auto_id {
            map.serialize_entry("autoId", &true)?;
        }
        if partition_key {
            map.serialize_entry("partitionKey", &true)?;
        }
        if let Some(element) = &parts.element_type {
            map.serialize_entry("elementType", element)?;
        }
        for (name, size) in sizes {
            if let Some(size) = size {
                map.serialize_entry(name, &size)?;
            }
        }
        if let Some(analyzer) = &field.analyzer {
            map.serialize_entry("analyzer", analyzer.json())?;
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
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct SchemaText {
    pub(crate) fields: Vec<FieldText>,
    #[serde(default)]
    pub(crate) dynamic: bool,
    pub(crate) ttl_seconds: Option<u64>,
    pub(crate) num_partitions: Option<u16>,
    #[serde(default)]
    pub(crate) partitioned: bool,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct FieldText {
    name: String,
    #[serde(rename = "type")]
    type_name: String,
    #[serde(default)]
    primary_key: bool,
    #[serde(default)]
    auto_id: bool,
    #[serde(default)]
    partition_key: bool,
    element_type: Option<String>,
    max_length: Option<u32>,
    max_capacity: Option<u32>,
    dim: Option<u32>,
    enable_analyzer: Option<bool>,
    analyzer: Option<Json>,
    #[serde(default)]
    nullable: bool,
    default: Option<Value>,
}

impl FieldText {
    fn into_field(self) -> Result<Field, String> {
        let Self { name, type_name, element_type, max_length, max_capacity, dim, nullable, default, .. } = self;
        let data_type = TypeParts { type_name, element_type, max_length, max_capacity, dim }.into_type()?;
        let analyzer = analyzer(self.enable_analyzer, self.analyzer)?;
        Ok(Field { name, data_type, nullable, default, analyzer })
    }
}

/// The analyzer of a field, by what is said of it.
pub(crate) fn analyzer(enabled: Option<bool>, json: Option<Json>) -> Result<Option<Arc<Analyzer>>, String> {
    Ok(match (enabled, json) {
        (Some(false), Some(_)) => return Err("it has an analyzer, but enableAnalyzer is false".to_owned()),
        (Some(true), None) => Some(Arc::new(Analyzer::standard())),
        (_, json) => {
            json.map(Analyzer::from_json).transpose().map_err(|what| format!("analyzer: {what}"))?.map(Arc::new)
        }
    })
}

/// A type as schemas are written: its name, and what the name leaves open.
pub(crate) struct TypeParts {
    pub(crate) type_name: String,
    /// Of an `array`.
    pub(crate) element_type: Option<String>,
    /// Of a `varchar`, or of those in an `array`; the most that there is when it is left out.
    pub(crate) max_length: Option<u32>,
    /// Of an `array`; the most that there is when it is left out.
    pub(crate) max_capacity: Option<u32>,
    /// Of a vector.
    pub(crate) dim: Option<u32>,
}

impl From<DataType> for TypeParts {
    fn from(data_type: DataType) -> Self {
        let mut parts = Self {
            type_name: data_type.name().to_owned(),
            element_type: None,
            max_length: None,
            max_capacity: None,
            dim: None,
        };
        parts.dim = data_type.dim();
        match data_type {
            DataType::Varchar { max_length } => parts.max_length = Some(max_length),
            DataType::Array { element, max_capacity } => {
                let element = Self::from(DataType::from(element));
                parts.element_type = Some(element.type_name);
                parts.max_length = element.max_length;
                parts.max_capacity = Some(max_capacity);
            }
            _ => {}
        }
        parts
    }
}

impl TypeParts {
    /// The type; what belongs to another one is refused.
    pub(crate) fn into_type(self) -> Result<DataType, String> {
        let name = self.type_name.as_str();
        let is_array = name == "array";
        let element = self.element_type.as_deref();
        let max_length = self.max_length.unwrap_or(LENGTH_MAX);
        let data_type = match name {
            "json" => DataType::Json,
            "sparse_float_vector" => DataType::SparseFloatVector,
            vector if vector.ends_with("_vector") => {
                let dim = self.dim.ok_or_else(|| format!("a {vector} needs its dim"));
                match vector {
                    "float_vector" => DataType::FloatVector { dim: dim? },
                    "float16_vector" => DataType::Float16Vector { dim: dim? },
                    "bfloat16_vector" => DataType::BFloat16Vector { dim: dim? },
                    "int8_vector" => DataType::Int8Vector { dim: dim? },
                    "binary_vector" => DataType::BinaryVector { dim: dim? },
                    other => return Err(unknown(other)),
                }
            }
            "array" => {
                let element = element.ok_or("an array needs its elementType")?;
                let element = scalar(element, max_length).ok_or_else(|| {
                    format!("elementType {element:?}: an array holds one of the scalar types, but not json")
                })?;
                DataType::Array { element, max_capacity: self.max_capacity.unwrap_or(CAPACITY_MAX) }
            }
            other => {
                let scalar = scalar(other, max_length);
                scalar.map(DataType::from).ok_or_else(|| unknown(other))?
            }
        };
        let has_text = name == "varchar" || element == Some("varchar");
        for (what, given, belongs, owner) in [
            ("maxLength", self.max_length.is_some(), has_text, "varchar"),
            ("dim", self.dim.is_some(), data_type.dim().is_some(), "vectors that are not sparse"),
            ("elementType", element.is_some(), is_array, "array"),
            ("maxCapacity", self.max_capacity.is_some(), is_array, "array"),
        ] {
            if given && !belongs {
                return Err(format!("{what} is for {owner}, not for {name}"));
            }
        }
        Ok(data_type)
    }
}

fn unknown(name: &str) -> String {
    format!(
        "unknown type {name:?}, expected bool, int8, int16, int32, int64, float, double, timestamp, varchar, json, array, \
         float_vector, float16_vector, bfloat16_vector, int8_vector, binary_vector or sparse_float_vector"
    )
}

fn scalar(name: &str, max_length: u32) -> Option<Element> {
    Some(match name {
        "bool" => Element::Bool,
        "int8" => Element::Int8,
        "int16" => Element::Int16,
        "int32" => Element::Int32,
        "int64" => Element::Int64,
        "float" => Element::Float,
        "double" => Element::Double,
        "timestamp" => Element::Timestamp,
        "varchar" => Element::Varchar { max_length },
        _ => return None,
    })
}

impl<'de> Deserialize<'de> for Field {
    /// As it is written in a schema; not the primary key.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let field = FieldText::deserialize(deserializer)?;
        if field.primary_key || field.auto_id || field.partition_key {
            return Err(D::Error::custom(format!("field {:?}: a collection has its keys from the start", field.name)));
        }
        field.into_field().map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Schema {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        SchemaText::deserialize(deserializer)?.into_schema().map_err(D::Error::custom)
    }
}

impl SchemaText {
    /// The schema that it describes.
    pub(crate) fn into_schema(self) -> Result<Schema, String> {
        let text = self;
        let mut keys = text.fields.iter().filter(|field| field.primary_key).map(|field| field.name.clone());
        let key = keys.next().ok_or("no field has \"primaryKey\": true; the one that identifies a row must")?;
        if let Some(second) = keys.next() {
            return Err(format!("{key:?} and {second:?} are primary keys, but there can be one only"));
        }
        let auto_id = text.fields.iter().any(|field| field.primary_key && field.auto_id);
        if let Some(other) = text.fields.iter().find(|field| !field.primary_key && field.auto_id) {
            return Err(format!("field {:?}: autoId is for the primary key", other.name));
        }
        let mut partition_keys = text.fields.iter().filter(|field| field.partition_key).map(|field| field.name.clone());
        let partition_key = partition_keys.next();
        if partition_keys.next().is_some() {
            return Err("one field at most has \"partitionKey\": true".to_owned());
        }
        if partition_key.is_none() && text.num_partitions.is_some() {
            return Err("numPartitions is for a schema with a partition key".to_owned());
        }
        let fields = text
            .fields
            .into_iter()
            .map(|field| {
                let name = field.name.clone();
                field.into_field().map_err(|what| format!("field {name:?}: {what}"))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let schema = Schema::new(fields, &key, text.dynamic);
        let complete = |schema: Schema| {
            let mut schema = schema.with_ttl(text.ttl_seconds)?;
            if let Some(field) = &partition_key {
                schema = schema.with_partition_key(field, text.num_partitions)?;
            }
            if text.partitioned {
                schema = schema.with_partitions()?;
            }
            if auto_id { schema.with_auto_id() } else { Ok(schema) }
        };
        schema.and_then(complete).map_err(|error| error.message().to_owned())
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
        let array = |element, max_capacity| Field::new("a", DataType::Array { element, max_capacity });
        refused(vec![id(), array(Element::Bool, 0)], &["\"a\"", "maxCapacity is 0", "4096"]);
        refused(vec![id(), array(Element::Bool, 4_097)], &["maxCapacity is 4097"]);
        refused(vec![id(), array(Element::Varchar { max_length: 0 }, 2)], &["\"a\"", "maxLength is 0"]);
        refused(vec![Field::new("id", DataType::Int32)], &["int64 or varchar", "int32"]);
        refused(vec![id(), Field::new("n", DataType::Int8).with_default(128)], &["\"n\"", "128 is out of range"]);
        refused(vec![id(), vector("v", 0)], &["\"v\"", "dim is 0"]);
        refused(vec![id(), vector("v", 32_769)], &["32769"]);
        refused(vec![id(), vector("v", 2).with_default(vec![0.0])], &["\"v\"", "default", "1 numbers, expected 2"]);
        refused(vec![id(), Field::new("v", DataType::BinaryVector { dim: 12 })], &["\"v\"", "multiple of 8"]);
        refused(vec![id(), Field::new("v", DataType::BinaryVector { dim: 262_152 })], &["262152", "262144"]);
        refused(vec![id(), Field::new("v", DataType::Int8Vector { dim: 32_769 })], &["32769"]);
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
            (r#"{"fields":[{"name":"id","type":"int33","primaryKey":true}]}"#, "\"int33\""),
            (
                r#"{"fields":[{"name":"id","type":"int64","primaryKey":true,"dim":3}]}"#,
                "dim is for vectors that are not sparse",
            ),
            (
                r#"{"fields":[{"name":"id","type":"int64","primaryKey":true},{"name":"a","type":"array"}]}"#,
                "field \"a\": an array needs its elementType",
            ),
            (
                r#"{"fields":[{"name":"id","type":"int64","primaryKey":true},{"name":"a","type":"array","elementType":"json"}]}"#,
                "elementType \"json\"",
            ),
            (
                r#"{"fields":[{"name":"id","type":"int64","primaryKey":true,"maxCapacity":3}]}"#,
                "maxCapacity is for array, not for int64",
            ),
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
    fn rows_may_expire() {
        let schema = Schema::new(vec![id()], "id", false).unwrap().with_ttl(Some(60)).unwrap();
        let text = serde_json::to_string(&schema).unwrap();
        assert!(text.contains("\"ttlSeconds\":60"), "{text}");
        assert_eq!(serde_json::from_str::<Schema>(&text).unwrap(), schema);
        let more = schema.with_field(Field::new("n", DataType::Int8).nullable()).unwrap();
        assert_eq!(more.ttl_seconds(), Some(60));
        for seconds in [0, u64::MAX] {
            let error = schema.clone().with_ttl(Some(seconds)).unwrap_err();
            assert!(error.message().contains(&format!("ttlSeconds is {seconds}")), "{error}");
        }
    }

    #[test]
    fn what_rows_may_lack_can_be_added() {
        let schema = Schema::new(vec![id()], "id", true).unwrap().with_auto_id().unwrap();
        let more = schema.with_field(Field::new("n", DataType::Int8).with_default(3)).unwrap();
        let more = more.with_field(Field::new("v", DataType::FloatVector { dim: 2 }).nullable()).unwrap();
        assert_eq!(more.fields().iter().map(|field| field.name.as_str()).collect::<Vec<_>>(), ["id", "n", "v"]);
        assert!(more.dynamic() && more.auto_id() && more.primary_key().name == "id");
        for (field, words) in [
            (Field::new("x", DataType::Int8), "nullable or has a default"),
            (Field::new("x", DataType::FloatVector { dim: 1 }).with_default(vec![1.0]), "that is added is nullable"),
            (id().nullable(), "\"id\" occurs twice"),
            (Field::new("x", DataType::Int8).with_default(300), "300 is out of range"),
        ] {
            let error = more.with_field(field).unwrap_err();
            assert!(error.message().contains(words), "{words:?} not in {error}");
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
