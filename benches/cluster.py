"""What a cluster costs beside one process on the same cores: processor seconds, wall time, bytes of shuffled rows.

    python3 benches/cluster.py target/release/item-affinity 1000000 --executors 1 2 4

The binary is a release build with the feature `ballista`. Data are synthetic, made by the binary's own SQL in a folder
that is removed: USERS users with eight events each, a tenth of them new since the training, 500 items. Everything runs on
loopback over local disk. All figures are printed with the load of the machine; processor seconds are those of client,
scheduler and executors together, from /proc, so they count what other work on the machine cannot stretch.
"""
import argparse
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request

ITEMS, EVENTS, FILES = 500, 8, 16
# Of a candidate: item, user, score, and the offset and letters of an id.
ROW = 4 + 4 + 4 + 4 + len("user-000000000")
TICKS = os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def peak_bytes(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return 0


class Process:
    """A server of the cluster."""

    def __init__(self, binary, arguments, health, path):
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen([binary, *arguments], env={**os.environ, "RUST_LOG": "off"}, **quiet)
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{health}{path}", timeout=2).read()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{' '.join(arguments)} did not get ready")
                time.sleep(0.1)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Cluster:
    def __init__(self, binary, folder, executors, threads):
        port = free_port()
        self.address, self.work = f"df://127.0.0.1:{port}", []
        arguments = ["cluster", "scheduler", "--port", str(port), "--executor-timeout", "5m"]
        self.servers = [Process(binary, arguments, port, "/healthz")]
        for number in range(executors):
            health, work = free_port(), folder / f"work-{executors}-{number}"
            arguments = ["--threads", str(threads), "cluster", "executor", "--scheduler", self.address]
            arguments += ["--port", str(free_port()), "--grpc-port", str(free_port()), "--health-port", str(health)]
            arguments += ["--memory-limit", "6GB", "--work-dir", str(work)]
            self.work.append(work)
            self.servers.append(Process(binary, arguments, health, "/readyz"))

    def cpu(self):
        return sum(cpu_seconds(server.process.pid) for server in self.servers)

    def peak(self):
        return max(peak_bytes(server.process.pid) for server in self.servers[1:])

    def shuffled(self):
        """Bytes below the work folders now; Ballista removes those of a job when it is over."""
        bytes = 0
        for work in self.work:
            for folder, _, files in os.walk(work):
                for file in files:
                    try:
                        bytes += os.stat(os.path.join(folder, file)).st_size
                    except FileNotFoundError:
                        pass
        return bytes

    def stop(self):
        for server in reversed(self.servers):
            server.stop()


def run(binary, arguments, cluster=None):
    """Seconds of wall time and of processors, the most shuffled bytes at a time, peak bytes of the client."""
    before = (cluster.cpu(), cluster.shuffled()) if cluster else (0, 0)
    most, over = [0], threading.Event()

    def watch():
        while not over.wait(0.05):
            most[0] = max(most[0], cluster.shuffled() - before[1])

    watcher = threading.Thread(target=watch)
    if cluster:
        watcher.start()
    extra = ["--cluster", cluster.address] if cluster else []
    begun = time.monotonic()
    client = subprocess.Popen([binary, *arguments, *extra], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    said = client.stderr.read() + client.stdout.read()
    _, status, usage = os.wait4(client.pid, 0)
    client.returncode = os.waitstatus_to_exitcode(status)
    over.set()
    if cluster:
        watcher.join()
    wall = time.monotonic() - begun
    if client.returncode != 0:
        raise SystemExit(f"{' '.join(arguments)}: {said.decode()}")
    cpu = usage.ru_utime + usage.ru_stime
    if cluster:
        return wall, cpu + cluster.cpu() - before[0], most[0], usage.ru_maxrss * 1024
    return wall, cpu, 0, usage.ru_maxrss * 1024


def make_log(binary, folder, users):
    """Sixteen files of the whole log, and one of the training: older events of nine tenths of the users."""
    log = folder / "log"
    log.mkdir()
    per_file = users * EVENTS // FILES

    def copy(text):
        command = [binary, "sql", "--quiet", "--allow-copy", "--root", str(folder), "-c", text]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    item = f"(n * 7919 + (n / {users}) * 104729 + n % 17 * 31) % {ITEMS}"
    select = (
        f"SELECT 'user-' || lpad(CAST(n % {users} AS VARCHAR), 9, '0') AS user_id, "
        f"'item-' || lpad(CAST({item} AS VARCHAR), 5, '0') AS item_id, "
        f"1700000000 + n * 30000000 / {users * EVENTS} AS timestamp FROM (SELECT unnest(range({{0}}, {{1}})) AS n)"
    )
    for number in range(FILES):
        query = select.format(number * per_file, (number + 1) * per_file)
        text = f"COPY ({query}) TO '{log / f'{number:02}.parquet'}' STORED AS PARQUET"
        copy(text)
    early = folder / "early.parquet"
    sample = max(1, users // 100_000)
    query = f"SELECT * FROM ({select.format(0, users * EVENTS * 3 // 4)}) WHERE CAST(substr(user_id, 6) AS BIGINT) % {sample} = 0"
    text = f"COPY ({query}) TO '{early}' STORED AS PARQUET"
    copy(text)
    return str(early), f"{log}/"


def report(name, figures, base=None):
    wall, cpu, shuffled, peak = figures
    ratio = f" {wall / base[0]:5.2f} × wall {cpu / base[1]:5.2f} × CPU" if base else ""
    load = os.getloadavg()[0]
    print(f"| {name} | {wall:.1f} | {cpu:.1f} | {shuffled:,} | {peak / 1e6:,.0f} | {load:.1f} |{ratio}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("users", type=int)
    parser.add_argument("--executors", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--partitions", type=int, default=16)
    parser.add_argument("--num-results", type=int, default=1000)
    parser.add_argument("--hidden-dimension", type=int, default=149)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    binary, cores = str(pathlib.Path(arguments.binary).resolve()), os.cpu_count()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="item-affinity-cluster-"))
    try:
        early, log = make_log(binary, folder, arguments.users)
        solution = str(folder / "solution")
        train = ["train", "--quiet", "--hidden-dimension", str(arguments.hidden_dimension), "--iterations", "3"]
        train += ["--regularization", "0.005", "--horizon", "30d", "--interactions", early, "--solution", solution]
        report("training, a sample of users", run(binary, train))
        refresh = ["refresh", "--quiet", "--force", "--solution", f"{solution}@1", "--interactions", log]
        items = folder / "items.csv"
        items.write_text("item_id\n" + "".join(f"item-{n:05}\n" for n in range(ITEMS)))
        bound = 1.2 * ITEMS * arguments.num_results * arguments.partitions * ROW
        print(f"shuffled bytes of segments, at most: {bound:,.0f}")
        print("| what | wall s | CPU s | shuffled bytes | client's peak MB | load |")
        threads = ["--threads", str(cores)]
        here = run(binary, [*threads, *refresh])
        report("refresh, one process", here)

        def segment(name, cluster=None):
            asked = ["segment", "--quiet", "--force", "--solution", f"{solution}@2", "--items", str(items)]
            asked += ["--num-results", str(arguments.num_results), "--output", str(folder / "segments")]
            planned = ["--threads", str(arguments.partitions)] if cluster else threads
            figures = [run(binary, [*planned, *asked], cluster) for _ in range(arguments.rounds)]
            return min(figures, key=lambda of: of[1])

        alone = segment("one process")
        report("segments, one process", alone)
        for executors in arguments.executors:
            cluster = Cluster(binary, folder, executors, max(1, cores // executors))
            try:
                there = run(binary, ["--threads", str(arguments.partitions), *refresh], cluster)
                report(f"refresh, {executors} executors", there, here)
                report(f"segments, {executors} executors", segment("cluster", cluster), alone)
                print(f"    an executor's peak: {cluster.peak() / 1e6:,.0f} MB", flush=True)
            finally:
                cluster.stop()
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
