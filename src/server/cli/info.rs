use clap::Args;
use serde_json::json;

use super::{DataDirectory, output};
use crate::base::Result;
use crate::distance::Metric;
use crate::index::{IndexKind, IndexParts};
use crate::server::{http, store};

/// Say what a store holds: collections, rows, segments, bytes, indexes
#[derive(Args)]
#[command(after_help = "\
Examples:
  eddy info --data ./eddy-data
  eddy info --data ./eddy-data --json | jq '.collections[].rows'")]
pub(super) struct Info {
    #[command(flatten)]
    directory: DataDirectory,

    /// Print JSON, for programs.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(command: Info) -> Result<()> {
    let db = store::open(&command.directory.place(), false).await?;
    let mut collections = Vec::new();
    for collection in db.collections() {
        let stats = collection.stats().await?;
        collections.push((collection, stats));
    }
    let version = env!("CARGO_PKG_VERSION");
    if command.json {
        let described: Vec<_> =
            collections.iter().map(|(collection, stats)| http::description(collection, stats)).collect();
        let info = json!({
            "version": version,
            "data": command.directory.place().to_string(),
            "replica": db.replica_id(),
            "collections": described,
        });
        output::line(&serde_json::to_string_pretty(&info).expect("JSON values are written"))?;
    } else {
        output::line(&format!("Eddy {version}, store in {}, replica {}", command.directory.place(), db.replica_id()))?;
        if collections.is_empty() {
            output::line("No collection yet; `eddy import` makes one from a file.")?;
        } else {
            let header =
                ["collection", "rows", "segments", "unindexed", "memory", "storage", "vectors"].map(str::to_owned);
            let rows: Vec<Vec<String>> = collections
                .iter()
                .map(|(collection, stats)| {
                    let spec = collection.spec();
                    let vectors = spec.schema.vectors().map(|(field, dim)| match spec.indexes.get(&field.name) {
                        Some(index) => format!("{} {dim}d {} {}", field.name, metric(index.metric), kind(index.kind)),
                        None => format!("{} {dim}d", field.name),
                    });
                    vec![
                        collection.name().to_owned(),
                        output::number(stats.rows as u64),
                        output::number(stats.segments as u64),
                        output::number(stats.rows_unindexed as u64),
                        output::bytes(stats.memory_bytes as u64),
                        output::bytes(stats.storage_bytes),
                        vectors.collect::<Vec<_>>().join(", "),
                    ]
                })
                .collect();
            output::table(&header, &rows)?;
        }
    }
    db.close().await
}

fn metric(metric: Metric) -> String {
    serde_json::to_value(metric).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

fn kind(kind: IndexKind) -> String {
    let parts = IndexParts::from(kind);
    let given = [
        ("m", parts.m),
        ("ef_construction", parts.ef_construction),
        ("ef_search", parts.ef_search),
        ("nlist", parts.nlist),
        ("nbits", parts.nbits),
        ("num_sub_vectors", parts.num_sub_vectors),
        ("max_degree", parts.max_degree),
        ("search_list_size", parts.search_list_size),
    ];
    let given = given.iter().filter_map(|(name, value)| value.map(|value| format!(" {name}={value}")));
    let codes = parts.codes.iter().map(|codes| format!(" codes={codes}"));
    kind.name().to_owned() + &given.chain(codes).collect::<String>()
}
