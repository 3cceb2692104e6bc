import type { Bytes } from './codec.js';
import type { Codec, MergePolicy } from './database.js';
import type { ErrorMessage } from './error.js';

// What a client (a page, a Node program, another tab's worker) and the thread of the engine say to each other.

/** What a client can ask for. @internal */
export type Op =
  | 'collections'
  | 'createCollection'
  | 'dropCollection'
  | 'setAlias'
  | 'dropAlias'
  | 'aliases'
  | 'loadDataset'
  | 'exportFile'
  | 'exportPiece'
  | 'exportEnd'
  | 'importStart'
  | 'importPiece'
  | 'importFinish'
  | 'importEnd'
  | 'databaseStats'
  | 'describe'
  | 'addField'
  | 'createIndex'
  | 'dropIndex'
  | 'setTtl'
  | 'options'
  | 'setOptions'
  | 'evaluate'
  | 'tune'
  | 'partitions'
  | 'conflicts'
  | 'createPartition'
  | 'dropPartition'
  | 'write'
  | 'snapshot'
  | 'releaseSnapshot'
  | 'get'
  | 'query'
  | 'count'
  | 'search'
  | 'atLeast'
  | 'explain'
  | 'searchIterator'
  | 'queryIterator'
  | 'iteratorNext'
  | 'iteratorEnd'
  | 'changes'
  | 'liveStart'
  | 'liveStop'
  | 'changesEnd'
  | 'acknowledge'
  | 'subscriptions'
  | 'unsubscribe'
  | 'flush'
  | 'compact'
  | 'memory'
  | 'stats'
  | 'watch'
  | 'unwatch'
  | 'syncStart'
  | 'syncToken'
  | 'syncPause'
  | 'syncResume'
  | 'syncReconcile'
  | 'syncStop'
  | 'network'
  | 'sql'
  | 'createPipeline'
  | 'pipelines'
  | 'explainSpec'
  | 'pipelineStatus'
  | 'pipelineExplain'
  | 'dropPipeline'
  | 'pausePipeline'
  | 'recoverPipeline'
  | 'savepoint'
  | 'savepoints'
  | 'removeSavepoint'
  | 'unreadRows'
  | 'acknowledgeRows'
  | 'rowsStart'
  | 'rowsStop'
  | 'setFunction'
  | 'removeFunction'
  | 'functionAnswer'
  | 'busConfigure'
  | 'busStatus'
  | 'busPublish'
  | 'busReplay'
  | 'busCancel';

/**
 * Operations that are the same asked twice: they leave the store as it is, or in the state that they name. A `write` is asked again with
 * the number that it had. @internal
 */
export const repeatable: ReadonlySet<Op> = new Set<Op>([
  'flush', 'compact', 'loadDataset', 'setTtl', 'createIndex', 'setOptions', 'evaluate', 'tune',
  'collections', 'aliases', 'memory', 'exportFile', 'importStart', 'importEnd', 'databaseStats', 'describe', 'options', 'partitions', 'conflicts', 'snapshot', 'releaseSnapshot', 'get', 'query', 'count', 'search', 'atLeast', 'explain', 'searchIterator', 'queryIterator', 'iteratorEnd', 'changes', 'changesEnd', 'liveStart', 'liveStop', 'acknowledge', 'subscriptions', 'unsubscribe', 'stats', 'watch', 'unwatch', 'syncStart', 'syncToken', 'syncPause', 'syncResume', 'syncReconcile', 'syncStop', 'network',
  'sql', 'pipelines', 'explainSpec', 'pipelineStatus', 'pipelineExplain', 'pausePipeline', 'savepoints', 'unreadRows', 'acknowledgeRows', 'rowsStart', 'rowsStop', 'setFunction', 'removeFunction', 'functionAnswer', 'busConfigure', 'busStatus', 'busCancel',
]);

/** The first message of a client. @internal */
export interface OpenMessage {
  open: {
    name: string;
    storage: 'auto' | 'opfs' | 'indexeddb' | 'memory' | 'files';
    path?: string | undefined;
    durability: 'synced' | 'buffered';
    retention: number;
    memoryLimitBytes?: number | undefined;
    codec: Codec;
    mergePolicy: MergePolicy;
    replicaNumber?: number | undefined;
    /** How many workers search beside the engine. */
    workers?: number | undefined;
    /** Whether the engine is to have pipelines. */
    streams?: boolean | undefined;
  };
  /** The lock that the worker holds while it lives. */
  alive?: string | undefined;
}

/** @internal */
export interface RequestMessage {
  id: number;
  op: Op;
  /** The collection, dataset or sync session meant. */
  target?: string | undefined;
  body?: Bytes | undefined;
}

/** The last message of a client. @internal */
export interface CloseMessage {
  id: number;
  close: true;
}

/** @internal */
export type ClientMessage = OpenMessage | RequestMessage | CloseMessage;

/** @internal */
export type ResponseMessage = { id: number; body?: Bytes | undefined; spare?: ArrayBuffer } | { id: number; error: ErrorMessage };

/** What happens without having been asked for. @internal */
export type EngineEvent =
  | { event: 'change'; collection: string; lsn: number }
  | { event: 'ended'; collection: string }
  | { event: 'live'; key: string; body?: Bytes; error?: ErrorMessage }
  | { event: 'progress'; collection: string; work: 'index' | 'flush' | 'compaction'; rowsDone: number; rows: number }
  /** There are rows that a client waits for. */
  | { event: 'rows'; key: string }
  /** A function of the client is called: `functionAnswer` brings what came of it. */
  | { event: 'call'; ask: number; function: string; body: Bytes }
  | { event: 'sync'; session: string; status: SyncStatusMessage }
  /** A token is wanted: `syncToken` brings it, or why there is none. */
  | { event: 'syncToken'; session: string; ask: number };

/** @internal */
export interface SyncStatusMessage {
  state: 'offline' | 'connecting' | 'live' | 'stopped';
  url?: string;
  pending: number;
  error?: ErrorMessage;
  lastSyncedAt?: number;
  download?: { done: number; total: number };
  refusals?: { collection: string; error: ErrorMessage }[];
}

/** The engine stopped for good: nothing that was asked will be answered. @internal */
export interface DeadMessage {
  dead: ErrorMessage;
}

/** @internal */
export type EngineMessage = { opened: true } | { failed: ErrorMessage } | ResponseMessage | EngineEvent | DeadMessage;

/**
 * Which write of which client: its random number, that of the write, that of its first write without an answer, and whether it is asked
 * again. The engine keeps the answers from that first one on, durably with what was written. @internal
 */
export interface WriteMark {
  client: number;
  number: number;
  settled: number;
  again: boolean;
}

/** One client's line to an engine, wherever that is. @internal */
export interface Session {
  request(op: Op, target: string | undefined, body: Bytes | undefined, mark?: WriteMark): Promise<Bytes | undefined>;
  close(): Promise<void>;
}
