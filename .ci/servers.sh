#!/bin/sh
# The real servers that the tests start: etcd, three name servers, HAProxy, a resolver, what builds an image.
# As root on Debian they are installed; otherwise it says which command does that, and the tests that need one fail.
packages="etcd-server etcd-client bind9 bind9-utils bind9-dnsutils knot knot-dnsutils pdns-server pdns-backend-lmdb
pdns-backend-geoip haproxy unbound socat nftables iproute2 openssl systemd debootstrap buildah
podman runc crun"

missing=""
for package in $packages; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
[ -z "$missing" ] && exit 0

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
    exit $result
fi
echo "The tests of real servers will fail: missing$missing. Install them with:" >&2
echo "  sudo apt-get install --no-install-recommends$missing" >&2
