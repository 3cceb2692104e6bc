use std::ops::Range;

use arrow_array::RecordBatch;

use super::sink::Letter;
use super::spec::{Definition, PipelineSource};
use crate::base::{Error, Result};
use crate::db::Db;
use crate::db::source::{Asked, Flow, Positions, Source, SourceReader};
use crate::stream::{Operator, Plan, Relation};

/// A source of a plan whose rows come from a connector.
pub(super) struct Feed {
    pub node: String,
    pub name: String,
    pub connector: String,
    pub reader: SourceReader,
    relation: Relation,
    /// The partitions that the job knows of.
    pub partitions: Range<u32>,
    /// What the source was told that nobody goes back to.
    committed: Positions,
    is_ended: bool,
}

/// Rows of a partition of a feed.
pub(super) struct Fed {
    pub partition: u32,
    pub position: Option<Vec<u8>>,
    pub batch: RecordBatch,
    pub letters: Vec<Letter>,
    pub has_more: bool,
    /// Whether this was the end, which is told once.
    pub ends: bool,
}

/// The source that a pipeline asks for.
fn open(
    db: &Db,
    definition: &Definition,
    at: usize,
    source: &PipelineSource,
    name: &str,
    relation: &Relation,
) -> Result<Box<dyn Source>> {
    let reader = super::run::subscription(definition.id, at);
    let asked = Asked { name, reader: &reader, relation, options: &source.options };
    db.open_source(source.connector.as_deref().unwrap_or_default(), &asked)
}

/// That a connector can have what a source of the plan wants.
pub(super) fn check(
    db: &Db,
    definition: &Definition,
    at: usize,
    source: &PipelineSource,
    name: &str,
    relation: &Relation,
) -> Result<()> {
    if relation.retracts {
        return Err(Error::invalid("rows of a connector are events: `changes` is for collections"));
    }
    if source.since.is_some() || source.commit_time.is_some() {
        return Err(Error::invalid("`since` and `commitTime` are for collections, the source has a connector"));
    }
    let node = &definition.plan()?.nodes[at];
    if let Operator::Source(of) = &node.operator {
        source.settings(of).check()?;
    }
    open(db, definition, at, source, name, relation).map(drop)
}

/// Nothing is kept for the sources of a pipeline any more.
pub(super) async fn retire(db: &Db, definition: &Definition) -> Result<()> {
    let relations = definition.plan()?.check()?;
    for (at, source, name) in definition.feeds()? {
        // What is not there keeps nothing.
        let Ok(mut opened) = open(db, definition, at, &source, &name, &relations[at]) else { continue };
        opened.retire().await?;
    }
    Ok(())
}

impl Feed {
    pub async fn connect(
        db: &Db,
        definition: &Definition,
        at: usize,
        source: &PipelineSource,
        name: &str,
        relation: &Relation,
        positions: Positions,
    ) -> Result<Self> {
        let plan: &Plan = definition.plan()?;
        let node = &plan.nodes[at];
        let Operator::Source(of) = &node.operator else { return Err(Error::internal("a feed that is no source")) };
        let opened = open(db, definition, at, source, name, relation)?;
        let reader = SourceReader::connect(opened, source.settings(of), positions)
            .await
            .map_err(|error| error.context(format!("source {:?}", node.name)))?;
        let (node, relation) = (node.name.clone(), relation.clone());
        let connector = source.connector.clone().unwrap_or_default();
        let (name, committed) = (name.to_owned(), Positions::new());
        Ok(Self { node, name, connector, reader, relation, partitions: 0..0, committed, is_ended: false })
    }

    /// The next rows that are there, perhaps none.
    pub async fn next(&mut self, rows_max: usize, now_ms: u64) -> Result<Fed> {
        let came = self.reader.read(rows_max, now_ms).await;
        let came = came.map_err(|error| error.context(format!("source {:?}", self.node)))?;
        let (batch, wrong) = self.relation.batch(&came.rows);
        let node = || self.node.clone();
        let refused = came.refused.into_iter().map(|one| {
            let reason = format!("{}: {}", one.place, one.reason);
            Letter { node: node(), reason, row: one.row }
        });
        let wrong = wrong.into_iter().map(|(at, reason)| Letter { node: node(), reason, row: came.rows[at].clone() });
        let letters = refused.chain(wrong).collect();
        let ends = came.flow == Flow::Ended && !std::mem::replace(&mut self.is_ended, came.flow == Flow::Ended);
        let has_more = came.flow == Flow::More;
        Ok(Fed { partition: came.partition, position: came.position, batch, letters, has_more, ends })
    }

    /// Lets the source forget what is before `positions`.
    pub async fn commit(&mut self, positions: &Positions) -> Result<()> {
        if *positions == self.committed {
            return Ok(());
        }
        self.reader.commit(positions).await?;
        self.committed.clone_from(positions);
        Ok(())
    }
}
