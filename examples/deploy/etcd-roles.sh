#!/bin/sh
# Who may write what in etcd, by the common name of a client's certificate: each node its own keys, and no more.
#
#   etcd-roles.sh [--dry-run] --cluster NAME --node NODE=ROLE[,ROLE...] ... [--remove NODE] ...
#
#   export ETCDCTL_ENDPOINTS=https://198.51.100.1:2379,https://198.51.100.2:2379,https://198.51.100.3:2379
#   export ETCDCTL_CACERT=pki/ca.crt ETCDCTL_CERT=pki/root.crt ETCDCTL_KEY=pki/root.key
#   etcd-roles.sh --cluster acme --node site-a=vantage,agent,controller,api,admin \
#       --node site-b=vantage,agent,controller,api --node cloud=vantage,controller
#
# NODE is the site's name, which is also the common name of its certificate. Everybody reads the whole cluster and
# writes nodes/<own name>; beside that
#   vantage     vantages/<own site>/
#   agent       applied/<own site>/
#   controller  leader, leader/, desired/, decisions/, timers/, overrides/ (it ends those that are over), and nodes/,
#               vantages/, applied/ (it sweeps what was silent for an hour; etcd cannot grant deletes alone)
#   api         overrides/, timers/governor (what `failoverctl drain`, `freeze`, ... change)
#   admin       config/, incarnation, adopted (what `failoverctl apply` and `adopt` change): give it to the node that
#               `failoverctl apply` talks to
# A node that is named gets exactly these roles, others stay as they are; --remove deletes a node's user. Then
# authentication is switched on, for which etcd must run with ETCD_CLIENT_CERT_AUTH=true and the certificate in use
# must be that of `root`. It may be run again at any time. --dry-run prints the commands and asks nobody.
set -eu

usage() {
    sed -n '2,22s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

fail() {
    echo "etcd-roles.sh: $*" >&2
    exit 1
}

name() {
    case $1 in
    "" | -* | *- | *[!a-z0-9-]*) fail "not a name: '$1'" ;;
    esac
}

cluster=""
nodes=""
removed=""
dry=""
while [ $# -gt 0 ]; do
    case $1 in
    --dry-run) dry=yes ;;
    --cluster | --node | --remove)
        [ $# -ge 2 ] || usage
        case $1 in
        --cluster) cluster=$2 ;;
        --node) nodes="$nodes $2" ;;
        --remove) removed="$removed $2" ;;
        esac
        shift
        ;;
    *) usage ;;
    esac
    shift
done
if [ -z "$cluster" ] || [ -z "$nodes$removed" ]; then usage; fi
name "$cluster"
for node in $removed; do
    name "$node"
    [ "$node" != root ] || fail "root stays"
done
for entry in $nodes; do
    name "${entry%%=*}"
    [ "${entry%%=*}" != root ] || fail "root is etcd's administrator, no node"
    case $entry in
    *=?*) ;;
    *) fail "which roles has '$entry'? vantage, agent, controller, api, admin" ;;
    esac
    for role in $(echo "${entry#*=}" | tr ',' ' '); do
        case $role in
        vantage | agent | controller | api | admin) ;;
        *) fail "unknown role '$role' of '${entry%%=*}': vantage, agent, controller, api, admin" ;;
        esac
    done
done

export ETCDCTL_API=3
p=/failover/$cluster

# What changes something: said, and done unless it is a dry run. Nothing is written that stands there already: every
# change of rights makes etcd refuse the requests that are under way at that moment.
change() {
    echo "etcdctl $*"
    [ -n "$dry" ] || etcdctl "$@" >/dev/null
}

# ask etcdctl-arguments: fails in a dry run, and if there is no such thing
ask() {
    [ -z "$dry" ] && etcdctl "$@" 2>/dev/null
}

# role NAME read|readwrite KEY ...: a key that ends in / stands for all below it
role() {
    role=$1
    kind=$2
    shift 2
    lines=1
    [ "$kind" = read ] || lines=2 # shown below "KV Read" and below "KV Write"
    there=$(ask role get "$role") || {
        change role add "$role"
        there=""
    }
    for key in "$@"; do
        case $key in
        */) shown="(prefix $key)" ;;
        *) shown="$tab$key" ;;
        esac
        [ "$(echo "$there" | awk -v end="$shown" \
            'substr($0, length($0) - length(end) + 1) == end { n++ } END { print n + 0 }')" -ge "$lines" ] && continue
        case $key in
        */) change role grant-permission "$role" "$kind" "$key" --prefix=true ;;
        *) change role grant-permission "$role" "$kind" "$key" ;;
        esac
    done
}

# user NAME ROLE ...: exactly these roles of this cluster
user() {
    user=$1
    shift
    there=$(ask user get "$user") || {
        change user add "$user" --no-password
        there=""
    }
    there=" $(echo "$there" | sed -n 's/^Roles: *//p') "
    for role in "$@"; do
        case $there in
        *" $role "*) ;;
        *) change user grant-role "$user" "$role" ;;
        esac
    done
    for role in $there; do
        case " $* " in
        *" $role "*) continue ;;
        esac
        case $role in
        "$cluster"/*) change user revoke-role "$user" "$role" ;;
        esac
    done
}

tab=$(printf '\t')
if [ -z "$dry" ]; then
    command -v etcdctl >/dev/null || fail "etcdctl is not installed: sudo apt-get install etcd-client"
    # Without these two, switching authentication on would lock everybody out.
    [ -n "${ETCDCTL_CERT:-}" ] || fail "set ETCDCTL_ENDPOINTS, ETCDCTL_CACERT, ETCDCTL_CERT and ETCDCTL_KEY"
    openssl x509 -in "$ETCDCTL_CERT" -noout -subject | grep -q 'CN *= *root$' ||
        fail "$ETCDCTL_CERT is not root's certificate"
    etcdctl endpoint health >/dev/null || fail "etcd does not answer at ${ETCDCTL_ENDPOINTS:-127.0.0.1:2379}"
    if env -u ETCDCTL_CERT -u ETCDCTL_KEY etcdctl --command-timeout=2s endpoint health >/dev/null 2>&1; then
        fail "this etcd does not ask for a client's certificate: set ETCD_CLIENT_CERT_AUTH=true at every member first"
    fi
fi

user root root
role "$cluster/reader" read "$p/"
role "$cluster/controller" readwrite "$p/leader" "$p/leader/" "$p/desired/" "$p/decisions/" "$p/timers/" \
    "$p/overrides/" "$p/nodes/" "$p/vantages/" "$p/applied/"
role "$cluster/operator" readwrite "$p/overrides/" "$p/timers/governor"
role "$cluster/admin" readwrite "$p/config/" "$p/incarnation" "$p/adopted"
for entry in $nodes; do
    node=${entry%%=*}
    role "$cluster/node/$node" readwrite "$p/nodes/$node"
    roles="$cluster/reader $cluster/node/$node"
    for each in $(echo "${entry#*=}" | tr ',' ' '); do
        case $each in
        vantage)
            role "$cluster/vantage/$node" readwrite "$p/vantages/$node/"
            roles="$roles $cluster/vantage/$node"
            ;;
        agent)
            role "$cluster/agent/$node" readwrite "$p/applied/$node/"
            roles="$roles $cluster/agent/$node"
            ;;
        api) roles="$roles $cluster/operator" ;;
        *) roles="$roles $cluster/$each" ;;
        esac
    done
    # shellcheck disable=SC2086 # a list of roles
    user "$node" $roles
done
for node in $removed; do
    if [ -n "$dry" ] || ask user get "$node" >/dev/null; then
        change user delete "$node"
    fi
    for role in "$cluster/node/$node" "$cluster/vantage/$node" "$cluster/agent/$node"; do
        if [ -n "$dry" ] || ask role get "$role" >/dev/null; then
            change role delete "$role"
        fi
    done
done
change auth enable
