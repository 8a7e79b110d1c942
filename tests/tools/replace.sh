#!/bin/bash
# replace.sh FROM TO: puts FROM in the place of TO, unless they are equal.
#
# By a rename: a running httpd keeps the file that it has mapped, and nobody sees half a file.
set -eu

cmp -s "$1" "$2" && exit 0
mkdir -p "$(dirname "$2")"
install -m 644 "$1" "$2.new"
mv -f "$2.new" "$2"
