use std::collections::BTreeMap;
use std::sync::Arc;

use super::spec::LookupTime;
use super::{Functions, sink::Letter};
use crate::base::{Error, ErrorKind, Result, Timestamp};
use crate::db::sql::{distance_of, keys_of, metric_of, nearest, vectors_of};
use crate::db::{Collection, Db, Snapshot};
use crate::model::{Row, Value};
use crate::stream::{Answer, Operator, Plan, Relation, Wanted, WantedKind};

/// The last counter of a millisecond.
const LAST: u64 = u64::MAX;

/// Collections as they were, the last one asked at hand.
struct Past<'a> {
    collection: &'a Collection,
    policy: LookupTime,
    held: Option<(Option<i64>, Arc<Snapshot>)>,
    beyond: u64,
}

impl Past<'_> {
    /// As of a time in microseconds. `Err` inside when that is not kept.
    fn at(&mut self, time: Option<i64>) -> Result<Result<Arc<Snapshot>>> {
        let time = time.filter(|_| self.policy != LookupTime::Now).map(|time| time.div_euclid(1_000));
        if let Some((held, snapshot)) = &self.held
            && *held == time
        {
            return Ok(Ok(snapshot.clone()));
        }
        let found = match time {
            None => self.collection.snapshot(),
            Some(ms) => match self.collection.snapshot_at(Timestamp::new(u64::try_from(ms).unwrap_or(0), LAST)) {
                Err(error) if error.kind() == ErrorKind::Gone => {
                    if self.policy == LookupTime::Event {
                        return Ok(Err(error));
                    }
                    self.beyond += 1;
                    // Not kept as that moment's: each row that is beyond is counted.
                    return Ok(Ok(Arc::new(self.collection.snapshot()?)));
                }
                found => found,
            },
        };
        let snapshot = Arc::new(found?);
        self.held = Some((time, snapshot.clone()));
        Ok(Ok(snapshot))
    }
}

/// What a job wanted to know, with the rows of which that cannot be told, and how many were told as of now in place of their time.
pub(super) struct Answered {
    pub answer: Answer,
    pub letters: Vec<Letter>,
    pub beyond: u64,
}

pub(super) async fn answer(
    db: &Db,
    plan: &Plan,
    wanted: &Wanted,
    policy: LookupTime,
    functions: &Functions,
) -> Result<Answered> {
    let (mut counts, mut found, mut letters) = (vec![], vec![], vec![]);
    let mut beyond = 0;
    let letter = |what: Option<String>, error: &Error| Letter {
        node: wanted.node.clone(),
        reason: error.message().to_owned(),
        row: Row::from([("asked".to_owned(), what.map_or(Value::Null, Value::String))]),
    };
    let time_of = |times: &Option<Arc<[i64]>>, row: usize| times.as_ref().map(|times| times[row]);
    let fields = match &wanted.kind {
        WantedKind::Lookup { collection, keys, fields, times } => {
            let collection = db.collection(collection)?;
            let names: Vec<String> = fields.iter().map(|field| field.name.clone()).collect();
            let mut past = Past { collection: &collection, policy, held: None, beyond: 0 };
            for (row, key) in keys_of(keys).into_iter().enumerate() {
                let rows = match key {
                    None => vec![],
                    Some(key) => match past.at(time_of(times, row))? {
                        Ok(snapshot) => snapshot.get(&[key], Some(&names)).await?,
                        Err(error) => {
                            letters.push(letter(Some(key.to_string()), &error));
                            vec![]
                        }
                    },
                };
                counts.push(rows.len() as u32);
                found.extend(rows);
            }
            beyond += past.beyond;
            fields
        }
        WantedKind::Nearest { collection, field, vectors, limit, filter, fields, times } => {
            let collection = db.collection(collection)?;
            let metric = metric_of(&collection, field.as_deref());
            let distance = match plan.node(&wanted.node).map(|node| &node.operator) {
                Some(Operator::Nearest(spec)) if spec.distance.is_some() => fields.last(),
                _ => None,
            };
            let stored = &fields[..fields.len() - usize::from(distance.is_some())];
            let names: Vec<String> = stored.iter().map(|field| field.name.clone()).collect();
            let mut past = Past { collection: &collection, policy, held: None, beyond: 0 };
            for (row, vector) in vectors_of(vectors).into_iter().enumerate() {
                let hits = match vector {
                    None => vec![],
                    Some(vector) => match past.at(time_of(times, row))? {
                        Ok(snapshot) => nearest(&snapshot, field, vector, *limit, filter, &names).await?,
                        Err(error) => {
                            letters.push(letter(None, &error));
                            vec![]
                        }
                    },
                };
                counts.push(hits.len() as u32);
                for (mut row, score) in hits {
                    if let Some(distance) = distance {
                        row.insert(distance.name.clone(), Value::Double(f64::from(distance_of(metric, score))));
                    }
                    found.push(row);
                }
            }
            beyond += past.beyond;
            fields
        }
        WantedKind::Call { function, rows, fields } => {
            let Some(called) = functions.get(function) else {
                // The application gives it when it has started: until then the pipeline waits.
                let message = format!("function {function:?} is not there: `set_function` gives it");
                return Err(Error::new(ErrorKind::Unavailable, message));
            };
            let rows = rows.to_rows(&input_of(plan, &wanted.node)?);
            let called = called.call(&rows, fields).await?;
            if called.len() != rows.len() {
                let message = format!("function {function:?} answered {} of {} rows", called.len(), rows.len());
                return Err(Error::internal(message));
            }
            for (row, given) in rows.into_iter().zip(called) {
                let given = match given {
                    Ok(given) => given,
                    Err(error) => {
                        let (node, reason) = (wanted.node.clone(), format!("{function}: {}", error.message()));
                        letters.push(Letter { node, reason, row });
                        vec![]
                    }
                };
                counts.push(given.len() as u32);
                found.extend(given);
            }
            fields
        }
    };
    let (rows, wrong) = Relation { fields: fields.clone(), ..Relation::default() }.batch(&found);
    // What a function gives may be none of what was promised.
    if !wrong.is_empty() {
        let mut owner = counts.iter().enumerate().flat_map(|(row, count)| std::iter::repeat_n(row, *count as usize));
        let owners: BTreeMap<usize, usize> = owner.by_ref().enumerate().collect();
        for (at, what) in wrong {
            if let Some(count) = owners.get(&at).and_then(|row| counts.get_mut(*row)) {
                *count -= 1;
            }
            letters.push(Letter { node: wanted.node.clone(), reason: what, row: found[at].clone() });
        }
    }
    debug_assert_eq!(rows.num_rows() as u64, counts.iter().map(|count| u64::from(*count)).sum::<u64>());
    Ok(Answered { answer: Answer { counts, rows }, letters, beyond })
}

/// What the rows have that a node takes.
fn input_of(plan: &Plan, node: &str) -> Result<Relation> {
    let relations = plan.check()?;
    let input = plan.node(node).and_then(|node| node.inputs.first());
    let at = input.and_then(|input| plan.nodes.iter().position(|other| other.name == *input));
    at.map(|at| relations[at].clone()).ok_or_else(|| Error::internal(format!("node {node:?} has no input")))
}
