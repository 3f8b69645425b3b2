#!/usr/bin/env bash
# Installs what the testbed needs of Debian's packages and this machine lacks. No server is started by that.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
for directory in /usr/lib/postgresql/*/bin; do PATH=$PATH:$directory; done

missing=()
while read -r program package; do
    command -v "$program" >/dev/null || missing+=("$package")
done <<'END'
ip iproute2
ssh openssh-client
sshd openssh-server
pdsh pdsh
initdb postgresql
END
[ ${#missing[@]} -gt 0 ] || exit 0

fail() {
    echo "make test-cluster: ${missing[*]}: not installed, and $1" >&2
    exit 1
}
command -v apt-get >/dev/null || fail 'there is no apt-get to install it with; install what has the same programs'
[ "$(id -u)" = 0 ] || fail 'only root can install it: run this as root, or install sudo'

# Asked by the packages whether a service may start; 101 is no.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
fi
echo "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq install --yes --no-install-recommends "${missing[@]}" </dev/null
