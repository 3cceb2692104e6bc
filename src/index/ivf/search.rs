use super::{Ivf, ListCode, Lists, Room};
use crate::base::{Neighbor, RowMask, TopK};
use crate::distance::Metric;
use crate::index::{SearchParams, Source};
use crate::model::Value;
use crate::quant::Prepared;

/// One list of so many is looked into when nothing is said.
const LISTS_PER_PROBE: usize = 8;
/// Lists looked into at least when nothing is said.
const NPROBE_MIN: usize = 8;

/// Where a filter keeps away from the query, all admitted rows are compared when they are at most so many times as many as were passed:
/// they lie in a shell around it, all about as far, which codes cannot tell apart.
const SURVIVORS_PER_PASSED: usize = 8;

impl Ivf {
    /// The `k` rows closest to `query` that were found: see [`VectorIndex::search`](crate::index::VectorIndex::search).
    ///
    /// `nprobe` lists are looked into; more where a mask admits few rows, as the square root of how few, until as many admitted ones were
    /// seen as that many lists should have. Of lists with codes `reorder_k` rows are compared by their vectors.
    pub fn search(
        &self,
        query: &Value,
        k: usize,
        params: &SearchParams,
        mask: Option<&RowMask>,
        source: &Source<'_>,
    ) -> Vec<Neighbor> {
        let rows = self.candidates(query, k, params, mask).map(|mut rows| {
            rows.sort_unstable();
            rows
        });
        let rows = rows.unwrap_or_else(|| {
            let len = self.len();
            let all = |mask: &RowMask| mask.iter().take_while(|&row| row < len).map(|row| row as u32).collect();
            mask.map_or_else(|| (0..len as u32).collect(), all)
        });
        source.nearest(&rows, self.space.metric, query, k)
    }

    fn nprobe(&self, lists: usize, params: &SearchParams) -> usize {
        params.nprobe.unwrap_or_else(|| (lists / LISTS_PER_PROBE).max(NPROBE_MIN)).clamp(1, lists)
    }

    /// How many rows are compared by their vectors.
    fn reorder_k(&self, k: usize, params: &SearchParams) -> usize {
        // Measured on real embeddings: among so many times `k` by code were 99 of 100 true neighbours that were in the lists.
        let times = match self.code {
            ListCode::None | ListCode::Sq8 => 2,
            ListCode::Pq { .. } | ListCode::RaBitQ | ListCode::Scann => 10,
        };
        params.reorder_k.unwrap_or_else(|| (times * k).max(k + 22)).max(k)
    }

    /// What a search costs, in comparisons of whole vectors.
    pub fn comparisons(&self, k: usize, params: &SearchParams) -> usize {
        let Some(lists) = &self.serving else { return 0 };
        let looked = lists.len * self.nprobe(lists.lists.len(), params) / lists.lists.len();
        let share = match self.code {
            ListCode::None => looked,
            ListCode::Sq8 => looked / 3 + self.reorder_k(k, params),
            ListCode::RaBitQ | ListCode::Scann => looked / 8 + self.reorder_k(k, params),
            ListCode::Pq { .. } => looked / 3 + self.reorder_k(k, params),
        };
        share + lists.lists.len()
    }

    /// See [`VectorIndex::candidates`](crate::index::VectorIndex::candidates).
    pub fn candidates(
        &self,
        query: &Value,
        k: usize,
        params: &SearchParams,
        mask: Option<&RowMask>,
    ) -> Option<Vec<u32>> {
        let lists = self.serving.as_ref()?;
        let reorder_k = self.reorder_k(k, params);
        let admitted = mask.map_or(lists.len, RowMask::count).min(lists.len);
        if admitted <= reorder_k || k == 0 {
            return None;
        }
        let mut room = Room::default();
        self.space.take_query(query, &mut room);
        let probes = self.probes(lists, &room.vector);
        let nprobe = self.nprobe(lists.lists.len(), params);
        let admits = |row: u32| mask.is_none_or(|mask| mask.contains(row as usize));
        // Where one row in `n` is admitted, the closest admitted ones are farther, and lie in more lists: `sqrt(n)` times as many found
        // 0.938 of them at `n` 10 where 0.972 of all rows were found (real embeddings), hence up to half as many again. They are counted
        // by rows: near the query there may be hardly any.
        let share = admitted as f32 / lists.len as f32;
        let wider = share.sqrt() * (1.5 - 0.5 * share) * lists.len as f32 / lists.lists.len() as f32;
        let mut enough = reorder_k;
        let (mut seen, mut passed) = (0, 0);
        let mut found = Vec::new();
        let mut prepared = Prepared::default();
        let mut closest = TopK::new(reorder_k);
        let mut products = Vec::new();
        let times = if self.space.metric == Metric::L2 { 2.0 } else { 1.0 };
        if let Some(coder) = &lists.coder {
            coder.prepare(&room.vector, &mut prepared);
        }
        for (at, &(product, list)) in probes.iter().enumerate() {
            if at == nprobe && mask.is_some() {
                // Fewer near the query than elsewhere: the filter keeps away from it, and what is nearest may be in any list.
                let expected = passed as f32 * admitted as f32 / lists.len as f32;
                let rarer = (expected / (seen as f32).max(1.0)).clamp(1.0, 8.0);
                if rarer >= 2.0 && admitted <= SURVIVORS_PER_PASSED * passed {
                    return None;
                }
                enough = enough.max((wider * nprobe as f32 * rarer) as usize);
            }
            if at >= nprobe && seen >= enough {
                break;
            }
            let list = &lists.lists[list as usize];
            passed += list.rows.len();
            let Some(coder) = &lists.coder else {
                found.extend(list.rows.iter().copied().filter(|&row| admits(row)));
                seen = found.len();
                continue;
            };
            coder.products(self.kernels, &list.codes, list.rows.len(), &mut prepared, &mut products);
            // What all distances have in common is left out.
            let base = -times * product;
            let mut bound = closest.bound();
            for ((&row, factors), product) in list.rows.iter().zip(&list.factors).zip(&products) {
                let distance = base + factors[1] - factors[0] * product;
                if distance.total_cmp(&bound).is_le() && admits(row) {
                    closest.push(Neighbor { row, distance });
                    bound = closest.bound();
                }
            }
            seen += match mask {
                None => list.rows.len(),
                Some(_) => list.rows.iter().filter(|&&row| admits(row)).count(),
            };
        }
        found.extend(closest.into_sorted().into_iter().map(|near| near.row));
        Some(found)
    }

    /// The lists, nearest first: the products of their centroids with the query, and their numbers.
    fn probes(&self, lists: &Lists, query: &[f32]) -> Vec<(f32, u32)> {
        let mut products = vec![0.0; lists.lists.len()];
        self.kernels.dot_rows(query, lists.means.centroids(), &mut products);
        let distance = |list: usize| match self.space.metric {
            Metric::Ip => -products[list],
            _ => lists.squares[list] - 2.0 * products[list],
        };
        let mut order: Vec<Neighbor> =
            (0..lists.lists.len()).map(|list| Neighbor { row: list as u32, distance: distance(list) }).collect();
        order.sort_unstable();
        order.into_iter().map(|near| (products[near.row as usize], near.row)).collect()
    }
}
