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
