"""Validates the manifests of a folder against the schemas of Kubernetes (package kubernetes-validate, strictly).

`kubernetes_check.py FOLDER [--unpack INTO]`: the second form writes the files of its ConfigMaps into a folder instead.
"""
import pathlib
import sys

import kubernetes_validate
import yaml

VERSION = "1.31"


def main(folder, into=None):
    documents = 0
    for file in sorted(pathlib.Path(folder).glob("*.yaml")):
        for document in yaml.safe_load_all(file.read_text()):
            if document["kind"] == "Kustomization":
                missing = [name for name in document["resources"] if not (file.parent / name).is_file()]
                assert not missing, f"{file.name} names {missing}"
                continue
            kubernetes_validate.validate(document, VERSION, strict=True)
            documents += 1
            if into and document["kind"] == "ConfigMap":
                for name, text in document["data"].items():
                    (pathlib.Path(into) / name).write_text(text)
    assert documents >= 6, f"only {documents} manifests in {folder}"
    print(f"{documents} manifests are as Kubernetes {VERSION} wants them")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[3] if len(sys.argv) > 3 else None)
