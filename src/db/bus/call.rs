use crate::base::{Error, ErrorKind, Result};
use crate::db::{Collection, Db, Operation, PushStream, Target as Deleted, WriteOptions};
use crate::model::{Batch, Row};
use crate::platform::Task;
use crate::stream::bus::{Call, Event, Target, Tried};

/// A call that is under way.
pub(super) struct Running {
    pub id: u64,
    pub handler: std::sync::Arc<str>,
    pub task: Task<'static, Vec<Tried>>,
}

/// Whether who is to be called is there.
pub(super) fn is_there(db: &Db, target: &Target) -> bool {
    match target {
        Target::Function(name) => db.function(name).is_some(),
        Target::Collection(name) => db.collection(name).is_ok(),
        Target::Stream(name) => db.push_stream(name).is_ok(),
    }
}

fn failed(error: &Error) -> Tried {
    match error.kind() {
        ErrorKind::Unavailable | ErrorKind::Io | ErrorKind::StorageFull | ErrorKind::Locked | ErrorKind::Closed => {
            Tried::Unknown(error.message().to_owned())
        }
        _ => Tried::Failed(error.message().to_owned()),
    }
}

fn told(result: Result<()>) -> Tried {
    result.map_or_else(|error| failed(&error), |()| Tried::Done)
}

/// Begins a call. It holds no store open.
pub(super) fn begin(db: &Db, call: Call) -> Running {
    let Call { id, handler, target, events } = call;
    let count = events.len();
    let all = move |error: &Error| vec![failed(error); count];
    let task: Task<'static, Vec<Tried>> = match target {
        Target::Function(name) => {
            let function = db.function(&name);
            let rows: Vec<Row> = events.iter().map(|(event, attempt)| event.to_row(&handler, *attempt)).collect();
            Box::pin(async move {
                let Some(function) = function else {
                    return all(&Error::new(ErrorKind::Unavailable, format!("function {name:?} is not there")));
                };
                match function.call(&rows, &[]).await {
                    Ok(answers) => answers
                        .into_iter()
                        .map(|answer| match answer {
                            Ok(_) => Tried::Done,
                            Err(error) => Tried::Failed(error.message().to_owned()),
                        })
                        .collect(),
                    Err(error) => all(&error),
                }
            })
        }
        Target::Collection(name) => match db.collection(&name) {
            Ok(collection) => {
                let events = events.into_iter().map(|(event, _)| event).collect();
                Box::pin(async move { write(&collection, events).await })
            }
            Err(error) => Box::pin(std::future::ready(all(&error))),
        },
        Target::Stream(name) => match db.push_stream(&name) {
            Ok(stream) => {
                let rows = events.iter().map(|(event, _)| event.row.clone()).collect();
                Box::pin(async move { push(&stream, rows).await })
            }
            Err(error) => Box::pin(std::future::ready(all(&error))),
        },
    };
    Running { id, handler, task }
}

/// Writes what events come to, in one transaction: what does not fit is left out of it.
async fn write(collection: &Collection, events: Vec<std::sync::Arc<Event>>) -> Vec<Tried> {
    let schema = collection.spec().schema.clone();
    let operation = |event: &Event| match (&*event.kind, &event.key) {
        ("delete", Some(key)) => Ok(Operation::Delete(Deleted::Keys(vec![key.clone()]))),
        _ => Batch::from_rows(&schema, vec![event.row.clone()]).map(Operation::Upsert),
    };
    let mut operations = vec![];
    let mut answers: Vec<Tried> =
        events.iter().map(|event| told(operation(event).map(|operation| operations.push(operation)))).collect();
    if operations.is_empty() {
        return answers;
    }
    if let Err(error) = collection.batch(operations, WriteOptions::default()).await {
        for answer in answers.iter_mut().filter(|answer| **answer == Tried::Done) {
            *answer = failed(&error);
        }
    }
    answers
}

async fn push(stream: &PushStream, rows: Vec<Row>) -> Vec<Tried> {
    let count = rows.len();
    match stream.push(rows).await {
        Ok(answer) => {
            let mut answers = vec![Tried::Done; count];
            for (number, reason) in answer.refused {
                if let Some(answer) = answers.get_mut(number) {
                    *answer = Tried::Failed(reason);
                }
            }
            answers
        }
        Err(error) => vec![failed(&error); count],
    }
}
