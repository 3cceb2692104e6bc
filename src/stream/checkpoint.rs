use super::job::{Job, Options};
use super::plan::Plan;
use super::state::{Reader, Writer};
use crate::base::codec::checksum;
use crate::base::{Error, Result};

const MAGIC: &[u8; 4] = b"EDSC";
const VERSION: u8 = 1;
const HEADER: &str = "a stream's checkpoint";

impl Job {
    /// The state of all nodes and how far each source has been read, between two calls: a barrier that stands at one place of every input.
    /// `id` is the caller's, and comes back with [`restore`](Self::restore). What was wanted and is not answered yet is asked for again
    /// then.
    ///
    /// | bytes | |
    /// |---|---|
    /// | 4 | `EDSC` |
    /// | 1 | version, 1 |
    /// | 8 | `id` |
    /// | 8 | `now` |
    /// | n | how many sections, then of each: the node's name and fingerprint, its watermark and those of its inputs, how far its partitions have been read, its state |
    /// | 4 | CRC-32C of all before |
    ///
    /// Numbers are little-endian, lengths LEB128.
    ///
    /// # Errors
    /// `InvalidArgument` while [`poll`](Self::poll) has rows to give: they would be in no checkpoint and in no sink.
    pub fn checkpoint(&self, id: u64) -> Result<Vec<u8>> {
        if !self.given.rows.is_empty() || !self.given.dead.is_empty() {
            return Err(Error::invalid("a checkpoint stands behind what was given: poll first"));
        }
        let mut out = Writer::default();
        out.0.extend_from_slice(MAGIC);
        out.u8(VERSION);
        out.i64(id as i64);
        out.i64(self.now);
        out.len(self.nodes.len());
        for (at, node) in self.nodes.iter().enumerate() {
            out.bytes(self.plan.nodes[at].name.as_bytes());
            out.i64(i64::from(self.fingerprint(at)));
            out.i64(node.watermark);
            out.len(node.watermarks.len());
            node.watermarks.iter().for_each(|watermark| out.i64(*watermark));
            let mut source = Writer::default();
            if let Some(progress) = &self.sources[at] {
                progress.save(&mut source);
            }
            out.bytes(&source.0);
            let mut state = Writer::default();
            node.operate.save(&mut state);
            out.bytes(&state.0);
        }
        let sum = checksum(&out.0);
        out.0.extend_from_slice(&sum.to_le_bytes());
        Ok(out.0)
    }

    /// What the state of a node depends on: what it does, and the fields that it is given.
    fn fingerprint(&self, at: usize) -> u32 {
        let mut text = serde_json::to_string(&self.plan.nodes[at].operator).unwrap_or_default();
        for input in &self.checked.inputs[at] {
            for field in &self.checked.relations[*input].fields {
                text.push_str(&format!(";{} {}", field.name, field.data_type));
            }
        }
        checksum(text.as_bytes())
    }

    /// The job as it was at a checkpoint, and the checkpoint's number. Sources are read on from their [positions](Self::positions). Nodes
    /// are found by their names: one that is new begins with nothing, so a plan may grow between two runs.
    ///
    /// # Errors
    /// `Corrupt` for bytes that are no whole checkpoint. `Unsupported` for one of another version. `InvalidArgument` when a node does
    /// something else than it did, or is not there any more.
    pub fn restore(plan: Plan, options: Options, bytes: &[u8]) -> Result<(Self, u64)> {
        let corrupt = |what: &str| Error::corrupt(format!("{HEADER}: {what}"));
        let Some((body, sum)) = bytes.split_last_chunk::<4>() else { return Err(corrupt("too short")) };
        if checksum(body) != u32::from_le_bytes(*sum) {
            return Err(corrupt("its checksum is wrong"));
        }
        let mut reader = Reader::new(body);
        if reader.take(4)? != MAGIC {
            return Err(corrupt("it begins with other bytes"));
        }
        let version = reader.u8()?;
        if version != VERSION {
            return Err(Error::new(
                crate::base::ErrorKind::Unsupported,
                format!("{HEADER} of version {version}, this version reads {VERSION}"),
            ));
        }
        let id = reader.i64()? as u64;
        let mut job = Self::new(plan, options)?;
        job.now = reader.i64()?;
        for _ in 0..reader.count(20)? {
            let name = reader.text()?;
            let Some(at) = job.plan.nodes.iter().position(|node| node.name == name) else {
                return Err(Error::invalid(format!("{HEADER} has a node {name:?}, which the plan does not have")));
            };
            if reader.i64()? != i64::from(job.fingerprint(at)) {
                return Err(Error::invalid(format!(
                    "{HEADER}: node {name:?} does something else than it did, or takes other fields"
                )));
            }
            job.nodes[at].watermark = reader.i64()?;
            let inputs = reader.count(8)?;
            let watermarks = (0..inputs).map(|_| reader.i64()).collect::<Result<Vec<_>>>()?;
            if inputs == job.nodes[at].watermarks.len() {
                job.nodes[at].watermarks = watermarks;
            }
            let mut source = Reader::new(reader.bytes()?);
            if let Some(progress) = &mut job.sources[at] {
                progress.load(&mut source)?;
            }
            let mut state = Reader::new(reader.bytes()?);
            job.at_node(at, |operate, cx| operate.load(&mut state, cx))?;
            if !state.is_empty() || !source.is_empty() {
                return Err(corrupt(&format!("the state of node {name:?} is longer than it says")));
            }
        }
        if !reader.is_empty() {
            return Err(corrupt("it is longer than it says"));
        }
        Ok((job, id))
    }
}
