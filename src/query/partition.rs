use std::collections::BTreeSet;

use serde_json::Value as Json;

use super::Filter;
use super::expression::{Column, Comparison, Kind, Literal, Operand, Predicate};
use super::set::Set;
use crate::base::sort_by;
use crate::model::{DEFAULT_PARTITION, DataType, Key, PARTITION_COLUMN, PartitionSet, Schema, partition_of_key};

impl Filter {
    /// The rows of `filter`, or all, that are in these partitions, of a collection whose rows have partitions by name.
    pub(crate) fn within(filter: Option<Self>, partitions: &BTreeSet<&str>) -> Self {
        let column = || {
            let name = PARTITION_COLUMN.to_owned();
            Operand::Column(Column { name, kind: Kind::Text, type_name: "varchar", slot: 0 })
        };
        let named: Vec<Json> =
            partitions.iter().filter(|name| **name != DEFAULT_PARTITION).map(|&name| name.into()).collect();
        let mut terms = Vec::new();
        if named.len() < partitions.len() {
            terms.push(Predicate::IsNull(column()));
        }
        if !named.is_empty() {
            terms.push(Predicate::In { operand: column(), set: Set::new(named) });
        }
        let chosen = Predicate::joined(true, terms);
        let keys = filter.as_ref().and_then(|filter| filter.keys.clone());
        let mut predicate = match filter {
            Some(filter) => Predicate::joined(false, [chosen, filter.predicate]),
            None => chosen,
        };
        let places = predicate.settle();
        let mut set = PartitionSet::default();
        partitions.iter().for_each(|name| set.insert_name(name));
        Self { predicate, places, partitions: Some(set), keys }
    }

    /// The rows with these keys, which are of the schema's type.
    pub(crate) fn of_keys(schema: &Schema, keys: &[Key]) -> Self {
        let field = schema.primary_key();
        let kind = if field.data_type == DataType::Int64 { Kind::Int } else { Kind::Text };
        let column = Column { name: field.name.clone(), kind, type_name: field.data_type.name(), slot: 0 };
        let values = keys.iter().map(|key| match key {
            Key::Int(key) => (*key).into(),
            Key::String(key) => Json::String(key.to_string()),
        });
        let mut predicate = Predicate::In { operand: Operand::Column(column), set: Set::new(values) };
        let places = predicate.settle();
        Self { predicate, places, partitions: None, keys: Some(keys.to_vec()) }
    }

    /// Where every row is for which the filter may be true, when it says so: other segments need not be looked at.
    pub fn partitions(&self) -> Option<&PartitionSet> {
        self.partitions.as_ref()
    }
}

/// The keys of all rows for which `predicate` can be true, where `key` is the primary key; `None` when those may be any.
pub(super) fn keys_of(predicate: &Predicate, key: &str) -> Option<Vec<Key>> {
    let is_key = |operand: &Operand| matches!(operand, Operand::Column(column) if column.name == key);
    match predicate {
        Predicate::Constant(false) => Some(Vec::new()),
        Predicate::Compare { comparison: Comparison::Eq, left, right: Operand::Literal(literal) } if is_key(left) => {
            match literal {
                Literal::Int(value) => Some(vec![Key::Int(*value)]),
                Literal::Text(text) => Some(vec![Key::from(text.as_str())]),
                _ => None,
            }
        }
        Predicate::In { operand, set } if is_key(operand) => {
            let ints = set.ints().iter().map(|&value| Key::Int(value));
            Some(ints.chain(set.texts().iter().map(|text| Key::from(text.as_str()))).collect())
        }
        Predicate::And(terms) => terms.iter().filter_map(|term| keys_of(term, key)).min_by_key(Vec::len),
        Predicate::Or(terms) => {
            let mut keys = Vec::new();
            for term in terms {
                keys.extend(keys_of(term, key)?);
            }
            sort_by(&mut keys, Ord::cmp);
            keys.dedup();
            Some(keys)
        }
        _ => None,
    }
}

/// The partitions of all rows for which `predicate` can be true, where `key` assigns them to one of `count`; `None` when those may be
/// in any.
pub(super) fn partitions_of(predicate: &Predicate, key: &str, count: u16) -> Option<PartitionSet> {
    let is_key = |operand: &Operand| matches!(operand, Operand::Column(column) if column.name == key);
    let mut set = PartitionSet::default();
    match predicate {
        Predicate::Constant(false) => {}
        Predicate::Compare { comparison: Comparison::Eq, left, right: Operand::Literal(literal) } if is_key(left) => {
            match literal {
                Literal::Int(value) => set.insert(partition_of_key(&value.to_le_bytes(), count)),
                Literal::Text(text) => set.insert(partition_of_key(text.as_bytes(), count)),
                _ => return None,
            }
        }
        Predicate::In { operand, set: values } if is_key(operand) => {
            values.ints().iter().for_each(|value| set.insert(partition_of_key(&value.to_le_bytes(), count)));
            values.texts().iter().for_each(|text| set.insert(partition_of_key(text.as_bytes(), count)));
        }
        Predicate::And(terms) => {
            let mut fixed = terms.iter().filter_map(|term| partitions_of(term, key, count));
            set = fixed.next()?;
            fixed.for_each(|other| set.intersect(&other));
        }
        Predicate::Or(terms) => {
            for term in terms {
                set.union(&partitions_of(term, key, count)?);
            }
        }
        _ => return None,
    }
    Some(set)
}
