"""One peer ranks users for items: score_peer.py PEER USERS.npy ITEMS.npy K RUNS

PEER is numpy (blocks of users against a running threshold), numpy-partition (all scores, then argpartition), implicit or
faiss. Factors are in memory before the clock starts; faiss has its index.
"""
import sys

import numpy
from threadpoolctl import threadpool_limits

from figures import Timer, cores, say


def numpy_blocks(users, items, k, block=16_384):
    least = numpy.full(len(items), -numpy.inf, numpy.float32)
    kept = [(numpy.empty(0, numpy.float32), numpy.empty(0, numpy.int64)) for _ in items]
    waiting = [([], [], 0) for _ in items]

    def settle(row):
        scores, places, _ = waiting[row]
        score = numpy.concatenate([kept[row][0], *scores])
        place = numpy.concatenate([kept[row][1], *places])
        if len(score) > k:
            best = numpy.argpartition(score, -k)[-k:]
            score, place = score[best], place[best]
            least[row] = score.min()
        kept[row], waiting[row] = (score, place), ([], [], 0)

    for at in range(0, len(users), block):
        tile = items @ users[at : at + block].T
        for row, scores in enumerate(tile):
            places = numpy.flatnonzero(scores > least[row])
            if len(places):
                held, where, count = waiting[row]
                held.append(scores[places])
                where.append(places + at)
                waiting[row] = (held, where, count + len(places))
                if count + len(places) > k:
                    settle(row)
    out = numpy.empty((len(items), k), numpy.float32)
    for row in range(len(items)):
        settle(row)
        score, place = kept[row]
        order = numpy.argsort(-score)
        out[row] = score[order]
        kept[row] = (score, place[order])
    return out


def numpy_partition(users, items, k):
    out = numpy.empty((len(items), k), numpy.float32)
    for at in range(0, len(items), 100):
        for row, scores in enumerate(items[at : at + 100] @ users.T):
            best = numpy.argpartition(scores, -k)[-k:]
            best = best[numpy.argsort(-scores[best])]
            out[at + row] = scores[best]
    return out


def main():
    peer, users, items, k, runs = sys.argv[1:]
    users, items, k = numpy.load(users), numpy.load(items), int(k)
    threads = cores()
    if peer == "numpy":
        run = numpy_blocks
    elif peer == "numpy-partition":
        run = numpy_partition
    elif peer == "implicit":
        from implicit.cpu.topk import topk

        threads = 1  # of BLAS: implicit shares the items out to its own

        def run(users, items, k):
            return topk(users, items, k, num_threads=cores())[1]
    elif peer == "faiss":
        import faiss

        faiss.omp_set_num_threads(threads)
        index = faiss.IndexFlatIP(users.shape[1])
        index.add(users)

        def run(_users, items, k):
            return index.search(items, k)[0]
    else:
        raise SystemExit(f"no peer {peer}")
    with threadpool_limits(threads, "blas"):
        for _ in range(int(runs)):
            timer = Timer()
            scores = run(users, items, k)
            say(**timer.figures(), check=float(scores[:, :25].astype(numpy.float64).sum()))


if __name__ == "__main__":
    main()
