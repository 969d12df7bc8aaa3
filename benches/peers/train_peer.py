"""One peer trains: train_peer.py PEER TRAIN.parquet TEST.parquet DIMENSION ITERATIONS [--whole ITEMS.txt OUT.parquet]

PEER is implicit-cg, implicit-cholesky, lenskit or spark. Prints lines of JSON: seconds by iteration, quality at the end,
or, with --whole, the seconds from the file to written segments of the items. The penalty is 1 and a pair with events
weighs 11 against 1 for one without, in all of them; Spark multiplies the penalty by the events of a row, so there it is
divided by their mean.
"""
import os
import resource
import sys
import tempfile
import time

import numpy

from figures import HeldOut, Timer, codes, cores, pairs, say, write_segments

WEIGHT, PENALTY, SEED, SEGMENT = 10.0, 1.0, 7, 1_000


def implicit(train, dimension, iterations, solver, whole):
    from implicit.cpu.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits

    timer = Timer()
    users, items, user_ids, item_ids = codes(train)
    # Fitted on items × users, so that its recommendations are users.
    matrix = pairs(items, users, (len(item_ids), len(user_ids)), 1.0 + WEIGHT)
    model = AlternatingLeastSquares(factors=dimension, regularization=PENALTY, alpha=1.0, use_cg=solver == "cg",
                                    iterations=iterations, random_state=SEED, num_threads=cores())
    last = Timer()

    def each(number, _seconds, _loss):
        nonlocal last
        say(iteration=number + 1, **last.figures())
        last = Timer()

    # implicit asks for one thread of BLAS: its own threads take the cores.
    with threadpool_limits(1, "blas"):
        fitting = Timer()
        model.fit(matrix, show_progress=False, callback=each)
        say(fit=fitting.figures())
        if whole:
            asked = numpy.searchsorted(item_ids, numpy.loadtxt(whole[0], dtype=str))
            best, scores = model.recommend(asked, matrix[asked], N=SEGMENT, filter_already_liked_items=False)
            write_segments(whole[1], asked, best, scores, user_ids, item_ids)
            say(whole=timer.figures())
    return model.item_factors, model.user_factors


def lenskit(train, dimension, iterations):
    import pyarrow.parquet
    from lenskit.als import ImplicitMFScorer
    from lenskit.data import from_interactions_df
    from lenskit.training import TrainingOptions
    from threadpoolctl import threadpool_limits

    events = pyarrow.parquet.read_table(train, columns=["user_id", "item_id"]).to_pandas().drop_duplicates()
    data = from_interactions_df(events)
    scorer = ImplicitMFScorer(embedding_size=dimension, epochs=iterations, regularization=PENALTY, weight=WEIGHT)
    with threadpool_limits(1, "blas"):
        fitting = Timer()
        trainer = scorer.create_trainer(data, TrainingOptions(rng=SEED))
        for number in range(iterations):
            timer = Timer()
            trainer.train_epoch()
            say(iteration=number + 1, **timer.figures())
        trainer.finalize()
        say(fit=fitting.figures())
    order = [numpy.argsort(numpy.asarray(ids.ids()).astype(str)) for ids in (data.users, data.items)]
    return numpy.asarray(scorer.user_embeddings)[order[0]], numpy.asarray(scorer.item_embeddings)[order[1]]


def spark(train, dimension, iterations):
    import pyarrow.parquet
    from pyspark.ml.recommendation import ALS
    from pyspark.sql import SparkSession

    with tempfile.TemporaryDirectory() as folder:
        users, items, user_ids, item_ids = codes(train)
        matrix = pairs(users, items, (len(user_ids), len(item_ids)))
        numbered = matrix.tocoo()
        table = pyarrow.table({"u": numbered.row, "i": numbered.col, "r": numbered.data})
        pyarrow.parquet.write_table(table, f"{folder}/pairs.parquet")
        session = (
            SparkSession.builder.master(f"local[{cores()}]").config("spark.driver.memory", "8g")
            .config("spark.driver.extraJavaOptions", "--add-modules=jdk.incubator.vector -Xss16m")
            .config("spark.ui.enabled", "false").config("spark.driver.host", "127.0.0.1")
            .config("spark.driver.bindAddress", "127.0.0.1").config("spark.sql.shuffle.partitions", "8").getOrCreate())
        session.sparkContext.setLogLevel("ERROR")
        # Without checkpoints the plan of many iterations overflows the stack.
        session.sparkContext.setCheckpointDir(folder)
        rows = session.read.parquet(f"{folder}/pairs.parquet").persist()
        rows.count()
        als = ALS(rank=dimension, maxIter=iterations, regParam=PENALTY * len(user_ids) / matrix.nnz, alpha=WEIGHT,
                  implicitPrefs=True, userCol="u", itemCol="i", ratingCol="r", seed=SEED)
        java = session.sparkContext._gateway.proc.pid
        start, used = time.perf_counter(), used_by(java)
        model = als.fit(rows)
        say(fit={"wall": time.perf_counter() - start, "cpu": used_by(java) - used})
        factors = []
        for name, frame, count in (("u", model.userFactors, len(user_ids)), ("i", model.itemFactors, len(item_ids))):
            frame.write.parquet(f"{folder}/{name}")
            table = pyarrow.parquet.read_table(f"{folder}/{name}")
            out = numpy.zeros((count, dimension), numpy.float32)
            out[table.column("id").to_numpy()] = numpy.stack(table.column("features").to_numpy())
            factors.append(out)
        with open(f"/proc/{java}/status") as status:
            peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
        session.stop()
    return *factors, peak


def used_by(process):
    """Processor seconds of the Java process that does the work."""
    with open(f"/proc/{process}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main():
    peer, train, test, dimension, iterations = sys.argv[1:6]
    whole = sys.argv[7:9] if len(sys.argv) > 6 else None
    dimension, iterations = int(dimension), int(iterations)
    if peer.startswith("implicit"):
        factors = implicit(train, dimension, iterations, peer.removeprefix("implicit-"), whole)
    else:
        factors = {"lenskit": lenskit, "spark": spark}[peer](train, dimension, iterations)
    # The memory of the fit, before the evaluation adds its own; that of Java where it does the work.
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    say(peak_mb=(factors[2] if len(factors) > 2 else own) / 1024)
    if not whole:
        say(quality=HeldOut(train, test).quality(*factors[:2]))


if __name__ == "__main__":
    main()
