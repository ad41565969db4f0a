"""The pages of the web server: what this dataset is, and how to get it, in one look."""

from __future__ import annotations

from functools import cache
from html import escape
from pathlib import Path
from urllib.parse import quote

from ..release import Release, Releases
from ..release.folder import CROISSANT, DATASHEET, MANIFEST, SIGNATURE, SUMS, TOMBSTONES
from .braces import shard_urls

SHOWN_VERSIONS = 30
SHOWN_FILES = 2_000
SHOWN_BRACES = 8


def index_page(releases: Releases, base: str) -> str:
    """Return the page of the dataset; ``base`` is the address of the server, with a last slash."""
    latest = releases.latest
    manifest = latest.manifest
    about = f"<p class=about>{escape(manifest.description)}</p>" if manifest.description else ""
    body = [
        f"<p class=eyebrow>Version {escape(manifest.version)} · {_day(manifest.date)}</p>",
        f"<h1>{escape(manifest.name)}</h1>",
        about,
        _figures(latest),
        "<h2>Get it</h2>",
        _ways(latest, base, base),
        "<h2>Stream it</h2>",
        _streaming(latest, base),
        "<h2>Versions</h2>",
        _versions(releases),
        "<h2>Trust it</h2>",
        _trust(latest),
    ]
    return _page(manifest.name, body)


def version_page(release: Release, base: str) -> str:
    """Return the page of one version: every file of it."""
    manifest = release.manifest
    title = f"{manifest.name} {manifest.version}"
    rows = [_file_row(release, path) for path in list(manifest.by_path)[:SHOWN_FILES]]
    hidden = len(manifest.files) - len(rows)
    more = (
        f"<p>{hidden:,} more files are listed in <a href='{SUMS}'>{SUMS}</a>.</p>"
        if hidden > 0
        else ""
    )
    removed = "".join(
        f"<p class=note>{_counted(len(one.uids), 'sample')} taken back in version "
        f"{escape(one.version)}: {escape(one.reason)}</p>"
        for one in manifest.removed
    )
    body = [
        f"<p class=eyebrow><a href='../../'>{escape(manifest.name)}</a></p>",
        f"<h1>Version {escape(manifest.version)}</h1>",
        _figures(release),
        removed,
        _ways(release, base, f"{base}versions/{manifest.version}/{MANIFEST}"),
        "<h2>About this version</h2>",
        _views(release),
        "<h2>Files</h2>",
        f"<table><thead><tr><th>file<th class=n>size<th>SHA-256</thead>{''.join(rows)}</table>",
        more,
    ]
    return _page(title, body)


def _figures(release: Release) -> str:
    manifest, counts = release.manifest, release.manifest.counts
    facts = [
        ("samples", f"{counts['samples']:,}" if counts["samples"] is not None else None),
        ("size", _bytes(counts["bytes"] or 0)),
        ("shards", f"{counts['shards']:,}" if counts["shards"] else None),
        ("files", f"{counts['files']:,}"),
        ("licence", manifest.licence),
        ("by", ", ".join(manifest.authors) or None),
    ]
    items = [f"<div><dt>{name}<dd>{escape(text)}</div>" for name, text in facts if text]
    return f"<dl class=figures>{''.join(items)}</dl>"


def _ways(release: Release, base: str, source: str) -> str:
    manifest = release.manifest
    here = f"{base}versions/{manifest.version}/"
    title = f"{manifest.name}-{manifest.version}"
    get = f"datacomp get {source} {manifest.name}"
    ways = [("From everywhere at once, checked, resumed", get)]
    gone = any(release.is_withdrawn(path) for path in manifest.by_path)
    if manifest.mirrors and not gone:  # aria2 would fail for the Metalink names all files
        ways.append(("With aria2", f"aria2c --seed-time=0 {here}{title}.meta4"))
    if len(manifest.files) <= SHOWN_FILES:
        there = " --ignore-missing" if gone else ""
        fetch = f"wget -r -nH --cut-dirs=2 -np {here} && sha256sum -c --quiet{there} {SUMS}"
        ways.append(("With wget", fetch))
    blocks = [f"<p class=way>{escape(what)}<pre>{escape(text)}</pre>" for what, text in ways]
    path = f"{base}versions/{quote(manifest.version)}/"
    v1, hybrid = manifest.torrents["v1"], manifest.torrents["hybrid"]
    both = [f"btih:{hybrid['infohash_v1']}", f"btmh:1220{hybrid['infohash_v2']}"]
    links = [
        (f"{path}{v1['file']}", "Torrent"),
        (f"{path}{hybrid['file']}", "Torrent (v2)"),
        (_magnet(release, here, [f"btih:{v1['infohash']}"]), "Magnet"),
        (_magnet(release, here, both), "Magnet (v2)"),
        (f"{path}{title}.meta4", "Metalink"),
        (f"ipfs://{manifest.root_cid}", "IPFS"),
    ]
    row = "".join(f"<a href='{escape(url)}'>{name}</a>" for url, name in links)
    return f"{''.join(blocks)}<p class=links>{row}</p>"


def _streaming(release: Release, base: str) -> str:
    lines = shard_urls(release, base)
    if not lines:
        return "<p>There are no tar shards in this version.</p>"
    urls = lines[:SHOWN_BRACES]
    more = f"<p>… and {len(lines) - len(urls):,} more.</p>" if len(lines) > len(urls) else ""
    if len(urls) == 1:
        code = f'import webdataset as wds\n\ndata = wds.WebDataset("{urls[0]}")'
    else:
        listed = "".join(f'    "{url}",\n' for url in urls)
        code = f"import webdataset as wds\n\nurls = [\n{listed}]\n"
        code += 'data = wds.WebDataset("::".join(urls))'
    return f"<p class=way>WebDataset reads the shards where they lie<pre>{escape(code)}</pre>{more}"


def _versions(releases: Releases) -> str:
    rows = []
    versions = list(reversed(releases.versions))
    for number, release in enumerate(versions[:SHOWN_VERSIONS]):
        manifest = release.manifest
        name = escape(manifest.version)
        older = versions[number + 1].manifest if number + 1 < len(versions) else None
        known = {file.sha256 for file in older.files} if older else set[str]()
        fresh = sum(file.size for file in manifest.files if file.sha256 not in known)
        gone = sum(len(one.uids) for one in manifest.removed if one.version == manifest.version)
        note = f"{_counted(gone, 'sample')} taken back" if gone else ""
        samples = manifest.counts["samples"]
        rows.append(
            f"<tr><td><a href='versions/{quote(manifest.version)}/'>{name}</a><td>"
            f"{_day(manifest.date)}<td class=n>{'' if samples is None else f'{samples:,}'}"
            f"<td class=n>{_bytes(manifest.counts['bytes'] or 0)}<td class=n>{_bytes(fresh)}"
            f"<td>{note}"
        )
    hidden = len(versions) - len(rows)
    more = f"<p>{hidden:,} older versions are not shown.</p>" if hidden > 0 else ""
    head = "<th>version<th>date<th class=n>samples<th class=n>size<th class=n>new<th>"
    return f"<table><thead><tr>{head}</thead>{''.join(rows)}</table>{more}"


def _trust(release: Release) -> str:
    manifest = release.manifest
    return (
        "<p>Every version is signed with this key. Compare it with what its keeper has published "
        f"elsewhere, and give it to <code>datacomp get --key</code>.</p><pre>{manifest.key}</pre>"
        "<p class=links><a href='latest.json'>latest.json</a><a href='key.pem'>key.pem</a></p>"
    )


def _views(release: Release) -> str:
    there = [
        (MANIFEST, "Manifest"),
        (SIGNATURE, "Signature"),
        (SUMS, "SHA-256 sums"),
        (CROISSANT, "Croissant"),
        (DATASHEET, "Datasheet"),
        (TOMBSTONES, "Taken back"),
    ]
    links = [
        f"<a href='{name}'>{text}</a>" for name, text in there if (release.folder / name).is_file()
    ]
    return f"<p class=links>{''.join(links)}</p>"


def _file_row(release: Release, path: str) -> str:
    file = release.manifest.by_path[path]
    shown = escape(path)
    if release.is_withdrawn(path):
        link = f"<s>{shown}</s> taken back"
    else:
        link = f"<a href='{quote(f'{release.manifest.name}/{path}')}'>{shown}</a>"
    return f"<tr><td>{link}<td class=n>{_bytes(file.size)}<td><code>{file.sha256}</code>"


def _magnet(release: Release, here: str, hashes: list[str]) -> str:
    parts = [
        *(f"xt=urn:{text}" for text in hashes),
        f"dn={quote(release.manifest.name)}",
        *(f"tr={quote(url, safe='')}" for url in release.manifest.trackers),
        f"ws={quote(here, safe='')}",
    ]
    return "magnet:?" + "&".join(parts)


def _page(title: str, body: list[str]) -> str:
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<title>{escape(title)}</title><style>{_style()}</style><main>{''.join(body)}</main>"
    )


@cache
def _style() -> str:
    return (Path(__file__).parent / "landing.css").read_text()


def _day(date: str) -> str:
    return f"<time>{escape(date)}</time>"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _bytes(size: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:,.0f} {unit}" if unit == "bytes" or size >= 100 else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} TB" if size < 100 else f"{size:,.0f} TB"
