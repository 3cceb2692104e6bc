mod bus;

use js_sys::{Function, Promise, Uint8Array};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

use super::Database;
use super::error::{OrThrow, Thrown, from_js};
use super::message::{self, CallOut, SqlMessage, SqlOut, StatusOut, UnreadOut};
use crate::base::Result;
use crate::db::{PipelineFunction, PipelineSpec, Recovery};
use crate::model::{Field, Row};
use crate::platform::Task;

/// A function that JavaScript has: it is sent rows, and promises what came of each.
struct ForeignFunction {
    function: Function,
    bigint: bool,
}

impl PipelineFunction for ForeignFunction {
    fn call<'a>(&'a self, rows: &'a [Row], fields: &'a [Field]) -> Task<'a, Result<Vec<Result<Vec<Row>>>>> {
        Box::pin(async move {
            let request = CallOut { rows, bigint: self.bigint }.encode()?;
            let promise = self.function.call1(&JsValue::NULL, &Uint8Array::from(request.as_slice()).into());
            let promise: Promise = promise.map_err(|thrown| from_js(&thrown))?.unchecked_into();
            let answer = JsFuture::from(promise).await.map_err(|thrown| from_js(&thrown))?;
            message::decode_answers(&Uint8Array::new(&answer).to_vec(), fields)
        })
    }
}

/// The pipelines of a store. What they are made of and how they do is JSON, as HTTP has it.
#[wasm_bindgen]
impl Database {
    /// Creates a pipeline.
    #[wasm_bindgen(js_name = createPipeline)]
    pub async fn create_pipeline(&self, name: String, spec: String) -> Thrown<()> {
        let spec = PipelineSpec::from_json(&spec).or_throw()?;
        self.db.create_pipeline(&name, spec).await.map(drop).or_throw()
    }

    /// How a pipeline would be done.
    #[wasm_bindgen(js_name = explainSpec)]
    pub fn explain_spec(&self, spec: &str) -> Thrown<String> {
        PipelineSpec::from_json(spec).and_then(|spec| self.db.explain_pipeline(spec)).or_throw()
    }

    /// The names of all pipelines, ascending.
    pub fn pipelines(&self) -> Vec<String> {
        self.db.pipelines().iter().map(crate::db::Pipeline::name).collect()
    }

    /// How a pipeline is doing, and what it is made of.
    #[wasm_bindgen(js_name = pipelineStatus)]
    pub async fn pipeline_status(&self, name: String) -> Thrown<String> {
        let pipeline = self.db.pipeline(&name).or_throw()?;
        StatusOut { status: pipeline.status().await, spec: pipeline.spec() }.to_json().or_throw()
    }

    /// Its graph as text, and what each operator has done.
    #[wasm_bindgen(js_name = explainPipeline)]
    pub async fn explain_pipeline(&self, name: String) -> Thrown<String> {
        self.db.pipeline(&name).or_throw()?.explain().await.or_throw()
    }

    /// Ends a pipeline for good.
    #[wasm_bindgen(js_name = dropPipeline)]
    pub async fn drop_pipeline(&self, name: String) -> Thrown<()> {
        self.db.drop_pipeline(&name).await.or_throw()
    }

    /// Stops one until it is resumed.
    #[wasm_bindgen(js_name = pausePipeline)]
    pub async fn pause_pipeline(&self, name: String) -> Thrown<()> {
        self.db.pipeline(&name).or_throw()?.pause().await.or_throw()
    }

    /// Goes on: at the latest checkpoint, at a savepoint, or with `anew` at the beginning.
    #[wasm_bindgen(js_name = recoverPipeline)]
    pub async fn recover_pipeline(&self, name: String, savepoint: Option<String>, anew: bool) -> Thrown<()> {
        let from = match savepoint {
            Some(label) => Recovery::Savepoint(label),
            None if anew => Recovery::Nothing,
            None => Recovery::Latest,
        };
        self.db.pipeline(&name).or_throw()?.recover(from).await.or_throw()
    }

    /// Stores where a pipeline is under a name.
    pub async fn savepoint(&self, name: String, label: String) -> Thrown<()> {
        self.db.pipeline(&name).or_throw()?.savepoint(&label).await.or_throw()
    }

    /// The names of its savepoints.
    pub async fn savepoints(&self, name: String) -> Thrown<Vec<String>> {
        self.db.pipeline(&name).or_throw()?.savepoints().await.or_throw()
    }

    /// Removes a savepoint; false when it is not there.
    #[wasm_bindgen(js_name = removeSavepoint)]
    pub async fn remove_savepoint(&self, name: String, label: String) -> Thrown<bool> {
        self.db.pipeline(&name).or_throw()?.remove_savepoint(&label).await.or_throw()
    }

    /// Rows of a sink that were not acknowledged, from number `from` on.
    #[wasm_bindgen(js_name = unreadRows)]
    pub async fn unread_rows(
        &self,
        name: String,
        sink: String,
        from: Option<f64>,
        count: usize,
        bigint: bool,
    ) -> Thrown<Vec<u8>> {
        let pipeline = self.db.pipeline(&name).or_throw()?;
        let rows = pipeline.unread(&sink, from.map(|from| from as u64), count).await.or_throw()?;
        UnreadOut { rows: &rows, bigint }.encode().or_throw()
    }

    /// Resolves when there is a row of number `from` or later, or no more come.
    #[wasm_bindgen(js_name = waitForRow)]
    pub async fn wait_for_row(&self, name: String, sink: String, from: f64) -> Thrown<()> {
        self.db.pipeline(&name).or_throw()?.wait_for_row(&sink, from as u64).await.or_throw()
    }

    /// Notes that rows up to number `position` are done.
    #[wasm_bindgen(js_name = acknowledgeRows)]
    pub async fn acknowledge_rows(&self, name: String, sink: String, position: f64) -> Thrown<()> {
        self.db.pipeline(&name).or_throw()?.acknowledge(&sink, position as u64).await.or_throw()
    }

    /// Gives a function to pipelines that call it by that name.
    #[wasm_bindgen(js_name = setFunction)]
    pub fn set_function(&self, name: &str, function: Function, bigint: bool) {
        self.db.set_function(name, ForeignFunction { function, bigint });
    }

    /// Takes it away.
    #[wasm_bindgen(js_name = removeFunction)]
    pub fn remove_function(&self, name: &str) {
        self.db.remove_function(name);
    }

    /// A step of one pipeline; tells whether there is more to be done now.
    #[wasm_bindgen(js_name = runPipeline)]
    pub async fn run_pipeline(&self, name: String) -> Thrown<bool> {
        self.db.run_pipeline(&name).await.or_throw()
    }

    /// In how many milliseconds one has something to do though nothing is written.
    #[wasm_bindgen(js_name = pipelinesDueMs)]
    pub fn pipelines_due_ms(&self) -> Option<f64> {
        self.db.pipelines_due_ms().map(|due_ms| due_ms as f64)
    }

    /// Asks the collections in SQL.
    pub async fn sql(&self, request: Vec<u8>) -> Thrown<Vec<u8>> {
        let request = message::decode::<SqlMessage>("the request", &request).or_throw()?;
        let bigint = request.bigint;
        let response = self.db.sql(&request.into_request().or_throw()?).await.or_throw()?;
        SqlOut { response: &response, bigint }.encode().or_throw()
    }
}
