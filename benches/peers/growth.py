#!/usr/bin/env python3
"""How time and memory grow with events, users, items, hidden dimension and k: one axis at a time, with its exponent.

    benches/peers/growth.py                       everything, about 6 minutes on two cores
    benches/peers/growth.py --axes events,k

An exponent is the slope of the least squares line through the logarithms: 1 is linear, 0 constant. Below the table stands what is
measured around. Seconds are of the processor, user and system, on all threads; memory is the peak of the process. The
environment and the build are those of run.py.
"""
import argparse
import math
import os
import pathlib
import shutil
import sys

from run import ROOT, build, environment, machine, make, measured

# users, items, events, subjects; hidden dimension, iterations
DATA, DIMENSION, ITERATIONS = (100_000, 20_000, 4_000_000, 300), 128, 2
# users, items, k
SCORED = (500_000, 250, 1_000)
AXES = {
    "events": [1_000_000, 2_000_000, 4_000_000, 8_000_000, 16_000_000],
    "users": [25_000, 50_000, 100_000, 200_000, 400_000],
    "items": [5_000, 10_000, 20_000, 40_000, 80_000],
    "dimension": [32, 64, 128, 256],
    "scored users": [125_000, 250_000, 500_000, 1_000_000],
    "asked items": [62, 125, 250, 500],
    "scored dimension": [32, 64, 128, 256],
    "k": [10, 100, 1_000, 10_000, 100_000],
}


class Growth:
    def __init__(self, work):
        self.python, self.ours = environment(work), build(["--package", "item-affinity-ingest", "--bench", "peers"], "peers")
        self.folder, self.rows = work / "growth", []
        self.folder.mkdir(parents=True, exist_ok=True)

    def run(self, axis):
        values, curves = AXES[axis], {}
        for value in values:
            for what, figure in self.figures(axis, value).items():
                curves.setdefault(what, []).append(figure)
            print(f"{axis} {value:,}: " + ", ".join(f"{what} {curve[-1]:.2f}" for what, curve in curves.items()), flush=True)
        for what, curve in curves.items():
            self.rows.append([axis, what, *(f"{value:,}: {figure:.2f}" for value, figure in zip(values, curve)),
                              *[""] * (5 - len(values)), f"{slope(values, curve):.2f}"])

    def figures(self, axis, value):
        if axis in ("events", "users", "items", "dimension"):
            return self.training(axis, value)
        return self.scoring(axis, value)

    def training(self, axis, value):
        users, items, events, subjects = DATA
        dimension = value if axis == "dimension" else DIMENSION
        events, users, items = (value if axis == name else other
                                for name, other in (("events", events), ("users", users), ("items", items)))
        paths = [self.folder / f"{name}.parquet" for name in ("all", "train", "test")]
        make(self.python, f"SIZES['x'] = ({users}, {items}, {events}, {subjects}); events_file('x', 1, *sys.argv[1:])", *paths)
        figures = {}
        if axis != "dimension":
            lines, process = measured([self.ours, "ingest", paths[0]])
            figures |= {"ingest, s": lines[-1]["cpu"], "ingest, MB": process["peak"]}
        out = self.folder / "factors"
        lines, process = measured([self.ours, "fit", paths[0], dimension, ITERATIONS, out])
        shutil.rmtree(out)
        return figures | {f"fit of {ITERATIONS} iterations, s": lines[-1]["cpu"], "fit and its input, MB": process["peak"]}

    def scoring(self, axis, value):
        users, items, k = SCORED
        dimension = value if axis == "scored dimension" else DIMENSION
        users, items, k = (value if axis == name else other
                           for name, other in (("scored users", users), ("asked items", items), ("k", k)))
        paths = [self.folder / f"{name}.npy" for name in ("users", "items")]
        for path, rows in zip(paths, (users, items)):
            make(self.python, f"factors_file(sys.argv[1], {rows}, {dimension}, 1)", path)
        lines, process = measured([self.ours, "score", *paths, k])
        return {"ranking, s": lines[-1]["cpu"], "factors and ranking, MB": process["peak"]}


def slope(values, figures):
    points = [(math.log(value), math.log(figure)) for value, figure in zip(values, figures)]
    x, y = (sum(point[n] for point in points) / len(points) for n in (0, 1))
    return sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a, _ in points)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--axes", default=",".join(AXES))
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "target" / "peers", help="where everything is kept")
    options = parser.parse_args()
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    growth, start = Growth(work), os.getloadavg()
    for axis in options.axes.split(","):
        growth.run(axis)
    print(f"\ngrowth.py {' '.join(sys.argv[1:])}\n{machine()}")
    print(f"load average of a minute: {start[0]:.1f} at the start, {os.getloadavg()[0]:.1f} at the end")
    print("\n| axis | what | | | | | | exponent |\n|" + " --- |" * 8)
    for row in growth.rows:
        print("| " + " | ".join(row) + " |")
    users, items, events, _ = DATA
    print(f"\nTraining around {events:,} events, {users:,} users, {items:,} items, d = {DIMENSION}; ranking around "
          f"{SCORED[0]:,} users, {SCORED[1]} items, d = {DIMENSION}, k = {SCORED[2]:,}.")


if __name__ == "__main__":
    main()
