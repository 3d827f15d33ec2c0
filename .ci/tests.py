"""All tests, then a fuzz of the simulator with a fresh seed, which it prints. The lab mostly waits (for TTLs to end,
for sites to come back), so as root it runs beside the others, and its output follows theirs. Without root pytest itself
says what was left out.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

PYTEST = [sys.executable, "-m", "pytest"]
FUZZ = [sys.executable, "-m", "controlplane.cli.main", "drill", "fuzz", "--hours", "12"]  # about two minutes


def others() -> int:
    tests = subprocess.run([*PYTEST, "--ignore=tests/lab"] if os.geteuid() == 0 else PYTEST, check=False).returncode
    print("\nthe fuzz:", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        found = subprocess.run([*FUZZ, "--into", folder], check=False).returncode
        for file in sorted(Path(folder).rglob("*.yaml")):  # what failed must outlive the machine that found it
            print(f"\n--- {file.relative_to(folder)}\n{file.read_text(encoding='utf-8')}", flush=True)
    return tests or found


def main() -> int:
    if os.geteuid() != 0:
        return others()
    with tempfile.TemporaryFile("w+") as output:
        lab = subprocess.Popen([*PYTEST, "tests/lab"], stdout=output, stderr=subprocess.STDOUT)
        try:
            failed = others()
            print("\nthe lab:", flush=True)
            lab.wait()
        except KeyboardInterrupt:
            lab.wait()  # the terminal has told it too, and it takes its namespaces away
            return 130
        output.seek(0)
        print(output.read())
    return failed or lab.returncode


if __name__ == "__main__":
    sys.exit(main())
