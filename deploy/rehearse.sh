#!/bin/sh
# Proves the stack on a machine with Docker, Python and make: builds the image, brings everything up, looks at it from
# inside and through its ports, takes it down. Exit code 0 means all of it held.
#   deploy/rehearse.sh
# Runs beside a stack that is already up: a project, an image and ports of its own. PYTHON_IMAGE, PROMETHEUS_IMAGE and
# GRAFANA_IMAGE name other images. Where Grafana's can't be had, the rest is checked, and the last line says so.
# Leaves the image, beexformer:rehearsal.
set -eu
cd "$(dirname "$0")/.."

docker=${DOCKER:-docker}
export DOCKER_BUILDKIT=1
export COMPOSE_PROJECT_NAME=beexformer-rehearsal BEEXFORMER_IMAGE=beexformer:rehearsal
export SERVICE_PORT="${SERVICE_PORT:-18000}" PROMETHEUS_PORT="${PROMETHEUS_PORT:-19090}" GRAFANA_PORT="${GRAFANA_PORT:-13000}"
service=http://127.0.0.1:$SERVICE_PORT
prometheus=http://127.0.0.1:$PROMETHEUS_PORT
grafana=http://127.0.0.1:$GRAFANA_PORT
most_megabytes=600

begin=$(date +%s)
step() { printf '\n== %3d s  %s\n' "$(($(date +%s) - begin))" "$*"; }
finish() {
  code=$?
  [ "$code" -eq 0 ] || $docker compose --profile demo logs --no-color --tail 50 || true
  $docker compose --profile demo down --volumes --timeout 20
  exit "$code"
}

step "the image"
make --no-print-directory image DOCKER="$docker" IMAGE="$BEEXFORMER_IMAGE" PYTHON_IMAGE="${PYTHON_IMAGE:-}"
megabytes=$(($($docker image inspect --format '{{.Size}}' "$BEEXFORMER_IMAGE") / 1000000))
$docker history --format '{{.Size}}	{{.CreatedBy}}' "$BEEXFORMER_IMAGE" | grep --invert-match '^0B' | cut -c1-120
echo "$megabytes MB, at most $most_megabytes"
[ "$megabytes" -le "$most_megabytes" ]

step "kernels are there, compiled, for every level of instructions"
contained="--rm --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges --network none"
for level in $($docker run --rm --entrypoint python "$BEEXFORMER_IMAGE" -c 'from beexformer.model.target import LEVELS; print(*LEVELS)'); do
  # shellcheck disable=SC2086  # a list
  if said=$($docker run $contained --env BEE_CPU="$level" --env NUMBA_DEBUG_CACHE=1 "$BEEXFORMER_IMAGE" \
      classify "a warm, funny film" 2>&1); then
    echo "$said" | grep --quiet 'data loaded from' && ! echo "$said" | grep 'saved to'
    echo "$level: loaded"
  else
    echo "$said" | grep 'which this CPU lacks'
  fi
done

$docker compose pull --quiet --policy missing prometheus
services="beexformer prometheus"
$docker compose pull --quiet --policy missing grafana && services="$services grafana"
trap finish EXIT
trap 'exit 130' INT TERM

step "healthy: $services"
# shellcheck disable=SC2086  # a list
$docker compose up --no-build --detach --wait --wait-timeout 60 $services
$docker compose --profile demo up --no-build --detach demo
$docker compose --profile demo ps
python3 - "$($docker compose ps --quiet beexformer)" "$docker" <<'PYTHON'
import json, subprocess, sys
from datetime import datetime
container, docker = sys.argv[1:]
started = subprocess.check_output([docker, "inspect", "--format", "{{.State.StartedAt}}", container], text=True)
started = datetime.fromisoformat(started[:26] + "+00:00")
logs = subprocess.run([docker, "logs", container], capture_output=True, text=True)
lines = [json.loads(line) for line in (logs.stdout + logs.stderr).splitlines() if line.startswith("{")]
ready = next(line["time"] for line in lines if line["message"] == "ready")
print(f"start to ready: {(datetime.fromisoformat(ready) - started).total_seconds():.1f} s")
PYTHON

step "not root, no capabilities, nothing to write to, nothing that serving doesn't need"
$docker compose exec -T beexformer python - <<'PYTHON'
import errno, importlib.util, os, pathlib, shutil
status = dict(line.split(":\t", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines())
assert os.getuid() != 0 != os.getgid(), "the service runs as root"
for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
    assert int(status[kind], 16) == 0, f"{kind} is {status[kind]}"
assert status["NoNewPrivs"] == "1", "the service may gain privileges"
for folder in ("/", "/opt/kernels", "/opt/venv", "/etc", "/usr/bin"):
    try:
        open(f"{folder}/written", "w")
    except OSError as error:
        assert error.errno == errno.EROFS, error
    else:
        raise AssertionError(f"{folder} can be written")
for name in ("torch", "pip", "setuptools", "wheel", "ensurepip"):
    assert importlib.util.find_spec(name) is None, f"the service could import {name}"
for name in ("pip", "pip3", "cc", "gcc", "g++", "clang", "ld", "as", "make"):
    assert shutil.which(name) is None, f"the image has {name}"
left = [*pathlib.Path("/opt").rglob("tests"), *pathlib.Path("/usr").rglob("*-packages/pip")]
assert not left, f"the image has {left}"
print("uid", os.getuid(), "CapEff", status["CapEff"], "NoNewPrivs", status["NoNewPrivs"])
PYTHON

step "an answer through the published port"
python3 - "$service" <<'PYTHON'
import json, sys, urllib.request
body = json.dumps({"text": "a warm, funny film"}).encode()
request = urllib.request.Request(sys.argv[1] + "/classify", body, {"content-type": "application/json"})
print(urllib.request.urlopen(request, timeout=10).read().decode())
PYTHON

step "every query of the dashboards has data, every rule can be evaluated"
python3 deploy/check_dashboard.py --prometheus "$prometheus"
python3 - "$prometheus" <<'PYTHON'
import json, sys, time, urllib.request
deadline = time.monotonic() + 60
while True:
    answer = json.load(urllib.request.urlopen(sys.argv[1] + "/api/v1/rules", timeout=10))
    rules = [rule for group in answer["data"]["groups"] for rule in group["rules"]]
    health = {rule["health"] for rule in rules}
    if health == {"ok"}:
        break
    assert "err" not in health, [rule["lastError"] for rule in rules if rule["health"] == "err"]
    assert time.monotonic() < deadline, f"rules are {health or 'missing'}"
    time.sleep(1)
print(f"{len(rules)} rules")
PYTHON
if [ "$services" != "${services%grafana}" ]; then
  step "and so it has through Grafana, for a visitor without a login"
  python3 deploy/check_dashboard.py --prometheus "$grafana/api/datasources/proxy/uid/prometheus"
  for uid in beexformer-exits beexformer-service; do
    python3 -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=10)' "$grafana/api/dashboards/uid/$uid"
  done
fi

step "done"
[ "$services" != "${services%grafana}" ] || echo "Grafana itself was NOT checked: its image can't be had here"
echo "rehearsal: all held"
