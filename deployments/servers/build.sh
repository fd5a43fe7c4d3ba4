#!/usr/bin/env bash
# Builds the real servers that tests run against, at the versions that go.mod beside this file pins,
# and prints the folder that holds them:
#
#   bin=$(deployments/servers/build.sh nats-server registry)
#
# They are programs of their own and are never linked into Towpath. The binaries are kept outside the
# tree, keyed by go.mod, go.sum and the Go version, so that each is built once: about two minutes for
# both on 2 cores from an empty build cache, nothing after that.
# Names: nats-server (the bus), registry (CNCF distribution).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

package_of() {
  case "$1" in
    nats-server) echo github.com/nats-io/nats-server/v2 ;;
    registry) echo github.com/distribution/distribution/v3/cmd/registry ;;
    *) return 1 ;;
  esac
}

[ $# -gt 0 ] || set -- nats-server registry
for name; do
  package_of "$name" >/dev/null || {
    echo "build.sh: unknown server \"$name\": one of nats-server, registry" >&2
    exit 2
  }
done

key=$(cd "$here" && { cat go.mod go.sum; GOTOOLCHAIN=local go version; } | sha256sum | cut -c1-16)
bin="${XDG_CACHE_HOME:-$HOME/.cache}/towpath/servers/$key"
mkdir -p "$bin"

# Two test processes may ask at once; the second waits and finds the binaries there.
exec 9>"$bin/.lock"
flock 9
for name; do
  [ -x "$bin/$name" ] && continue
  echo "building $name ($(package_of "$name")) into $bin" >&2
  (cd "$here" && GOWORK=off CGO_ENABLED=0 go build -trimpath -o "$bin/.$name" "$(package_of "$name")")
  mv "$bin/.$name" "$bin/$name"
done
echo "$bin"
