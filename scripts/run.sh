#!/bin/sh
# Starts a server, shows that it works on a real folder, and keeps it running. Called by `make run`.
set -eu
cd "$(dirname "$0")/.."
hay=$PWD/target/release/hay
work=$(mktemp -d)
server=""
finish() {
    status=$?
    trap - EXIT TERM
    # A second Ctrl-C is the server's: it then stops at once, and this goes on to the end.
    trap '' INT
    if [ -n "$server" ]; then
        # After Ctrl-C the terminal has told the server already, who takes this for the same wish.
        kill -TERM "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
    fi
    rm -rf "$work"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

"$hay" server --dir "$DIR" --http "$HTTP" --started-by "make run" &
server=$!
export HAY_CREDENTIALS="$DIR/credentials.toml"
if ! "$hay" wait --timeout 60s --pid "$server"; then
    # The server has said why.
    wait "$server" || exit $?
    exit 1
fi

echo
echo "Storing the project's tracked files, reading them back and comparing:"
git checkout-index --all --prefix="$work/tracked/"
"$hay" put -r "$work/tracked" /haystore
"$hay" get -r /haystore "$work/back"
diff -r "$work/tracked" "$work/back"
echo "$(find "$work/tracked" -type f | wc -l) files went in and came out byte for byte."
if [ -n "$ONCE" ]; then
    exit 0
fi

echo
echo "Haystore is at       http://$HTTP"
echo "Its credentials are  $DIR/credentials.toml"
echo "Three commands to try, in another terminal:"
echo "    target/release/hay ls /haystore"
echo "    target/release/hay put README.md /hello.md && target/release/hay cat /hello.md"
echo "    target/release/hay cluster status"
echo "Ctrl-C stops it; what is stored stays in $DIR."
wait "$server"
