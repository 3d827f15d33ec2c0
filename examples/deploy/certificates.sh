#!/bin/sh
# A small certificate authority for a failover cluster: one CA, one certificate for each name.
#
#   certificates.sh DIRECTORY NAME[=ADDRESS[,ADDRESS...]] ...
#
#   certificates.sh pki site-a=198.51.100.1 site-b=198.51.100.2 cloud=198.51.100.3 root
#
# The common name is the etcd user, so it is the name of the node; `root` is etcd's administrator. A name with
# addresses gets a certificate for servers and clients (etcd and failoverd of that node share it, and so do etcd's
# peers); one without gets a client's only. Writes DIRECTORY/ca.crt, ca.key, NAME.crt and NAME.key; keys are readable
# by their owner alone. What is there already is left as it is: run it again to add a node. To renew a certificate,
# remove NAME.crt and NAME.key and run it again; then `systemctl reload failoverd` (etcd rereads its own by itself).
#
# Keep ca.key off the nodes: who has it can be any of them.
set -eu

DAYS_CA=${DAYS_CA:-3650}
DAYS=${DAYS:-825}

usage() {
    sed -n '2,15s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

fail() {
    echo "certificates.sh: $*" >&2
    exit 1
}

[ $# -ge 2 ] || usage
command -v openssl >/dev/null || fail "openssl is not installed: sudo apt-get install openssl"
directory=$1
shift

# All is checked before anything is written.
for entry in "$@"; do
    name=${entry%%=*}
    case $name in
    "" | -* | *- | *[!a-z0-9-]*) fail "not a node's name: '$name'" ;;
    esac
    [ ${#name} -le 32 ] || fail "a name has at most 32 letters: '$name'"
    [ "$name" != ca ] || fail "the name ca is the authority's own"
    case $entry in
    *=) fail "no address after '$entry'" ;;
    *=*)
        for address in $(echo "${entry#*=}" | tr ',' ' '); do
            case $address in
            *[!0-9a-fA-F.:]*) fail "not an IP address: '$address'" ;;
            esac
        done
        ;;
    esac
    [ -e "$directory/$name.key" ] && [ ! -e "$directory/$name.crt" ] &&
        fail "$directory/$name.key is there without $name.crt: remove one that is of no use"
    [ -e "$directory/$name.crt" ] && [ ! -e "$directory/$name.key" ] &&
        fail "$directory/$name.crt is there without $name.key: remove one that is of no use"
done

umask 077
mkdir -p "$directory"
work=$(mktemp -d "$directory/.new.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM

if [ ! -e "$directory/ca.crt" ]; then
    [ ! -e "$directory/ca.key" ] || fail "$directory/ca.key is there without ca.crt"
    cat >"$work/ca.cnf" <<END
[req]
distinguished_name = name
x509_extensions = extensions
prompt = no
[name]
CN = failover CA
[extensions]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
END
    openssl ecparam -name prime256v1 -genkey -noout -out "$work/ca.key"
    openssl req -new -x509 -sha256 -key "$work/ca.key" -config "$work/ca.cnf" -days "$DAYS_CA" -out "$work/ca.crt"
    chmod 644 "$work/ca.crt"
    mv "$work/ca.key" "$work/ca.crt" "$directory/"
    echo "made $directory/ca.crt (good for $DAYS_CA days)"
fi
[ -e "$directory/ca.key" ] || fail "$directory/ca.key is not here: bring it to make certificates"

for entry in "$@"; do
    name=${entry%%=*}
    if [ -e "$directory/$name.crt" ]; then
        echo "kept $directory/$name.crt, $(openssl x509 -in "$directory/$name.crt" -noout -enddate)"
        continue
    fi
    use=clientAuth
    names=""
    case $entry in
    *=*)
        use="serverAuth, clientAuth"
        names="subjectAltName = DNS:$name"
        for address in $(echo "${entry#*=}" | tr ',' ' '); do
            names="$names, IP:$address"
        done
        ;;
    esac
    cat >"$work/$name.cnf" <<END
[extensions]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = $use
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
$names
END
    openssl ecparam -name prime256v1 -genkey -noout -out "$work/$name.key"
    openssl req -new -sha256 -key "$work/$name.key" -subj "/CN=$name" -out "$work/$name.csr"
    openssl x509 -req -sha256 -in "$work/$name.csr" -CA "$directory/ca.crt" -CAkey "$directory/ca.key" \
        -set_serial "0x$(openssl rand -hex 16 | sed 's/^./1/')" -days "$DAYS" \
        -extfile "$work/$name.cnf" -extensions extensions -out "$work/$name.crt" 2>"$work/log" || {
        cat "$work/log" >&2
        fail "no certificate for $name"
    }
    chmod 644 "$work/$name.crt"
    mv "$work/$name.key" "$work/$name.crt" "$directory/"
    echo "made $directory/$name.crt (good for $DAYS days)"
done
