use std::sync::Arc;

use super::{Masks, READ_ROWS};
use crate::base::{Result, RowMask};
use crate::db::database::Shared;
use crate::db::{Collection, QueryRequest};
use crate::engine::{Slot, View};
use crate::model::Key;
use crate::query::Filter;
use crate::segment::{Blocks, Segment};

/// A segment of which something must be read from storage, with the rows that are seen, and those that are admitted where that
/// is known.
#[derive(Clone)]
pub(super) struct Later {
    pub(super) segment: Arc<Segment>,
    pub(super) visible: RowMask,
    pub(super) admitted: Option<RowMask>,
}

impl Collection {
    /// The rows of a segment that the view sees and the filter admits; the segment when its columns must be read for that, with the
    /// rows for which its statistics do not prove the contrary.
    pub(super) fn admitted(&self, slot: &Slot, filter: Option<&Filter>, view: &View) -> Result<RowMask, Later> {
        admitted(slot, filter, view, &self.inner.shared)
    }

    /// The rows that a filter admits of a segment whose columns must be read, a part after the other.
    async fn admit_later(&self, segment: &Segment, visible: &RowMask, filter: &Filter) -> Result<RowMask> {
        let fields = filter.fields();
        let wanted = |column: &str| fields.contains(column);
        let mut admitted = RowMask::none(segment.len());
        let mut rows = visible.iter().map(|row| row as u32);
        loop {
            let part: Vec<u32> = rows.by_ref().take(READ_ROWS).collect();
            if part.is_empty() {
                return Ok(admitted);
            }
            let mut blocks = Blocks::default();
            let needs = segment.needs(&part, &wanted, &blocks);
            self.inner.shared.fetch(needs, &mut blocks, false).await?;
            let batch = segment.pick(&part, &wanted, &blocks);
            filter.evaluate(batch.scalars()).iter().for_each(|at| admitted.insert(part[at] as usize));
        }
    }

    pub(super) async fn admitted_of(&self, later: &mut Later, filter: Option<&Filter>) -> Result<RowMask> {
        Ok(match (later.admitted.take(), filter) {
            (Some(admitted), _) => admitted,
            (None, Some(filter)) => self.admit_later(&later.segment, &later.visible, filter).await?,
            (None, None) => later.visible.clone(),
        })
    }

    pub(in crate::db) async fn matching_keys(&self, filter: &Filter) -> Result<Vec<Key>> {
        let (mut keys, mut later) = (Vec::new(), Vec::new());
        for slot in self.state().slots() {
            match self.admitted(slot, Some(filter), &self.view(View::NOW)) {
                Ok(admitted) => keys.extend(admitted.iter().map(|row| slot.segment.key(row))),
                Err(segment) => later.push(segment),
            }
        }
        for mut later in later {
            let admitted = self.admitted_of(&mut later, Some(filter)).await?;
            keys.extend(admitted.iter().map(|row| later.segment.key(row)));
        }
        Ok(keys)
    }

    /// How many rows the filter and the partitions of `request` admit.
    pub(in crate::db) async fn read_count(&self, request: &QueryRequest, view: &View) -> Result<usize> {
        let filter = self.filter(request.filter.as_deref(), &request.filter_params, &request.partitions)?;
        if filter.is_none() && *view == View::NOW {
            return Ok(self.state().rows());
        }
        let (mut count, mut later) = (0, Vec::new());
        for slot in self.state().slots() {
            match self.admitted(slot, filter.as_ref(), view) {
                Ok(admitted) => count += admitted.count(),
                Err(segment) => later.push(segment),
            }
        }
        for mut later in later {
            count += self.admitted_of(&mut later, filter.as_ref()).await?.count();
        }
        Ok(count)
    }
}

/// To look a key up costs about as much as to compare so many rows.
const ROWS_PER_KEY: usize = 16;

/// The keys that a filter names, when to look them up in a segment is cheaper than to pass over its rows.
pub(super) fn looked_up<'f>(segment: &Segment, filter: &'f Filter) -> Option<&'f [Key]> {
    filter.keys().filter(|keys| keys.len().saturating_mul(ROWS_PER_KEY) <= segment.len())
}

/// See [`Collection::admitted`].
fn admitted(slot: &Slot, filter: Option<&Filter>, view: &View, shared: &Shared) -> Result<RowMask, Later> {
    let segment = &slot.segment;
    let Some(filter) = filter else { return Ok(slot.visible(view)) };
    let mut admitted = RowMask::none(segment.len());
    if filter.partitions().is_some_and(|wanted| !wanted.meets(segment.partitions())) {
        return Ok(admitted);
    }
    let fields = filter.fields();
    if let Some(keys) = looked_up(segment, filter) {
        let rows = slot.visible_of(keys, view);
        let list: Vec<u32> = rows.iter().map(|row| row as u32).collect();
        if list.is_empty() {
            return Ok(rows);
        }
        if !fields.iter().all(|field| segment.has(field)) {
            return Err(Later { segment: segment.clone(), visible: rows, admitted: None });
        }
        let batch = segment.pick(&list, &|column| fields.contains(column), &Blocks::default());
        filter.evaluate(batch.scalars()).iter().for_each(|at| admitted.insert(list[at] as usize));
        return Ok(admitted);
    }
    let key = Masks::key(segment, filter);
    if let Some(mut mask) = key.as_ref().and_then(|key| shared.masks.get(key)) {
        mask.intersect(&slot.visible(view));
        return Ok(mask);
    }
    let answers = filter.ask(&|column, steps| segment.terms_at(column, steps));
    let runs = segment.runs(&fields, &|known| filter.may_admit(known));
    if runs.is_empty() {
        return Ok(admitted);
    }
    if !fields.iter().all(|field| segment.has(field) || !(answers.is_empty() || answers.reads().contains(*field))) {
        runs.into_iter().flatten().for_each(|row| admitted.insert(row as usize));
        admitted.intersect(&slot.visible(view));
        answers.narrow(&mut admitted);
        let later = Later { segment: segment.clone(), visible: admitted, admitted: None };
        return if later.visible.iter().next().is_none() { Ok(later.visible) } else { Err(later) };
    }
    for (start, chunk) in segment.chunks() {
        for run in &runs {
            let (from, to) = (start.max(run.start as usize), (start + chunk.num_rows()).min(run.end as usize));
            if from < to {
                let mask = filter.evaluate_with(&chunk.slice(from - start, to - from), from, &answers);
                mask.iter().for_each(|row| admitted.insert(from + row));
            }
        }
    }
    if let Some(key) = key {
        shared.masks.keep(key, &admitted, shared.options.memory_limit_bytes);
    }
    admitted.intersect(&slot.visible(view));
    Ok(admitted)
}
