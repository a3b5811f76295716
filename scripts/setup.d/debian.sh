# Fetches single Debian or Ubuntu packages without root and without touching the machine's own apt configuration.
# shellcheck shell=bash

# The distribution mirrors that this machine's apt already uses, one "uri component..." a line.
debian_mirrors() {
    local codename
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    # shellcheck disable=SC2016  # apt's own placeholders
    apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 2>/dev/null |
        awk -v codename="$codename" '
            $2 == codename && ($3 == "main" || $3 == "universe") && !seen[$1 $3]++ { parts[$1] = parts[$1] " " $3 }
            END { for (uri in parts) print uri parts[uri] }'
}

# debian_apt STATE apt-get-arguments...: apt-get with its whole state in the directory STATE.
debian_apt() {
    local state=$1
    shift
    APT_CONFIG=$state/apt.conf apt-get -q "$@"
}

# debian_suite STATE URI SUITE COMPONENTS: points STATE at one suite and fetches its index.
debian_suite() {
    local state=$1 uri=$2 suite=$3 components=$4 signed='' keyring
    rm -rf "$state"
    mkdir -p "$state/lists/partial" "$state/cache/archives/partial"
    : >"$state/status"
    for keyring in /usr/share/keyrings/{debian,ubuntu}-archive-keyring.gpg; do
        [[ $keyring == *"/$(. /etc/os-release && echo "$ID")-"* && -r $keyring ]] && signed="[signed-by=$keyring] "
    done
    echo "deb $signed$uri $suite $components" >"$state/sources.list"
    cat >"$state/apt.conf" <<CONF
Dir::State "$state";
Dir::State::lists "$state/lists";
Dir::State::status "$state/status";
Dir::Cache "$state/cache";
Dir::Etc::sourcelist "$state/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Acquire::Languages "none";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::IndexTargets::deb::DEP-11-icons::DefaultEnabled "false";
Acquire::IndexTargets::deb::DEP-11-icons-small::DefaultEnabled "false";
APT::Sandbox::User "root";
APT::Update::Error-Mode "any";
CONF
    debian_apt "$state" update
}

# debian_version STATE PACKAGE PREFIX: the newest version of PACKAGE that starts with PREFIX, or nothing.
debian_version() {
    APT_CONFIG=$1/apt.conf apt-cache madison "$2" 2>/dev/null |
        awk -F '|' -v prefix="$3" '{ gsub(/ /, "", $2) } index($2, prefix) == 1 { print $2; exit }'
}

# debian_unpack STATE PACKAGE VERSION INTO [PATTERN]: downloads one package and unpacks it, or what PATTERN names of it.
debian_unpack() {
    local state=$1 package=$2 version=$3 into=$4 pattern=${5:-*} debs
    mkdir -p "$state/debs" "$into"
    rm -f "$state"/debs/*.deb
    (cd "$state/debs" && debian_apt "$state" download "$package=$version") || return
    debs=("$state"/debs/*.deb)
    dpkg-deb --fsys-tarfile "${debs[0]}" | tar -x -C "$into" --no-same-owner --wildcards "$pattern"
}

# debian_fetch PACKAGE INTO: the same for whatever version this machine's own release has. Each mirror's index is fetched once.
debian_fetch() {
    local package=$1 into=$2 state codename uri components version
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    while read -r uri components; do
        state=$SCRATCH/apt-${uri//[^a-z0-9]/-}
        [[ -e $state/fetched ]] || { debian_suite "$state" "$uri" "$codename" "$components" && : >"$state/fetched"; } || continue
        version=$(debian_version "$state" "$package" "")
        [[ -n $version ]] || continue
        debian_unpack "$state" "$package" "$version" "$into" && return
    done < <(debian_mirrors)
    echo "none of this machine's apt mirrors gives a package named $package"
    return 1
}
