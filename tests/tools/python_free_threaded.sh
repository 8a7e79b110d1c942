#!/bin/bash
# python_free_threaded.sh: builds a Python without the GIL into build/pythons/free-threaded, unless
# it is there, and prints the path of its executable.
#
# The source is Debian's source package, fetched and verified by apt in directories of its own: the
# system's lists and sources stay as they are. PyO3 supports builds without the GIL from 3.14 on.
# Takes ten minutes and more. SUITE and PACKAGE choose another source; VERSION=3.14.7-1 one that is
# in the mirror's pool but in no suite, which https vouches for.
set -eu
umask 022

mirror=${MIRROR:-https://deb.debian.org/debian}
suite=${SUITE:-testing}
package=${PACKAGE:-python3.14}
prefix=$PWD/build/pythons/free-threaded
python=$prefix/bin/${package}t
if [ -x "$python" ]; then
    echo "$python"
    exit 0
fi

work=$PWD/build/python-free-threaded
rm -rf "$work"
mkdir -p "$work"/{lists/partial,cache/archives/partial,source}
for tool in apt-get curl gcc make; do
    command -v "$tool" >/dev/null || {
        echo "there is no $tool: a Python without the GIL is built from Debian's source package" >&2
        exit 1
    }
done
fetch_from_suite() {
    local keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    echo "deb-src [signed-by=$keyring] $mirror $suite main" >"$work/sources.list"
    # Nothing but this directory is written, so whoever may write here may fetch.
    local apt=(apt-get -qq
        -o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=/dev/null
        -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache"
        -o "APT::Sandbox::User=$(id -un)" -o Debug::NoLocking=true)
    "${apt[@]}" update
    (cd "$work" && "${apt[@]}" source --download-only "$package")
}
fetch_from_pool() {
    local pool=$mirror/pool/main/${package:0:1}/$package dsc=${package}_$VERSION.dsc
    local archive=${package}_${VERSION%-*}.orig.tar.xz
    (
        cd "$work"
        curl -sSf --proto =https -O "$pool/$dsc" -O "$pool/$archive"
        sed -n '/^Checksums-Sha256:/,/^[^ ]/p' "$dsc" |
            awk -v "file=$archive" '$3 == file { print $1 "  " $3 }' | sha256sum --check --strict
    )
}
if [ -n "${VERSION:-}" ]; then
    echo "== fetching the source of $package $VERSION from $mirror" >&2
    fetch_from_pool >&2
else
    echo "== fetching the source of $package ($suite) from $mirror" >&2
    fetch_from_suite >&2 || {
        echo "$mirror does not have what its suite $suite lists; SUITE= names another one, and" >&2
        echo "VERSION= (as 3.14.7-1) a version in $mirror/pool/main/${package:0:1}/$package/" >&2
        exit 1
    }
fi
tar -x -f "$work/${package}_"*.orig.tar.xz -C "$work/source" --strip-components 1

echo "== building it without the GIL; details in $work/build.log" >&2
cd "$work/source"
{
    # A shared library, which httpd loads; found by the executable without LD_LIBRARY_PATH.
    ./configure --prefix="$prefix" --disable-gil --enable-shared --without-ensurepip \
        --disable-test-modules LDFLAGS="-Wl,-rpath,$prefix/lib"
    nice make -s -j "${JOBS:-$(nproc)}"
    make -s install
} >"$work/build.log" 2>&1 || {
    tail -n 30 "$work/build.log" >&2
    exit 1
}
rm -rf "$work/source" "$work/lists" "$work/cache"
"$python" -c 'import sysconfig; assert sysconfig.get_config_var("Py_GIL_DISABLED") == 1'
echo "$python"
