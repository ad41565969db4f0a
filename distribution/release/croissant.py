"""Croissant 1.1 (MLCommons): the metadata that dataset search and loaders read, as JSON-LD.

It is made for one version, so every file has its SHA-256. ``isLiveDataset`` says that more
versions follow. Images and captions of the shards are record sets, and so is the index.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from .about import About
from .manifest import File, Manifest

CONFORMS_TO = "http://mlcommons.org/croissant/1.1"
INDEX = "index.parquet"
IMAGES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")
TYPES = {
    ".tar": "application/x-tar",
    ".parquet": "application/x-parquet",
    ".json": "application/json",
    ".jsonl": "application/jsonlines",
    ".txt": "text/plain",
    ".csv": "text/csv",
    ".md": "text/markdown",
    ".zip": "application/zip",
}
CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
_ANSWERS = {
    "citation": "citeAs",
    "collection": "rai:dataCollection",
    "labeling": "rai:dataPreprocessingProtocol",
    "uses": "rai:dataUseCases",
    "maintenance": "rai:dataReleaseMaintenancePlan",
}

Node = dict[str, Any]


def croissant(manifest: Manifest, about: About) -> bytes:
    """Return the document of a version; what is not known is left out."""
    shards = [file for file in manifest.files if file.path.endswith(".tar")]
    document: Node = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": manifest.name,
        "version": manifest.version,
        "datePublished": manifest.date,
        "isLiveDataset": True,
        "identifier": [f"ipfs://{manifest.root_cid}", f"sha256:{manifest.sha256}"],
        "distribution": [_file(manifest, file) for file in manifest.files],
        "recordSet": [],
    }
    said = {
        "description": manifest.description,
        "license": manifest.licence,
        "url": manifest.url or (manifest.mirrors[0] if manifest.mirrors else None),
        "creator": [{"@type": "sc:Person", "name": name} for name in manifest.authors] or None,
        **{_ANSWERS[name]: text for name, text in about.answers.items() if name in _ANSWERS},
    }
    document |= {name: value for name, value in said.items() if value}
    if shards:
        _add_members(document, shards, about)
    if INDEX in manifest.by_path:
        document["recordSet"].append(_index())
    return (json.dumps(document, ensure_ascii=False) + "\n").encode()


def _file(manifest: Manifest, file: File) -> Node:
    name = quote(f"{manifest.name}/{file.path}")
    addresses = [f"{mirror}versions/{manifest.version}/{name}" for mirror in manifest.mirrors]
    suffix = file.path[file.path.rfind(".") :] if "." in file.path else ""
    return {
        "@type": "cr:FileObject",
        "@id": file.path,
        "name": file.path,
        "contentUrl": addresses[0] if addresses else f"{manifest.name}/{file.path}",
        "contentSize": f"{file.size} B",
        "encodingFormat": TYPES.get(suffix, "application/octet-stream"),
        "sha256": file.sha256,
        "sameAs": [*addresses[1:], f"ipfs://{file.cid}"],
    }


def _add_members(document: Node, shards: list[File], about: About) -> None:
    """Add what lies inside the shards: images and captions, matched by the names of files."""
    members = about.facts.members
    images = [name for name in IMAGES if members.get(name)]
    sets = [("images", images, "sc:ImageObject", "image/*")]
    sets.append(("captions", ["txt"] if members.get("txt") else [], "sc:Text", "text/plain"))
    for name, extensions, kind, encoding in sets:
        if not extensions:
            continue
        document["distribution"].append(
            {
                "@type": "cr:FileSet",
                "@id": f"{name}-in-shards",
                "name": f"{name}-in-shards",
                "containedIn": [{"@id": file.path} for file in shards],
                "encodingFormat": encoding,
                "includes": [f"*.{extension}" for extension in extensions],
            }
        )
        source = {"fileSet": {"@id": f"{name}-in-shards"}}
        fields = [("filename", "sc:Text", "filename"), ("content", kind, "content")]
        document["recordSet"].append(
            {
                "@type": "cr:RecordSet",
                "@id": name,
                "name": name,
                "description": f"The {name} of the samples; samples of one key share a stem.",
                "field": [
                    _field(f"{name}/{field}", kind, source | {"extract": {"fileProperty": part}})
                    for field, kind, part in fields
                ],
            }
        )


def _index() -> Node:
    columns = {"uid": "sc:Text", "shard": "sc:Text", "offset": "sc:Integer",
               "length": "sc:Integer", "key": "sc:Text"}  # fmt: skip
    return {
        "@type": "cr:RecordSet",
        "@id": "index",
        "name": "index",
        "description": "Where each sample lies: shard, first byte and length there.",
        "key": {"@id": "index/uid"},
        "field": [
            _field(
                f"index/{column}",
                kind,
                {"fileObject": {"@id": INDEX}, "extract": {"column": column}},
            )
            for column, kind in columns.items()
        ],
    }


def _field(identifier: str, kind: str, source: Node) -> Node:
    return {
        "@type": "cr:Field",
        "@id": identifier,
        "name": identifier.rpartition("/")[2],
        "dataType": kind,
        "source": source,
    }
