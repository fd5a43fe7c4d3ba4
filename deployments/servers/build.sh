#!/usr/bin/env bash
# Makes the real servers that tests run against, at the versions that the go.mod files beside this file pin, and
# prints a folder that holds those that were asked for:
#
#   bin=$(deployments/servers/build.sh nats-server consul)
#
# They are programs of their own and are never linked into Towpath. A binary on PATH that is of the pinned release line
# or newer is used as it is. Others are built once for each module file and Go version and kept outside the tree: on 2
# cores about two minutes for nats-server and registry together, six for Consul, four for Vault.
# Names: nats-server (the bus), registry (CNCF distribution), consul, vault.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache="${XDG_CACHE_HOME:-$HOME/.cache}/towpath/servers"

# Sets module (a folder), package, tags and what "NAME version" prints before the version.
describe() {
  module=$here tags= says=
  case "$1" in
    nats-server) package=github.com/nats-io/nats-server/v2 ;;
    registry) package=github.com/distribution/distribution/v3/cmd/registry ;;
    consul) module=$here/consul package=github.com/hashicorp/consul says="Consul v" ;;
    vault) module=$here/vault package=github.com/hashicorp/vault tags=minimal says="Vault v" ;;
    *)
      echo "build.sh: unknown server \"$1\": one of nats-server, registry, consul, vault" >&2
      exit 2
      ;;
  esac
}

# Prints the binary on PATH where its release (1.22 of 1.22.3) is the pinned one or a newer one of the same major.
installed() {
  local path pinned found
  [ -n "$says" ] && path=$(command -v "$1") || return 1
  pinned=$(sed -nE "s#^[[:space:]]*(require )?$package v([0-9]+\.[0-9]+).*#\2#p" "$module/go.mod" | head -n 1)
  found=$("$path" version 2>/dev/null | sed -nE "s/^$says([0-9]+\.[0-9]+).*/\1/p" | head -n 1)
  [ -n "$found" ] && [ "${found%.*}" = "${pinned%.*}" ] && [ "${found#*.}" -ge "${pinned#*.}" ] || return 1
  echo "$path"
}

[ $# -gt 0 ] || set -- nats-server registry consul vault
for name; do describe "$name"; done

view="$cache/bin-$( (echo "$PATH"; cat "$here"/go.mod "$here"/*/go.mod; GOTOOLCHAIN=local go version) | sha256sum | cut -c1-16)"
mkdir -p "$view"
for name; do
  [ -x "$view/$name" ] && continue
  describe "$name"
  if ! binary=$(installed "$name"); then
    key=$(cd "$module" && { cat go.mod go.sum; GOTOOLCHAIN=local go version; } | sha256sum | cut -c1-16)
    binary="$cache/$key/$name"
    mkdir -p "$cache/$key"
    # Two test processes may ask at once; the second waits and finds the binary there.
    exec 9>"$cache/$key/.lock"
    flock 9
    if [ ! -x "$binary" ]; then
      echo "building $name ($package) into $cache/$key" >&2
      (cd "$module" && GOWORK=off CGO_ENABLED=0 go build -trimpath -tags "$tags" -o "$cache/$key/.$name" "$package")
      mv "$cache/$key/.$name" "$binary"
    fi
    exec 9>&-
  fi
  ln -sfn "$binary" "$view/$name"
done
echo "$view"
