#!/bin/sh
# Starts a whole cluster as processes on loopback, shows that it works, and keeps it running. Called by `make cluster`.
# MASTERS, VOLUME_SERVERS and GATEWAYS say how many of each, REPLICAS how often a volume is kept.
set -eu
cd "$(dirname "$0")/.."
hay=$PWD/target/release/hay
dir=$DIR
masters=${MASTERS:-3}
volume_servers=${VOLUME_SERVERS:-3}
gateways=${GATEWAYS:-2}
port=${PORT:-7100}
work=$(mktemp -d)
started=""
roles=""

# In the order of their start; they end the other way round, so that each finds what it needs to the last.
finish() {
    status=$?
    trap - EXIT TERM HUP
    trap '' INT
    for pid in $started; do
        kill -TERM "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    rm -rf "$work"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

# start NAME ARGUMENTS: its log goes to DIR/NAME.log. Away from the terminal's Ctrl-C, which is this script's.
start() {
    name=$1
    shift
    setsid "$hay" "$@" --cluster-key "$dir/cluster.key" >>"$dir/$name.log" 2>&1 9>&- &
    started="$! $started"
    roles="$roles $name:$!"
    echo "  $name	pid $!	log $dir/$name.log"
}

# Names of the roles that have ended. A child that nobody has waited for is still there, as a zombie.
ended() {
    for role in $roles; do
        case $(sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/${role##*:}/status" 2>/dev/null) in
            "" | Z | X) printf '%s ' "${role%%:*}" ;;
        esac
    done
}

mkdir -p "$dir"
exec 9>"$dir/lock"
flock -n 9 || { echo "A cluster runs in $dir already: stop it first, or name another directory with CLUSTER_DIR" >&2; exit 1; }
[ -e "$dir/cluster.key" ] || "$hay" cluster new-key "$dir/cluster.key"
each() {
    n=1
    while [ "$n" -le "$1" ]; do
        printf '%s127.0.0.1:%d' "$([ "$n" -gt 1 ] && echo ,)" $(($2 + n))
        n=$((n + 1))
    done
}
at_masters=$(each "$masters" "$port")
at_filer=127.0.0.1:$((port + 31))

echo "Starting:"
n=1
while [ "$n" -le "$masters" ]; do
    peers=""
    [ "$masters" -eq 1 ] || peers="--peers $at_masters"
    # shellcheck disable=SC2086
    start "master-$n" master --dir "$dir/master-$n" --listen "127.0.0.1:$((port + n))" --replicas "${REPLICAS:-2}" \
        --operations "127.0.0.1:$((port + 50 + n))" $peers
    n=$((n + 1))
done
n=1
while [ "$n" -le "$volume_servers" ]; do
    start "volume-server-$n" volume-server --dir "$dir/volume-server-$n" --listen "127.0.0.1:$((port + 10 + n))" \
        --masters "$at_masters" --rack "rack-$n" --operations "127.0.0.1:$((port + 60 + n))"
    n=$((n + 1))
done
start filer filer --dir "$dir/filer" --listen "$at_filer" --gateway "http://127.0.0.1:$((port + 41))" \
    --operations "127.0.0.1:$((port + 81))"
n=1
while [ "$n" -le "$gateways" ]; do
    start "gateway-$n" gateway --http "127.0.0.1:$((port + 40 + n))" --masters "$at_masters" --filers "$at_filer" \
        --aside-dir "$dir/gateway-$n"
    n=$((n + 1))
done

export HAY_CREDENTIALS="$dir/filer/credentials.toml"
HAY_SERVER=$(each "$gateways" "$((port + 40))" | sed 's|127|http://127|g')
export HAY_SERVER
left=30
until "$hay" wait --timeout 2s 2>"$work/wait.err"; do
    left=$((left - 1))
    gone=$(ended)
    if [ "$left" -le 0 ] || [ -n "$gone" ]; then
        cat "$work/wait.err" >&2
        echo "The cluster did not come up.${gone:+ Ended: $gone} The last words of each:" >&2
        tail -n 3 "$dir"/*.log >&2
        exit 1
    fi
done

echo
echo "Storing the project's tracked files by one gateway, reading them back by the other, and comparing:"
git checkout-index --all --prefix="$work/tracked/"
"$hay" put --server "http://127.0.0.1:$((port + 41))" -r "$work/tracked" /haystore
"$hay" get --server "http://127.0.0.1:$((port + 40 + gateways))" -r /haystore "$work/back"
diff -r "$work/tracked" "$work/back"
echo "$(find "$work/tracked" -type f | wc -l) files went in and came out byte for byte."
if [ -n "$ONCE" ]; then
    exit 0
fi

echo
echo "Gateways are at      http://127.0.0.1:$((port + 41)) and the ports after it"
echo "The credentials are  $HAY_CREDENTIALS"
echo "Try, in another terminal:"
echo "    export HAY_CREDENTIALS=$HAY_CREDENTIALS HAY_SERVER=$HAY_SERVER"
echo "    target/release/hay cluster status"
echo "    target/release/hay cluster members"
echo "    kill -9 the process of a volume server, and go on reading and writing"
echo "Ctrl-C stops it; what is stored stays in $dir."
told=""
while sleep 2; do
    gone=$(ended)
    if [ "$gone" != "$told" ]; then
        [ -z "$gone" ] || echo "Ended: $gone(logs are in $dir)"
        told=$gone
    fi
done
