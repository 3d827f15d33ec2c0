"""Resident memory of `failoverctl dev` (four sites in one process), beside a Python that has only imported aiohttp.

python tests/bench/bench_dev_memory.py
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SETTLE_S = 20.0


def rss_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmRSS: is this Linux?")


def measure(command: list[str], settle_s: float, env: dict[str, str]) -> float:
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=env)
        try:
            time.sleep(settle_s)
            return rss_mib(process.pid)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(10)


def main() -> None:
    with tempfile.TemporaryDirectory() as private:  # so that it is not taken for somebody's own dev cluster
        env = {**os.environ, "XDG_RUNTIME_DIR": private}
        bare = measure([sys.executable, "-c", "import aiohttp, time; time.sleep(60)"], 2.0, env)
        dev = measure([sys.executable, "-m", "controlplane.cli.main", "dev", "--fast"], SETTLE_S, env)
    print(f"failoverctl dev, 4 sites, after {SETTLE_S:g}s: {dev:.0f} MiB resident")
    print(f"python with aiohttp imported:          {bare:.0f} MiB; ratio {dev / bare:.1f}")


if __name__ == "__main__":
    main()
