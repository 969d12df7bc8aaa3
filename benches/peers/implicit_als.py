#!/usr/bin/env python3
"""Times one ALS iteration of `implicit` on an Interactions file, as `item-affinity train` reads it.

    python3 -m venv venv && venv/bin/pip install implicit==0.7.3 pyarrow scipy threadpoolctl
    venv/bin/python implicit_als.py M.parquet [--dimension 149] [--iterations 5] [--solver cg|cholesky]

Prints the seconds of each iteration (both half-steps), their minimum and median. BLAS runs on one thread inside the
fit, as implicit asks for: its own threads take the cores.
"""
import argparse
import statistics

import numpy
import pyarrow.parquet
import scipy.sparse
from implicit.cpu.als import AlternatingLeastSquares
from threadpoolctl import threadpool_limits


def pairs(path):
    """Distinct (item, user) pairs as a sparse matrix with the confidence 11."""
    table = pyarrow.parquet.read_table(path, columns=["user_id", "item_id"], read_dictionary=["user_id", "item_id"])
    table = table.unify_dictionaries()
    codes = [
        numpy.concatenate([chunk.indices.to_numpy(zero_copy_only=False) for chunk in table.column(name).chunks])
        for name in ("item_id", "user_id")
    ]
    matrix = scipy.sparse.csr_matrix((numpy.ones(table.num_rows, numpy.float32), codes))
    matrix.sum_duplicates()
    matrix.data[:] = 11.0
    return matrix


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("interactions")
    parser.add_argument("--dimension", type=int, default=149)
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--solver", default="cg", choices=["cg", "cholesky"])
    arguments = parser.parse_args()
    matrix = pairs(arguments.interactions)
    model = AlternatingLeastSquares(
        factors=arguments.dimension, regularization=1.0, alpha=1.0, use_cg=arguments.solver == "cg",
        iterations=arguments.iterations, random_state=7,
    )
    seconds = []
    with threadpool_limits(1, "blas"):
        model.fit(matrix, show_progress=False, callback=lambda _number, elapsed, _loss: seconds.append(elapsed))
    print(f"implicit {arguments.solver}, d = {arguments.dimension}, {matrix.nnz} pairs of {matrix.shape[1]} users and "
          f"{matrix.shape[0]} items")
    print("seconds by iteration:", " ".join(f"{s:.2f}" for s in seconds))
    print(f"minimum {min(seconds):.2f}, median {statistics.median(seconds):.2f}")


if __name__ == "__main__":
    main()
