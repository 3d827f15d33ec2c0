#!/bin/sh
# Builds the image of Containerfile, with the versions of constraints.txt.
#
#   image.sh [NAME]                     NAME: default failover-control-plane:<version>
#
# The wheels are fetched here, with this machine's own pip and its configuration, so that the build itself needs
# neither pip's network nor its credentials. In the environment: PYTHON, the Python whose pip fetches; BASE, a base
# image instead of debian:12-slim; BUILD_FLAGS, more flags for buildah or podman, such as --pull=never.
set -eu
cd "$(dirname "$0")/../.."

python=${PYTHON:-python3}
[ -n "${PYTHON:-}" ] || [ ! -x .venv/bin/python ] || python=.venv/bin/python
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
name=${1:-failover-control-plane:$version}

if command -v buildah >/dev/null; then
    # chroot isolation works as root and without, and inside other containers.
    build="buildah bud --isolation chroot"
elif command -v podman >/dev/null; then
    build="podman build"
else
    echo "neither buildah nor podman is installed: sudo apt-get install buildah" >&2
    exit 1
fi

trap 'rm -rf build/wheels' EXIT
trap 'exit 1' INT TERM
rm -rf build/wheels
mkdir -p build/wheels
# For the image's Python, whichever this one is.
"$python" -m pip download --quiet --disable-pip-version-check --python-version 3.11 --only-binary=:all: \
    --constraint constraints.txt --dest build/wheels . 'setuptools>=77'
# Docker's format: OCI's has no HEALTHCHECK.
# shellcheck disable=SC2086 # lists of words
$build --format docker --network host ${BASE:+--build-arg BASE="$BASE"} ${BUILD_FLAGS:-} \
    --file Containerfile --tag "$name" .
echo "built $name"
