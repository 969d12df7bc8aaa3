#!/usr/bin/env python3
"""Runs us and the peers on the same data in turn, and prints one table.

    benches/peers/run.py                          size S: 20,000 users, 2,000 items, 1 million events
    benches/peers/run.py --size M                 138,000 users, 27,000 items, 20 million events
    benches/peers/run.py --size M --jobs ingest,score --dimension 64

Python 3.11 and a Rust toolchain are all it needs: it makes its own environment (requirements.txt) and data below
target/peers, once. What cannot run here is in the table as skipped, with the reason. Jobs:

    train    fits on the first nine tenths of the events in time; quality on the rest. We: whole fits of 1, 2, … iterations.
    score    1 million users ranked for 500 items, factors in memory, k = 25, 1,000 and, with --large-k, 100,000
    ingest   a Parquet file to numbered pairs
    whole    a Parquet file to a segment of 1,000 users of each of 500 items in Parquet

Ratios are of processor seconds on all threads, user and system, which other work on the machine hardly changes; wall
time, which it does, stands beside, with the processor seconds that other processes took meanwhile.
"""
import argparse
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent


def environment(work):
    """The Python of the peers; each package on its own if they do not come together."""
    folder, wanted = work / "venv", (HERE / "requirements.txt").read_text()
    python, done = folder / "bin" / "python", folder / "requirements.txt"
    if not done.exists() or done.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        install = [python, "-m", "pip", "install", "--quiet"]
        if subprocess.run([*install, "-r", HERE / "requirements.txt"]).returncode:
            for line in wanted.splitlines():
                if line and not line.startswith("#"):
                    subprocess.run([*install, line])
        done.write_text(wanted)
    return python


def build(arguments, name):
    command = ["cargo", "build", "--release", "--locked", "--message-format", "json", *arguments]
    made = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    messages = [json.loads(line) for line in made.splitlines()]
    return next(m["executable"] for m in messages if m.get("executable") and m["target"]["name"] == name)


def make(python, call, *paths):
    """Makes data by a call of make_data.py, which finds the paths in sys.argv."""
    code = f"import sys; sys.path.insert(0, {str(HERE)!r}); from make_data import *; {call}"
    subprocess.run([python, "-c", code, *map(str, paths)], check=True)


def busy():
    """Processor seconds of the whole machine."""
    with open("/proc/stat") as stat:
        fields = [int(field) for field in stat.readline().split()[1:9]]
    user, nice, system, _, _, irq, softirq, stolen = fields
    return (user + nice + system + irq + softirq + stolen) / os.sysconf("SC_CLK_TCK")


def measured(command):
    """The lines of JSON of a process, and its wall and processor seconds, peak memory, and what others used."""
    # Settings that slow OpenBLAS down where they were left.
    env = {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS_")}
    start, others = time.perf_counter(), busy()
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    lines = [json.loads(line) for line in process.stdout if line.startswith("{")]
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall, cpu = time.perf_counter() - start, usage.ru_utime + usage.ru_stime
    if process.returncode:
        last = [line for line in errors.splitlines() if line.strip()] or [f"exit code {process.returncode}"]
        raise RuntimeError(last[-1].strip())
    return lines, {"wall": wall, "cpu": cpu, "peak": usage.ru_maxrss / 1024, "others": max(0.0, busy() - others - cpu)}


class Table:
    def __init__(self):
        self.rows, self.job = [], ""

    def add(self, what, wall=None, cpu=None, ratio=None, quality=None, peak=None, others=None, note=""):
        number = lambda value, form: "" if value is None else form.format(value)
        quality = "" if quality is None else f"{quality['recall@100']:.4f} / {quality['precision at 1 %']:.4f}"
        row = [self.job, what, number(wall, "{:.2f}"), number(cpu, "{:.2f}"), number(ratio, "{:.2f}"), quality,
               number(peak, "{:.0f}"), number(others, "{:.1f}"), note]
        self.rows.append(row)
        print("  ", " | ".join(cell for cell in row if cell), flush=True)

    def skip(self, what, reason):
        self.add(what, note=f"skipped: {reason}")

    def print(self):
        head = ["job", "who", "wall s", "CPU s", "× ours", "recall@100 / precision at 1 %", "peak MB", "others' CPU s", ""]
        print("\n| " + " | ".join(head) + " |\n|" + " --- |" * len(head))
        for row in self.rows:
            print("| " + " | ".join(row) + " |")


class Bench:
    def __init__(self, options, work):
        self.options, self.work, self.table = options, work, Table()
        self.python = environment(work)
        self.ours = build(["--package", "item-affinity-ingest", "--bench", "peers"], "peers")
        self.data = work / f"{options.size}-{options.seed}"
        self.data.mkdir(exist_ok=True)
        self.everything, self.before, self.after = (self.data / f"{name}.parquet" for name in ("all", "train", "test"))
        if not self.after.exists():
            print("making data", flush=True)
            self.make(f"events_file({options.size!r}, {options.seed}, *sys.argv[1:])",
                      self.everything, self.before, self.after)

    def make(self, call, *paths):
        make(self.python, call, *paths)

    def peer(self, script, *arguments):
        return measured([self.python, HERE / script, *arguments])

    def run(self):
        for job in self.options.jobs.split(","):
            self.table.job = job
            print(f"{job}, load {os.getloadavg()[0]:.1f}", flush=True)
            getattr(self, job)()

    def ingest(self):
        self.table.job = "ingest"
        runs = [measured([self.ours, "ingest", self.everything]) for _ in range(self.options.runs)]
        lines = [lines[-1] for lines, _ in runs]
        ours = statistics.median(line["cpu"] for line in lines)
        note = (f"{lines[0]['rows']} rows, {lines[0]['pairs']} pairs; median of {len(runs)}; "
                f"read alone {statistics.median(line['read_cpu'] for line in lines):.2f} CPU s")
        self.table.add("ours: all columns, checked, to both directions", statistics.median(line["wall"] for line in lines), ours, 1.0, None,
                       max(figures["peak"] for _, figures in runs), sum(f["others"] for _, f in runs), note)
        whats = {"polars": "Polars: two columns, decode and encode", "duckdb": "DuckDB: distinct numbered pairs",
                 "duckdb-scan": "DuckDB: two columns, decode alone", "pyarrow": "pyarrow and SciPy: to both directions"}
        for peer, what in whats.items():
            self.repeated(what, ours, "ingest_peer.py", peer, self.everything, self.options.runs)

    def repeated(self, what, ours, script, *arguments):
        """A peer that says its seconds several times."""
        try:
            lines, figures = self.peer(script, *arguments)
        except RuntimeError as error:
            return self.table.skip(what, error)
        wall, cpu = (statistics.median(line[name] for line in lines) for name in ("wall", "cpu"))
        self.table.add(what, wall, cpu, cpu / ours, None, figures["peak"], figures["others"], f"median of {len(lines)}")
        return lines

    def score(self):
        factors = []
        for name, rows in (("users", 1_000_000), ("items", 500)):
            path = self.work / f"{name}_{self.options.dimension}.npy"
            if not path.exists():
                self.make(f"factors_file(sys.argv[1], {rows}, {self.options.dimension}, 1)", path)
            factors.append(path)
        for k in [25, 1_000] + [100_000] * self.options.large_k:
            self.table.job = f"score, k = {k:,}"
            lines, figures = measured([self.ours, "score", *factors, k])
            last, check = lines[-1], lines[0]["check"]
            self.table.add("the bare product", last["product_wall"], last["product_cpu"], last["product_cpu"] / last["cpu"])
            self.table.add("ours", last["wall"], last["cpu"], 1.0, None, figures["peak"], figures["others"],
                           f"median of {last['runs']}")
            runs = self.options.runs if k < 100_000 else 1
            whats = {"numpy": "NumPy, blocks", "numpy-partition": "NumPy, argpartition", "implicit": "implicit", "faiss": "faiss"}
            for peer, what in whats.items():
                lines = self.repeated(what, last["cpu"], "score_peer.py", peer, *factors, k, runs)
                if lines and abs(lines[0]["check"] / check - 1) > 1e-4:
                    self.table.rows[-1][-1] += "; OTHER RESULT"

    def train(self):
        options, folder = self.options, self.data / "factors"
        self.table.job = f"train, d = {options.dimension}"
        lines, figures = measured([self.ours, "fit", self.before, options.dimension, options.iterations, folder,
                                   *options.recipe.split()])
        code = f"""
import json, sys
sys.path.insert(0, {str(HERE)!r})
import numpy
from figures import HeldOut
held_out = HeldOut(sys.argv[1], sys.argv[2])
folder = sys.argv[3]
for name, ids in (("users", held_out.user_ids), ("items", held_out.item_ids)):
    assert [line.rstrip() for line in open(f"{{folder}}/{{name}}.txt")] == list(ids), "other ids"
for n in range(1, {options.iterations} + 1):
    print(json.dumps(held_out.quality(*(numpy.load(f"{{folder}}/{{n}}_{{side}}.npy") for side in ("users", "items")))), flush=True)
"""
        qualities, _ = measured([self.python, "-c", code, self.before, self.after, folder])
        shutil.rmtree(folder)
        ours = [(line["cpu"], quality) for line, quality in zip(lines, qualities)]
        for n, (line, quality) in enumerate(zip(lines, qualities)):
            last = (figures["peak"], figures["others"]) if n + 1 == len(lines) else (None, None)
            self.table.add(f"ours, {n + 1} iterations", line["wall"], line["cpu"], None, quality, *last)
        for peer, iterations in (("implicit-cg", 15), ("implicit-cholesky", options.exact_iterations),
                                 ("lenskit", options.exact_iterations), ("spark", options.spark_iterations)):
            if iterations == 0:
                self.table.skip(peer, "no iterations asked for")
            elif peer == "spark" and shutil.which("java") is None:
                self.table.skip(peer, "no Java")
            else:
                try:
                    self.trained(peer, iterations, ours)
                except RuntimeError as error:
                    self.table.skip(peer, error)

    def trained(self, peer, iterations, ours):
        """A peer's fit, against the first of ours that is as good in both figures of quality."""
        lines, figures = self.peer("train_peer.py", peer, self.before, self.after, self.options.dimension, iterations)
        found = {name: value for line in lines for name, value in line.items()}
        fit, quality = found["fit"], found["quality"]
        equal = next((n for n, (_, own) in enumerate(ours) if all(own[name] >= quality[name] for name in own)), None)
        if equal is None:
            ratio, note = None, "no fit of ours is as good in both"
        else:
            ratio, note = fit["cpu"] / ours[equal][0], f"against our {equal + 1} iterations, the first as good in both"
        each = [line["cpu"] for line in lines if "iteration" in line]
        if each:
            note += f"; {statistics.median(each):.2f} CPU s an iteration"
        self.table.add(f"{peer}, {iterations} iterations", fit["wall"], fit["cpu"], ratio, quality, found["peak_mb"],
                       figures["others"], note)

    def whole(self):
        options = self.options
        self.table.job = f"whole, d = {options.dimension}"
        binary = options.binary or build(["--bin", "item-affinity"], "item-affinity")
        asked, out = self.data / "asked.txt", self.data / "whole"
        self.make("""import pyarrow.compute
ids = pyarrow.parquet.read_table(sys.argv[1], columns=["item_id"]).column(0).value_counts()
ids = sorted(ids.to_pylist(), key=lambda pair: (-pair["counts"], pair["values"]))
step = max(1, len(ids) // 500)
open(sys.argv[2], "w").write("".join(pair["values"] + "\\n" for pair in ids[::step][:500]))
json = "".join(f'{{"itemId": "{pair["values"]}"}}\\n' for pair in ids[::step][:500])
open(sys.argv[3], "w").write(json)""", self.everything, asked, asked.with_suffix(".jsonl"))
        shutil.rmtree(out, ignore_errors=True)
        try:
            parts = [
                measured([binary, "train", "--interactions", self.everything, "--hidden-dimension", options.dimension,
                          "--solution", out / "solution"])[1],
                measured([binary, "segment", "--solution", out / "solution", "--items", asked.with_suffix(".jsonl"),
                          "--num-results", 1_000, "--output", out / "segments"])[1],
            ]
            total = {name: sum(part[name] for part in parts) for name in ("wall", "cpu", "others")}
            note = "train {:.2f} + segment {:.2f} CPU s; with propensity".format(*(part["cpu"] for part in parts))
            self.table.add("ours: train, segment", total["wall"], total["cpu"], 1.0, None,
                           max(part["peak"] for part in parts), total["others"], note)
            lines, figures = self.peer("train_peer.py", "implicit-cg", self.everything, self.after, options.dimension, 15,
                                       "--whole", asked, self.data / "implicit.parquet")
            whole = next(line["whole"] for line in lines if "whole" in line)
            self.table.add("implicit, CG, 15 iterations", whole["wall"], whole["cpu"], whole["cpu"] / total["cpu"], None,
                           figures["peak"], figures["others"], "affinities only")
        except RuntimeError as error:
            self.table.skip("whole", error)
        shutil.rmtree(out, ignore_errors=True)


def machine():
    try:
        with open("/proc/cpuinfo") as info:
            name = next(line.split(":")[1].strip() for line in info if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{name}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GB, {platform.system()} {platform.machine()}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=["S", "M"], default="S")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", default="ingest,train,score,whole")
    parser.add_argument("--dimension", type=int, default=149)
    parser.add_argument("--iterations", type=int, default=8, help="the most of ours")
    parser.add_argument("--recipe", default="", help="settings of ours in train, as name=value; the peers' objective is "
                        "regularization=0.0005 unobserved_weight=0.07 half_life_days=none")
    parser.add_argument("--exact-iterations", type=int, help="of the exact solvers; 15 at S, 1 at M, 0 for none")
    parser.add_argument("--spark-iterations", type=int, help="10 at S, 0 (none) at M")
    parser.add_argument("--large-k", action="store_true", help="score also with k = 100,000")
    parser.add_argument("--runs", type=int, default=5, help="of ingest and of scoring")
    parser.add_argument("--binary", help="item-affinity to use, instead of building it")
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "target" / "peers", help="where everything is kept")
    options = parser.parse_args()
    large = options.size == "M"
    if options.exact_iterations is None:
        options.exact_iterations = 1 if large else 15
    if options.spark_iterations is None:
        options.spark_iterations = 0 if large else 10
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    bench = Bench(options, work)
    start = os.getloadavg()
    bench.run()
    print(f"\nrun.py {' '.join(sys.argv[1:])}: size {options.size}, seed {options.seed}")
    print(machine())
    print(f"load average of a minute: {start[0]:.1f} at the start, {os.getloadavg()[0]:.1f} at the end")
    bench.table.print()


if __name__ == "__main__":
    main()
