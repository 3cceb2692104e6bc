use crate::base::{Error, Result};
use crate::engine::{CollectionOptions, CollectionSpec};
use crate::model::{Field, Schema};

/// The specification as it travels: how rows are kept is each side's own choice.
pub(super) fn to_json(spec: &CollectionSpec) -> Result<String> {
    let spec = CollectionSpec { options: CollectionOptions::default(), ..spec.clone() };
    serde_json::to_string(&spec).map_err(|error| Error::internal(format!("a collection's specification: {error}")))
}

/// The specification that a peer sent.
pub(super) fn from_json(text: &str) -> Result<CollectionSpec> {
    CollectionSpec::from_json(text).map_err(|error| Error::invalid(format!("the collection's specification: {error}")))
}

/// Whether rows of `there` fit `here` and the other way round. Indexes are each side's own choice.
///
/// # Errors
/// `InvalidArgument` that names the first difference.
pub(super) fn check_agreement(name: &str, here: &Schema, there: &Schema) -> Result<()> {
    let differ =
        |what: String| Err(Error::invalid(format!("collection {name:?} is not the same on both sides: {what}")));
    for field in here.fields() {
        match there.field(&field.name) {
            None => return differ(format!("the client has no field {:?}", field.name)),
            Some(other) if other != field => {
                let (here, there) = (describe(field), describe(other));
                return differ(format!("field {:?} is {here} at the hub, {there} at the client", field.name));
            }
            Some(_) => {}
        }
    }
    if let Some(field) = there.fields().iter().find(|field| here.field(&field.name).is_none()) {
        return differ(format!("the hub has no field {:?}", field.name));
    }
    if here.primary_key() != there.primary_key() {
        let (here, there) = (&here.primary_key().name, &there.primary_key().name);
        return differ(format!("the primary key is {here:?} at the hub, {there:?} at the client"));
    }
    if here.dynamic() != there.dynamic() {
        let with = if here.dynamic() { "the hub" } else { "the client" };
        return differ(format!("only {with} has a dynamic field"));
    }
    let key = |schema: &Schema| schema.partition_key().map(|(field, count)| (field.name.clone(), count));
    if key(here) != key(there) {
        let (here, there) = (key(here), key(there));
        return differ(format!("the partition key is {here:?} at the hub, {there:?} at the client"));
    }
    Ok(())
}

fn describe(field: &Field) -> String {
    let nullable = if field.nullable { ", nullable" } else { "" };
    let default = field.default.as_ref().map_or(String::new(), |default| format!(", default {default:?}"));
    format!("{}{nullable}{default}", field.data_type)
}
