use super::Masks;
use super::admit::looked_up;
use super::hits::{Near, Search};
use super::hybrid::{bare, reranked};
use crate::base::{Result, RowMask, SegmentId};
use crate::db::database::Shared;
use crate::db::{Collection, HybridRequest, QueryRequest, SearchRequest, SearchResponse};
use crate::engine::{Slot, View};
use crate::platform;
use crate::query::{Access, Actual, Filter, Plan};
use crate::segment::Blocks;

/// Tells what something took, when that is asked for.
pub(super) struct Clock(Option<u64>);

impl Clock {
    pub(super) fn new(runs: bool) -> Self {
        Self(runs.then(platform::now_us))
    }

    pub(super) fn ms(&self) -> f64 {
        self.0.map_or(0.0, |start| (platform::now_us() - start) as f64 / 1e3)
    }
}

/// So many rows of a segment are asked for an estimate: it is off by 3 % of the rows on average, at most.
const SAMPLE_ROWS: usize = 256;

/// Which share of the rows that a view sees, and that lie in `runs`, a filter admits, and by what that is known: what it has admitted of the
/// segment before, where that is kept; a sample of them, spread evenly; or rules of thumb where a column is in storage.
fn share(
    slot: &Slot,
    filter: &Filter,
    visible: &RowMask,
    runs: &[std::ops::Range<u32>],
    shared: &Shared,
) -> (f64, &'static str) {
    let segment = &slot.segment;
    let rows = || runs.iter().cloned().flatten().filter(|&row| visible.contains(row as usize));
    let count = rows().count();
    if let Some(mut mask) = Masks::key(segment, filter).and_then(|key| shared.masks.get(&key)) {
        mask.intersect(visible);
        return (mask.count() as f64 / count.max(1) as f64, "as before");
    }
    let fields = filter.fields();
    if count == 0 || !fields.iter().all(|field| segment.has(field)) {
        return (filter.selectivity(), "by rule");
    }
    let sample: Vec<u32> = rows().step_by(count.div_ceil(SAMPLE_ROWS)).collect();
    let batch = segment.pick(&sample, &|column| fields.contains(column), &Blocks::default());
    let admitted = filter.evaluate(batch.scalars()).count();
    // Of none it is not known that there is none.
    let share = if admitted == 0 && sample.len() < count {
        0.5 / sample.len() as f64
    } else {
        admitted as f64 / sample.len() as f64
    };
    (share, "by sample")
}

/// How the rows of a segment are chosen that a filter admits.
fn choice(slot: &Slot, filter: Option<&Filter>, view: &View, shared: &Shared) -> Plan {
    let segment = &slot.segment;
    let visible = slot.visible(view);
    let rows = visible.count() as f64;
    let Some(filter) = filter else { return Plan::new("all rows", "", rows, 0.0) };
    if filter.partitions().is_some_and(|wanted| !wanted.meets(segment.partitions())) {
        return Plan::new("skip", "none of its rows is in the partitions", 0.0, 0.0);
    }
    if let Some(keys) = looked_up(segment, filter) {
        let found = slot.visible_of(keys, view).count();
        return Plan::new("look up", format!("{} keys", keys.len()), found as f64, (16 * keys.len()) as f64);
    }
    let fields = filter.fields();
    let runs = segment.runs(&fields, &|known| filter.may_admit(known));
    let left: usize = runs.iter().map(|run| run.len()).sum();
    if left == 0 {
        return Plan::new("skip", "by its statistics", 0.0, 0.0);
    }
    let (share, how) = share(slot, filter, &visible, &runs, shared);
    let rows = runs.iter().cloned().flatten().filter(|&row| visible.contains(row as usize)).count() as f64;
    let mut detail = format!("{filter}; rows {how}");
    if left < segment.len() {
        detail += &format!("; statistics leave {left} of {} rows", segment.len());
    }
    let cold: Vec<&str> = fields.iter().copied().filter(|field| !segment.has(field)).collect();
    if !cold.is_empty() {
        detail += &format!("; reads {} from storage", cold.join(", "));
    }
    Plan::new("filter", detail, rows * share, left as f64)
}

/// A segment, with what its rows are chosen by.
fn of_segment(slot: &Slot, step: &str, chosen: Plan) -> Plan {
    let detail = format!("{} of {} rows", slot.segment.id().0, slot.segment.len());
    Plan { steps: vec![chosen.clone()], ..Plan::new(step, detail, chosen.rows, chosen.cost) }
}

fn total(mut plan: Plan) -> Plan {
    plan.cost += plan.steps.iter().map(|step| step.cost).sum::<f64>();
    plan
}

/// Notes what a search came to: so many rows, and in each of these segments.
fn note(find: &mut Plan, segments: &[SegmentId], rows: usize, ms: f64, response: SearchResponse) {
    find.actual = Some(Actual { rows: rows as f64, ms });
    for done in response.profile.into_iter().flatten() {
        let Some(at) = segments.iter().position(|id| *id == done.segment) else { continue };
        let (plan, admitted) = (&mut find.steps[at], done.admitted as f64);
        plan.actual = Some(Actual { rows: admitted.min(find.rows), ms: done.filter_ms + done.search_ms });
        plan.steps[0].actual = Some(Actual { rows: admitted, ms: done.filter_ms });
        if done.search_ms > 0.0 {
            plan.step = if done.by_index { "segment by index" } else { "segment by scan" }.to_owned();
        }
    }
}

impl Collection {
    /// How a search is done, or was with `profile`.
    pub(in crate::db) async fn plan_search(&self, request: &SearchRequest, view: &View, profile: bool) -> Result<Plan> {
        if !request.rankers.is_empty() {
            return self.plan_hybrid(&reranked(request)?, view, profile).await;
        }
        let search = self.checked_search(request, view).await?;
        let (mut find, segments) = self.plan_nearest(&search, view);
        let mut answer = None;
        if profile {
            let clock = Clock::new(true);
            let mut response = SearchResponse { profile: Some(Vec::new()), ..SearchResponse::default() };
            let lists = self.find_nearest(&search, view, None, &mut response).await?;
            let found: Vec<Near> = lists.into_iter().flatten().collect();
            note(&mut find, &segments, found.len(), clock.ms(), response);
            let hits = self.read_hits(&search, found).await?;
            answer = Some(Actual { rows: hits.len() as f64, ms: clock.ms() });
        }
        let fields = search.fields.as_ref().map_or("scalar fields".to_owned(), |fields| fields.join(", "));
        let rows = find.rows;
        Ok(Plan { actual: answer, ..total(Plan { steps: vec![find], ..Plan::new("read", fields, rows, rows) }) })
    }

    /// How several searches are done that are ranked together, or were with `profile`.
    pub(in crate::db) async fn plan_hybrid(&self, request: &HybridRequest, view: &View, profile: bool) -> Result<Plan> {
        Self::check_hybrid(request)?;
        let held = view.is_latest().then(|| self.snapshot()).transpose()?;
        let view = held.as_ref().map_or(*view, |held| View { lsn: held.lsn(), ..*view });
        let (bare, clock) = (bare(request), Clock::new(profile));
        let mut steps = Vec::new();
        let (mut parts, mut found_ms) = (Vec::new(), 0.0);
        if profile {
            parts = self.parts(request, &bare, &view, true).await?;
            found_ms = clock.ms();
            for part in &mut parts {
                let (mut find, segments) = self.plan_nearest(&part.search, &view);
                note(&mut find, &segments, part.found.len(), part.ms, std::mem::take(&mut part.response));
                steps.push(find);
            }
        } else {
            for search in &bare {
                steps.push(self.plan_nearest(&self.checked_search(search, &view).await?, &view).0);
            }
        }
        let candidates: f64 = steps.iter().map(|step| step.rows).sum();
        let mut plan = total(Plan { steps, ..Plan::new("fuse", request.rerank.to_string(), candidates, candidates) });
        plan.actual = profile.then(|| {
            let rows: usize = parts.iter().map(|part| part.found.len()).sum();
            Actual { rows: rows as f64, ms: found_ms }
        });
        for ranker in &request.rankers {
            let rows = plan.rows;
            plan = total(Plan { steps: vec![plan], ..Plan::new("rank", ranker.to_string(), rows, rows) });
        }
        let rows = plan.rows.min(request.limit as f64);
        let output = self.output_fields(request.output_fields.as_deref())?;
        let fields = output.map_or("scalar fields".to_owned(), |fields| fields.join(", "));
        let mut plan = total(Plan { steps: vec![plan], ..Plan::new("read", fields, rows, rows) });
        if profile {
            let clock = Clock::new(true);
            let hits = self.fuse(request, &parts, &view).await?;
            plan.actual = Some(Actual { rows: hits.len() as f64, ms: found_ms + clock.ms() });
        }
        Ok(plan)
    }

    /// The step that finds the nearest rows, of which each segment is one, and these segments.
    fn plan_nearest(&self, search: &Search<'_>, view: &View) -> (Plan, Vec<SegmentId>) {
        let request = search.request;
        let k = (request.limit + request.offset).saturating_mul(request.group_size.max(1));
        let nearest = search.nearest(0, k, false);
        let (mut steps, mut segments) = (Vec::new(), Vec::new());
        for slot in self.state().slots().filter(|slot| !slot.segment.is_empty()) {
            let chosen = choice(slot, search.filter.as_ref(), view, &self.inner.shared);
            let (access, cost) = nearest.planned(&slot.segment, chosen.rows.ceil() as usize);
            let step = match access {
                _ if chosen.step == "skip" => "segment",
                Access::Graph => "segment by index",
                Access::Scan => "segment by scan",
            };
            let mut plan = of_segment(slot, step, chosen);
            if nearest.must_read(&slot.segment) {
                plan.detail += ", vectors from storage";
            }
            plan.rows = plan.rows.min(k as f64);
            plan.cost += cost;
            steps.push(plan);
            segments.push(slot.segment.id());
        }
        let rows = steps.iter().map(|step| step.rows).sum::<f64>().min(k as f64);
        let metric = if search.field.analyzer.is_some() { "BM25" } else { search.metric.name() };
        let detail = format!("{} by {metric}, k {k}", search.field.name);
        (total(Plan { steps, ..Plan::new("nearest", detail, rows, 0.0) }), segments)
    }

    /// How a query is done, or was with `profile`.
    pub(in crate::db) async fn plan_query(&self, request: &QueryRequest, view: &View, profile: bool) -> Result<Plan> {
        let filter = self.filter(request.filter.as_deref(), &request.filter_params, &request.partitions)?;
        let mut steps = Vec::new();
        {
            let state = self.state();
            for slot in state.slots().filter(|slot| !slot.segment.is_empty()) {
                let mut plan = of_segment(slot, "segment", choice(slot, filter.as_ref(), view, &self.inner.shared));
                let clock = Clock::new(profile);
                if profile && let Ok(rows) = self.admitted(slot, filter.as_ref(), view) {
                    let actual = Some(Actual { rows: rows.count() as f64, ms: clock.ms() });
                    (plan.actual, plan.steps[0].actual) = (actual, actual);
                }
                steps.push(plan);
            }
        }
        let rows: f64 = steps.iter().map(|step| step.rows).sum();
        let (step, detail) = if self.is_aggregate(request) {
            ("group", request.group_by.join(", "))
        } else if request.order_by.is_empty() {
            ("sort", "primary key".to_owned())
        } else {
            ("sort", request.order_by.join(", "))
        };
        let wanted = rows.min(request.limit.map_or(f64::MAX, |limit| limit as f64));
        let mut plan = total(Plan { steps, ..Plan::new(step, detail, wanted, rows) });
        if profile {
            let clock = Clock::new(true);
            let rows = self.read_query(request, view).await?.len() as f64;
            plan.actual = Some(Actual { rows, ms: clock.ms() });
        }
        Ok(plan)
    }
}
