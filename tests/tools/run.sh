#!/bin/bash
# Serves a sample site through httpd on the loopback interface, in the foreground: Django's by WSGI
# (APP=django), or FastAPI's by ASGI (APP=fastapi); in httpd's own processes (MODE=embedded), or in a
# group of daemon processes (MODE=daemon).
#
# Everything that it writes is under build/run: configuration, logs, database, uploads.
set -eu
umask 022

root=$PWD
run=$root/build/run
data=$run/data
user=www-data
case $APP in
django) site=$root/tests/django_site script=$root/tests/django_site/config/wsgi.py alias=WSGIScriptAlias ;;
fastapi) site=$root/tests/fastapi_site script=$root/tests/fastapi_site/main.py alias=ASGIScriptAlias ;;
*)
    echo "APP=$APP: use django or fastapi" >&2
    exit 1
    ;;
esac

httpd=$(command -v apache2 || command -v httpd) || { echo "no httpd here; see 'make deps'" >&2; exit 1; }
modules=$("$APXS" -q LIBEXECDIR)
[ "$MPM" = event ] || [ "$MPM" = worker ] || [ "$MPM" = prefork ] || {
    echo "MPM=$MPM: use event, worker or prefork" >&2
    exit 1
}
[ "$MODE" = embedded ] || [ "$MODE" = daemon ] || {
    echo "MODE=$MODE: use embedded or daemon" >&2
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

mkdir -p "$run/logs" "$data/media" "$data/static"
env_file=$run/site.env
if [ ! -f "$run/secret" ]; then
    (umask 077 && "$PYTHON" -c 'import secrets; print(secrets.token_urlsafe(40))' >"$run/secret")
fi
rm -f "$env_file"
(umask 077 && printf '%s\n' "SITE_SECRET_KEY=$(cat "$run/secret")" "SITE_DATA=$data" >"$env_file")

if [ "$APP" = django ]; then
    echo "== preparing the site's database and static files in build/run/data"
    manage=(env SITE_ENV="$env_file" "$root/build/venv/bin/python" "$site/manage.py")
    "${manage[@]}" migrate --verbosity 0
    "${manage[@]}" seed
    "${manage[@]}" collectstatic --verbosity 0 --noinput --clear
fi

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
# Who talks in FastAPI's chat meets those in the same process: there is one.
processes=2
limits=
if [ "$APP" = fastapi ] && [ "$MPM" != prefork ]; then
    processes=1
    limits="ServerLimit 1
StartServers 1
ThreadLimit 64
ThreadsPerChild 64
MaxRequestWorkers 64"
    [ "$MPM" != event ] || limits="$limits
# So many WebSockets for each idle thread, beside one for each thread.
AsyncRequestWorkerFactor 16"
fi
if [ "$MODE" = daemon ]; then
    # A socket's path may have 107 bytes, and this directory may be deep.
    sockets=$run/wsgi
    if [ ${#sockets} -gt 70 ]; then
        socket_directory=$(mktemp -d /tmp/rwsgi-run-XXXXXX)
        chmod 755 "$socket_directory"
        sockets=$socket_directory/wsgi
    fi
    # The environment comes from the file, and httpd's own processes run no Python.
    application="WSGISocketPrefix \"$sockets\"
WSGIDaemonProcess site processes=$processes threads=15 display-name=%{GROUP} \\
    python-home=\"$root/build/venv\" env-file=\"$env_file\"
WSGIRestrictEmbedded On
$alias / \"$script\" process-group=site application-group=%{GLOBAL}"
else
    packages=$("$root/build/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    application="WSGIPythonPath \"$packages\"
$alias / \"$script\""
fi

cat >"$run/httpd.conf" <<CONF
ServerRoot "$run"
ServerName 127.0.0.1
Listen 127.0.0.1:$PORT
PidFile "$run/httpd.pid"
DefaultRuntimeDir "$run"
$identity

$(for name in mpm_"$MPM" unixd authz_core log_config mime dir alias; do load $name; done)
LoadModule rwsgi_module "$root/build/mod_rwsgi.so"
$limits

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

# Everything else is the application's.
$application
<Directory "$(dirname "$script")">
    Require all granted
</Directory>
CONF

# What a service manager gives, and nothing of the user's shell. In embedded mode the site's settings
# file is named here, because httpd's SetEnv does not reach os.environ.
environment=(PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8)
[ "$MODE" = daemon ] || environment+=(SITE_ENV="$env_file")
httpd=(env -i "${environment[@]}" "$httpd" -f "$run/httpd.conf")
"${httpd[@]}" -t

# In a session of its own, so that Ctrl-C reaches only this script, which stops httpd in order.
setsid "${httpd[@]}" -DFOREGROUND &
server=$!
trap 'kill -TERM $server 2>/dev/null' INT TERM HUP
trap '[ -z "${socket_directory:-}" ] || rm -rf "$socket_directory"' EXIT
if [ "$APP" = django ]; then
    more="The admin:  http://127.0.0.1:$PORT/admin/   user admin, password admin (on this machine only)"
else
    more="The docs:   http://127.0.0.1:$PORT/docs   (the page loads its scripts from the network)"
fi
cat <<TEXT

    The site:   http://127.0.0.1:$PORT/
    $more
    Error log:  $run/logs/error.log
    Stop it with Ctrl-C.

TEXT
if [ "$MODE" = daemon ]; then
    # The first answer says that the workers are up. Nothing announces the port, so it is tried.
    for _ in $(seq 100); do
        kill -0 $server 2>/dev/null || break
        if curl --silent --output /dev/null --max-time 30 "http://127.0.0.1:$PORT/"; then
            echo "    The processes (the site runs in those named (wsgi:site)):"
            echo
            ps -o pid,ppid,user,rss,args --forest -s $server | cut -c 1-110 | sed 's/^/    /'
            echo
            echo "    After a change of its code: touch $script"
            echo
            break
        fi
        sleep 0.1
    done
fi
status=0
# A trapped signal ends `wait` early; what counts is the end of httpd.
while kill -0 $server 2>/dev/null; do
    wait $server && status=0 || status=$?
done
[ $status -le 128 ] || status=0
[ $status = 0 ] && echo "httpd has stopped." || tail -n 20 "$run/logs/error.log" >&2
exit $status
