# Python packages without touching the machine's own Python.
# shellcheck shell=bash

# Debian and Ubuntu ship Python without what puts pip into an environment; pip runs from its wheel just as well.
borrow_pip() {
    local venv=$1 wheels
    have apt-get dpkg-deb || return
    debian_fetch python3-pip-whl "$SCRATCH/pip" || return
    wheels=("$SCRATCH"/pip/usr/share/python-wheels/pip-*.whl)
    PIP=("$venv/bin/python" "${wheels[0]}/pip")
}

# python_venv DIR: a fresh virtual environment there; sets PIP to the command that installs into it.
python_venv() {
    local venv=$1
    rm -rf "$venv"
    PIP=("$venv/bin/python" -m pip)
    if ! python3 -m venv "$venv"; then
        rm -rf "$venv"
        python3 -m venv --without-pip "$venv" || return
        borrow_pip "$venv" || return
    fi
}

# pip_pinned install|download NAME VERSION [ARGUMENT...]: with PIP, only what has a sum in scripts/python-hashes.txt.
pip_pinned() {
    local command=$1 package=$2==$3 pinned=$SCRATCH/requirements.txt
    shift 3
    awk -v package="$package" '$1 == package' "$REPO/scripts/python-hashes.txt" >"$pinned"
    if [[ ! -s $pinned ]]; then
        echo "no sum of $package is in scripts/python-hashes.txt: 'pip download --no-deps $package', then 'pip hash FILE'"
        return 1
    fi
    "${PIP[@]}" "$command" --quiet --no-input --disable-pip-version-check --no-deps --require-hashes --requirement "$pinned" "$@"
}
