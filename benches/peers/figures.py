"""What all peers share: reading ids, the sparse matrix, time, memory, and the quality of factors."""
import json
import os
import resource
import time

import numpy
import pyarrow
import pyarrow.parquet
import scipy.sparse


def say(**figures):
    print(json.dumps(figures), flush=True)


class Timer:
    """Wall and processor seconds since it was made; children that have ended count."""

    def __init__(self):
        self.start, self.cpu = time.perf_counter(), self.used()

    @staticmethod
    def used():
        usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(u.ru_utime + u.ru_stime for u in usage)

    def figures(self):
        return {"wall": time.perf_counter() - self.start, "cpu": self.used() - self.cpu}


def codes(path):
    """Events as places in sorted lists of ids: users, items, the users' ids, the items' ids."""
    table = pyarrow.parquet.read_table(
        path, columns=["user_id", "item_id"], read_dictionary=["user_id", "item_id"]).unify_dictionaries()
    out = []
    for name in ("user_id", "item_id"):
        chunks = table.column(name).chunks
        places = numpy.concatenate([chunk.indices.to_numpy(zero_copy_only=False) for chunk in chunks])
        ids = chunks[0].dictionary.to_numpy(zero_copy_only=False).astype(str)
        order = numpy.argsort(ids)
        rank = numpy.empty(len(order), numpy.int32)
        rank[order] = numpy.arange(len(order), dtype=numpy.int32)
        out.append((rank[places], ids[order]))
    (users, user_ids), (items, item_ids) = out
    return users, items, user_ids, item_ids


def pairs(rows, columns, shape, value=1.0):
    """Distinct pairs as a sparse matrix of one value."""
    matrix = scipy.sparse.csr_matrix((numpy.ones(len(rows), numpy.float32), (rows, columns)), shape=shape)
    matrix.sum_duplicates()
    matrix.data[:] = value
    return matrix


class HeldOut:
    """Quality on the newest events: what factors say about pairs that were new then.

    recall@100: of 5,000 users, how much of a user's new items is among the best 100 that the user did not have yet.
    precision at 1 %: of 1,000 items, how many of the 1 % of the users ranked highest, of those who did not have the
    item, took it. Users and items are a seeded sample of those with new pairs, the same for all peers.
    """

    def __init__(self, train, test):
        users, items, self.user_ids, self.item_ids = codes(train)
        self.known = pairs(users, items, (len(self.user_ids), len(self.item_ids)))
        users, items, user_ids, item_ids = codes(test)
        at_user = numpy.searchsorted(self.user_ids, user_ids).clip(0, len(self.user_ids) - 1)
        at_item = numpy.searchsorted(self.item_ids, item_ids).clip(0, len(self.item_ids) - 1)
        is_user, is_item = self.user_ids[at_user] == user_ids, self.item_ids[at_item] == item_ids
        both = is_user[users] & is_item[items]
        new = pairs(at_user[users[both]], at_item[items[both]], self.known.shape)
        new = (new - new.multiply(self.known)).tocsr()
        new.eliminate_zeros()
        random = numpy.random.default_rng(5)
        self.sides = []
        for new, known, most in ((new, self.known, 5_000), (new.T.tocsr(), self.known.T.tocsr(), 1_000)):
            rows = numpy.flatnonzero(numpy.diff(new.indptr))
            rows = numpy.sort(random.choice(rows, min(most, len(rows)), replace=False))
            self.sides.append((rows, new[rows], known[rows]))

    def quality(self, user_factors, item_factors):
        """Rows of the factors stand in the order of the sorted ids."""
        recall = self._hits(self.sides[0], user_factors, item_factors, 100, lambda hits, new: hits / min(100, new))
        count = max(1, round(0.01 * len(user_factors)))
        precision = self._hits(self.sides[1], item_factors, user_factors, count, lambda hits, new: hits / count)
        return {"recall@100": float(numpy.mean(recall)), "precision at 1 %": float(numpy.mean(precision))}

    @staticmethod
    def _hits(side, rows_factors, columns_factors, count, measure):
        rows, new, known = side
        out = []
        for at in range(0, len(rows), 250):
            scores = rows_factors[rows[at : at + 250]] @ columns_factors.T
            for n, row in enumerate(scores):
                row[known.indices[known.indptr[at + n] : known.indptr[at + n + 1]]] = -numpy.inf
                best = numpy.argpartition(row, -count)[-count:]
                wanted = new.indices[new.indptr[at + n] : new.indptr[at + n + 1]]
                out.append(measure(len(numpy.intersect1d(best, wanted, assume_unique=True)), len(wanted)))
        return out


def write_segments(path, items, users, scores, user_ids, item_ids):
    """Segments as rows (item, rank, user, score)."""
    count = users.shape[1]
    table = pyarrow.table({
        "item_id": pyarrow.DictionaryArray.from_arrays(
            pyarrow.array(numpy.repeat(items.astype(numpy.int32), count)), pyarrow.array(item_ids)),
        "rank": numpy.tile(numpy.arange(1, count + 1, dtype=numpy.int32), len(items)),
        "user_id": pyarrow.DictionaryArray.from_arrays(
            pyarrow.array(users.reshape(-1).astype(numpy.int32)), pyarrow.array(user_ids)),
        "score": scores.reshape(-1).astype(numpy.float32),
    })
    pyarrow.parquet.write_table(table, path)


def cores():
    return len(os.sched_getaffinity(0))
