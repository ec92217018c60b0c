#!/bin/sh
# Proves the stack on a machine with Docker and Python: builds the image, brings everything up, classifies through the
# published port, asks every query of the dashboard for data, tears down. Exit code 0 means all of it held.
#   sh deploy/smoke.sh
# Runs beside a stack that is already up: a project and ports of its own. Where Grafana's image can't be had, the queries
# are asked on Prometheus itself, and the last line says so.
set -eu
cd "$(dirname "$0")/.."

export COMPOSE_PROJECT_NAME=beexformer-smoke
export SERVICE_PORT="${SERVICE_PORT:-18000}" PROMETHEUS_PORT="${PROMETHEUS_PORT:-19090}" GRAFANA_PORT="${GRAFANA_PORT:-13000}"
service=http://127.0.0.1:$SERVICE_PORT
prometheus=http://127.0.0.1:$PROMETHEUS_PORT
grafana=http://127.0.0.1:$GRAFANA_PORT

finish() {
  code=$?
  [ "$code" -eq 0 ] || docker compose logs --no-color --tail 50 || true
  docker compose down --volumes --timeout 20
  exit "$code"
}

docker compose build beexformer
docker compose pull --quiet --policy missing prometheus
services="beexformer prometheus"
docker compose pull --quiet --policy missing grafana && services="$services grafana"

trap finish EXIT
trap 'exit 130' INT TERM
echo "== healthy within a minute"
# shellcheck disable=SC2086  # a list
docker compose up --no-build --detach --wait --wait-timeout 60 $services
docker compose ps

echo "== not root, and an environment without torch and pip"
docker compose exec -T beexformer python -c '
import importlib.util, os
assert os.getuid() != 0, "the service runs as root"
for name in ("torch", "pip"):
    assert importlib.util.find_spec(name) is None, f"the service could import {name}"
'

echo "== an answer through the published port"
python3 - "$service" <<'PYTHON'
import json, sys, urllib.request
body = json.dumps({"text": "a warm, funny film"}).encode()
request = urllib.request.Request(sys.argv[1] + "/classify", body, {"content-type": "application/json"})
print(urllib.request.urlopen(request, timeout=10).read().decode())
PYTHON

echo "== every query of the dashboard has data"
python3 deploy/check_dashboard.py --service "$service" --prometheus "$prometheus"
if [ "$services" != "${services%grafana}" ]; then
  echo "== and so it has through Grafana, for a visitor without a login"
  python3 deploy/check_dashboard.py --service "$service" --prometheus "$grafana/api/datasources/proxy/uid/prometheus"
  python3 -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=10)' "$grafana/api/dashboards/uid/beexformer"
  echo "smoke: all held"
else
  echo "smoke: all held, but Grafana itself was NOT checked: its image can't be had here"
fi
