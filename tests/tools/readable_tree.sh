#!/bin/bash
# readable_tree.sh TARGET: runs `make TARGET` where httpd's children can read the tree.
#
# As root, httpd's children run as www-data. If that user cannot reach this directory (a clone in
# /root, or one made by mktemp), the work is done in a copy under /var/tmp, made anew each time but
# with its build/ and target/ kept.
set -eu

user=www-data
if [ "$(id -u)" != 0 ] || ! id "$user" >/dev/null 2>&1 ||
    runuser -u "$user" -- test -r "$PWD/Makefile" -a -x "$PWD/tests"; then
    exec make "$1"
fi

copy=/var/tmp/rwsgi-$(printf %s "$PWD" | sha256sum | head -c 12)
echo "== $user, as whom httpd's children run, cannot read $PWD; working in the copy $copy"
umask 022
mkdir -p "$copy"
if [ "$(stat -c %u "$copy")" != 0 ]; then
    echo "$copy belongs to somebody else; remove it" >&2
    exit 1
fi
find "$copy" -mindepth 1 -maxdepth 1 ! -name build ! -name target -exec rm -rf {} +
# Times are kept, so that cargo sees only what has really changed.
tar -c --exclude=./build --exclude=./target --exclude=./.git --exclude=__pycache__ . |
    tar -x -C "$copy" --no-same-owner
chmod -R u+rwX,go+rX "$copy"
exec make -C "$copy" "$1"
