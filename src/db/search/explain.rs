use super::admit::looked_up;
use crate::base::Result;
use crate::db::{Collection, QueryRequest, SearchRequest, SearchResponse};
use crate::engine::{Slot, View};
use crate::platform;
use crate::query::{Access, Actual, Filter, Plan};

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

/// How the rows of a segment are chosen that a filter admits.
fn choice(slot: &Slot, filter: Option<&Filter>, view: &View) -> Plan {
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
    let share = left as f64 / segment.len() as f64;
    let mut detail = filter.to_string();
    if left < segment.len() {
        detail += &format!("; statistics leave {left} of {} rows", segment.len());
    }
    let cold: Vec<&str> = fields.iter().copied().filter(|field| !segment.has(field)).collect();
    if !cold.is_empty() {
        detail += &format!("; reads {} from storage", cold.join(", "));
    }
    Plan::new("filter", detail, rows * share * filter.selectivity(), left as f64)
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

impl Collection {
    /// How a search is done, or was with `profile`.
    pub(in crate::db) async fn plan_search(&self, request: &SearchRequest, view: &View, profile: bool) -> Result<Plan> {
        let request = &SearchRequest { rankers: Vec::new(), ..request.clone() };
        let search = self.checked_search(request, view).await?;
        let k = (request.limit + request.offset).saturating_mul(request.group_size.max(1));
        let nearest = search.nearest(0, k, false);
        let mut steps: Vec<(crate::base::SegmentId, Plan)> = Vec::new();
        {
            let state = self.state();
            for slot in state.slots().filter(|slot| !slot.segment.is_empty()) {
                let chosen = choice(slot, search.filter.as_ref(), view);
                let (access, cost) = nearest.planned(&slot.segment, chosen.rows.ceil() as usize);
                let step = match access {
                    _ if chosen.step == "skip" => "segment",
                    Access::Graph => "segment by index",
                    Access::Scan => "segment by scan",
                };
                let mut plan = of_segment(slot, step, chosen);
                if !slot.segment.has(&search.field.name) {
                    plan.detail += ", vectors from storage";
                }
                plan.rows = plan.rows.min(k as f64);
                plan.cost += cost;
                steps.push((slot.segment.id(), plan));
            }
        }
        let mut answer = None;
        if profile {
            let clock = Clock::new(true);
            let mut response = SearchResponse { profile: Some(Vec::new()), ..SearchResponse::default() };
            let lists = self.find_nearest(&search, view, &mut response).await?;
            let searched_ms = clock.ms();
            let hits = self.read_hits(&search, lists.into_iter().flatten().collect()).await?;
            for done in response.profile.into_iter().flatten() {
                let Some((_, plan)) = steps.iter_mut().find(|(id, _)| *id == done.segment) else { continue };
                let rows = done.admitted as f64;
                plan.actual = Some(Actual { rows: rows.min(k as f64), ms: done.filter_ms + done.search_ms });
                plan.steps[0].actual = Some(Actual { rows, ms: done.filter_ms });
                if done.search_ms > 0.0 {
                    plan.step = if done.by_index { "segment by index" } else { "segment by scan" }.to_owned();
                }
            }
            answer = Some((hits.len() as f64, searched_ms, clock.ms()));
        }
        let rows: f64 = steps.iter().map(|(_, step)| step.rows).sum();
        let wanted = rows.min(k as f64);
        let detail = format!("{} by {}, k {k}", search.field.name, search.metric.name());
        let steps = steps.into_iter().map(|(_, step)| step).collect();
        let mut find = total(Plan { steps, ..Plan::new("nearest", detail, wanted, 0.0) });
        find.actual = answer.map(|(rows, ms, _)| Actual { rows, ms });
        let fields = search.fields.as_ref().map_or("scalar fields".to_owned(), |fields| fields.join(", "));
        let mut plan = total(Plan { steps: vec![find], ..Plan::new("read", fields, wanted, wanted) });
        plan.actual = answer.map(|(rows, _, ms)| Actual { rows, ms });
        Ok(plan)
    }

    /// How a query is done, or was with `profile`.
    pub(in crate::db) async fn plan_query(&self, request: &QueryRequest, view: &View, profile: bool) -> Result<Plan> {
        let filter = self.filter(request.filter.as_deref(), &request.filter_params, &request.partitions)?;
        let mut steps = Vec::new();
        {
            let state = self.state();
            for slot in state.slots().filter(|slot| !slot.segment.is_empty()) {
                let mut plan = of_segment(slot, "segment", choice(slot, filter.as_ref(), view));
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
