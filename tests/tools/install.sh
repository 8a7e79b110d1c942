#!/bin/bash
# install.sh install|uninstall: the module, its gateways and the supervisor, below DESTDIR, where apxs says.
# On Debian also rwsgi.load and rwsgi.conf, so that `a2enmod rwsgi` works.
set -eu

modules=$("$APXS" -q LIBEXECDIR)
settings=$("$APXS" -q SYSCONFDIR)
target=$DESTDIR$modules
available=
if [ -d "$settings/mods-available" ] || [ "$settings" = /etc/apache2 ]; then
    available=$DESTDIR$settings/mods-available
fi

# put FROM TO [MODE]: by a rename, since a running httpd may have the old file mapped.
put() {
    install -m "${3:-644}" "$1" "$2.new"
    mv -f "$2.new" "$2"
    echo "installed $2"
}

case $1 in
install)
    install -d "$target/rwsgi"
    put build/mod_rwsgi.so "$target/mod_rwsgi.so"
    for file in build/rwsgi/*.so build/rwsgi/*.conf build/rwsgi/default; do
        put "$file" "$target/rwsgi/$(basename "$file")"
    done
    put build/rwsgi/rwsgi-daemon "$target/rwsgi/rwsgi-daemon" 755
    if [ -n "$available" ]; then
        install -d "$available"
        put apache/rwsgi.load "$available/rwsgi.load"
        put apache/rwsgi.conf "$available/rwsgi.conf"
        [ -n "$DESTDIR" ] || echo "Now: a2enmod rwsgi && systemctl restart apache2"
    else
        echo "Now add to httpd's configuration: LoadModule rwsgi_module $modules/mod_rwsgi.so"
    fi
    ;;
uninstall)
    if [ -z "$DESTDIR" ] && [ -e "$settings/mods-enabled/rwsgi.load" ]; then
        echo "rwsgi is enabled; run 'a2dismod rwsgi' and restart httpd first" >&2
        exit 1
    fi
    rm -fv "$target/mod_rwsgi.so" "$target"/rwsgi/_rwsgi.*.so "$target"/rwsgi/_rwsgi.*.conf \
        "$target/rwsgi/default" "$target/rwsgi/rwsgi-daemon"
    [ ! -d "$target/rwsgi" ] || rmdir "$target/rwsgi"
    [ -z "$available" ] || rm -fv "$available/rwsgi.load" "$available/rwsgi.conf"
    ;;
*)
    echo "usage: install.sh install|uninstall" >&2
    exit 2
    ;;
esac
