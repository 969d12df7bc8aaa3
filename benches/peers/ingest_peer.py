"""One peer reads events: ingest_peer.py PEER FILE.parquet RUNS

PEER is polars (decode both id columns and encode them as numbers), duckdb (distinct pairs of numbered ids), duckdb-scan
(decode alone) or pyarrow (numbered ids and the sparse matrix in both directions).
"""
import sys

from figures import Timer, codes, cores, pairs, say


def polars(path):
    import polars

    both = [polars.col(name).cast(polars.Categorical).to_physical() for name in ("user_id", "item_id")]
    return polars.read_parquet(path, columns=["user_id", "item_id"]).select(both)


def duckdb(path):
    import duckdb

    connection = duckdb.connect(config={"threads": cores()})
    query = """
        WITH events AS (SELECT DISTINCT user_id, item_id FROM read_parquet($path)),
             users AS (SELECT user_id, row_number() OVER (ORDER BY user_id) - 1 AS u FROM events GROUP BY user_id),
             items AS (SELECT item_id, row_number() OVER (ORDER BY item_id) - 1 AS i FROM events GROUP BY item_id)
        SELECT u, i FROM events JOIN users USING (user_id) JOIN items USING (item_id)
    """
    return connection.execute(query, {"path": path}).fetchnumpy()


def duckdb_scan(path):
    import duckdb

    connection = duckdb.connect(config={"threads": cores()})
    return connection.execute("SELECT sum(length(user_id) + length(item_id)) FROM read_parquet(?)", [path]).fetchall()


def pyarrow(path):
    users, items, user_ids, item_ids = codes(path)
    matrix = pairs(users, items, (len(user_ids), len(item_ids)))
    return matrix, matrix.T.tocsr()


def main():
    peer, path, runs = sys.argv[1:]
    work = {"polars": polars, "duckdb": duckdb, "duckdb-scan": duckdb_scan, "pyarrow": pyarrow}[peer]
    for _ in range(int(runs)):
        timer = Timer()
        made = work(path)
        say(**timer.figures())
        del made


if __name__ == "__main__":
    main()
