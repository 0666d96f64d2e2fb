#!/bin/sh
# Proves the choice "container" with a real engine and a real image.
#
# Where an engine answers (DOCKER_HOST, or Docker's own socket), it is used, with the image of
# CONTINUUM_POSTGRES_IMAGE or the kit's default. Elsewhere, on Debian and as root, an engine is set up for this
# run alone: Podman with runc behind a Unix socket, and an image made of Debian's packages, so that no registry
# is needed. It takes about two minutes and lives in a temporary directory that is removed again. Packages that
# were installed for it (podman, runc, debootstrap) stay, and so do Podman's empty firewall chains.
#
#   PYTHON=python3.11 sh ci/container_check.sh
#
# PYTHON is an interpreter that has the kit with the extra [containers].
set -eu

python=${PYTHON:-python3}
here=$(cd "$(dirname "$0")" && pwd)
PYTHONPATH=$(dirname "$here")${PYTHONPATH:+:$PYTHONPATH}
export PYTHONPATH

"$python" -c 'import psycopg, testcontainers' || {
    echo "container_check: PYTHON ($python) needs the kit's extra [containers]" >&2
    exit 2
}

engine_answers() {
    "$python" -c 'import docker; docker.from_env(timeout=5).ping()' 2>/dev/null
}

work=
service=
bridge_was_there=
lock_was_there=

clean_up() {
    status=$?
    trap - EXIT
    if [ -n "$work" ]; then
        (podman_here rm --all --force --volumes) >/dev/null 2>&1 || true
        if [ -n "$service" ]; then
            kill "$service" 2>/dev/null || true
            wait "$service" 2>/dev/null || true
        fi
        [ -n "$bridge_was_there" ] || ip link delete cni-podman0 2>/dev/null || true
        [ -n "$lock_was_there" ] || rm -f /dev/shm/libpod_lock
        # Nothing is removed through a mount that could not be undone.
        grep -o " $work/[^ ]*" /proc/mounts | sort -r | xargs -r umount --lazy 2>/dev/null || true
        rm -rf --one-file-system "$work"
    fi
    exit "$status"
}

# For a subshell: it becomes Podman, so that its process id is Podman's own.
podman_here() {
    exec podman --runtime runc --root "$work/storage" --runroot "$work/run" --tmpdir "$work/tmp" \
        --cgroup-manager cgroupfs --events-backend file "$@"
}

set_up_engine() {
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "container_check: no container engine answers, and one can be set up only on Debian and as root." >&2
        echo "Start Docker or Podman's service, and set DOCKER_HOST if its socket is not Docker's own." >&2
        exit 3
    fi
    work=$(mktemp -d)
    chmod 755 "$work"
    [ ! -e /sys/class/net/cni-podman0 ] || bridge_was_there=yes
    [ ! -e /dev/shm/libpod_lock ] || lock_was_there=yes
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM

    missing=
    for program in podman runc debootstrap; do
        command -v "$program" >/dev/null || missing="$missing $program"
    done
    if [ -n "$missing" ]; then
        echo "container_check: installing$missing"
        apt-get update -qq
        # shellcheck disable=SC2086  # a list of words
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing >"$work/apt.log" 2>&1 || {
            tail -n 20 "$work/apt.log" >&2
            exit 3
        }
    fi

    # Podman's default limits are above what a container or sandbox around us may allow, and its monitors of
    # commands run inside a container would outlive the engine by five minutes.
    cat >"$work/containers.conf" <<'END'
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
exit_command_delay = 0
END
    CONTAINERS_CONF=$work/containers.conf
    export CONTAINERS_CONF

    echo "container_check: making an image of Debian's packages"
    make_image

    (podman_here system service --time 0 "unix://$work/engine.sock") >"$work/engine.log" 2>&1 &
    service=$!
    DOCKER_HOST=unix://$work/engine.sock
    TESTCONTAINERS_RYUK_DISABLED=true # its image would have to be pulled
    CONTINUUM_POSTGRES_IMAGE=localhost/continuum-postgres:check
    # The engine runs beside us, also where we are in a container ourselves.
    TESTCONTAINERS_CONNECTION_MODE=docker_host
    TESTCONTAINERS_HOST_OVERRIDE=127.0.0.1
    export TESTCONTAINERS_CONNECTION_MODE TESTCONTAINERS_HOST_OVERRIDE
    export DOCKER_HOST TESTCONTAINERS_RYUK_DISABLED CONTINUUM_POSTGRES_IMAGE
    tries=0
    until engine_answers; do
        tries=$((tries + 1))
        if [ "$tries" -gt 100 ] || ! kill -0 "$service" 2>/dev/null; then
            cat "$work/engine.log" >&2
            exit 3
        fi
        sleep 0.1
    done
}

make_image() {
    root=$work/root
    # shellcheck source=/dev/null
    suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
    debootstrap --variant=minbase --include=postgresql "$suite" "$root" >"$work/debootstrap.log" 2>&1 || {
        tail -n 20 "$work/debootstrap.log" >&2
        exit 3
    }
    # What the kit relies on in the well-known images: three variables, and arguments that go to the server.
    cat >"$root/usr/local/bin/entrypoint" <<'END'
#!/bin/sh
set -eu
data=/var/lib/postgresql/data
programs=$(echo /usr/lib/postgresql/*/bin)
as_postgres() { setpriv --reuid postgres --regid postgres --init-groups "$@"; }
if [ ! -s "$data/PG_VERSION" ]; then
    install -d -o postgres -g postgres -m 700 "$data"
    install -o postgres -m 600 /dev/null /tmp/password
    printf '%s' "$POSTGRES_PASSWORD" >/tmp/password
    as_postgres "$programs/initdb" --pgdata "$data" --username "$POSTGRES_USER" --pwfile /tmp/password \
        --auth scram-sha-256 --encoding UTF8 --locale C --no-sync
    rm /tmp/password
    echo 'host all all all scram-sha-256' >>"$data/pg_hba.conf"
    if [ "$POSTGRES_DB" != postgres ]; then
        echo "CREATE DATABASE \"$POSTGRES_DB\"" | as_postgres "$programs/postgres" --single -D "$data" postgres
    fi
fi
[ "${1:-}" != postgres ] || shift
exec setpriv --reuid postgres --regid postgres --init-groups \
    "$programs/postgres" -D "$data" -c 'listen_addresses=*' "$@"
END
    chmod 755 "$root/usr/local/bin/entrypoint"
    rm -rf "${root:?}/var/cache/apt/archives" "$root/var/lib/apt/lists" "$root/var/lib/postgresql"/*
    tar -C "$root" --one-file-system -c . | podman_here import --quiet \
        --change 'ENTRYPOINT ["/usr/local/bin/entrypoint"]' --change 'CMD ["postgres"]' --change 'EXPOSE 5432' \
        - localhost/continuum-postgres:check >/dev/null
    rm -rf --one-file-system "$root"
}

if engine_answers; then
    echo "container_check: using the engine that answers"
else
    set_up_engine
fi

"$python" "$here/container_check.py"

# The whole suite against a server in a container, where the command is there and can do it.
if "$python" -m continuum_conformance.cli check --help 2>/dev/null | grep -q -e --postgres; then
    "$python" -m continuum_conformance.cli check postgres --postgres container
else
    echo "container_check: the command cannot check with --postgres container yet; that part was left out"
fi
