"""All tests. The lab mostly waits (for TTLs to end, for sites to come back), so as root it runs beside the others, and
its output follows theirs. Without root pytest itself says what was left out.
"""

import os
import subprocess
import sys
import tempfile

PYTEST = [sys.executable, "-m", "pytest"]


def main() -> int:
    if os.geteuid() != 0:
        return subprocess.run(PYTEST, check=False).returncode
    with tempfile.TemporaryFile("w+") as output:
        lab = subprocess.Popen([*PYTEST, "tests/lab"], stdout=output, stderr=subprocess.STDOUT)
        try:
            others = subprocess.run([*PYTEST, "--ignore=tests/lab"], check=False).returncode
            print("\nthe lab:", flush=True)
            lab.wait()
        except KeyboardInterrupt:
            lab.wait()  # the terminal has told it too, and it takes its namespaces away
            return 130
        output.seek(0)
        print(output.read())
    return others or lab.returncode


if __name__ == "__main__":
    sys.exit(main())
