#!/bin/sh
# Is there a Python 3.11 or newer that can make a virtual environment? Says which command installs what is
# missing; as root in CI it runs that command itself.
python=${1:-python3}

missing=""
if ! command -v "$python" >/dev/null 2>&1; then
    missing="python3 python3-venv"
elif ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "$python is $("$python" --version 2>&1), 3.11 or newer is needed." >&2
    echo "Name another one: make PYTHON=python3.12 ..." >&2
    exit 1
elif ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    missing="python3-venv"
fi
[ -z "$missing" ] && exit 0

if [ "${CI:-}" = true ] && [ "$(id -u)" = 0 ]; then
    # shellcheck disable=SC2086 # a list of packages
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $missing >/dev/null && exit 0
fi
echo "missing: $missing. Install it with:  sudo apt-get install $missing" >&2
exit 1
