"""One of the native libraries that the search bench compares with, in one thread; speaks as native.rs does: `peers.py LIBRARY SET`."""

import gc
import sys
import time

import numpy as np

K = 10
M, EF_CONSTRUCTION = 16, 200


def read_set(path):
    with open(path, "rb") as file:
        dim, rows, queries = np.frombuffer(file.read(12), "<u4")
        numbers = np.frombuffer(file.read(), "<f4").reshape(-1, dim)
    return numbers[:rows].copy(), numbers[rows : rows + queries].copy()


def nearest(rows, queries):
    truth = [np.argsort(-(part @ rows.T), axis=1, kind="stable")[:, :K] for part in np.array_split(queries, max(1, len(queries) // 50))]
    return np.concatenate(truth)


class Hnswlib:
    def build(self, rows):
        import hnswlib

        self.index = hnswlib.Index(space="ip", dim=rows.shape[1])
        self.index.init_index(max_elements=len(rows), M=M, ef_construction=EF_CONSTRUCTION, random_seed=1)
        self.index.set_num_threads(1)
        self.index.add_items(rows, num_threads=1)

    def search(self, queries, ef):
        self.index.set_ef(max(ef, K))
        return self.index.knn_query(queries, k=K, num_threads=1)[0]


class Faiss:
    def __init__(self, kind):
        self.kind = kind

    def build(self, rows):
        import faiss

        faiss.omp_set_num_threads(1)
        if self.kind == "sq8":
            self.index = faiss.IndexHNSWSQ(rows.shape[1], faiss.ScalarQuantizer.QT_8bit, M, faiss.METRIC_INNER_PRODUCT)
        else:
            self.index = faiss.IndexHNSWFlat(rows.shape[1], M, faiss.METRIC_INNER_PRODUCT)
        self.index.hnsw.efConstruction = EF_CONSTRUCTION
        self.index.train(rows)
        self.index.add(rows)

    def search(self, queries, ef):
        self.index.hnsw.efSearch = ef
        return self.index.search(queries, K)[1]


class Usearch:
    def __init__(self, dtype):
        self.dtype = dtype

    def build(self, rows):
        from usearch.index import Index

        self.index = Index(ndim=rows.shape[1], metric="ip", dtype=self.dtype, connectivity=M, expansion_add=EF_CONSTRUCTION)
        self.index.add(np.arange(len(rows)), rows, threads=1)

    def search(self, queries, ef):
        self.index.expansion_search = ef
        return self.index.search(queries, K, threads=1).keys


LIBRARIES = {
    "hnswlib": Hnswlib,
    "faiss-hnsw": lambda: Faiss("f32"),
    "faiss-hnsw-sq8": lambda: Faiss("sq8"),
    "usearch-f16": lambda: Usearch("f16"),
    "usearch-i8": lambda: Usearch("i8"),
}


def resident_bytes():
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096


def main():
    name, path = sys.argv[1:]
    rows, queries = read_set(path)
    truth = nearest(rows, queries)
    library = LIBRARIES[name]()
    print(name, len(rows), len(queries), flush=True)
    for line in sys.stdin:
        operation, argument, milliseconds = line.split()
        if operation == "build":
            gc.collect()
            before = resident_bytes()
            start = time.process_time()
            library.build(rows)
            seconds = time.process_time() - start
            value = (resident_bytes() - before) / len(rows)
        else:
            runs, start, seconds = 0, time.process_time(), 0.0
            while runs == 0 or seconds * 1e3 < float(milliseconds):
                found = library.search(queries, int(argument))
                runs += 1
                seconds = time.process_time() - start
            seconds /= runs
            value = np.mean([len(np.intersect1d(row, true)) / K for row, true in zip(found, truth)])
        print(value, seconds, flush=True)


main()
