use crate::base::codec::{Write, checksum};
use crate::base::{Error, ErrorKind, Result};
use crate::db::pipeline::unframed_text;
use crate::engine::name;
use crate::storage::Storage;
use crate::stream::bus::BusSpec;

const MAGIC: &[u8; 4] = b"EDBU";
const VERSION: u8 = 1;
const WHAT: &str = "the bus's definition";

/// What is stored of a bus.
///
/// | bytes | |
/// |---|---|
/// | 4 | `EDBU` |
/// | 1 | version, 1 |
/// | n | the specification as JSON |
/// | 4 | CRC-32C of all before |
pub(super) fn encode(spec: &BusSpec) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_bytes(MAGIC);
    out.put_u8(VERSION);
    out.put_bytes(&serde_json::to_vec(spec).expect("a specification is JSON"));
    let sum = checksum(&out);
    out.put_u32(sum);
    out
}

pub(super) fn decode(bytes: &[u8]) -> Result<BusSpec> {
    let json = unframed_text(bytes, MAGIC, VERSION, WHAT)?;
    BusSpec::parse(json).map_err(|error| Error::corrupt(format!("{WHAT}: {}", error.message())))
}

/// That which counts, with its version.
///
/// # Errors
/// `Corrupt` when none is whole, and one was.
pub(super) async fn read(storage: &dyn Storage) -> Result<Option<(BusSpec, u64)>> {
    let mut entries = storage.list(name::BUS).await?;
    entries.sort_unstable_by(|left, right| right.name.cmp(&left.name));
    let mut found: Option<(BusSpec, u64)> = None;
    let mut damaged: Vec<(String, Error)> = vec![];
    for entry in entries {
        if found.is_some() {
            storage.remove(&entry.name).await?;
            continue;
        }
        let bytes = match storage.read_all(&entry.name).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::Corrupt => Default::default(),
            Err(error) => return Err(error),
        };
        match decode(&bytes) {
            Ok(spec) => found = Some((spec, name::number(&entry.name).unwrap_or_default())),
            // A crash cut it short before it counted, if there is one before it, or if it was the first.
            Err(error) => damaged.push((entry.name, error)),
        }
    }
    let is_first = |(name, _): &(String, Error)| name::number(name) == Some(1);
    if found.is_none()
        && let Some((name, error)) = damaged.iter().find(|one| !is_first(one))
    {
        return Err(error.clone().context(name));
    }
    for (name, _) in damaged {
        storage.remove(&name).await?;
    }
    Ok(found)
}

/// Stores the next version, which counts once it is durable.
pub(super) async fn write(storage: &dyn Storage, spec: &BusSpec, version: u64) -> Result<()> {
    let path = name::bus(version + 1);
    if let Err(error) = storage.put(&path, encode(spec).into()).await {
        // What a failed put leaves must not be taken for a definition, nor stand in the next one's way.
        storage.remove(&path).await?;
        return Err(error);
    }
    if version > 0 {
        storage.remove(&name::bus(version)).await?;
    }
    Ok(())
}
