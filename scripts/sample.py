#!/usr/bin/env python3
"""Makes the sample data sets in `www/sample` from a folder of float16 embeddings.

    pip install numpy pyarrow
    python3 scripts/sample.py SOURCE [--out www/sample]

SOURCE holds `symbols/` (symbols.tsv, symbols-f16.npy, queries.txt, queries-f16.npy, groundtruth-ip-100.npy) and `words/`
(words.txt, words-f16.npy). The same input gives the same bytes. The script then reads back what it wrote, measures what
int8 costs in recall, and fails when a search that people will try first does not find what they expect.
"""

import argparse
import base64
import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa

DIM = 384
ROWS_A_BATCH = 1024
# Every replica that loads the files gives their rows this version, so that two of them have nothing to send each other.
# Replica ids are drawn at random from 53 bits; 1 is not one that anybody draws. Data with other rows takes another one: a replica
# skips the batches of an origin that it has. The time is 2026-01-01T00:00:00Z: any
# edit made later wins over the row as it was loaded.
ORIGIN = 1
TIMESTAMP = 1_767_225_600_000 << 18
BYTES_MAX = 8_000_000
# Words beyond this rank are not from the frequency list but from symbol names: all as rare as the rarest.
RANK_MAX = 7000
# What the first people to try the page will type, and what of it has to be among the first ten.
EXPECTED = {
    "rain and storm": "⛈🌧☂",
    "currency of japan": "💱¥$",
    "wild animals": "🦌🐘🦍",
    "happy face": "😀🙂😊",
}


def directions(vectors: np.ndarray) -> np.ndarray:
    """Each row scaled so that its largest component is 127: int8 `[n, DIM]`, of which only the direction counts."""
    scale = 127.0 / np.abs(vectors).max(axis=1, keepdims=True)
    return np.rint(vectors * scale).astype(np.int8)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of length one, as a replica has them after loading."""
    vectors = vectors.astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def write(path: Path, fields: list, indexes: dict, columns: list, codes: np.ndarray) -> None:
    """An Arrow IPC file of `columns` and then `embedding`, whose metadata says which collection it is."""
    embedding = pa.field(
        "embedding",
        pa.list_(pa.field("item", pa.int8(), nullable=False), DIM),
        nullable=False,
        metadata={"eddy.normalized": "true"},
    )
    arrow = {"int64": pa.int64(), "varchar": pa.utf8()}
    scalars = [pa.field(field["name"], arrow[field["type"]], nullable=False) for field in fields]
    spec = {
        "fields": [*fields, {"name": "embedding", "type": "float_vector", "dim": DIM}],
        "dynamic": False,
        "indexes": indexes,
    }
    schema = pa.schema(
        [*scalars, embedding],
        metadata={
            "eddy.name": path.stem,
            "eddy.spec": json.dumps(spec, separators=(",", ":")),
            "eddy.origin": str(ORIGIN),
            "eddy.timestamp": str(TIMESTAMP),
        },
    )
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for start in range(0, len(codes), ROWS_A_BATCH):
            end = min(start + ROWS_A_BATCH, len(codes))
            arrays = [pa.array(column[start:end], field.type) for column, field in zip(columns, scalars)]
            items = pa.array(codes[start:end].reshape(-1), pa.int8())
            arrays.append(pa.FixedSizeListArray.from_arrays(items, type=embedding.type))
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))


def read(path: Path) -> tuple:
    """The table of a file and its vectors as a replica will have them."""
    with pa.memory_map(str(path)) as source:
        table = pa.ipc.open_file(source).read_all()
    items = np.concatenate([chunk.flatten().to_numpy() for chunk in table["embedding"].chunks])
    return table, unit(items.reshape(-1, DIM))


def word_query(text: str, ranks: dict, vectors: np.ndarray) -> np.ndarray | None:
    """The vector of a text: its words' vectors, the rarer the heavier, normalised. Words that are not known count for nothing; `None` without any other."""
    known = [ranks[word] for word in re.findall(r"[a-z0-9]+", text.lower()) if word in ranks]
    if not known:
        return None
    total = sum(math.log(2 + min(rank, RANK_MAX)) * vectors[rank] for rank in known)
    return total / np.linalg.norm(total)


def top(queries: np.ndarray, vectors: np.ndarray, k: int = 10) -> np.ndarray:
    """Exact search by inner product: rows `[queries, k]`, best first."""
    return np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :k]


def recall(found: np.ndarray, truth: np.ndarray) -> float:
    """The share of the true rows that were found."""
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found, truth)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "www" / "sample")
    arguments = parser.parse_args()
    source, out = arguments.source, arguments.out
    out.mkdir(parents=True, exist_ok=True)

    lines = (source / "symbols/symbols.tsv").read_text("utf-8").rstrip("\n").split("\n")[1:]
    symbols = [line.split("\t") for line in lines]
    symbol_f16 = np.load(source / "symbols/symbols-f16.npy").astype(np.float32)
    words = (source / "words/words.txt").read_text("utf-8").split()
    word_f16 = np.load(source / "words/words-f16.npy").astype(np.float32)
    texts = (source / "symbols/queries.txt").read_text("utf-8").rstrip("\n").split("\n")
    query_f16 = np.load(source / "symbols/queries-f16.npy").astype(np.float32)
    truth = np.load(source / "symbols/groundtruth-ip-100.npy")[:, :10]
    assert symbol_f16.shape == (len(symbols), DIM) and word_f16.shape == (len(words), DIM)
    assert query_f16.shape == (len(texts), DIM) and len(set(words)) == len(words)

    ids, glyphs, categories, names = (list(column) for column in zip(*symbols))
    ids = [int(value) for value in ids]
    assert all(ord(glyph) == value for glyph, value in zip(glyphs, ids))
    write(
        out / "symbols.arrow",
        [
            {"name": "id", "type": "int64", "primaryKey": True},
            {"name": "symbol", "type": "varchar", "maxLength": 64},
            {"name": "category", "type": "varchar", "maxLength": 16},
            {"name": "name", "type": "varchar", "maxLength": 200},
        ],
        {"embedding": {"metric": "IP", "kind": {"HNSW": {"m": 16, "ef_construction": 200}}}},
        [ids, glyphs, categories, names],
        directions(symbol_f16),
    )
    write(
        out / "words.arrow",
        [
            {"name": "word", "type": "varchar", "primaryKey": True, "maxLength": 64},
            {"name": "rank", "type": "int64"},
        ],
        {"embedding": {"metric": "IP", "kind": "FLAT"}},
        [words, list(range(len(words)))],
        directions(word_f16),
    )
    queries = [
        {
            "text": text,
            "vector": base64.b64encode(directions(query_f16[[at]]).tobytes()).decode("ascii"),
            "top": [ids[row] for row in truth[at]],
        }
        for at, text in enumerate(texts)
    ]
    body = ",\n".join(json.dumps(query, separators=(",", ":")) for query in queries)
    (out / "queries.json").write_text(f"[\n{body}\n]\n", "utf-8")

    # From here on only what a reader of the files has.
    table, symbol_i8 = read(out / "symbols.arrow")
    word_table, word_i8 = read(out / "words.arrow")
    ranks = dict(zip(word_table["word"].to_pylist(), word_table["rank"].to_pylist()))
    query_i8 = unit(directions(query_f16))
    known = [at for at, text in enumerate(texts) if word_query(text, ranks, word_i8) is not None]
    made_f16 = np.stack([word_query(texts[at], ranks, word_f16) for at in known])
    made_i8 = np.stack([word_query(texts[at], ranks, word_i8) for at in known])
    made_truth = top(made_f16, symbol_f16)
    size = sum((out / name).stat().st_size for name in ("symbols.arrow", "words.arrow"))
    print(f"{table.num_rows} symbols, {word_table.num_rows} words, {size:,} bytes")
    print("recall@10 of exact search over the int8 rows")
    print(f"  f32 queries of the model                   {recall(top(query_f16, symbol_i8), truth):.4f}")
    print(f"  int8 queries of the model (queries.json)   {recall(top(query_i8, symbol_i8), truth):.4f}")
    print(f"  int8 words, against f16 words and rows     {recall(top(made_i8, symbol_i8), made_truth):.4f}")
    print(f"what making a query of words costs ({len(known)} queries; no word of the others is in the table)")
    print(f"  f16 words, f16 rows, against the model's queries   {recall(made_truth, truth[known]):.4f}")
    print(f"  int8 words, int8 rows, against the model's queries {recall(top(made_i8, symbol_i8), truth[known]):.4f}")

    failed = size > BYTES_MAX
    glyphs = table["symbol"].to_pylist()
    for text, wanted in EXPECTED.items():
        found = [glyphs[row] for row in top(word_query(text, ranks, word_i8)[None], symbol_i8)[0]]
        missing = [glyph for glyph in wanted if glyph not in found]
        failed |= bool(missing)
        print(f"  {text}: {' '.join(found)}{'   MISSING ' + ' '.join(missing) if missing else ''}")
    if failed:
        sys.exit("the sample data is not as it should be")


if __name__ == "__main__":
    main()
