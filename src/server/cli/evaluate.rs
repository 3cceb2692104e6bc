use clap::Args;
use serde_json::{Value as JsonValue, json};

use super::upkeep::{Asked, Target, pretty};
use super::{output, remote};
use crate::base::{Error, ErrorKind, Result};
use crate::db::{EvaluateRequest, TuneRequest};

/// Say how much searches of a collection find, and how long they take
///
/// Compares searches with exact ones, over a sample of the collection's own vectors. With --recall it finds the least `ef` that reaches it.
#[derive(Args)]
#[command(after_help = "\
Examples:
  eddy evaluate symbols
  eddy evaluate notes --k 100 --sample 500 --ef 100,200,400
  eddy evaluate notes --recall 0.99 --store                searches keep so many candidates from now on
  eddy evaluate notes --url http://localhost:7700 --json | jq '.curve'")]
pub(super) struct Evaluate {
    /// The collection.
    collection: String,

    #[command(flatten)]
    target: Target,

    /// The vector field, where there are several.
    #[arg(long)]
    field: Option<String>,

    /// How many neighbours are looked for.
    #[arg(long, default_value_t = 10)]
    k: usize,

    /// How many vectors are looked for.
    #[arg(long, default_value_t = 100)]
    sample: usize,

    /// Which ones.
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// The `ef` to try, with commas between them; by default some from 10 to 512.
    #[arg(long, value_delimiter = ',', conflicts_with = "recall")]
    ef: Vec<usize>,

    /// Find the least `ef` with which so much is found.
    #[arg(long, value_name = "SHARE")]
    recall: Option<f64>,

    /// Have searches keep so many candidates that do not say otherwise.
    #[arg(long, requires = "recall")]
    store: bool,

    /// Print JSON, for programs.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(command: Evaluate) -> Result<()> {
    let Evaluate { collection, target, field, k, sample, seed, ef, recall, store, json } = command;
    let asked = target.open().await?;
    let found = match &asked {
        Asked::Server(url) => {
            let mut body = json!({ "field": field, "k": k, "sample": sample, "seed": seed });
            let what = match recall {
                Some(recall) => {
                    body["recall"] = json!(recall);
                    body["store"] = json!(store);
                    "tune"
                }
                None => {
                    body["ef"] = json!(ef);
                    "evaluate"
                }
            };
            let path = super::upkeep::path(Some(&collection), what);
            let answer = remote::ask("--url", url, "POST", &path, &body.to_string())?;
            serde_json::from_slice(&answer).map_err(|error| {
                Error::new(ErrorKind::Unavailable, format!("{url}: an answer that is no JSON: {error}"))
            })?
        }
        Asked::Store(db) => {
            let evaluate = EvaluateRequest { field, k, sample, seed, ef };
            match recall {
                Some(recall) => json!(db.tune(&collection, &TuneRequest { evaluate, recall, store }).await?),
                None => json!(db.collection(&collection)?.evaluate(&evaluate).await?),
            }
        }
    };
    if json {
        output::line(&pretty(&found))?
    } else {
        show(&found)?
    }
    asked.close().await
}

fn show(found: &JsonValue) -> Result<()> {
    let evaluation = if found["tried"].is_object() { &found["tried"] } else { found };
    let row = |point: &JsonValue| {
        let ms = |name: &str| format!("{:.3}", point[name].as_f64().unwrap_or_default());
        let ef = if point["ef"] == 0 { "exact".to_owned() } else { point["ef"].to_string() };
        let recall = format!("{:.4}", point["recall"].as_f64().unwrap_or_default());
        vec![ef, recall, ms("meanMs"), ms("p50Ms"), ms("p99Ms")]
    };
    let points = evaluation["curve"].as_array().into_iter().flatten();
    let rows: Vec<Vec<String>> = points.chain([&evaluation["exact"]]).map(row).collect();
    output::table(&["ef", "recall", "mean ms", "p50 ms", "p99 ms"].map(str::to_owned), &rows)?;
    if found["chosen"].is_object() {
        output::line(&match found["ef"].as_u64() {
            Some(ef) if found["stored"] == true => format!("ef {ef} is enough; searches keep so many from now on."),
            Some(ef) => format!("ef {ef} is enough."),
            None => "No ef reaches it in less time than exact search takes.".to_owned(),
        })?;
    }
    Ok(())
}
