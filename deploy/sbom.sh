#!/bin/sh
# Writes an image's bill of materials (CycloneDX JSON) and checks that it names every package of Python and of the
# system that is installed in there. Needs Docker, Python and Node.js 20 or newer.
#   deploy/sbom.sh IMAGE [FILE]      default: build/sbom.cdx.json
set -eu
cd "$(dirname "$0")/.."

docker=${DOCKER:-docker}
image=$1
file=${2:-build/sbom.cdx.json}
mkdir -p "$(dirname "$file")"
npx --yes @cyclonedx/cdxgen@12.8.4 --type docker --output "$file" "$image" >"$file.log" 2>&1 || { cat "$file.log"; exit 1; }

# shellcheck disable=SC2016  # dpkg's variables
{
  $docker run --rm --entrypoint dpkg-query "$image" --show --showformat 'deb ${Package}\n'
  $docker run --rm --interactive --entrypoint python "$image" - <<'PYTHON'
import importlib.metadata
for package in importlib.metadata.distributions():
    print("pypi", package.name)
PYTHON
} >"$file.installed"
python3 - "$file" <<'PYTHON'
import json, re, sys
from urllib.parse import unquote
def plain(kind, name):  # PyPI knows a_b, a.b and A-B as one name
    return kind, re.sub(r"[-_.]+", "-", name).lower() if kind == "pypi" else name
purls = "\n".join(component.get("purl", "") for component in json.load(open(sys.argv[1]))["components"])
named = {plain(kind, unquote(name)) for kind, name in re.findall(r"pkg:(pypi|deb)/(?:debian/)?([^@?\n]+)@", purls)}
installed = {plain(*line.split()) for line in open(sys.argv[1] + ".installed")}
assert {kind for kind, _ in installed} == {"pypi", "deb"}, "nothing to compare with"
assert installed <= named, f"{sys.argv[1]} does not name {sorted(installed - named)}"
print(f"{sys.argv[1]} names all {len(installed)} packages")
PYTHON
rm "$file.installed" "$file.log"
