"""A cluster of several raylets on one machine, and what goes wrong with it. Run by test_faults.

    unshare -n -m python cluster_script.py FOLDER

In a network of its own, which has only loopback, Ray binds to 127.0.0.1. Prints one JSON object a
line: what was tried and what was seen.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

WAIT = 150


def tell(case, **seen):
    print(json.dumps({"case": case, **seen}), flush=True)


def wait_for(condition):
    deadline = time.monotonic() + WAIT
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("waited in vain")
        time.sleep(0.05)


# -- work that leaves marks, so that it can be interrupted and counted ------------------------


def slow(task):
    """Note who works on a partition, wait until it may end, and return its square."""
    folder, number = task
    (Path(folder) / f"{number}-{os.getpid()}-{os.getppid()}").touch()
    deadline = time.monotonic() + WAIT
    while not (Path(folder) / "go").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return number * number


def marks(folder):
    return sorted(p.name for p in Path(folder).iterdir() if p.name != "go")


def interrupted(engine, folder, interrupt):
    """Map over partitions; interrupt once some are being worked on; return the results."""
    folder.mkdir()
    found = []
    mapping = threading.Thread(
        target=lambda: found.extend(engine.map(slow, [(str(folder), n) for n in range(6)]))
    )
    mapping.start()
    wait_for(lambda: len(marks(folder)) >= 2)
    interrupt(marks(folder))
    (folder / "go").touch()
    mapping.join(WAIT)
    return found, marks(folder)


def main(home):
    from datacomp.curate.engine.cluster import RayEngine
    from datacomp.errors import DatacompError
    from ray.cluster_utils import Cluster

    store = {"object_store_memory": 80 << 20}
    head = {"num_cpus": 0, "num_gpus": 1, "include_dashboard": False, "no_monitor": True}
    cluster = Cluster(initialize_head=True, head_node_args={**head, **store})
    address = cluster.address

    def refusal(name, attempt):
        try:
            attempt()
            tell(name, told=None)
        except DatacompError as error:
            tell(name, told=str(error), kind=type(error).__name__)

    refusal("processors", lambda: RayEngine(address))
    nodes = [
        cluster.add_node(num_cpus=1, env_vars={"DATACOMP_MEMORY": "333MB"}, **store)
        for _ in range(2)
    ]
    cluster.wait_for_nodes()
    refusal("memory", lambda: RayEngine(address, memory=10**13))
    with RayEngine(address) as engine:
        tell("nodes", count=len(engine.nodes), workers=engine.workers)
        refusal("gpu", lambda: list(engine.map(abs, [-1], gpu=True)))
        tell("limit", found=list(engine.map(os.getenv, ["DATACOMP_MEMORY"])))

        def kill_worker(seen):
            os.kill(int(seen[0].split("-")[1]), signal.SIGKILL)

        found, seen = interrupted(engine, home / "worker", kill_worker)
        tell("worker", found=found, attempts=len(seen))

        def kill_raylet(seen):
            cluster.remove_node(nodes.pop(), allow_graceful=False)

        found, seen = interrupted(engine, home / "raylet", kill_raylet)
        tell("raylet", found=found, attempts=len(seen))
    cluster.add_node(num_cpus=1, **store)
    cluster.wait_for_nodes()

    # The driver is killed while partitions are being built, and the same call goes on.
    command = [sys.executable, __file__, "build", str(home), address]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    built = home / "built"
    wait_for(lambda: len(list(built.glob("0*.tar"))) >= 2)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    before = len(list(built.glob("0*.tar")))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    tell("driver", before=before, **json.loads(done.stdout or '{"failed": true}'))

    # Machines that cannot do the work.
    shims = home / "old", home / "none"
    for shim, code in zip(
        shims, ('__version__ = "0.0.9"', "raise ImportError('not installed')"), strict=True
    ):
        (shim / "datacomp").mkdir(parents=True)
        (shim / "datacomp" / "__init__.py").write_text(code)
    with contextlib.ExitStack() as stack:
        names = [stack.enter_context(joined(address, shim)) for shim in shims]
        refusal("machines", lambda: RayEngine(address))
    hidden = home / "shards"
    for node in list(cluster.worker_nodes):  # what is left to work is the machine that joins
        cluster.remove_node(node)
    own = write_own(home)
    with joined(address, home / "bare", hidden, own), RayEngine(address) as engine:
        refusal("other", lambda: engine.reach(hidden))
        refusal("unseen", lambda: engine.reach(home / "subset.npy", hidden / "00000000.tar"))
        refusal("seen", lambda: engine.reach(home))
        filters_apart(home, own, engine, refusal)
    tell("names", names=names)
    cluster.shutdown()


# -- filters on a machine that does not share all folders -------------------------------------

OWN = """
from datacomp.filters import Decision, Filter

class Mine(Filter):
    "Keep what is wide."
    def decide(self, view):
        return [Decision("narrow", "width > 310")]
"""


def write_own(home):
    """Write metadata, a filter of one's own, and what another machine has: an older copy of it.

    Also a folder of code that hides modules. Returns the folder of the filter.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    (home / "metadata").mkdir()
    for part in range(2):
        numbers = np.arange(part * 10, part * 10 + 10)
        pq.write_table(
            pa.table({
                "uid": [f"{n:032x}" for n in numbers], "url": [f"http://x/{n}" for n in numbers],
                "text": [f"a caption {n}" for n in numbers],
                "original_width": numbers + 300, "original_height": numbers + 200,
            }),
            home / "metadata" / f"{part}.parquet",
        )  # fmt: skip
    own = home / "own"
    own.mkdir()
    (own / "mine.py").write_text(OWN)
    (home / "old.py").write_text(OWN.replace("310", "300"))
    shutil.copystat(own / "mine.py", home / "old.py")
    (home / "bare").mkdir()
    (home / "bare" / "sitecustomize.py").write_text(
        "import sys\nsys.modules['faiss'] = sys.modules['s3fs'] = None\n"
    )
    return own


def filters_apart(home, own, engine, refusal):
    """Run filters where only part of what they need is shared."""
    from datacomp.curate.selection import select, select_remote
    from datacomp.curate.shards import build_shards, index_shards
    from datacomp.filters.expression import parse_all
    from datacomp.pools import Pool

    def run(word):
        with Pool.open(home / "metadata") as pool:
            reasons = own / "why.parquet"
            filters = parse_all([word]).filters
            found = select(pool, filters, home / "kept.npy", reasons=reasons, engine=engine)
            kept = found.selection.kept
        tell(word, kept=kept, reasons=sorted(path.name for path in own.glob("*parquet*")))

    run("image_size:min_side=205")
    refusal("code", lambda: run(f"{own}/mine.py:Mine"))
    refusal("needs", lambda: run("semdedup:clusters=2,epsilon=0.3"))
    place, subset = "s3://bucket/x", home / "subset.npy"
    filters = parse_all(["no_filter"]).filters
    refusal("store", lambda: select_remote(place, filters, home / "x.npy", engine=engine))
    refusal("index", lambda: index_shards(place, engine, out=home / "index"))
    refusal("built", lambda: build_shards(home / "shards", subset, place, workers=engine))


@contextlib.contextmanager
def joined(address, path=None, hidden=None, own=None):
    """Let one more machine join: with other code on its ``path``, or with a folder ``hidden``.

    Of ``own``, it has the older copy of the filter. Yields the name it goes by.
    """
    import ray

    mount = f"mount -t tmpfs none {hidden} && " if hidden else ""
    if own:
        mount += f"mount -t tmpfs none {own} && cp -p {own.parent}/old.py {own}/mine.py && "
    start = (
        f"{mount}exec {sys.executable} -m ray.scripts.scripts start --address {address} "
        "--num-cpus 1 --object-store-memory 80000000 --block --disable-usage-stats"
    )
    env = {"PYTHONPATH": str(path)} if path else {}
    process = subprocess.Popen(
        ["unshare", "-m", "sh", "-c", start], env={**os.environ, **env},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    known = {node["NodeID"] for node in ray.nodes() if node["Alive"]}

    def new():
        return [n for n in ray.nodes() if n["Alive"] and n["NodeID"] not in known]

    wait_for(new)
    name = f"{new()[0]['NodeManagerHostname']} ({new()[0]['NodeManagerAddress']})"
    ray.shutdown()
    try:
        yield name
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(WAIT)


def build(home, address):
    """Build shards on the cluster, each sample in one of its own; print what was made."""
    from datacomp.curate.engine.cluster import RayEngine
    from datacomp.curate.shards import build_shards

    with RayEngine(address) as engine:
        report = build_shards(
            home / "shards", home / "subset.npy", home / "built", shard_size=1, workers=engine
        )
    print(json.dumps({"samples": report.samples, "shards": report.shards,
                      "reused": report.reused, "digest": report.digest}))  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1] == "build":
        build(Path(sys.argv[2]), sys.argv[3])
    else:
        main(Path(sys.argv[1]))
