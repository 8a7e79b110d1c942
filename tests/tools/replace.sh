#!/bin/bash
# replace.sh FROM TO [MODE]: puts FROM in the place of TO, unless they are equal; MODE is 644.
#
# By a rename: a running httpd keeps the file that it has mapped, and nobody sees half a file.
set -eu

cmp -s "$1" "$2" && exit 0
mkdir -p "$(dirname "$2")"
install -m "${3:-644}" "$1" "$2.new"
mv -f "$2.new" "$2"
