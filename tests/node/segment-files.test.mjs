// Segment files are Arrow IPC files: other implementations open them, compressed or not; with gzip and Snappy when they are
// decompressed by any tool for these.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';

import { CompressionType, compressionRegistry, tableFromIPC } from 'apache-arrow';
import { decompress as unzstd } from 'fzstd';
import lz4 from 'lz4js';

import { pythonWith } from '../../scripts/python.mjs';

const golden = fileURLToPath(new URL('../golden/segment-v1/', import.meta.url));
const words = ['amber', 'birch', 'cedar', 'dune', 'ember'];
const rows = 500;

// Copied, for typed arrays must begin at a multiple of their width.
compressionRegistry.set(CompressionType.ZSTD, { decode: (bytes) => unzstd(bytes).slice() });
compressionRegistry.set(CompressionType.LZ4_FRAME, { decode: (bytes) => lz4.decompress(bytes) });

const text = (id) => `${id}: ${Array.from({ length: 30 }, (_, at) => words[(id * 7 + at * at) % 5]).join(' ')}`;

for (const codec of ['zstd', 'lz4', 'gzip']) {
  test(`apache-arrow opens the files of a segment, ${codec}`, () => {
    const open = (name) => {
      const bytes = readFileSync(join(golden, `${codec}-${name}.arrow`));
      // Vectors are never compressed.
      return tableFromIPC(codec === 'gzip' && !name.startsWith('vector') ? gunzipSync(bytes) : bytes);
    };
    const narrow = open('rows');
    assert.deepEqual(narrow.schema.fields.map((field) => field.name), ['id', 'kind', 'price', 'sold', 'facts', '$meta']);
    assert.equal(String(narrow.schema.fields[1].type), 'Dictionary<Int8, Utf8>');
    assert.equal(narrow.numRows, rows);
    const [column, vectors, small, deletes] = ['column-text', 'vector-embedding', 'vector-small', 'deletes'].map(open);
    for (let id = 0; id < rows; id++) {
      const row = narrow.get(id).toJSON();
      assert.equal(row.id, BigInt(id));
      assert.equal(row.kind, words[id % 3]);
      assert.equal(row.price, id % 5 === 0 ? null : id / 4);
      assert.equal(row.sold, id % 2 === 0);
      assert.deepEqual(JSON.parse(row.facts), { id, tags: [words[id % 5]] });
      assert.deepEqual(JSON.parse(row.$meta), id % 3 === 0 ? { extra: id * 10 } : null);
      assert.equal(column.get(id).text, text(id));
      assert.deepEqual([...vectors.get(id).embedding], Array.from({ length: 24 }, (_, at) => (id * 24 + at) / 8));
      assert.deepEqual([...small.get(id).small], [id, -1]);
    }
    assert.equal(deletes.numRows, 1);
    assert.equal(deletes.get(0).id, -5n);
    assert.equal(deletes.get(0).$origin, 99n);
  });
}

test('pyarrow opens the files of a segment', async (t) => {
  const { python, problem } = await pythonWith('pyarrow');
  if (!python) {
    // Without Python or its registry there is nothing to compare with; apache-arrow above has read the same files.
    t.diagnostic(`pyarrow could not be had: ${problem}`);
    return;
  }
  const program = `
import gzip, json, sys
import pyarrow as pa
golden, words = sys.argv[1], ${JSON.stringify(words)}
for codec in ["zstd", "lz4", "gzip"]:
    def table(name):
        path = f"{golden}/{codec}-{name}.arrow"
        packed = codec == "gzip" and not name.startswith("vector")
        return pa.ipc.open_file(gzip.open(path).read() if packed else path).read_all()
    rows, column, vectors, deletes = (table(name) for name in ["rows", "column-text", "vector-embedding", "deletes"])
    assert pa.types.is_dictionary(rows.schema.field("kind").type), rows.schema
    rows.validate(full=True); column.validate(full=True); vectors.validate(full=True)
    assert rows.num_rows == ${rows}, rows.num_rows
    for id, row in enumerate(rows.to_pylist()):
        assert row["id"] == id and row["kind"] == words[id % 3] and row["sold"] == (id % 2 == 0), row
        assert row["price"] == (None if id % 5 == 0 else id / 4), row
        assert json.loads(row["facts"])["id"] == id, row
    for id, row in enumerate(column.to_pylist()):
        assert row["text"] == f"{id}: " + " ".join(words[(id * 7 + at * at) % 5] for at in range(30)), row
    for id, row in enumerate(vectors.to_pylist()):
        assert row["embedding"] == [(id * 24 + at) / 8 for at in range(24)], row
    assert deletes.to_pylist()[0]["id"] == -5
print("read")
`;
  const { status, stdout, stderr } = spawnSync(python, ['-c', program, golden], { encoding: 'utf8', timeout: 120_000 });
  assert.equal(stderr, '');
  assert.equal(stdout.trim(), 'read');
  assert.equal(status, 0);
});

test('every golden file is one that a test opens', () => {
  const names = ['column-text', 'deletes', 'layout', 'rows', 'vector-embedding', 'vector-small'];
  assert.deepEqual(readdirSync(golden).sort(), ['gzip', 'lz4', 'snappy', 'zstd'].flatMap((codec) => names.map((name) => `${codec}-${name}.arrow`)));
});
