export type { Bus, BusAggregate, BusEvent, BusHandler, BusRoute, BusSource, BusSpec, BusStatus, BusValue, EventFunction, EventsFunction, ReplayRequest } from './bus.js';
export type {
  BoostRanker, ChangeEvent, Collection, Conditions, Conflict, ConsistencyOptions, DecayRanker, DeleteTarget, EvaluateRequest, Evaluation, EvaluationPoint, ExplainOptions,
  FilterOptions, FilterParam, FilterParams, Hit, HybridRequest, IteratorOptions, Operation, OutputOptions, Plan, QueryIteratorRequest, QueryRequest,
  Ranker, Rerank, SearchBatchRequest, SearchBatchResponse, SearchCounts, SearchIteratorRequest, SearchOptions, SearchRequest, SearchResponse,
  Snapshot, TextSearchRequest, TimeOptions, TuneRequest, Tuning, WriteOptions, WriteResponse,
} from './collection.js';
export type { Codec, CollectionOptions, CollectionStats, CreateOptions, Database, DatabaseStats, GraphStats, MemoryUse, MergePolicy, OpenOptions, PoolStats, ProgressEvent } from './database.js';
export type { DirectoryHandle, FileHandle, SyncAccessHandle } from './directory.js';
export { EddyError, type ErrorKind } from './error.js';
export type { Pipeline, PipelineOptions, PipelineRow, PipelineRows, PipelineSpec, PipelineStatus, RowFunction, SqlResult } from './pipeline.js';
export type { Plan as PipelinePlan, PlanNode, PlanSource } from './plan.js';
export type {
  Aggregated, AggregateName, Analyzer, AnalyzerName, AnySchema, AutoIndex, BinaryIndex, BoolField, DiskAnnIndex, DoubleField, Field, FieldIndex, FieldValue, FlatIndex, FloatVectorField, GraphCodes, HnswIndex, HnswStaticIndex, IndexTarget, InputRow, Int64Field, IvfIndex, IvfPqIndex,
  Json, JsonField, Key, KeyInput, Metric, OrderBy, OutputField, OutputRow, PlaceIndex, Row, ScalarIndex, ScalarName, ScalarRow, Schema, SparseIndex, TextField, TokenFilter, TrieIndex, VarcharField, VectorField, VectorInput,
} from './schema.js';
export type { Change, ChangeBatch, ChangeOperation, ChangesOptions, ChangeStream } from './stream-changes.js';
export type { Difference, LiveHit, LiveQuery, LiveRequest, LiveUpdate } from './stream-live.js';
export type { Reconciled, SyncNear, SyncOptions, SyncSession, SyncShape, SyncStatus } from './sync.js';
