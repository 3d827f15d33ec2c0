#!/bin/sh
# The zone and its key for PowerDNS: run once at each site, before the server is started, as the user pdns.
#
#   pdns-zone.sh ZONE ZONEFILE KEYFILE [CONFIG-DIRECTORY]
#
#   runuser -u pdns -- ./pdns-zone.sh lb.example.org lb.example.org.zone /etc/powerdns/failover.secret
#
# KEYFILE holds the secret in base64 and nothing else; the same at every site:  openssl rand -base64 32
set -eu

if [ $# -lt 3 ]; then
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
zone=$1
directory=${4:-/etc/powerdns}
secret=$(cat "$3")

util() {
    pdnsutil "--config-dir=$directory" "$@"
}

geo=$(sed -n 's/^geoip-zones-file=//p' "$directory/pdns.conf")
[ -z "$geo" ] || [ -e "$geo" ] || echo 'domains: []' >"$geo" # the geoip backend has no zones of its own
if util list-all-zones | grep -qxF "$zone"; then
    echo "kept the zone $zone"
else
    util load-zone "$zone" "$2"
fi
util import-tsig-key failover hmac-sha256 "$secret" >/dev/null
util set-meta "$zone" TSIG-ALLOW-DNSUPDATE failover
util set-meta "$zone" TSIG-ALLOW-AXFR failover
util set-meta "$zone" SOA-EDIT-DNSUPDATE INCREASE
