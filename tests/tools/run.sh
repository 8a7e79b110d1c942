#!/bin/bash
# Serves the sample Django site through httpd on the loopback interface, in the foreground.
#
# Everything that it writes is under build/run: configuration, logs, database, uploads.
set -eu
umask 022

root=$PWD
run=$root/build/run
data=$run/data
site=$root/tests/django_site
user=www-data

httpd=$(command -v apache2 || command -v httpd) || { echo "no httpd here; see 'make deps'" >&2; exit 1; }
modules=$("$APXS" -q LIBEXECDIR)
[ "$MPM" = event ] || [ "$MPM" = worker ] || [ "$MPM" = prefork ] || {
    echo "MPM=$MPM: use event, worker or prefork" >&2
    exit 1
}

# The port: bound for a moment, so that a taken one is told before anything else happens.
PORT=$("$PYTHON" - "$PORT" <<'PY'
import socket, sys
with socket.socket() as probe:
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        probe.bind(("127.0.0.1", int(sys.argv[1])))
    except (OSError, ValueError, OverflowError) as error:
        port = sys.argv[1]
        sys.exit(f"Port {port} on 127.0.0.1 cannot be used ({error}). Try 'make run PORT=8001', "
                 "or 'make run PORT=0' for any free port.")
    print(probe.getsockname()[1])
PY
)

mkdir -p "$run/logs" "$data/media"
env_file=$run/site.env
if [ ! -f "$run/secret" ]; then
    (umask 077 && "$PYTHON" -c 'import secrets; print(secrets.token_urlsafe(40))' >"$run/secret")
fi
rm -f "$env_file"
(umask 077 && printf '%s\n' "SITE_SECRET_KEY=$(cat "$run/secret")" "SITE_DATA=$data" >"$env_file")

echo "== preparing the site's database and static files in build/run/data"
manage=(env SITE_ENV="$env_file" "$root/build/venv/bin/python" "$site/manage.py")
"${manage[@]}" migrate --verbosity 0
"${manage[@]}" seed
"${manage[@]}" collectstatic --verbosity 0 --noinput --clear

if [ "$(id -u)" = 0 ]; then
    # The children run as this user: they write the database and the uploads, and read the key.
    chown -R "$user:$user" "$data" "$env_file"
    identity="User $user
Group $user"
else
    identity="# not started as root: the children run as $(id -un)"
fi

# One of httpd's own modules, unless it is compiled in.
load() {
    if [ -f "$modules/mod_$1.so" ]; then
        echo "LoadModule $1_module \"$modules/mod_$1.so\""
    fi
}
packages=$("$root/build/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

cat >"$run/httpd.conf" <<CONF
ServerRoot "$run"
ServerName 127.0.0.1
Listen 127.0.0.1:$PORT
PidFile "$run/httpd.pid"
DefaultRuntimeDir "$run"
$identity

$(for name in mpm_"$MPM" unixd authz_core log_config mime dir alias; do load $name; done)
LoadModule rwsgi_module "$root/build/mod_rwsgi.so"

ErrorLog "$run/logs/error.log"
LogLevel warn rwsgi:info
LogFormat "%h %l %u %t \"%r\" %>s %O" common
CustomLog "$run/logs/access.log" common
$([ ! -f /etc/mime.types ] || echo 'TypesConfig /etc/mime.types')

<Directory />
    AllowOverride None
    Require all denied
</Directory>

# Static files are httpd's own business.
Alias /static/ "$data/static/"
<Directory "$data/static">
    Require all granted
</Directory>

# Everything else is Django's.
WSGIPythonPath "$packages"
WSGIScriptAlias / "$site/config/wsgi.py"
<Directory "$site/config">
    Require all granted
</Directory>
CONF

# What a service manager gives, and nothing of the user's shell; the site's settings file is named
# here because httpd's SetEnv does not reach os.environ.
httpd=(env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8
    SITE_ENV="$env_file" "$httpd" -f "$run/httpd.conf")
"${httpd[@]}" -t

# In a session of its own, so that Ctrl-C reaches only this script, which stops httpd in order.
setsid "${httpd[@]}" -DFOREGROUND &
server=$!
trap 'kill -TERM $server 2>/dev/null' INT TERM HUP
cat <<TEXT

    The site:   http://127.0.0.1:$PORT/
    The admin:  http://127.0.0.1:$PORT/admin/   user admin, password admin (on this machine only)
    Error log:  $run/logs/error.log
    Stop it with Ctrl-C.

TEXT
status=0
# A trapped signal ends `wait` early; what counts is the end of httpd.
while kill -0 $server 2>/dev/null; do
    wait $server && status=0 || status=$?
done
[ $status -le 128 ] || status=0
[ $status = 0 ] && echo "httpd has stopped." || tail -n 20 "$run/logs/error.log" >&2
exit $status
