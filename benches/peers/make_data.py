"""Synthetic data for the comparison: events with taste and popularity in them, and factors for scoring.

The same size and seed give the same file. Items are popular by a power law and belong to a subject; users differ in
activity, by a log-normal law, and like three subjects each; every seventh event comes again later, as people come back.
"""
import numpy
import pyarrow
import pyarrow.parquet

# users, items, events, subjects
SIZES = {"S": (20_000, 2_000, 1_000_000, 60), "M": (138_000, 27_000, 20_000_000, 300)}
START, SECONDS = 1_700_000_000, 2 * 365 * 86_400
RETURNS = 1 / 7
HELD_OUT = 0.1


def draw(random, users, items, events, subjects):
    """User and item of each event, in no order."""
    first = events - int(events * RETURNS)
    activity = random.lognormal(0.0, 1.1, users) + 0.15
    user = numpy.repeat(numpy.arange(users), random.multinomial(first, activity / activity.sum()))
    popularity = random.permutation((numpy.arange(items) + 5.0 + items / 200) ** -1.1)
    subject = random.integers(subjects, size=items)
    liked = random.integers(subjects, size=(users, 3))
    # Items sorted by subject, so that an item of a subject is found in one search among running sums.
    order = numpy.argsort(subject, kind="stable")
    sums = numpy.concatenate([[0.0], numpy.cumsum(popularity[order])])
    begin = numpy.searchsorted(subject[order], numpy.arange(subjects))
    end = numpy.searchsorted(subject[order], numpy.arange(subjects), side="right")
    item = numpy.empty(first, numpy.int64)
    for at in range(0, first, 2_000_000):
        part = slice(at, at + 2_000_000)
        count = len(user[part])
        choice = random.choice(3, count, p=[0.6, 0.3, 0.1])
        wanted = liked[user[part], choice]
        low, high = sums[begin[wanted]], sums[end[wanted]]
        # A fifth of the events, and those of subjects without items, go by popularity alone.
        anywhere = (random.random(count) < 0.2) | (low == high)
        low[anywhere], high[anywhere] = 0.0, sums[-1]
        found = numpy.searchsorted(sums, low + random.random(count) * (high - low), side="right") - 1
        item[part] = order[numpy.clip(found, 0, items - 1)]
    again = random.integers(first, size=events - first)
    return numpy.concatenate([user, user[again]]), numpy.concatenate([item, item[again]])


def events_file(size, seed, everything, train, test):
    """Writes all events, the first nine tenths of them in time, and the rest."""
    users, items, events, subjects = SIZES[size]
    random = numpy.random.default_rng(seed)
    user, item = draw(random, users, items, events, subjects)
    joined = random.beta(1.0, 2.0, users) * 0.9
    time = START + (SECONDS * (joined[user] + random.random(events) * (1.0 - joined[user]))).astype(numpy.int64)
    order = numpy.argsort(time, kind="stable")
    user, item, time = user[order], item[order], time[order]
    kind = random.choice(3, events, p=[0.8, 0.15, 0.05])
    user_ids = pyarrow.array([f"user-{n:07d}" for n in random.permutation(users)])
    item_ids = pyarrow.array([f"item-{n:06d}" for n in random.permutation(items)])
    kinds = pyarrow.array(["view", "cart", "purchase"])
    cut = int(events * (1 - HELD_OUT))
    for path, begin, end in ((everything, 0, events), (train, 0, cut), (test, cut, events)):
        writer = None
        for at in range(begin, end, 1_000_000):
            part = slice(at, min(end, at + 1_000_000))
            table = pyarrow.table({
                "user_id": user_ids.take(pyarrow.array(user[part])),
                "item_id": item_ids.take(pyarrow.array(item[part])),
                "timestamp": time[part],
                "event_type": kinds.take(pyarrow.array(kind[part])),
            })
            writer = writer or pyarrow.parquet.ParquetWriter(path, table.schema)
            writer.write_table(table)
        writer.close()


def factors_file(path, rows, dimension, seed):
    """Factors as a fit leaves them: later dimensions smaller, rows of different length."""
    random = numpy.random.default_rng([seed, rows])
    out = numpy.lib.format.open_memmap(path, "w+", numpy.float32, (rows, dimension))
    size = (1.0 + numpy.arange(dimension) / 10.0) ** -0.5 / dimension**0.5
    for at in range(0, rows, 100_000):
        part = out[at : at + 100_000]
        part[:] = random.standard_normal(part.shape, numpy.float32) * size * random.lognormal(0, 0.4, (len(part), 1))
    out.flush()
