#!/bin/sh
# The real servers that the tests start: etcd, three name servers, HAProxy, a resolver, toxiproxy, what builds an image;
# and the browser that looks at reports.
# As root on Debian they are installed; otherwise it says which command does that, and the tests that need one fail.
packages="etcd-server etcd-client bind9 bind9-utils bind9-dnsutils knot knot-dnsutils pdns-server pdns-backend-lmdb
pdns-backend-geoip haproxy unbound socat nftables iproute2 openssl systemd debootstrap buildah
podman runc crun chromium"

# Only where toxiproxy has to be built, and no other Go is here.
[ -x .venv/bin/toxiproxy-server ] || command -v go >/dev/null 2>&1 || packages="$packages golang-go"

# toxiproxy is not in Debian: built from source into .venv/bin, as the newest version that the Go found here can build
# (2.12.0 needs Go 1.23, which Go 1.21 and later fetch by themselves; Debian 12's own Go 1.19 builds 2.7.0).
toxiproxy() {
    bin="$(cd "$(dirname "$0")/.." && pwd)/.venv/bin"
    [ -x "$bin/toxiproxy-server" ] && return 0
    if ! command -v go >/dev/null 2>&1; then
        echo "The tests of staging drills will fail: missing Go, which builds toxiproxy-server. Install it with:" >&2
        echo "  sudo apt-get install --no-install-recommends golang-go && make servers" >&2
        return 0
    fi
    build=$(mktemp -d)
    for version in v2.12.0 v2.7.0; do
        echo "building toxiproxy $version ..."
        if GOBIN="$build" go install "github.com/Shopify/toxiproxy/v2/cmd/server@$version" >"$build/log" 2>&1; then
            mkdir -p "$bin" && mv "$build/server" "$bin/toxiproxy-server"
            rm -rf "$build"
            return 0
        fi
    done
    echo "The tests of staging drills will fail: toxiproxy-server could not be built:" >&2
    tail -n 5 "$build/log" >&2
    rm -rf "$build"
    return 0
}

missing=""
for package in $packages; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
if [ -z "$missing" ]; then
    toxiproxy
    exit 0
fi

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing$missing ..."
    # Debian starts what it installs; these are started by the tests alone, each on an address of its own.
    policy=/usr/sbin/policy-rc.d
    ours=""
    [ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy && ours=yes; }
    # shellcheck disable=SC2086 # a list of packages
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing \
        >/dev/null
    result=$?
    [ -n "$ours" ] && rm -f $policy
    toxiproxy
    exit $result
fi
echo "The tests of real servers will fail: missing$missing. Install them with:" >&2
echo "  sudo apt-get install --no-install-recommends$missing" >&2
toxiproxy
