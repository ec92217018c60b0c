"""
Write the schemas beside this file anew, from clones of the projects that they are of:

    python tests/deploy/schemas/make.py CLONES

CLONES has a folder for each project, named as in SOURCES, with the tag that stands there. Descriptions are left out,
nothing else. README.md, which says where each is from, is written as well.
"""

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
LICENSE = "Apache-2.0"  # of all of them
SOURCES = (  # project, tag, file in it, kind, version
    ("kserve/kserve", "v0.20.0", "config/crd/full/serving.kserve.io_inferenceservices.yaml", "v1beta1"),
    ("kserve/kserve", "v0.20.0", "config/crd/full/serving.kserve.io_servingruntimes.yaml", "v1alpha1"),
    ("ray-project/kuberay", "v1.7.0", "ray-operator/config/crd/bases/ray.io_rayjobs.yaml", "v1"),
    ("kedacore/keda", "v2.20.2", "config/crd/bases/keda.sh_scaledobjects.yaml", "v1alpha1"),
    (
        "prometheus-operator/prometheus-operator",
        "v0.93.0",
        "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
        "v1",
    ),
    (
        "prometheus-operator/prometheus-operator",
        "v0.93.0",
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
        "v1",
    ),
    (
        "kubernetes-sigs/gateway-api",
        "v1.6.1",
        "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",
        "v1",
    ),
    (
        "envoyproxy/gateway",
        "v1.9.0",
        "charts/gateway-helm/charts/crds/crds/generated/gateway.envoyproxy.io_backendtrafficpolicies.yaml",
        "v1alpha1",
    ),
)


def bare(schema: Any) -> Any:
    """Without the descriptions; a property of that name stays."""
    if isinstance(schema, list):
        return [bare(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {name: bare(one) for name, one in schema.items() if name != "description" or not isinstance(one, str)}


def main() -> None:
    clones = Path(sys.argv[1])
    rows = ["| kind | project | version | file |", "| --- | --- | --- | --- |"]
    for project, tag, path, version in SOURCES:
        command = ["git", "-C", clones / project.rpartition("/")[2], "show", f"{tag}:{path}"]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        definition = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))["spec"]
        [one] = [one for one in definition["versions"] if one["name"] == version]
        schema = json.dumps(bare(one["schema"]["openAPIV3Schema"]), sort_keys=True, separators=(",", ":"))
        kind = definition["names"]["kind"]
        (HERE / f"{kind}.json.gz").write_bytes(gzip.compress(schema.encode(), mtime=0))
        rows.append(f"| {kind} {definition['group']}/{version} | github.com/{project} | {tag} | {path} |")
    (HERE / "README.md").write_text(
        "# Schemas of custom resources\n\n"
        "What tests/deploy/test_manifests.py checks manifests against: the schemas of the projects' own\n"
        "CustomResourceDefinitions, without descriptions, written by make.py. "
        f"All of these projects have the licence {LICENSE}.\n\n" + "\n".join(rows) + "\n"
    )


if __name__ == "__main__":
    main()
