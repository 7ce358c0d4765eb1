"""Prints the containers that the deployment's files start with Isle's programs, as JSON lines: name, argv, env."""

import json
import pathlib
import sys

import yaml

deploy = pathlib.Path(sys.argv[1])


def say(name, argv, env):
    print(json.dumps({"name": name, "argv": argv, "env": env}))


compose = yaml.safe_load((deploy / "compose.yaml").read_text())
for name, service in compose["services"].items():
    if service["image"] == "isle":
        say(f"compose.yaml: {name}", service["command"], service["environment"])

documents = [
    (file.name, document)
    for file in sorted((deploy / "kubernetes").glob("*.yaml"))
    for document in yaml.safe_load_all(file.read_text())
    if document
]
maps = {d["metadata"]["name"]: d["data"] for _, d in documents if d["kind"] == "ConfigMap"}
for file, document in documents:
    spec = document.get("spec", {})
    spec = spec.get("jobTemplate", {}).get("spec", spec)
    for container in spec.get("template", {}).get("spec", {}).get("containers", []):
        env = {}
        for source in container.get("envFrom", []):
            env.update(maps.get(source.get("configMapRef", {}).get("name"), {}))
        # What the cluster fills in is any address here.
        fields = {e["name"]: e.get("value", "10.0.0.1") for e in container.get("env", [])}
        argv = container["command"] + container.get("args", [])
        for field, value in fields.items():
            argv = [a.replace(f"$({field})", value) for a in argv]
        say(f"{file}: {container['name']}", argv, {**env, **fields})
