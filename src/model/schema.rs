use super::Value;

/// The type of a field, by the names that Milvus uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DataType {
    /// `bool`
    Bool,
    /// `int64`
    Int64,
    /// `double`, 64 bits
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

/// One field of a schema.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// Letters, digits and underscores, not starting with a digit; at most 255 bytes.
    pub name: String,
    /// Its type.
    pub data_type: DataType,
    /// Whether a row may lack it. Never true for the primary key and for vectors.
    pub nullable: bool,
    /// What a row that lacks it gets; fits `data_type`.
    pub default: Option<Value>,
}

/// The fields of a collection, checked as a whole when it is made: a `Schema` that exists is valid.
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
    pub fn new(fields: Vec<Field>, primary_key: &str, dynamic: bool) -> crate::base::Result<Self> {
        let _ = (&fields, primary_key, dynamic);
        unimplemented!("skeleton")
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
}
