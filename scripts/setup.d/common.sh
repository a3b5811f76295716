# Shared by the set-up scripts: where things go, and how progress and faults are told.
# shellcheck shell=bash
set -euo pipefail

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
TOOLS=$REPO/.tools
# A target that rust-toolchain.toml lists and that is missing makes rustup download it on every call, and fail where no
# server answers. Installing is what this set-up does, once, and says so.
export RUSTUP_AUTO_INSTALL=0

# Scratch space of this very process; what a killed one left behind goes too.
mkdir -p "$TOOLS"
for stale in "$TOOLS"/scratch.*; do
    kill -0 "${stale##*.}" 2>/dev/null || rm -rf "$stale"
done
SCRATCH=$TOOLS/scratch.$$
mkdir "$SCRATCH"
trap 'rm -rf "$SCRATCH"' EXIT

say() { printf 'setup: %s\n' "$*" >&2; }

# fault "what is missing" "how to supply it" ...
fault() {
    printf 'setup: MISSING %s\n' "$1" >&2
    shift
    printf 'setup:         %s\n' "$@" >&2
    exit 1
}

# have command...: all of them are there.
have() {
    local name
    for name in "$@"; do command -v "$name" >/dev/null 2>&1 || return; done
}

# timed "what" command...: announces a slow step, shows that it is alive, tells its last words if it fails.
timed() {
    local what=$1 log=$SCRATCH/log status=0 start=$SECONDS shown=0 pid
    shift
    say "$what …"
    # In a process group of its own: an interrupt has to reach what the command started as well.
    set -m
    "$@" >"$log" 2>&1 </dev/null &
    pid=$!
    set +m
    # shellcheck disable=SC2064  # this very process is meant
    trap "kill -- -$pid 2>/dev/null; wait $pid; exit 130" INT TERM HUP
    while kill -0 "$pid" 2>/dev/null; do
        sleep 0.2
        if ((SECONDS - start >= shown + 10)); then
            shown=$((SECONDS - start))
            say "  … still at it after ${shown} s: $(tail -n 1 "$log" | tr -d '\r' | cut -c 1-90)"
        fi
    done
    wait "$pid" || status=$?
    trap - INT TERM HUP
    if ((status != 0)); then
        say "  failed after $((SECONDS - start)) s; its last lines:"
        tail -n "${LAST_LINES:-15}" "$log" | sed 's/^/setup:   | /' >&2
    else
        say "  done in $((SECONDS - start)) s"
    fi
    return "$status"
}

# record NAME TOOL: makes a tool known, by its absolute path, to the Makefile and the tests, which read .tools/env.
record() {
    local file=$TOOLS/env path
    # A program by its name or path; data is no command.
    path=$(command -v "$2") || path=$2
    [[ $path == /* ]] || path=$PWD/$path
    touch "$file"
    {
        grep -v "^export $1=" "$file" || true
        printf "export %s='%s'\n" "$1" "${path//\'/\'\\\'\'}"
    } >"$file.new"
    mv "$file.new" "$file"
}
