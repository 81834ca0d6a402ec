#!/usr/bin/env bash
# Installs the missing programs and packages for a purpose, on Debian or Ubuntu. It is safe to run again.
#
#   setup.sh PURPOSE   one of: python demo test lint unit media e2e bench bench-consumer bench-stream
#
# It installs system packages with apt, and everything else into .local/ (VIDSTREAMX_TOOLS_DIR selects
# another folder). The output of all commands is in setup.log in that folder.
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
tools=${VIDSTREAMX_TOOLS_DIR:-$repo/.local}
devtools=$repo/devtools
log=$tools/setup.log
own_engine=$tools/engine-installed # exists if this script installed the engine
user=$(id -un)
base_image=debian:trixie-slim
oldest_python=3.10

fail() {
    printf 'setup: %s\n' "$1" >&2
    shift
    if (($#)); then printf '       %s\n' "$@" >&2; fi
    exit 1
}

# step LABEL COMMAND…: prints one line with the duration; the command's output goes to the log. bash
# ignores "set -e" in the condition of an "if", so the functions below chain their commands with "&&".
step() {
    local label=$1 start=$SECONDS
    shift
    printf '  %-52s' "$label"
    printf '\n== %s: %s\n' "$label" "$*" >>"$log"
    if "$@" >>"$log" 2>&1 </dev/null; then
        printf '%4d s\n' $((SECONDS - start))
    else
        printf ' failed\n'
        tail -n 8 "$log" | sed 's/^/    | /' >&2
        fail "$label failed; its output is in $log"
    fi
}

distribution() { sed -n 's/^ID=//p' /etc/os-release; }

have() { command -v "$1" >/dev/null 2>&1; }

as_root() {
    if ((EUID == 0)); then
        "$@"
    elif have sudo; then
        sudo "$@"
    else
        fail "installing packages requires root, and there is no sudo" "Run this as root, or install sudo."
    fi
}

apt_updated=
apt_install() {
    have apt-get || fail "cannot install $*: this is not a Debian or Ubuntu machine" \
        "Install it by hand, then run the command again."
    if ((EUID != 0)); then as_root true; fi # asks for the password here, because a step hides its output
    if [[ -z $apt_updated ]]; then
        step "package lists" as_root apt-get update -q
        apt_updated=yes
    fi
    step "install $*" as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -q -y --no-install-recommends "$@"
}

# --- Docker engine -----------------------------------------------------------------------------

docker_answers() { docker info --format '{{.ServerVersion}}' >/dev/null 2>&1; }

docker_refuses() {
    local output # not a pipe to grep, because with pipefail its early exit would be an error
    output=$(docker info 2>&1 >/dev/null) || true
    [[ $output == *"permission denied"* ]]
}

# wait_for SECONDS COMMAND…: repeats the command until it succeeds. Fails after this time.
wait_for() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < deadline)) || return 1
        sleep 0.2
    done
}

start_dockerd() {
    local group
    group=$(id -gn) || return 1
    # In its own session, so that the engine outlives this shell and ignores its Ctrl-C.
    as_root setsid --fork dockerd --pidfile "$tools/dockerd.pid" --group "$group" \
        >"$tools/dockerd.log" 2>&1 </dev/null || return 1
    wait_for 30 docker_answers || {
        tail -n 5 "$tools/dockerd.log"
        return 1
    }
}

# The socket belongs to root and the group docker. The current session does not get a new group, so the
# user becomes the owner of the socket, too.
grant_docker_access() {
    as_root usermod -aG docker "$user" && # for later sessions
        as_root chown "$user" /run/docker.sock && # until the next boot
        docker_answers
}

# Changes the access only if this script installed the engine.
need_docker_access() {
    if [[ -e $own_engine ]]; then
        if ((EUID != 0)); then as_root true; fi
        step "give $user access to the Docker engine" grant_docker_access
    elif [[ " $(id -nG "$user") " == *" docker "* ]]; then
        fail "the Docker engine refuses this session: $user joined the group docker after the session started" \
            "Log in again, or run: newgrp docker"
    else
        fail "the Docker engine refuses $user" \
            "Run: sudo usermod -aG docker $user" "Then log in again, or run: newgrp docker"
    fi
}

need_docker() {
    if docker_answers; then return; fi
    if have docker; then
        if docker_refuses; then
            need_docker_access
            return
        fi
        [[ -z ${DOCKER_HOST:-} ]] ||
            fail "no Docker engine answers at DOCKER_HOST=$DOCKER_HOST" "Start it, or unset DOCKER_HOST to use a local one."
    fi
    if ! have docker || ! have_engine; then
        if ! have_engine && [[ ! -S /run/docker.sock ]]; then : >"$own_engine"; fi
        apt_install docker.io
        # With an init system the package starts the engine.
        if [[ -d /run/systemd/system ]]; then wait_for 20 docker_is_up || true; fi
    fi
    if ! docker_is_up && [[ -d /run/systemd/system ]] && as_root systemctl start docker >>"$log" 2>&1; then
        wait_for 20 docker_is_up || true
    fi
    if docker_answers; then return; fi
    if docker_refuses; then
        need_docker_access
    else
        step "start Docker engine" start_dockerd
    fi
}

# Looks in /usr/sbin too, because on Debian it is not on the PATH of ordinary users.
have_engine() { have dockerd || [[ -x /usr/sbin/dockerd ]]; }

docker_is_up() { docker_answers || docker_refuses; }

# Prints the first repository of the machine's apt configuration.
debian_mirror() {
    # Asks apt, because apt's configuration files have several formats.
    # shellcheck disable=SC2016 # apt's variables, not the shell's
    apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 2>/dev/null |
        awk '$2 !~ /-(security|updates|backports)$/ { print $1; exit }'
}

make_base_image() {
    local mirror=$1 archive=$tools/base.tar
    : >"$archive" &&
        as_root mmdebstrap --variant=minbase trixie "$archive" "$mirror" &&
        docker import --change 'CMD ["bash"]' "$archive" "$base_image" &&
        rm "$archive"
}

need_base_image() {
    if docker image inspect "$base_image" >/dev/null 2>&1; then return; fi
    printf '\n== docker pull %s\n' "$base_image" >>"$log"
    local start=$SECONDS
    if timeout 90 docker pull -q "$base_image" >>"$log" 2>&1; then
        printf '  %-52s%4d s\n' "pull $base_image" $((SECONDS - start))
        return
    fi
    local mirror=${VIDSTREAMX_DEBIAN_MIRROR:-}
    if [[ -z $mirror && $(distribution) == debian ]]; then mirror=$(debian_mirror); fi
    [[ -n $mirror ]] || fail "cannot pull $base_image, and no Debian mirror is known to build it from" \
        "Set VIDSTREAMX_DEBIAN_MIRROR, or load the image with: docker load"
    have mmdebstrap || apt_install mmdebstrap
    step "build $base_image from packages" make_base_image "$mirror"
}

# --- Python and npm packages -------------------------------------------------------------------

python_is_new_enough() {
    python3 -c "import sys; sys.exit(sys.version_info < tuple(map(int, '$oldest_python'.split('.'))))"
}

pip_install() {
    "$tools/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
}

make_venv() {
    rm -rf "$tools/venv" &&
        python3 -m venv "$tools/venv" &&
        pip_install --editable "$devtools" &&
        cp "$devtools/pyproject.toml" "$tools/venv/installed.toml"
}

# An editable install records the checkout's path, which is wrong after a move or for another checkout.
devtools_are_installed() {
    local folder
    folder=$("$tools/venv/bin/python" -I -c 'import vidstreamx_devtools as d; print(d.__path__[0])' 2>/dev/null) &&
        [[ $folder == "$devtools/vidstreamx_devtools" ]]
}

install_devtools() {
    pip_install --no-deps --no-build-isolation --editable "$devtools"
}

need_python() {
    if ! cmp -s "$devtools/pyproject.toml" "$tools/venv/installed.toml" ||
        ! "$tools/venv/bin/python" -c '' 2>/dev/null; then
        have python3 || apt_install python3
        python_is_new_enough ||
            fail "$(python3 --version) is too old: the local AWS needs $oldest_python or newer" \
                "Put a newer python3 first on PATH."
        python3 -c 'import ensurepip, venv' 2>/dev/null || apt_install python3-venv
        step "Python packages (local AWS, tests)" make_venv
    elif ! devtools_are_installed; then
        step "Python tools of this checkout" install_devtools
    fi
}

need_quality_meter() {
    if "$tools/venv/bin/python" -I -c 'import imageio_ffmpeg' 2>/dev/null; then return; fi
    step "FFmpeg with VMAF" pip_install --no-build-isolation --editable "${devtools}[bench]"
}

install_players() {
    mkdir -p "$tools/players" &&
        cp "$repo"/infra/local/players/package*.json "$tools/players/" &&
        npm --prefix "$tools/players" ci --no-audit --no-fund --loglevel=error &&
        cp "$repo/infra/local/players/package-lock.json" "$tools/players/installed.json"
}

need_players() {
    if cmp -s "$repo/infra/local/players/package-lock.json" "$tools/players/installed.json"; then return; fi
    have npm || apt_install npm
    step "video players for the browser" install_players
}

# --- Other programs ----------------------------------------------------------------------------

need_command() {
    have "$1" || apt_install "${2:-$1}"
}

need_rust() {
    have cargo || fail "cargo is not on PATH" "Install Rust from https://rustup.rs"
    have cc || apt_install gcc libc6-dev
}

# Ubuntu has Chromium only as a snap, which needs a running snapd.
install_own_chromium() {
    rm -f "$tools/browsers.txt" &&
        as_root env PLAYWRIGHT_BROWSERS_PATH="$tools/browsers" \
            "$tools/venv/bin/python" -m playwright install --with-deps chromium &&
        printf '%s\n' "$1" >"$tools/browsers.txt"
}

need_chromium() {
    local name playwright
    for name in chromium google-chrome; do # see browser.py
        if have "$name"; then return; fi
    done
    if [[ $(distribution) == debian ]]; then
        apt_install chromium
        return
    fi
    # Each version of Playwright needs its own browser. browsers.txt exists only after a complete download.
    playwright=$(grep -o 'playwright==[0-9.]*' "$devtools/pyproject.toml")
    if [[ -d $tools/browsers && $(cat "$tools/browsers.txt" 2>/dev/null) == "$playwright" ]]; then return; fi
    step "Chromium for the browser tests" install_own_chromium "$playwright"
}

need_ffmpeg() { need_command ffmpeg; }

need_shellcheck() { need_command shellcheck; }

declare -A needs=(
    [python]='python'
    [demo]='rust ffmpeg python players docker base_image'
    [test]='rust ffmpeg python players docker base_image chromium shellcheck'
    [lint]='rust python shellcheck'
    [unit]='rust ffmpeg'
    [media]='rust ffmpeg python players docker base_image chromium'
    [e2e]='rust ffmpeg python players docker base_image chromium'
    [bench]='rust ffmpeg python quality_meter docker base_image'
    [bench-consumer]='rust ffmpeg python'
    [bench-stream]='rust ffmpeg python docker base_image'
)

main() {
    local purpose=${1:-demo} start=$SECONDS need
    [[ -n ${needs[$purpose]:-} ]] || fail "unknown purpose \"$purpose\"" "Purposes: ${!needs[*]}"
    mkdir -p "$tools"
    : >"$log"
    for need in ${needs[$purpose]}; do "need_$need"; done
    if ((SECONDS - start > 2)); then printf 'Set-up took %d s.\n' $((SECONDS - start)); fi
}

main "$@"
