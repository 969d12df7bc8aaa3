"""What this machine can do on one core, in processor seconds: limits.py [DIMENSION]

The least of several runs: a bound is what was reached when nothing disturbed it. Memory figures suffer from neighbours on
the machine all the same, since all cores share the memory.
"""
import os
import sys
import time

# Settings that slow OpenBLAS down where they were left; it reads them when it is loaded.
for name in [name for name in os.environ if name.startswith("OPENBLAS_")]:
    del os.environ[name]

import numpy
from threadpoolctl import threadpool_limits


def least(work, times=1, runs=9):
    seconds = []
    for _ in range(runs):
        start = time.process_time()
        for _ in range(times):
            work()
        seconds.append((time.process_time() - start) / times)
    return min(seconds)


def main():
    d = int(sys.argv[1]) if len(sys.argv) > 1 else 149
    random = numpy.random.default_rng(0)
    with threadpool_limits(1):
        square = random.standard_normal((3_000, 3_000), numpy.float32)
        out = numpy.empty_like(square)
        print(f"sgemm 3000³: {2 * 3e3**3 / least(lambda: numpy.matmul(square, square, out=out)) / 1e9:.0f} GFLOP/s")
        users, items = (random.standard_normal((rows, d), numpy.float32) for rows in (1_024, 500))
        tile = numpy.empty((500, 1_024), numpy.float32)
        flops = 2 * 500 * 1_024 * d / least(lambda: numpy.matmul(items, users.T, out=tile), 40)
        print(f"sgemm of a tile, 500 × 1024 × {d}: {flops / 1e9:.0f} GFLOP/s")
        numbers = numpy.ones(1 << 26, numpy.float32)
        print(f"reading: {numbers.nbytes / least(numbers.sum) / 1e9:.0f} GB/s")
        stride = -(-d // 16) * 16
        gathered = numpy.empty((200_000, stride), numpy.float32)
        for rows in (27_000, 138_000):
            table = random.standard_normal((rows, stride), numpy.float32)
            places = random.integers(rows, size=len(gathered))
            seconds = least(lambda: numpy.take(table, places, axis=0, out=gathered, mode="clip"))
            print(f"copying random rows of {stride} numbers from {rows:,}: {len(gathered) / seconds / 1e6:.0f} million/s")


if __name__ == "__main__":
    main()
